//! What may be loaded, what is refused in which words, and what is compiled again.

use std::os::unix::fs::PermissionsExt;

use tidegate::model::Owner;

use super::*;

async fn refusal(place: &str, component: &Path) -> Fault {
    let fault = loaded(place, &configured(component, json!({}))).await.err().expect("refused");
    assert_eq!(fault.owner, Owner::Config, "{fault}");
    fault
}

async fn refused_text(text: &str) -> Fault {
    let folder = Folder::new();
    let path = folder.path().join("x.wasm");
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    refusal(COLLECT, &path).await
}

#[tokio::test]
async fn what_is_no_component_is_refused_in_words() {
    let folder = Folder::new();
    let missing = refusal(COLLECT, &folder.path().join("gone.wasm")).await;
    assert!(missing.message.starts_with("`collect.component` names") && missing.hint.is_some(), "{missing}");
    assert!(refusal(COLLECT, folder.path()).await.message.ends_with("which is a directory"));

    let path = folder.path().join("x.wasm");
    for (bytes, words) in [(&b"name: not wasm\n"[..], "is not WebAssembly"), (b"", "is not WebAssembly")] {
        std::fs::write(&path, bytes).unwrap();
        assert!(refusal(COLLECT, &path).await.message.ends_with(words));
    }
    let module = refused_text("(module)").await;
    assert!(module.message.ends_with("is a core WebAssembly module, not a component"), "{module}");
    assert!(module.hint.unwrap().contains("wasm-tools component new"));

    let whole = std::fs::read(guest("search")).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let cut = refusal(COLLECT, &path).await;
    assert!(cut.message.ends_with("is no valid component") && cut.hint.unwrap().contains("cut off"));
}

#[tokio::test]
async fn another_world_or_version_is_refused_before_anything_runs() {
    let stranger = refused_text(r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m)) (func (export "greet") (canon lift (core func $i "f"))))"#).await;
    assert!(stranger.to_string().contains("it exports `greet`"), "{stranger}");
    assert!(stranger.to_string().contains("tidegate:plugin/collector@0.1.0"), "{stranger}");
    let future =
        refused_text(r#"(component (instance $i) (export "tidegate:plugin/collector@0.2.0" (instance $i)))"#).await;
    assert!(future.message.contains("0.2.0") && future.message.contains("0.1.0"), "{future}");
    let needy = refused_text(
        r#"(component (import "example:database/query@1.0.0" (instance $d (export "run" (func)))) (instance $i)
            (export "tidegate:plugin/collector@0.1.0" (instance $i)))"#,
    )
    .await;
    assert!(needy.message.ends_with("imports what Tidegate does not offer"), "{needy}");
    assert!(needy.to_string().contains("example:database/query"), "{needy}");
}

#[tokio::test]
async fn a_collector_is_no_sink_and_an_export_of_another_type_is_found() {
    let options = configured(&guest("search"), json!({}));
    let artifact = loaded(SINK, &options).await.unwrap();
    let fault = PluginSink::start(artifact, "faulty", &options, &Queries::new()).await.err().unwrap();
    assert!(fault.message.ends_with("is a collector, and `sinks.plugin.faulty` wants a sink"), "{fault}");

    let folder = Folder::new();
    let path = folder.path().join("x.wasm");
    let empty = r#"(component (instance $i) (export "tidegate:plugin/collector@0.1.0" (instance $i)))"#;
    std::fs::write(&path, wat::parse_str(empty).unwrap()).unwrap();
    let options = configured(&path, json!({}));
    let artifact = loaded(COLLECT, &options).await.unwrap();
    let fault = PluginCollector::start(artifact, &options, &Queries::new()).await.err().unwrap();
    assert_eq!(fault.message, "`collect` does not keep to the contract it names");
    assert!(fault.to_string().contains("setup"), "{fault}");
}

#[tokio::test]
async fn only_the_file_that_the_hash_names_is_taken() {
    let mut options = configured(&guest("search"), json!({}));
    let found = loaded(COLLECT, &options).await.unwrap().summary().clone();
    options.sha256 = found.sha256.to_uppercase();
    assert!(loaded(COLLECT, &options).await.is_ok());
    options.sha256 = "00".repeat(32);
    let fault = loaded(COLLECT, &options).await.err().unwrap();
    assert!(fault.to_string().contains(&options.sha256) && fault.to_string().contains(&found.sha256), "{fault}");
    assert!(fault.hint.unwrap().contains("`collect.sha256`"));
}

#[tokio::test]
async fn a_component_tells_what_it_is() {
    let sink = loaded(SINK, &configured(&guest("faulty-sink"), json!({}))).await.unwrap().summary().clone();
    assert!(sink.sink && !sink.collector && sink.contract == "0.1.0" && sink.size_bytes > 0);
    let collector = loaded(COLLECT, &configured(&guest("faulty-collector"), json!({}))).await.unwrap();
    let hooks = collector.summary().hooks;
    assert!(hooks.window && hooks.delivery && hooks.ready);
}

