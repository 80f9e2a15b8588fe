//! What is measured: the configuration of each case, and where its rows end up.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::broker::Broker;
use super::support::child::{REMEDY, target_dir};

/// What the model sink keeps in memory for each row, as a sink that keeps the values does.
const KEPT_BYTES: u64 = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// No plugin, one file sink.
    Files,
    /// `plugins/csv`, a buffering sink made with the SDK.
    Csv,
    /// `plugins/search` with the sinks of the README's pipeline.
    Search,
    /// A buffering sink in Python.
    Python,
    /// A collector in JavaScript, with the sinks that its payloads are for.
    JavaScript,
    /// A buffering sink on the bare contract.
    Contract,
}

impl Case {
    pub const ALL: [Self; 6] = [Self::Files, Self::Csv, Self::Search, Self::Python, Self::JavaScript, Self::Contract];

    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Csv => "csv",
            Self::Search => "search",
            Self::Python => "python",
            Self::JavaScript => "javascript",
            Self::Contract => "contract",
        }
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|case| case.name() == text);
        found.ok_or_else(|| format!("no such case; there are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// One case on one topic: a folder with its configuration and its files.
pub struct Scene {
    pub case: Case,
    pub partitions: i32,
    pub dir: TempDir,
    /// Where dead letters would be.
    pub dead_letters: String,
    /// The topic that the case writes to as well; empty when it writes to none.
    pub results: String,
}

impl Scene {
    pub async fn new(broker: &Broker, case: Case, topic: &str, partitions: i32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let group = format!("backlog-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut results = String::new();
        if matches!(case, Case::Search | Case::JavaScript) {
            results = format!("{group}-results");
            broker.create_topic(&results, partitions, &[]).await;
        }
        let dir = tempfile::tempdir().unwrap();
        let scene = Self { case, partitions, dir, dead_letters: format!("{topic}_dlq"), results };
        for folder in [scene.files(), scene.rows()] {
            fs::create_dir(folder).unwrap();
        }
        let mut document = scene.parts();
        document["kafka"] = json!({ "brokers": broker.bootstrap(), "source_topic": topic, "group": group });
        fs::write(scene.configuration(), document.to_string()).unwrap();
        scene
    }

    pub fn configuration(&self) -> PathBuf {
        self.dir.path().join("tidegate.yaml")
    }

    /// Where the file sink writes.
    pub fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    /// Where the plugin sink writes.
    pub fn rows(&self) -> PathBuf {
        self.dir.path().join("rows")
    }

    fn plugin(&self, name: &str, options: &Value) -> Value {
        let directory = json!({ "host": self.rows(), "guest": "/rows", "access": "write" });
        json!({ "component": guest(name), "options": options, "grants": { "directories": [directory] } })
    }

    /// Collector and sinks, on default options.
    fn parts(&self) -> Value {
        let csv = || self.plugin("csv", &json!({ "path": "/rows/{topic}-{partition}.csv" }));
        let files = || json!({ "log": { "base_path": self.files() } });
        let all = || {
            json!({
                "kafka": { "results": { "topic": self.results } },
                "filesystem": files(),
                "plugin": { "csv": csv() },
            })
        };
        match self.case {
            Case::Files => json!({ "sinks": { "filesystem": files() } }),
            Case::Csv => json!({ "sinks": { "plugin": { "csv": csv() } } }),
            Case::Search => {
                let options = json!({ "sinks": ["kafka", "filesystem", "plugin/csv"] });
                json!({ "collect": { "component": guest("search"), "options": options }, "sinks": all() })
            }
            Case::Python => {
                let python = self.plugin("python-sink", &json!({ "directory": "/rows" }));
                json!({ "sinks": { "plugin": { "python": python } } })
            }
            Case::JavaScript => json!({ "collect": { "component": guest("javascript-collector") }, "sinks": all() }),
            Case::Contract => {
                let options = json!({ "path": "/rows/rows.jsonl", "hoard_bytes_per_row": KEPT_BYTES });
                json!({ "sinks": { "plugin": { "model": self.plugin("model-sink", &options) } } })
            }
        }
    }
}

fn guest(name: &str) -> PathBuf {
    let path = target_dir().join(format!("guests/{name}.wasm"));
    path.canonicalize().unwrap_or_else(|_| panic!("`{name}` is not built: {REMEDY}"))
}
