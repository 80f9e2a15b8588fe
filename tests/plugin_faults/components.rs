//! Files that are no components, or components made to hurt whoever compiles or loads them: refused in words, and nothing else happens.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tidegate::model::{Fault, Owner};
use tidegate::plugin::{Compiler, PluginSink, Plugins};
use tidegate::sink::{Queries, Sink};

use crate::stage::{Stage, configured, stopped};
use crate::wat::Wat;

attacks! {
    noise_instead_of_a_component = noise(),
    a_component_cut_off_at_fifty_places = cut_off(),
    a_component_with_flipped_bits = flipped(),
    a_core_module = refused_text("(module)", "is a core WebAssembly module, not a component"),
    a_million_functions = million(json!({ "compile_timeout_seconds": 0.5 }), "was not compiled when its 0.5 s were over", "compile_timeout_seconds"),
    a_million_functions_in_little_memory = million(json!({ "compile_memory_mebibytes": 128 }), "takes more than 128 MiB to compile", "compile_memory_mebibytes"),
    components_in_components = nested(),
    types_that_double_and_double = doubling(),
    two_thousand_instances = instances(),
    an_import_that_nobody_offers = refused(import("example:secrets/all@1.0.0"), "imports what Tidegate does not offer"),
    an_import_with_words_for_the_log = forged_import(),
    a_function_with_words_for_the_log = forged_function(),
    exports_of_other_types = other_types(),
    memory_shared_by_threads = featured("(memory 1 1 shared)"),
    garbage_collected_types = featured("(type (struct (field i32)))"),
    exceptions_and_tags = featured("(tag)"),
    a_file_of_a_tebibyte = tebibyte(),
    a_section_of_twenty_mebibytes = section(),
    a_file_exchanged_after_it_was_pinned = exchanged(),
    compiled_code_that_others_put_there = planted_code(),
}

/// A fault of whoever configured it, in words that may stand in a log.
#[track_caller]
fn in_words(fault: &Fault) {
    assert!(matches!(fault.owner, Owner::Config | Owner::Plugin), "{fault:?}");
    let text = format!("{fault} {}", fault.hint.as_deref().unwrap_or_default());
    assert!(!text.contains(char::is_control) && text.len() < 3000, "{text:?}");
}

async fn loaded(stage: &Stage, bytes: &[u8], limits: Value) -> Result<(), Fault> {
    let options = stage.configured(&stage.component(bytes), json!({ "limits": limits }));
    stage.load(&options).await.map(|_| ())
}

async fn refused(stage: &Stage, bytes: Vec<u8>, words: &str) {
    let fault = loaded(stage, &bytes, json!({})).await.unwrap_err();
    in_words(&fault);
    assert!(fault.message.ends_with(words), "{fault}");
    stage.is_silent();
}

async fn refused_text(stage: &Stage, text: &str, words: &str) {
    refused(stage, wat::parse_str(text).unwrap(), words).await;
}

/// The same bytes each time, as good as any.
fn noises(count: usize) -> impl Iterator<Item = u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state >> 56).unwrap()
    })
    .take(count)
}

async fn noise(stage: &Stage) {
    let all: Vec<u8> = noises(20 * 500).collect();
    for bytes in all.chunks(500) {
        let fault = loaded(stage, bytes, json!({})).await.unwrap_err();
        assert!(fault.message.ends_with("is not WebAssembly"), "{fault}");
        let component = [b"\0asm\x0d\0\x01\0", bytes].concat();
        let fault = loaded(stage, &component, json!({})).await.unwrap_err();
        in_words(&fault);
        assert!(fault.message.ends_with("is no valid component"), "{fault}");
    }
    stage.is_silent();
}

async fn cut_off(stage: &Stage) {
    let whole = Wat::sink().build();
    for place in 0..50 {
        let fault = loaded(stage, &whole[..whole.len() * place / 50], json!({})).await.unwrap_err();
        in_words(&fault);
    }
    assert_eq!(loaded(stage, &whole, json!({})).await, Ok(()));
    stage.is_silent();
}

