//! The well-behaved plugin: the real CSV sink, which must notice nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate::model::{Batch, TopicPartition};
use tidegate::plugin::{PluginSink, Plugins};
use tidegate::sink::{Queries, Sink};
use tokio::task::JoinHandle;

use crate::stage::{configured, guest};

/// Where it stands in the configuration.
const PLACE: &str = "sinks.plugin.csv";
const TOPIC: &str = "orders";
const PARTITIONS: i32 = 2;
const ROWS: i64 = 20;
/// The pause between two rounds while an attack runs.
const PAUSE: Duration = Duration::from_millis(2);

/// A CSV sink with a directory of its own.
pub(crate) struct Beside {
    sink: PluginSink,
    folder: tempfile::TempDir,
    rounds: i64,
}

impl Beside {
    /// Loads and starts it.
    pub(crate) async fn start(plugins: &Arc<Plugins>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let more = json!({
            "options": { "path": "/out/{topic}-{partition}.csv", "columns": ["offset", "value"] },
            "grants": { "directories": [{ "host": folder.path(), "guest": "/out", "access": "write" }] },
        });
        let options = configured(&guest("csv"), more);
        let artifact = plugins.load(PLACE, &options, Path::new("/")).await.expect("a fresh plugin loads");
        let sink = PluginSink::start(artifact, "csv", &options, &Queries::new()).await.expect("a fresh plugin starts");
        sink.connect().await.expect("a fresh plugin connects");
        Self { sink, folder, rounds: 0 }
    }

    /// Its directory, for attackers to want.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// One batch per partition, added and flushed: how long each took.
    pub(crate) async fn round(&mut self) -> Vec<Duration> {
        let mut taken = Vec::new();
        let first = self.rounds * ROWS;
        for partition in 0..PARTITIONS {
            let source = TopicPartition::new(TOPIC, partition);
            let mut batch = Batch::new(source.clone());
            for offset in first..first + ROWS {
                batch.push(offset, -1, None, Some(format!("v{offset}").as_bytes()));
            }
            let start = Instant::now();
            assert_eq!(self.sink.add(&Arc::new(batch)).await, Ok(vec![]), "beside an attack");
            assert_eq!(self.sink.flush(&source).await, Ok(vec![]), "beside an attack");
            taken.push(start.elapsed());
        }
        self.rounds += 1;
        taken
    }

    /// Goes on with rounds, one after the other, until told to end.
    pub(crate) fn run(mut self) -> Running {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let task = tokio::spawn(async move {
            let mut taken = Vec::new();
            while !told.load(Ordering::Acquire) {
                taken.extend(self.round().await);
                tokio::time::sleep(PAUSE).await;
            }
            (self, taken)
        });
        Running { over, task }
    }

    /// Every row is in its file once and in order.
    pub(crate) fn delivered_all(&self) {
        for partition in 0..PARTITIONS {
            let path = self.folder.path().join(format!("{TOPIC}-{partition}.csv"));
            let found = std::fs::read_to_string(path).unwrap();
            let rows = (0..self.rounds * ROWS).map(|offset| format!("{offset},v{offset}\n"));
            let wanted: String = std::iter::once("offset,value\n".to_owned()).chain(rows).collect();
            assert!(found == wanted, "partition {partition}: {} bytes, not {}", found.len(), wanted.len());
        }
        let files = std::fs::read_dir(self.folder.path()).unwrap().count();
        assert_eq!(files, usize::try_from(PARTITIONS).unwrap(), "a file that it did not write");
    }
}

/// It works in the background.
pub(crate) struct Running {
    over: Arc<AtomicBool>,
    task: JoinHandle<(Beside, Vec<Duration>)>,
}

impl Running {
    /// Ends the rounds and gives it back, with how long each batch took.
    pub(crate) async fn end(self) -> (Beside, Vec<Duration>) {
        self.over.store(true, Ordering::Release);
        self.task.await.expect("the plugin beside the attack works")
    }
}