/// Compiling is done once; what is damaged is compiled again, and what others may have written is not run.
#[tokio::test]
async fn compiled_code_is_kept_and_guarded() {
    let folder = Folder::new();
    let cache = folder.path().join("cache");
    let options = configured(&guest("search"), json!({}));
    let cached = async || {
        let plugins = Plugins::new(Some(cache.clone()), Compiler::Child(env!("CARGO_BIN_EXE_tidegate").into()))?;
        plugins.load(COLLECT, &options, Path::new("/")).await.map(|artifact| artifact.summary().cached)
    };
    assert_eq!(cached().await, Ok(false));
    assert_eq!(cached().await, Ok(true));
    assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);

    let entries: Vec<PathBuf> = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [entry] = entries.as_slice() else { panic!("one entry, not {entries:?}") };
    let good = std::fs::read(entry).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&flipped[..], &good[..good.len() / 2], &good[..7], b""] {
        std::fs::write(entry, damaged).unwrap();
        assert_eq!(cached().await, Ok(false), "a damaged entry of {} bytes", damaged.len());
        assert_eq!(cached().await, Ok(true));
    }

    std::fs::set_permissions(entry, PermissionsExt::from_mode(0o620)).unwrap();
    assert!(cached().await.unwrap_err().to_string().contains("others may write it"));
    std::fs::remove_file(entry).unwrap();
    std::os::unix::fs::symlink("/dev/null", entry).unwrap();
    assert!(cached().await.unwrap_err().message.ends_with("is refused"));
    std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o770)).unwrap();
    assert!(cached().await.unwrap_err().message.ends_with("is not private"));
}

/// Guests in every language there is.
#[tokio::test]
async fn every_guest_there_is_loads() {
    let mut count = 0;
    for entry in std::fs::read_dir(guests()).expect("run `make setup`") {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|it| it != "wasm") {
            continue;
        }
        let found = loaded(COLLECT, &configured(&path, json!({}))).await;
        match name.as_str() {
            "stranger" => assert!(found.err().unwrap().message.ends_with("but no Tidegate plugin")),
            "future-collector" => assert!(found.err().unwrap().message.contains("version 0.2.0")),
            _ => assert!(found.is_ok(), "{name}: {}", found.err().unwrap()),
        }
        count += 1;
    }
    assert!(count >= 8, "only {count} guests are built: run `make setup`");
}

/// A component that takes the compiler long, and much memory: one function of very many blocks.
fn heavy() -> Vec<u8> {
    let body = "(local.set 0 (i32.add (local.get 0) (i32.load (local.get 0)))) (br_if 0 (local.get 0))".repeat(60_000);
    wat::parse_str(format!("(component (core module (memory 1) (func (param i32) (block {body}))))")).unwrap()
}

/// S129: what takes too long or too much to compile ends a child process, and nothing else; a good one compiles beside it.
#[tokio::test]
async fn a_compile_bomb_hurts_nobody() {
    let folder = Folder::new();
    let path = folder.path().join("bomb.wasm");
    std::fs::write(&path, heavy()).unwrap();
    let cache = folder.path().join("cache");
    let plugins = Plugins::new(Some(cache.clone()), Compiler::Child(env!("CARGO_BIN_EXE_tidegate").into())).unwrap();
    let good = configured(&guest("search"), json!({}));
    for (limit, value, words) in [
        ("compile_timeout_seconds", json!(0.2), "was not compiled when its 0.2 s were over"),
        ("compile_memory_mebibytes", json!(128), "takes more than 128 MiB to compile"),
    ] {
        let bomb = configured(&path, json!({ "limits": { limit: value } }));
        let (bomb, good) =
            tokio::join!(plugins.load(COLLECT, &bomb, Path::new("/")), plugins.load(COLLECT, &good, Path::new("/")),);
        let fault = bomb.err().unwrap();
        assert_eq!(fault.owner, Owner::Plugin, "{fault}");
        assert!(fault.message.contains(words), "{fault:?}");
        assert_eq!(fault.hint, Some(format!("if that is legitimate, raise `collect.limits.{limit}`")));
        assert!(good.is_ok());
    }
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1, "only the good one is kept");
}

/// S129: a component's size is a limit like any other, and what is no file is not waited for.
#[tokio::test]
async fn only_files_of_a_sane_size_are_read() {
    let folder = Folder::new();
    let path = folder.path().join("x.wasm");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len((1 << 20) + 1).unwrap();
    let options = configured(&path, json!({ "limits": { "component_mebibytes": 1 } }));
    let fault = loaded(COLLECT, &options).await.err().unwrap();
    assert!(fault.message.ends_with("is larger than 1 MiB"), "{fault}");
    assert!(fault.hint.unwrap().ends_with("raise `collect.limits.component_mebibytes`"));
    assert!(refusal(COLLECT, Path::new("/dev/zero")).await.message.ends_with("which is no file"));
}
