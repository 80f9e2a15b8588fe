//! Guests that want files beside the directories that they were granted.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tidegate::plugin::PluginSink;

use crate::prowler::{self, told};
use crate::stage::{Stage, compiled};

attacks! {
    paths_that_go_up = spelled(&["..", "../", "../secret", "./../secret", "sub/../../secret", "sub/./.././../secret", "../../../../../../../etc/passwd", "sub/../..", "../granted/../secret"]),
    paths_from_the_root = spelled(&["/", "//", "/secret", "/etc/passwd", "//etc/passwd", "///etc//passwd", "/out/../secret", "/./etc/passwd"]),
    paths_into_proc = spelled(&["/proc/self/root/etc/passwd", "/proc/self/cwd", "/proc/self/fd/0", "/proc/self/environ", "../proc/self/environ", "/dev/stdin"]),
    paths_in_disguise = spelled(&["..\\secret", "%2e%2e/secret", "..%2fsecret", "\u{ff0e}\u{ff0e}/secret", "\u{2024}\u{2024}/secret", "..\u{0}/secret", "sub\u{0}/../../secret", ".. /secret", "..\u{200b}/secret", "file:///etc/passwd", "~/secret", "$HOME/secret", "C:\\secret"]),
    paths_that_are_too_long = spelled_by(vec![long("../", 30_000), long("./", 30_000), long("x", 100_000), long("sub/../", 20_000)]),
    paths_that_end_oddly = spelled(&["../secret/", "../secret/.", "sub/..//../secret", "../secret/..", "", ".../secret"]),
    a_link_that_goes_up = planted("../secret"),
    a_link_from_the_root = planted("SECRET"),
    a_link_to_a_link = planted("chain"),
    a_link_to_itself = planted("planted"),
    a_link_into_proc = planted("/proc/self/root/etc/passwd"),
    a_link_of_its_own = own_link(),
    a_link_under_a_directory = link_to_directory(),
    a_link_exchanged_while_it_looks = exchanged(),
    a_hard_link_to_a_file_beside = hard_link(),
    a_file_moved_out_or_in = moved(),
    a_walk_up_from_directory_to_directory = walk(),
    writing_where_it_may_only_read = read_only(),
    one_directory_granted_twice = two_grants(),
    files_of_the_plugin_beside_it = of_another(),
    compiled_code_in_the_cache = of_the_cache(),
}

const SECRET: &str = "the secret";

/// `granted` with `file` and `sub` in it, and beside it `secret`, which nothing may reach.
struct Ground {
    granted: PathBuf,
    secret: PathBuf,
}

impl Ground {
    fn lay(stage: &Stage) -> Self {
        let granted = stage.made("ground/granted");
        stage.made("ground/granted/sub");
        std::fs::write(granted.join("file"), "granted").unwrap();
        let secret = stage.folder().join("ground/secret");
        std::fs::write(&secret, SECRET).unwrap();
        Self { granted, secret }
    }

    fn grants(&self, access: &str) -> Value {
        json!({ "grants": { "directories": [{ "host": self.granted, "guest": "/out", "access": access }] } })
    }

    /// What was made inside goes, and what was moved away comes back.
    fn tidy(&self) {
        for entry in std::fs::read_dir(&self.granted).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
        }
        std::fs::create_dir(self.granted.join("sub")).unwrap();
        std::fs::write(self.granted.join("file"), "granted").unwrap();
    }

    /// Nothing beside the granted directory was touched.
    #[track_caller]
    fn is_untouched(&self) {
        assert_eq!(std::fs::read_to_string(&self.secret).unwrap(), SECRET);
        let beside: Vec<_> =
            std::fs::read_dir(self.secret.parent().unwrap()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(beside.len(), 2, "{beside:?}");
    }
}

/// Everything that can be done with a path.
fn everything(path: &str) -> Vec<Value> {
    let one = |what: &str| json!({ "do": what, "root": "/out", "path": path });
    let mut all: Vec<_> =
        ["read", "read-linkless", "list", "stat", "read-link", "write", "empty", "set-times", "make-directory"]
            .map(one)
            .into();
    all.push(json!({ "do": "rename", "root": "/out", "path": "file", "to_root": "/out", "to": path }));
    all.push(json!({ "do": "rename", "root": "/out", "path": path, "to_root": "/out", "to": "moved" }));
    all.push(json!({ "do": "link", "root": "/out", "path": path, "to_root": "/out", "to": "linked" }));
    all.push(json!({ "do": "link", "root": "/out", "path": "file", "to_root": "/out", "to": path }));
    all.push(json!({ "do": "symlink", "root": "/out", "target": "file", "path": path }));
    all.extend(["unlink", "remove-directory"].map(one));
    all
}

