//! Real components, broken ones and hostile ones against the plugin runtime.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tidegate::model::{Batch, Fault, TopicPartition};
use tidegate::plugin::{Artifact, Compiler, Hooks, Options, PluginCollector, PluginSink, Plugins};
use tidegate::sink::Queries;

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/child.rs"]
mod child;
#[path = "plugin_contract/collector.rs"]
mod collector;
#[path = "plugin_contract/delivery.rs"]
mod delivery;
#[path = "plugin_contract/grants.rs"]
mod grants;
#[path = "plugin_contract/http.rs"]
mod http;
#[path = "plugin_contract/load.rs"]
mod load;
#[path = "plugin_contract/model.rs"]
mod model;
#[path = "plugin_contract/sink.rs"]
mod sink;
#[path = "support/web.rs"]
mod web;

const SINK: &str = "sinks.plugin.faulty";
const COLLECT: &str = "collect";

/// A guest that `tests/guests/build.sh` has built.
fn guest(name: &str) -> PathBuf {
    let path = guests().join(format!("{name}.wasm"));
    assert!(path.exists(), "`{}` is missing: run `make setup`", path.display());
    path
}

fn guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests")
}

/// The runtime, with a cache that outlives the test, so that a guest is compiled once.
fn plugins() -> Arc<Plugins> {
    Plugins::new(
        Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")),
        Compiler::Child(env!("CARGO_BIN_EXE_tidegate").into()),
    )
    .unwrap()
}

/// A plugin's options with `options`, `limits` and whatever else stands in `more`.
fn configured(component: &Path, more: Value) -> Options {
    let mut all = json!({ "component": component });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    // One instance where a test names no number, so that what happens to it can be told whatever the machine.
    let limits = all.as_object_mut().unwrap().entry("limits").or_insert_with(|| json!({}));
    limits.as_object_mut().unwrap().entry("instances").or_insert(json!(1));
    serde_json::from_value(all).unwrap()
}

async fn loaded(place: &str, options: &Options) -> Result<Artifact, Fault> {
    plugins().load(place, options, Path::new("/")).await
}

async fn faulty_sink(more: Value) -> Result<PluginSink, Fault> {
    let options = configured(&guest("faulty-sink"), more);
    PluginSink::start(loaded(SINK, &options).await?, "faulty", &options, &Queries::new()).await
}

async fn faulty_collector(more: Value) -> Result<PluginCollector, Fault> {
    let options = configured(&guest("faulty-collector"), more);
    PluginCollector::start(loaded(COLLECT, &options).await?, &options, &Queries::new()).await
}

fn orders(partition: i32) -> TopicPartition {
    TopicPartition::new("orders", partition)
}

/// Records with those values, from offset `first` on.
fn records(partition: i32, first: i64, values: &[&str]) -> Arc<Batch> {
    let mut batch = Batch::new(orders(partition));
    for (offset, value) in (first..).zip(values) {
        batch.push(offset, 1_700_000_000_000, Some(b"key"), Some(value.as_bytes()));
    }
    Arc::new(batch)
}

/// What guests write into a directory that they were granted as `/out`.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The `grants` that give it to a plugin.
    fn grants(&self, access: &str) -> Value {
        json!({ "directories": [{ "host": self.path(), "guest": "/out", "access": access }] })
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
