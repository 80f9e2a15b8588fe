//! A component's file, and an entry of the cache of compiled components.
//!
//! An input that begins with [`EDITS`] is a list of changes to the cache's entry of a good component: two bytes say where, the
//! third what is flipped there. One that begins with [`ENTRY`] is the entry itself. Anything else is a component's file.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};
use tidegate::model::{Fault, Owner};
use tidegate::plugin::{Artifact, Options, PluginCollector, PluginSink};
use tidegate::sink::Queries;

use super::plugins::{PLACE, cache, file, plugins, write};
use super::runtime::wait_for;

const EDITS: &[u8] = b"edits:";
const ENTRY: &[u8] = b"entry:";

/// The least that is loaded: an export of the right name with nothing in it.
const GOOD: &str = r#"(component (instance $i) (export "tidegate:plugin/collector@0.1.0" (instance $i)))"#;

/// A file is refused in words or loaded for what it is; a cache's entry that Tidegate did not write is never run.
pub fn run(data: &[u8]) {
    if let Some(entry) = data.strip_prefix(ENTRY) {
        cached(entry.to_vec());
    } else if let Some(edits) = data.strip_prefix(EDITS) {
        let mut entry = KEPT.bytes.clone();
        for edit in edits.chunks_exact(3) {
            let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % entry.len();
            entry[at] ^= edit[2];
        }
        // An odd byte at the end cuts it short.
        if let [.., cut] = edits.chunks_exact(3).remainder() {
            entry.truncate(entry.len() * usize::from(*cut) / 256);
        }
        cached(entry);
    } else {
        component(data);
    }
}

fn options(component: &Path) -> Options {
    let options = serde_json::json!({
        "component": component,
        "limits": { "memory_mebibytes": 1, "setup_timeout_seconds": 0.05 },
    });
    serde_json::from_value(options).unwrap_or_else(|error| panic!("{error}"))
}

fn load(path: &Path) -> Result<Artifact, Fault> {
    wait_for(plugins().load(PLACE, &options(path), Path::new("/")))
}

fn component(data: &[u8]) {
    let path = file("component.wasm", data);
    let artifact = match load(&path) {
        Ok(artifact) => artifact,
        Err(fault) => {
            assert!(fault.owner == Owner::Config && !fault.message.is_empty(), "{fault:?}");
            return;
        }
    };
    let summary = artifact.summary();
    assert!(summary.sink || summary.collector);
    assert!(summary.contract.starts_with("0.1."), "{summary:?}");
    assert_eq!((summary.size_bytes, &summary.sha256), (data.len() as u64, &hex(&Sha256::digest(data))));
    let (options, queries) = (options(&path), Queries::new());
    // It may do as it likes in there, and is no good for it.
    let _started = if summary.sink {
        wait_for(PluginSink::start(artifact.clone(), "csv", &options, &queries)).is_ok()
    } else {
        wait_for(PluginCollector::start(artifact.clone(), &options, &queries)).is_ok()
    };
}

/// The good component, its entry in the cache, and what stands in it.
struct Kept {
    component: PathBuf,
    entry: PathBuf,
    bytes: Vec<u8>,
}

static KEPT: LazyLock<Kept> = LazyLock::new(|| {
    let good = wat::parse_str(GOOD).unwrap_or_else(|error| panic!("{error}"));
    let component = file("good.wasm", &good);
    load(&component).unwrap_or_else(|fault| panic!("{fault}"));
    let begins = hex(&Sha256::digest(&good));
    let entries = std::fs::read_dir(cache()).unwrap_or_else(|error| panic!("{error}"));
    let entry = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins)))
        .unwrap_or_else(|| panic!("nothing was kept"));
    let bytes = std::fs::read(&entry).unwrap_or_else(|error| panic!("{error}"));
    Kept { component, entry, bytes }
});

fn cached(entry: Vec<u8>) {
    write(&KEPT.entry, &entry);
    let artifact = load(&KEPT.component).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(artifact.summary().cached, entry == KEPT.bytes, "a changed entry was run");
    let now = std::fs::read(&KEPT.entry).unwrap_or_else(|error| panic!("{error}"));
    assert!(now == KEPT.bytes, "a changed entry was left");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