/// Some of them are still components, and do something else: that is for the sandbox to bear.
async fn flipped(stage: &Stage) {
    let whole = Wat::sink().build();
    for (turn, noise) in noises(30).enumerate() {
        let mut bytes = whole.clone();
        let at = 8 + (usize::from(noise) * 7 + turn * whole.len() / 30) % (whole.len() - 8);
        bytes[at] ^= 1 << (noise % 8);
        match stage.sink(&stage.component(&bytes), json!({})).await {
            Ok(sink) => drop(sink.deliver(&stage.records(&["fine"])).await),
            Err(fault) => in_words(&fault),
        }
    }
}

/// A core module of a million functions in a component of a few megabytes.
async fn million(stage: &Stage, limits: Value, words: &str, key: &str) {
    let body = "(func (param i32) (result i32) (i32.mul (local.get 0) (i32.add (local.get 0) (local.get 0))))";
    let text = format!("(component (core module {}))", body.repeat(300_000));
    let bytes = wat::parse_str(text).unwrap();
    let fault = loaded(stage, &bytes, limits).await.unwrap_err();
    in_words(&fault);
    assert_eq!(fault.owner, Owner::Plugin);
    assert!(fault.message.ends_with(words), "{fault}");
    let hint = fault.hint.unwrap();
    assert!(hint.contains(&format!("{}.limits.{key}", stage.place())), "{hint}");
    stage.is_silent();
}

async fn nested(stage: &Stage) {
    let header = b"\0asm\x0d\0\x01\0";
    let mut component = header.to_vec();
    for _ in 0..3000 {
        let mut outer = header.to_vec();
        outer.push(4);
        let mut size = component.len();
        while size >= 0x80 {
            outer.push(u8::try_from(size & 0x7f).unwrap() | 0x80);
            size >>= 7;
        }
        outer.push(u8::try_from(size).unwrap());
        outer.extend(component);
        component = outer;
    }
    in_words(&loaded(stage, &component, json!({})).await.unwrap_err());
    stage.is_silent();
}

async fn doubling(stage: &Stage) {
    let mut text = "(component (type $t0 (tuple u8 u8))".to_owned();
    for level in 1..64 {
        text += &format!("(type $t{level} (tuple $t{} $t{}))", level - 1, level - 1);
    }
    refused_text(stage, &(text + ")"), "is no valid component").await;
}

async fn instances(stage: &Stage) {
    let text = format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(2000));
    in_words(&loaded(stage, &wat::parse_str(text).unwrap(), json!({})).await.unwrap_err());
    stage.is_silent();
}

fn import(name: &str) -> Vec<u8> {
    let text = format!(
        r#"(component (import "{name}" (instance (export "run" (func)))) (instance $i)
            (export "tidegate:plugin/sink@0.1.0" (instance $i)))"#
    );
    wat::parse_str(text).unwrap()
}

async fn forged_import(stage: &Stage) {
    refused(stage, import(r"a\n2026-11-22 ERROR tidegate: \1b[31mall is lost"), "is no valid component").await;
}

/// The stack names the guest's functions.
async fn forged_function(stage: &Stage) {
    let name = r#"$"evil\0a2026-11-22 ERROR tidegate: \1b[31mall is lost""#;
    let guest = Wat::sink().with(format!("(func {name} unreachable)")).on("deliver", format!("(call {name})"));
    let fault = stage.stopped_in_deliver(&guest, json!({})).await;
    in_words(&fault);
    assert!(fault.to_string().contains("in `evil\\n2026-11-22 ERROR tidegate: \\u{1b}[31mall is lost`"), "{fault}");
    stage.is_silent();
}

async fn other_types(stage: &Stage) {
    let guest = r#"(component
        (core module $m (func (export "f")))
        (core instance $c (instantiate $m))
        (func $f (canon lift (core func $c "f")))
        (instance $i (export "setup" (func $f)) (export "connect" (func $f)) (export "add" (func $f)) (export "flush" (func $f))
            (export "deliver" (func $f)) (export "discard" (func $f)) (export "close" (func $f)))
        (export "tidegate:plugin/sink@0.1.0" (instance $i)))"#;
    let fault = stage.sink(&stage.component(&wat::parse_str(guest).unwrap()), json!({})).await.err().unwrap();
    in_words(&fault);
    stage.said(
        &fault,
        "`{}` does not keep to the contract it names",
        "build it again with this Tidegate's text of the contract",
    );
    stage.is_silent();
}

