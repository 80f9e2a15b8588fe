//! No row leaves the base directory (S117, S118).

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// Everything below `path` with its contents, except `without`.
fn contents(path: &Path, without: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut open = vec![path.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry == without {
                continue;
            }
            let kind = fs::symlink_metadata(&entry).unwrap();
            all.insert(entry.clone(), kind.is_file().then(|| fs::read(&entry).unwrap()));
            if kind.is_dir() {
                open.push(entry);
            }
        }
    }
    all
}

/// S117: links that stay inside are followed, relative or absolute, to files or directories, also to files yet to be.
#[tokio::test]
async fn s117_links_that_stay_inside_are_followed() {
    let place = Place::new().await;
    let base = place.base();
    symlink("sub/real", base.join("to-file")).unwrap();
    symlink("sub", base.join("to-folder")).unwrap();
    symlink(base.join("sub"), base.join("absolute")).unwrap();
    symlink(base.join("sub/late"), base.join("absolute-file")).unwrap();
    symlink("../base/sub", base.join("out-and-in")).unwrap();
    fs::write(base.join("sub/late"), "").unwrap();
    for path in
        ["to-file", "to-folder/a", "absolute/a", "absolute-file", "out-and-in/a", "sub/../sub/a", "../base/sub/a"]
    {
        assert_eq!(place.write(path).await, [], "{path}");
    }
    assert_eq!(place.read("sub/a"), "{}\n".repeat(5));
    assert_eq!((place.read("sub/real"), place.read("sub/late")), ("{}\n".into(), "{}\n".into()));
}

/// S117, S118: links and dots that lead out are refused, and nothing comes into being outside.
#[tokio::test]
async fn s118_what_leads_out_is_refused() {
    let place = Place::new().await;
    let (base, secret) = (place.base(), place.root.path().join("secret"));
    fs::write(secret.join("file"), "").unwrap();
    fs::create_dir(place.root.path().join("base-beside")).unwrap();
    symlink(&secret, base.join("folder")).unwrap();
    symlink("../secret", base.join("relative")).unwrap();
    symlink(secret.join("file"), base.join("file")).unwrap();
    symlink(secret.join("yet-to-be"), base.join("dangling")).unwrap();
    symlink("folder", base.join("twice")).unwrap();
    let outside = secret.join("x");
    let beside = place.root.path().join("base-beside/x");
    let paths = [
        "../x",
        "../secret/x",
        "sub/../../secret/x",
        "../base-beside/x",
        "folder/x",
        "relative/x",
        "file",
        "dangling",
        "twice/x",
        "/x",
        outside.to_str().unwrap(),
        beside.to_str().unwrap(),
    ];
    let before = contents(place.root.path(), Path::new(""));
    for path in paths {
        assert_eq!(place.rejected(path).await, format!("`{path}` is outside of `base_path`"));
    }
    assert_eq!(contents(place.root.path(), Path::new("")), before);
    assert!(!Path::new("/x").exists());
}

/// S117: an absolute path counts when it lies inside, by the base's own name or by the one it has without links.
#[tokio::test]
async fn s117_an_absolute_path_inside_is_accepted() {
    let root = tempfile::tempdir().unwrap();
    let real = root.path().canonicalize().unwrap().join("real");
    fs::create_dir_all(&real).unwrap();
    let link = root.path().join("link");
    symlink(&real, &link).unwrap();
    let place = Place::with(|options| options.base_path = link.clone()).await;
    for folder in [&real, &link, &link.join("../real")] {
        assert_eq!(place.write(folder.join("f").as_os_str().as_bytes()).await, [], "{}", folder.display());
    }
    assert_eq!(fs::read_to_string(real.join("f")).unwrap(), "{}\n{}\n{}\n");
}

/// S118: only regular files are written to. A FIFO without a reader does not hold up the call, nor does one with.
#[tokio::test]
async fn s118_what_is_no_file_is_refused() {
    let place = Place::new().await;
    let base = place.base();
    fifo(&base.join("fifo"));
    let _listener = std::os::unix::net::UnixListener::bind(base.join("socket")).unwrap();
    symlink(".", base.join("self")).unwrap();
    symlink("circle", base.join("circle")).unwrap();
    let absolute = base.to_str().unwrap().to_owned();
    let cases = [
        ("fifo", "`fifo` is a FIFO, not a file"),
        ("socket", "`socket` is a socket, not a file"),
        ("sub", "`sub` is a directory, not a file"),
        ("sub/", "`sub/` is a directory, not a file"),
        (".", "`.` is a directory, not a file"),
        ("sub/..", "`sub/..` is a directory, not a file"),
        ("self", "`self` is a directory, not a file"),
        ("new/", "`new/` is a directory, not a file"),
    ];
    for (path, expected) in cases {
        assert_eq!(place.rejected(path).await, expected);
    }
    assert_eq!(place.rejected(&absolute).await, format!("`{absolute}` is a directory, not a file"));
    assert!(place.rejected("circle").await.starts_with("`circle` cannot be opened: "));
    assert!(place.rejected("n".repeat(300)).await.contains("cannot be opened: "));
    assert_eq!(place.write("file").await, []);
    assert!(place.rejected("file/x").await.starts_with("`file/x` cannot be opened: "));
    let reader = {
        let fifo = base.join("fifo");
        // Opened for both directions, so that opening does not wait.
        fs::OpenOptions::new().read(true).write(true).open(fifo).unwrap()
    };
    assert!(reader.metadata().unwrap().file_type().is_fifo());
    assert_eq!(place.rejected("fifo").await, "`fifo` is a FIFO, not a file");
}