fn long(part: &str, times: usize) -> String {
    part.repeat(times) + "../secret"
}

async fn start(stage: &Stage, grants: Value) -> PluginSink {
    prowler::start(stage, grants).await
}

/// The instance goes on as if nothing had happened: a refusal is an answer, not a fault.
async fn works(stage: &Stage, sink: &PluginSink) {
    let file = json!({ "do": "read", "root": "/out", "path": "file" });
    assert_eq!(told(stage, sink, &[file]).await, ["ok granted"]);
    stage.is_silent();
}

async fn spelled(stage: &Stage, paths: &[&str]) {
    spelled_by(stage, paths.iter().map(|path| (*path).to_owned()).collect()).await;
}

async fn spelled_by(stage: &Stage, paths: Vec<String>) {
    let ground = Ground::lay(stage);
    let mut grants = ground.grants("write");
    grants["limits"] = json!({ "call_timeout_seconds": 5.0 });
    let sink = start(stage, grants).await;
    for path in &paths {
        let shown: String = path.chars().take(40).collect();
        for (step, outcome) in everything(path).iter().zip(told(stage, &sink, &everything(path)).await) {
            // A name that only looks like a way out is a name like any other inside the directory.
            let inside = outcome.starts_with("ok") && !outcome.contains(SECRET) && !outcome.contains("root:");
            assert!(outcome.starts_with("no ") || inside && is_name(path), "{} of {shown}: {outcome}", step["do"]);
        }
        ground.is_untouched();
        ground.tidy();
    }
    works(stage, &sink).await;
}

/// Whether the path only looks like a way out.
fn is_name(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && !path.contains('\0') && path.split('/').all(|part| part != "..")
}

/// Something that leads out of the directory stands in it before the guest comes.
async fn planted(stage: &Stage, target: &str) {
    let ground = Ground::lay(stage);
    let link = ground.granted.join("planted");
    match target {
        "SECRET" => symlink(&ground.secret, link).unwrap(),
        "chain" => {
            symlink("sub/second", link).unwrap();
            symlink("third", ground.granted.join("sub/second")).unwrap();
            symlink("../../secret", ground.granted.join("sub/third")).unwrap();
        }
        target => symlink(target, link).unwrap(),
    }
    let sink = start(stage, ground.grants("write")).await;
    let follow = ["read", "list", "stat", "write", "empty", "set-times"];
    let all = follow.map(|what| json!({ "do": what, "root": "/out", "path": "planted" }));
    for (step, outcome) in all.iter().zip(told(stage, &sink, &all).await) {
        assert!(outcome.starts_with("no "), "{step}: {outcome}");
    }
    ground.is_untouched();
    works(stage, &sink).await;
}

/// What it may make in its directory leads nowhere either, not even when it is moved afterwards.
async fn own_link(stage: &Stage) {
    let ground = Ground::lay(stage);
    let sink = start(stage, ground.grants("write")).await;
    let link = |target: &str, path: &str| json!({ "do": "symlink", "root": "/out", "target": target, "path": path });
    let read = |path: &str| json!({ "do": "read", "root": "/out", "path": path });
    let write = |path: &str| json!({ "do": "write", "root": "/out", "path": path });
    let secret = ground.secret.display().to_string();
    let made =
        told(stage, &sink, &[link("../secret", "up"), link(&secret, "absolute"), link("sub/../../secret", "crooked")])
            .await;
    assert!(made[1].starts_with("no "), "an absolute link: {made:?}");
    let inside = json!({ "do": "make-directory", "root": "/out", "path": "sub/deep" });
    let moved = json!({ "do": "rename", "root": "/out", "path": "sub/deep/link", "to_root": "/out", "to": "link" });
    let seen = told(stage, &sink, &[inside, link("../../secret", "sub/deep/link"), read("sub/deep/link"), moved]).await;
    assert_eq!(seen, ["ok made", "ok linked", "no no-entry", "ok renamed"], "a link that stays inside");
    symlink("../../secret", ground.granted.join("sub/out")).unwrap();
    for path in ["up", "crooked", "link", "sub/out"] {
        for outcome in told(stage, &sink, &[read(path), write(path)]).await {
            assert!(outcome.starts_with("no "), "{path}: {outcome}");
        }
    }
    ground.is_untouched();
    works(stage, &sink).await;
}