async fn featured(stage: &Stage, field: &str) {
    let guest = Wat::sink().with(field).module();
    let text = format!("(component (core {}", guest.trim_start().trim_start_matches('(')) + ")";
    refused(stage, wat::parse_str(text).unwrap(), "is no valid component").await;
}

/// A file that is larger than any component may be is not even read.
async fn tebibyte(stage: &Stage) {
    let path = stage.component(b"\0asm\x0d\0\x01\0");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    let options = stage.configured(&path, json!({ "limits": { "component_mebibytes": 1 } }));
    let fault = stage.load(&options).await.err().unwrap();
    in_words(&fault);
    assert!(fault.message.ends_with("is larger than 1 MiB"), "{fault}");
    assert!(fault.hint.unwrap().contains(&format!("{}.limits.component_mebibytes", stage.place())));
    stage.is_silent();
}

/// Bytes that mean nothing are no fault, as long as the file may be so large.
async fn section(stage: &Stage) {
    let mut bytes = Wat::sink().build();
    let length = 20 << 20;
    // A custom section without a name: its number, and its length as LEB128.
    bytes.push(0);
    let mut rest = length + 1;
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes.resize(bytes.len() + length + 1, 0);
    let sink = stage.sink(&stage.component(&bytes), json!({})).await.unwrap();
    assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    let fault = loaded(stage, &bytes, json!({ "component_mebibytes": 10 })).await.unwrap_err();
    assert!(fault.message.ends_with("is larger than 10 MiB"), "{fault}");
    stage.is_silent();
}

async fn exchanged(stage: &Stage) {
    let path = stage.component(&Wat::sink().build());
    let pinned = stage.load(&stage.configured(&path, json!({}))).await.unwrap().summary().sha256.clone();
    let options = stage.configured(&path, json!({ "sha256": pinned }));
    assert!(stage.load(&options).await.is_ok());
    std::fs::write(&path, Wat::sink().on("deliver", "unreachable").build()).unwrap();
    let fault = stage.load(&options).await.err().unwrap();
    in_words(&fault);
    assert!(fault.message.ends_with(&format!("is not the file that `{}.sha256` asks for", stage.place())), "{fault}");
    assert!(fault.causes[0].contains(&pinned), "{fault}");
    stage.is_silent();
}

/// What others may have put into the cache is not run.
async fn planted_code(stage: &Stage) {
    let (good, evil) =
        (Wat::sink().build(), Wat::sink().with("(func (export \"evil\"))").on("deliver", "unreachable").build());
    let folder = stage.folder().join("cache");
    let options = configured(&stage.component(&good), json!({}));
    let place = stage.place();
    let load = async |options| {
        let plugins = Plugins::new(Some(folder.clone()), Compiler::Child(env!("CARGO_BIN_EXE_tidegate").into()))?;
        plugins.load(&place, options, Path::new("/")).await
    };
    let entries = || {
        let mut all: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    };
    load(&options).await.unwrap();
    let [entry] = entries().try_into().unwrap();
    let bad = configured(&stage.component(&evil), json!({}));
    load(&bad).await.unwrap();
    let other = entries().into_iter().find(|path| *path != entry).unwrap();
    // Compiled code of another component under this one's name: it is not what was asked for, and is compiled anew.
    std::fs::copy(&other, &entry).unwrap();
    let artifact = load(&options).await.unwrap();
    assert!(!artifact.summary().cached, "another component's code was taken");
    let refused = async |words: &str| {
        let fault = load(&options).await.err().unwrap();
        assert_eq!(fault.owner, Owner::Host);
        assert!(fault.message.ends_with(words) && fault.hint.is_some(), "{fault}");
    };
    std::fs::set_permissions(&entry, PermissionsExt::from_mode(0o666)).unwrap();
    refused("is refused").await;
    std::fs::remove_file(&entry).unwrap();
    std::os::unix::fs::symlink(&other, &entry).unwrap();
    refused("is refused").await;
    std::fs::remove_file(&entry).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
    refused("is not private").await;
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
    let (artifact, queries) = (load(&options).await.unwrap(), Queries::new());
    let sink = PluginSink::start(artifact, "x", &options, &queries).await.unwrap();
    assert_eq!(sink.deliver(&stage.records(&["!"])).await, Ok(vec![]), "the good one");
    let sink = stage.sink(&stage.component(&evil), json!({})).await.unwrap();
    stopped(sink.deliver(&stage.records(&["!"])).await);
}
