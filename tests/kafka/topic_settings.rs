//! Topics whose settings refuse rows: what is said at the start, and what becomes of the rows (S124a).

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tidegate::model::{Batch, CallError, FailureKind, Owner};
use tidegate::sink::Sink;
use tidegate::sink::kafka::{Inherited, KafkaSink, Options};

use super::help::{broker, contents, place, topic, unique};

fn sink(topic: &str) -> KafkaSink {
    let inherited = Inherited { brokers: broker().bootstrap(), ..Inherited::default() };
    KafkaSink::new(Options { topic: topic.into(), ..Options::default() }, &inherited).unwrap()
}

async fn with(settings: &[(&str, &str)]) -> String {
    let topic = unique("settings");
    broker().create_topic(&topic, 1, settings).await;
    topic
}

/// Rows with these ages, negative ones ahead.
fn aged(ages: &[i64]) -> Arc<Batch> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let mut batch = Batch::new(place("orders", 0));
    for (offset, age) in (0..).zip(ages) {
        batch.push(offset, i64::try_from(now).unwrap() - age, Some(b"k"), Some(b"v"));
    }
    Arc::new(batch)
}

/// S124a: a topic into which no record fits ends the start.
#[tokio::test(flavor = "multi_thread")]
async fn s124a_a_topic_that_no_record_fits_into_is_refused() {
    let topic = with(&[("max.message.bytes", "60")]).await;
    let Err(CallError::Fatal(fault)) = sink(&topic).connect().await else { panic!("it was connected to") };
    assert!(fault.owner == Owner::Config && fault.message.contains("60 bytes") && fault.hint.is_some(), "{fault}");
}

/// S124a, S76: what a topic refuses beside what others do is said by `check --connect`, which is content with it; at the
/// delivery it is the rows' own.
#[tokio::test(flavor = "multi_thread")]
async fn s124a_what_a_topic_refuses_is_said_and_refused_row_by_row() {
    let hour = Duration::from_secs(3600).as_millis();
    let hour = i64::try_from(hour).unwrap();
    let bounds = [("message.timestamp.before.max.ms", "3600000"), ("message.timestamp.after.max.ms", "60000")];
    let compacted = with(&[("cleanup.policy", "compact")]).await;
    let (bounded, appended) =
        (with(&bounds).await, with(&[&bounds[..], &[("message.timestamp.type", "LogAppendTime")]].concat()).await);
    let replicated = with(&[("min.insync.replicas", "2")]).await;
    let source = topic("orders", 1).await;
    let folder = tempfile::tempdir().unwrap();
    let document = json!({
        "kafka": { "brokers": broker().bootstrap(), "source_topic": source, "group": unique("settings") },
        "sinks": { "kafka": {
            "compacted": { "topic": compacted, "properties": { "message.max.bytes": "2000000" } },
            "bounded": { "topic": bounded },
            "appended": { "topic": appended },
            "replicated": { "topic": replicated },
        } },
        "dlq": { "topic": topic("letters", 1).await },
    });
    let file = folder.path().join("tidegate.yaml");
    fs::write(&file, document.to_string()).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    check.args(["check", "--connect"]).arg(file);
    let output = tokio::task::spawn_blocking(move || check.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for (topic, notes) in [
        (&compacted, &["it refuses records without a key", "records of more than 1048588 bytes"][..]),
        (&bounded, &["more than 1 h old", "more than 1 min ahead"]),
        (&appended, &[]),
        (&replicated, &["it has 1 replicas and wants 2 in sync"]),
        (&source, &[]),
    ] {
        let about = format!("topic `{topic}`: ");
        assert_eq!(said.matches(&about).count(), notes.len(), "{topic}:\n{said}");
        for note in notes {
            assert!(said.contains(note), "{note}:\n{said}");
        }
    }

    let rows = aged(&[0, 2 * hour, 1000, -hour, 10]);
    let sink = self::sink(&bounded);
    sink.connect().await.unwrap();
    let failures = sink.deliver(&rows).await.unwrap();
    // S79c: the neighbours in a refused batch are sent again, by whoever calls.
    let (rejected, others): (Vec<_>, Vec<_>) = failures.iter().partition(|failure| failure.kind == FailureKind::Reject);
    assert_eq!(rejected.iter().map(|failure| failure.index).collect::<Vec<_>>(), [1, 3], "{failures:?}");
    assert!(others.iter().all(|failure| failure.kind == FailureKind::NotTried), "{failures:?}");
    let again: Vec<usize> = others.iter().map(|failure| failure.index as usize).collect();
    assert_eq!(sink.deliver(&Arc::new(rows.select(&again))).await, Ok(Vec::new()));
    assert_eq!(contents(&bounded).len(), 3);
    for (topic, rows) in [(&appended, rows), (&replicated, aged(&[0]))] {
        let sink = self::sink(topic);
        sink.connect().await.unwrap();
        assert_eq!(sink.deliver(&rows).await, Ok(Vec::new()), "{topic}");
    }
}