async fn link_to_directory(stage: &Stage) {
    let ground = Ground::lay(stage);
    let outside = ground.secret.parent().unwrap();
    symlink(outside, ground.granted.join("absolute")).unwrap();
    symlink("..", ground.granted.join("up")).unwrap();
    symlink("sub/back", ground.granted.join("chain")).unwrap();
    symlink("../..", ground.granted.join("sub/back")).unwrap();
    let sink = start(stage, ground.grants("write")).await;
    for directory in ["absolute", "up", "chain", "sub/back"] {
        for path in
            [format!("{directory}/secret"), format!("{directory}/granted/../secret"), format!("{directory}/new")]
        {
            for (step, outcome) in everything(&path).iter().zip(told(stage, &sink, &everything(&path)).await) {
                assert!(outcome.starts_with("no "), "{step}: {outcome}");
            }
        }
        let list = json!({ "do": "list", "root": "/out", "path": directory });
        assert!(told(stage, &sink, &[list]).await[0].starts_with("no "));
    }
    ground.is_untouched();
    works(stage, &sink).await;
}

/// Somebody on the host exchanges a directory and a link to another, as fast as the machine can, while the guest goes through it.
async fn exchanged(stage: &Stage) {
    let ground = Ground::lay(stage);
    let outside = stage.made("outside");
    std::fs::write(outside.join("leaf"), SECRET).unwrap();
    let (swap, spare) = (ground.granted.join("swap"), stage.folder().join("spare"));
    std::fs::create_dir(&swap).unwrap();
    std::fs::write(swap.join("leaf"), "granted").unwrap();
    symlink(&outside, &spare).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let told_so = Arc::clone(&over);
    let exchanging = std::thread::spawn(move || {
        let here = rustix::fs::CWD;
        let mut times = 0_u32;
        while !told_so.load(Ordering::Acquire) {
            rustix::fs::renameat_with(here, &swap, here, &spare, rustix::fs::RenameFlags::EXCHANGE).unwrap();
            times += 1;
        }
        times
    });
    let mut grants = ground.grants("write");
    grants["limits"] = json!({ "call_timeout_seconds": 60.0 });
    let sink = start(stage, grants).await;
    let seen = told(stage, &sink, &[json!({ "do": "race", "root": "/out", "path": "swap/leaf", "times": 2000 })]).await;
    over.store(true, Ordering::Release);
    let times = exchanging.join().unwrap();
    assert!(times > 100, "exchanged {times} times");
    // It met both, so there was a race to be lost.
    assert!(seen[0].contains("granted") && seen[0].contains("(") && !seen[0].contains(SECRET), "{seen:?}");
    let names: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["leaf"]);
    assert_eq!(std::fs::read_to_string(outside.join("leaf")).unwrap(), SECRET);
    works(stage, &sink).await;
}

async fn hard_link(stage: &Stage) {
    let ground = Ground::lay(stage);
    symlink("../secret", ground.granted.join("planted")).unwrap();
    let sink = start(stage, ground.grants("write")).await;
    let link =
        |path: &str, to: &str| json!({ "do": "link", "root": "/out", "path": path, "to_root": "/out", "to": to });
    let secret = ground.secret.display().to_string();
    for path in ["../secret", secret.as_str(), "sub/../../secret"] {
        assert!(told(stage, &sink, &[link(path, "mine")]).await[0].starts_with("no "), "{path}");
    }
    // A second name of the link is still a link.
    let read = json!({ "do": "read", "root": "/out", "path": "mine" });
    assert!(told(stage, &sink, &[link("planted", "mine"), read]).await[1].starts_with("no "));
    ground.is_untouched();
    works(stage, &sink).await;
}

async fn moved(stage: &Stage) {
    let ground = Ground::lay(stage);
    let kept = stage.made("kept");
    std::fs::write(kept.join("kept"), SECRET).unwrap();
    let more = json!({ "grants": { "directories": [
        { "host": ground.granted, "guest": "/out", "access": "write" },
        { "host": kept, "guest": "/kept", "access": "read" },
    ] } });
    let sink = start(stage, more).await;
    for what in ["rename", "link"] {
        let out = json!({ "do": what, "root": "/kept", "path": "kept", "to_root": "/out", "to": "mine" });
        let into = json!({ "do": what, "root": "/out", "path": "file", "to_root": "/kept", "to": "mine" });
        assert_eq!(told(stage, &sink, &[out, into]).await, ["no not-permitted", "no not-permitted"], "{what}");
    }
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 1);
    ground.is_untouched();
    works(stage, &sink).await;
}

