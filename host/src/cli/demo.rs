//! `demo`: a pipeline on this machine alone, with a broker inside this process, over believable records.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Exit;
use super::assemble::{Assembly, Feed, NotStarted, assemble};
use super::render;
use super::render::live::{self, Progress};
use super::summary::Summary;
use crate::clock::{Dice, RealClock};
use crate::config::{self, Environment, Loaded, Secrets};
use crate::model::{Batch, CallError, Fault, TopicPartition};
use crate::pipeline;
use crate::sink::Sink;
use crate::sink::kafka::{Inherited, KafkaSink, Options as KafkaSinkOptions};
use crate::source::embedded::EmbeddedBroker;
use crate::telemetry::Counters;

/// Most records that the in-process broker keeps for sure: it holds 5 MiB a partition.
pub const MAX_RECORDS: u64 = 40_000;
const TOPIC: &str = "search-requests";
const RESULTS: &str = "search-results";
const PARTITIONS: i32 = 4;
/// Every demo shows the same records.
const SEED: u64 = 2026;
/// The records come in so many portions, one every [`PACE`].
const PORTIONS: u64 = 40;
const PACE: Duration = Duration::from_millis(75);
/// How often the progress is drawn.
const TICK: Duration = Duration::from_millis(100);

/// What the demo is asked for.
pub struct Request {
    /// How many records to produce.
    pub records: u64,
    /// Where results go; a fresh directory when there is none.
    pub output: Option<PathBuf>,
    /// Where `search.wasm` and `csv.wasm` are.
    pub plugins: PathBuf,
}

