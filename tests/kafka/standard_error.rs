//! What a host writes to standard error, and that it never waits for whoever reads it.

use std::io::Read as _;
use std::process::{Command, Stdio};

use serde_json::json;

use super::binary::{Process, Scene, wait};
use super::help::{Row, committed, produce, produce_on, topic, unique};
use crate::support::broker::Broker;

fn rows(count: usize) -> impl Iterator<Item = Row> {
    (0..count).map(|n| Row { key: Some(format!("k{n}").into_bytes()), ..Row::value(format!("{{\"n\":{n}}}")) })
}

fn lines(scene: &Scene, file: &str) -> usize {
    scene.file(file).iter().filter(|byte| **byte == b'\n').count()
}

/// S58: nobody reads standard error, and more is written to it than a pipe takes: records are delivered and committed, and the
/// process ends in time and with its code.
#[tokio::test(flavor = "multi_thread")]
async fn s58_a_full_standard_error_stops_neither_delivery_nor_the_end() {
    /// What a pipe holds on Linux.
    const PIPE_BYTES: usize = 64 << 10;
    const LONGEST_LINE: usize = 4 << 10;
    let source = topic("unread", 1).await;
    produce(&source, 0, rows(2_000));
    let scene = Scene::new(&source, json!({ "window": { "max_records": 10 } }));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("run").current_dir(scene.dir.path()).env("RUST_LOG", "trace");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let file = format!("{source}-0.jsonl");
    wait("all is delivered", || lines(&scene, &file) == 2_000);
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let mut ended = None;
    wait("the process ends", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(0));
    assert_eq!(committed(&source, 0, &scene.group), Some(2_000));
    let mut text = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut text).unwrap();
    // A line that does not fit is not begun.
    assert!(text.len() >= PIPE_BYTES - LONGEST_LINE, "the pipe was never full: {} bytes", text.len());
}

/// O2, S58: where nothing went wrong no line is an error, whatever `RUST_LOG` asks for, and the closing line is there.
#[tokio::test(flavor = "multi_thread")]
async fn s58_a_clean_end_logs_no_error() {
    let source = topic("clean", 2).await;
    produce(&source, 0, rows(10));
    for asked in ["info", "debug", "rdkafka=trace,librdkafka=trace"] {
        let scene = Scene::new(&source, json!({}));
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["run", "--until-end"]).current_dir(scene.dir.path()).env("RUST_LOG", asked);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        let loud: Vec<&str> = text.lines().filter(|line| line.contains(" ERROR ") || line.contains(" WARN ")).collect();
        assert!(loud.is_empty(), "`RUST_LOG={asked}`: {loud:#?}");
        assert!(text.lines().any(|line| line.starts_with("done ")), "{text}");
    }
}

/// S124: a broker that is gone under a source and two producers is one line when that begins, which names it and says why, and at
/// most one a minute from then on.
#[tokio::test(flavor = "multi_thread")]
async fn s124_a_broker_that_is_gone_is_one_line() {
    /// The broker's line, the source's and each sink's that waits for it, and a commit that failed.
    const MOST_LOUD: usize = 5;
    let mut own = Broker::start();
    let source = unique("outage");
    own.create_topic(&source, 1, &[]).await;
    own.create_topic("copies", 1, &[]).await;
    produce_on(&own.bootstrap(), &source, 0, rows(10));
    let scene = Scene::new(
        &source,
        json!({
            "kafka": { "brokers": own.bootstrap(), "source_topic": source, "group": "outage",
                "properties": { "session.timeout.ms": "6000", "heartbeat.interval.ms": "500" } },
            "checkpoint": { "interval_seconds": 0.5 },
            "sinks": { "kafka": { "copies": { "topic": "copies" } } },
        }),
    );
    let mut host = Process::start(&scene, &["run"]);
    wait("it runs", || host.told().contains("assigned"));
    std::thread::sleep(std::time::Duration::from_secs(1));
    own.stop();
    std::thread::sleep(std::time::Duration::from_secs(10));
    own.restart();
    std::thread::sleep(std::time::Duration::from_secs(6));
    host.signal("-TERM");
    host.ended();
    let told = host.told();
    let (mut gone, mut loud) = (0, 0);
    for line in told.lines() {
        gone += usize::from(line.contains("unavailable") && line.contains(&own.bootstrap()));
        loud += usize::from(line.contains(" WARN ") || line.contains(" ERROR "));
    }
    assert_eq!(gone, 1, "{told}");
    assert!(loud <= MOST_LOUD, "{loud} lines: {told}");
}