/// S118: base `/` works, and there a device is refused too.
#[tokio::test]
async fn s118_the_root_works_as_a_base() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("f");
    let options =
        Options { base_path: "/".into(), path: default_path(), fsync: Fsync::Flush, on_tombstone: OnTombstone::Reject };
    let sink = FilesystemSink::new("log", &options);
    if sink.connect().await.is_err() {
        return; // Only root may create files there.
    }
    let absolute = path.to_str().unwrap();
    let climbing = format!("../..{absolute}");
    let relative = &absolute[1..];
    let rows = routed(&[
        (absolute.as_bytes(), b"1"),
        (relative.as_bytes(), b"2"),
        (climbing.as_bytes(), b"3"),
        (b"/dev/null", b"4"),
        (b"/", b"5"),
    ]);
    let failures = sink.deliver(&Arc::new(rows)).await.unwrap();
    assert_eq!(
        failures,
        [
            Failure::reject(3, "`/dev/null` is a device, not a file"),
            Failure::reject(4, "`/` is a directory, not a file")
        ]
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n3\n");
}

/// S116: directories are never created, and the one that is missing is named.
#[tokio::test]
async fn s116_a_missing_parent_is_named() {
    let place = Place::new().await;
    let parent = place.base().join("sub/none");
    assert_eq!(
        place.rejected("sub/none/f").await,
        format!(
            "`sub/none/f` cannot be created: its parent directory `{}` does not exist, and directories are never created",
            parent.display()
        )
    );
    assert!(!parent.exists());
    symlink("none/f", place.base().join("link")).unwrap();
    assert_eq!(place.rejected("link").await, "`link` is a link that leads nowhere");
}

/// A NUL byte cuts no path short.
#[tokio::test]
async fn a_nul_byte_is_refused() {
    let place = Place::new().await;
    assert_eq!(place.rejected(b"f\0.jsonl").await, "the path `f\0.jsonl` holds a NUL byte");
    assert!(!place.base().join("f").exists());
}

/// A file that we may not open is refused for good; root may open everything, so this shows nothing there.
#[tokio::test]
async fn a_forbidden_file_is_refused() {
    let place = Place::new().await;
    let file = place.base().join("f");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&file).is_err() {
        assert!(place.rejected("f").await.starts_with("`f` cannot be opened: "));
    }
}

/// S118: a directory that is swapped for a link outwards, over and over while rows are written, leads nobody out.
#[tokio::test(flavor = "multi_thread")]
async fn s118_a_folder_swapped_for_a_link_leads_nobody_out() {
    let place = Place::new().await;
    let (base, secret) = (place.base(), place.root.path().join("secret"));
    symlink(&secret, base.join("link")).unwrap();
    fs::create_dir(base.join("swapped")).unwrap();
    let swapper = std::thread::spawn(move || {
        for _ in 0..2000 {
            for (from, to) in [("swapped", "away"), ("link", "swapped"), ("swapped", "link"), ("away", "swapped")] {
                fs::rename(base.join(from), base.join(to)).unwrap();
            }
        }
    });
    while !swapper.is_finished() {
        place.write("swapped/f").await;
    }
    swapper.join().unwrap();
    assert_eq!(fs::read_dir(secret).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// S118: no path whatever, relative or absolute, over links or dots, changes anything outside of the base.
    #[test]
    fn s118_no_path_writes_outside(
        prefix in prop::sample::select(vec!["", "/", "{base}", "{base}/", "{root}/", "{base}-beside/"]),
        segments in prop::collection::vec(
            prop::sample::select(vec![
                "..", "..", "..", ".", "", "sub", "base", "secret", "folder", "absolute", "up", "file", "new", "a\0b", "{root}",
            ]),
            0..7,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let place = Place::new().await;
            let (root, base) = (place.root.path(), place.base());
            fs::create_dir(root.join("base-beside")).unwrap();
            fs::write(root.join("secret/file"), "").unwrap();
            symlink("../secret", base.join("folder")).unwrap();
            symlink(root.join("secret"), base.join("absolute")).unwrap();
            symlink("..", base.join("sub/up")).unwrap();
            symlink("sub/up/../secret/file", base.join("file")).unwrap();
            let path = format!("{prefix}{}", segments.join("/"))
                .replace("{base}", base.to_str().unwrap())
                .replace("{root}", root.to_str().unwrap());
            let (before, inside) = (contents(root, &base), contents(&base, Path::new("")));
            let failures = place.write(&path).await;
            prop_assert_eq!(contents(root, &base), before, "`{}`", path);
            prop_assert_eq!(failures.is_empty(), contents(&base, Path::new("")) != inside, "`{}`", path);
            Ok(())
        })?;
    }
}

/// S79a: a row that names no path does not answer for where the configured one leads; one that names it does.
#[tokio::test]
async fn s79a_a_configured_path_that_cannot_be_written_to_is_unavailable() {
    let place = Place::with(|options| options.path = "mounted/f".into()).await;
    let mut rows = batch(&["1", "2", "3"]);
    for target in [None, Some(b"none/x".as_slice()), Some(b"g")] {
        rows.targets.push(target);
    }
    let kinds: Vec<_> =
        place.deliver(rows.clone()).await.into_iter().map(|failure| (failure.index, failure.kind)).collect();
    assert_eq!(kinds, [(0, FailureKind::Unavailable), (1, FailureKind::Reject)]);
    fs::create_dir(place.base().join("mounted")).unwrap();
    assert_eq!(place.deliver(rows.select(&[0])).await, []);
    assert_eq!((place.read("mounted/f"), place.read("g")), ("1\n".into(), "3\n".into()));
}