/// Produces, delivers and commits, and says where everything lies.
///
/// # Errors
/// What kept it from starting.
pub async fn demo(request: &Request) -> Result<Exit, NotStarted> {
    let output = output(request.output.as_deref())?;
    let broker = EmbeddedBroker::start()?;
    let brokers = broker.brokers();
    for (topic, partitions) in [(TOPIC, PARTITIONS), (RESULTS, PARTITIONS), ("search-requests_dlq", 1)] {
        broker.create_topic(topic, partitions)?;
    }
    let loaded = configuration(&brokers, &output, &request.plugins)?;
    live::demo_starts(&output, request.records);

    let counters = Arc::new(Counters::default());
    let Assembly { parts, source, .. } = assemble(&loaded, &Feed::configured(&loaded), counters.clone()).await?;
    let progress = Progress::start(request.records);
    let committed =
        || -> u64 { counters.partitions().values().map(|place| u64::try_from(place.committed).unwrap_or(0)).sum() };
    let watch = async {
        while committed() < request.records {
            if !counters.partitions().is_empty() {
                progress.show(committed());
            }
            tokio::time::sleep(TICK).await;
        }
        progress.show(committed());
        Ok(())
    };
    let feed = async {
        // Nobody would see anything move if everything were there before the first partition is assigned.
        while counters.partitions().is_empty() {
            tokio::time::sleep(TICK).await;
        }
        produce(&brokers, request.records).await
    };
    let mut unfed = None;
    let stop = async {
        tokio::select! {
            fed = async { tokio::try_join!(feed, watch) } => unfed = fed.err(),
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    let outcome = pipeline::run(parts, source, RealClock::start(), stop).await;
    progress.finish();
    live::demo_ends(&output, &counters, &Summary::of(&counters, None));
    let outcome = outcome.and(unfed.map_or(Ok(()), Err));
    Ok(match outcome {
        Ok(()) => Exit::Done,
        Err(fault) => {
            render::faults(&[fault]);
            Exit::Stopped
        }
    })
}

/// The directories that the sinks write to.
fn output(wanted: Option<&Path>) -> Result<PathBuf, Fault> {
    let fault = |error: std::io::Error| Fault::host("no directory for the results can be made").because(error);
    let output = match wanted {
        Some(path) => path.to_owned(),
        None => tempfile::Builder::new().prefix("tidegate-demo-").tempdir().map_err(fault)?.keep(),
    };
    for folder in ["files", "csv"] {
        std::fs::create_dir_all(output.join(folder)).map_err(fault)?;
    }
    output.canonicalize().map_err(fault)
}

/// The demo's configuration: written beside the results, and read like anyone's.
fn configuration(brokers: &str, output: &Path, plugins: &Path) -> Result<Loaded, NotStarted> {
    let plugins = plugins.canonicalize().map_err(|error| {
        Fault::config(format!("the demo's plugins are not in `{}`", plugins.display()))
            .because(error)
            .hint("`make demo` builds them, or name their folder with `--plugins`")
    })?;
    // JSON is YAML, and spares the quoting of paths.
    let document = json!({
        "kafka": { "brokers": brokers, "source_topic": TOPIC, "group": "tidegate-demo" },
        "checkpoint": { "interval_seconds": 1 },
        "collect": {
            "component": plugins.join("search.wasm"),
            "options": { "sinks": ["kafka", "filesystem", "plugin"] },
        },
        "sinks": {
            "kafka": { "results": { "topic": RESULTS } },
            "filesystem": { "log": { "base_path": output.join("files") } },
            "plugin": { "csv": {
                "component": plugins.join("csv.wasm"),
                "options": { "path": "/out/{topic}-{partition}.csv" },
                "grants": { "directories": [{ "host": output.join("csv"), "guest": "/out", "access": "write" }] },
            } },
        },
    });
    let file = output.join("tidegate.yaml");
    let text = format!("{document:#}\n");
    std::fs::write(&file, &text)
        .map_err(|error| Fault::host("the demo's configuration cannot be written").because(error))?;
    let environment = Environment::default();
    let failed = |faults| NotStarted { exit: Exit::Stopped, faults };
    let config = config::parse(&text, &file.display().to_string(), &environment).map_err(failed)?;
    Ok(Loaded { config, folder: output.to_owned(), secrets: Secrets::default() })
}

/// Feeds the topic with search requests.
async fn produce(brokers: &str, records: u64) -> Result<(), Fault> {
    let options = KafkaSinkOptions { topic: TOPIC.into(), ..KafkaSinkOptions::default() };
    let inherited = Inherited { brokers: brokers.to_owned(), ..Inherited::default() };
    let sink = KafkaSink::new(options, &inherited)?;
    sink.connect().await.map_err(CallError::into_fault)?;
    let mut dice = crate::clock::dice(SEED);
    let mut number = 0;
    let portion = records.div_ceil(PORTIONS);
    while number < records {
        let mut batch = Batch::new(TopicPartition::new(TOPIC, 0));
        for offset in (0..).take(usize::try_from(portion.min(records - number)).unwrap_or(0)) {
            let (key, value) = request(number, &mut dice);
            batch.push(offset, crate::clock::unix_millis(), Some(key.as_bytes()), Some(value.as_bytes()));
            number += 1;
        }
        if let Some(failure) = sink.deliver(&Arc::new(batch)).await.map_err(CallError::into_fault)?.first() {
            return Err(Fault::host("the demo's records could not be produced").because(&failure.reason));
        }
        tokio::time::sleep(PACE).await;
    }
    sink.close().await
}

/// A request to search some log lines, as an incident makes them: mostly quiet, sometimes not; now and then one that
/// is no request at all, for the dead letter queue.
fn request(number: u64, dice: &mut Dice) -> (String, String) {
    const SERVICES: [&str; 5] = ["checkout", "payments", "search", "inventory", "mailer"];
    const LINES: [&str; 6] = [
        "GET /health 200 1ms",
        "cache miss for product list",
        "timeout after 3000 ms calling upstream",
        "retrying, attempt 2",
        "order accepted",
        "connection reset by peer",
    ];
    let service = SERVICES[dice.usize(..SERVICES.len())];
    let key = format!("{service}-{}", dice.usize(..200));
    if dice.usize(..500) == 0 {
        return (key, format!("not a request: line noise {number}"));
    }
    let bad_day = dice.usize(..20) == 0;
    let lines: Vec<&str> = (0..if bad_day { 60 } else { 2 + dice.usize(..4) })
        .map(|_| if bad_day { LINES[2] } else { LINES[dice.usize(..LINES.len())] })
        .collect();
    let value = json!({ "request_id": format!("req-{number:06}"), "pattern": "timeout", "text": lines.join("\n") });
    (key, value.to_string())
}