async fn walk(stage: &Stage) {
    let ground = Ground::lay(stage);
    let sink = start(stage, ground.grants("write")).await;
    let walks: [&[&str]; 5] = [
        &["..", "secret"],
        &["sub", "..", "..", "secret"],
        &["sub", "../..", "secret"],
        &[".", "..", "secret"],
        &["sub", "../../secret"],
    ];
    for steps in walks {
        let outcome = told(stage, &sink, &[json!({ "do": "walk", "root": "/out", "steps": steps })]).await;
        assert!(outcome[0].starts_with("no "), "{steps:?}: {outcome:?}");
    }
    let inside = json!({ "do": "walk", "root": "/out", "steps": ["sub", ".", "../sub/../file"] });
    assert!(told(stage, &sink, &[inside]).await[0].starts_with("no "), "a directory opened knows nothing above it");
    ground.is_untouched();
    works(stage, &sink).await;
}

/// Every file below, with what is in it and when it was changed.
fn snapshot(folder: &Path) -> Vec<(PathBuf, std::time::SystemTime, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    let seen = |path: PathBuf| {
        let changed = std::fs::metadata(&path).unwrap().modified().unwrap();
        let content = std::fs::read(&path).unwrap_or_default();
        (path, changed, content)
    };
    all.into_iter().map(seen).collect()
}

async fn read_only(stage: &Stage) {
    let ground = Ground::lay(stage);
    let sink = start(stage, ground.grants("read")).await;
    let before = snapshot(&ground.granted);
    for path in ["file", "new", "sub", "sub/new"] {
        for (step, outcome) in everything(path).iter().zip(told(stage, &sink, &everything(path)).await) {
            let reads = ["read", "read-linkless", "list", "stat", "read-link"].iter().any(|it| step["do"] == *it);
            assert!(outcome.starts_with("no ") || reads, "{step}: {outcome}");
        }
    }
    assert_eq!(snapshot(&ground.granted), before);
    works(stage, &sink).await;
}

/// What it may do depends on the name by which it came in.
async fn two_grants(stage: &Stage) {
    let ground = Ground::lay(stage);
    let more = json!({ "grants": { "directories": [
        { "host": ground.granted, "guest": "/out", "access": "read" },
        { "host": ground.granted, "guest": "/write", "access": "write" },
    ] } });
    let sink = start(stage, more).await;
    let step = |what: &str, root: &str| json!({ "do": what, "root": root, "path": "new" });
    let outcomes = told(
        stage,
        &sink,
        &[step("write", "/out"), step("write", "/write"), step("empty", "/out"), step("unlink", "/out")],
    )
    .await;
    assert_eq!(outcomes[1], "ok written");
    assert!([0, 2, 3].iter().all(|row| outcomes[*row].starts_with("no ")), "{outcomes:?}");
    let back = json!({ "do": "rename", "root": "/out", "path": "file", "to_root": "/write", "to": "moved" });
    assert_eq!(told(stage, &sink, &[back]).await, ["no not-permitted"]);
    works(stage, &sink).await;
}

/// Tries to reach the file by its own path, and from its own directory.
async fn beyond(stage: &Stage, folder: &Path, file: &str) {
    let ground = Ground::lay(stage);
    let sink = start(stage, ground.grants("write")).await;
    let up = "../".repeat(ground.granted.components().count());
    let absolute = folder.join(file).display().to_string();
    let relative = up + absolute.trim_start_matches('/');
    for path in [&absolute, &relative] {
        for (step, outcome) in everything(path).iter().zip(told(stage, &sink, &everything(path)).await) {
            assert!(outcome.starts_with("no "), "{step}: {outcome}");
        }
    }
    for name in ["/", "/out/..", folder.to_str().unwrap()] {
        let step = json!({ "do": "read", "root": name, "path": file });
        assert_eq!(told(stage, &sink, &[step]).await, ["no no such root"]);
    }
    assert_eq!(told(stage, &sink, &[json!({ "do": "roots" })]).await, ["ok [\"/out\"]"]);
    ground.is_untouched();
    works(stage, &sink).await;
}

async fn of_another(stage: &Stage) {
    let other = stage.other.clone();
    assert!(other.join("orders-0.csv").exists());
    beyond(stage, &other, "orders-0.csv").await;
}

async fn of_the_cache(stage: &Stage) {
    let folder = compiled();
    let entry = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().file_name();
    beyond(stage, &folder, entry.to_str().unwrap()).await;
}
