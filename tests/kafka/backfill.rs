//! Reading a part again: under a group of its own, from a start, to the end (S51, S99).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::binary::{Scene, wait};
use crate::help::*;

fn numbered(count: usize) -> impl Iterator<Item = Row> {
    (0..count).map(|n| Row::value(format!("{{\"n\":{n}}}")))
}

fn lines(count: std::ops::Range<usize>) -> String {
    count.map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

/// S51, S58: everything is delivered again and the process ends with 0, without waiting for a checkpoint's interval; the
/// configured group is where it was; a second time there is nothing left.
#[tokio::test(flavor = "multi_thread")]
async fn s51_from_the_earliest_to_the_end_under_a_group_of_its_own() {
    let topic = topic("backfill", 3).await;
    for partition in 0..2 {
        produce(&topic, partition, numbered(100));
    }
    let scene = Scene::new(&topic, json!({}));
    // Production first: it drains what is there and ends.
    let told = scene.done(&["run", "--until-end"]);
    assert!(told.err.contains("done     200 records committed, 0 dead letters, 3 of 3 partitions"), "{}", told.err);
    produce(&topic, 0, numbered(10));
    let at = |group: &str| (0..3).map(|partition| committed(&topic, partition, group)).collect::<Vec<_>>();
    assert_eq!(at(&scene.group), [Some(100), Some(100), None]);

    let started = Instant::now();
    let told = scene.done(&["run", "--from", "earliest", "--until-end"]);
    assert!(started.elapsed() < Duration::from_secs(30), "an end waits for no interval: {}", told.err);
    let group = format!("{}-from-earliest", scene.group);
    assert!(told.err.contains(&format!("backfill from earliest under group {group}, ")), "{}", told.err);
    assert_eq!(at(&scene.group), [Some(100), Some(100), None]);
    assert_eq!(at(&group), [Some(110), Some(100), None]);
    let file = |partition: i32| String::from_utf8(scene.file(format!("{topic}-{partition}.jsonl"))).unwrap();
    assert!(file(0) == lines(0..100) + &lines(0..100) + &lines(0..10), "{}", file(0));
    assert!(file(1) == lines(0..100) + &lines(0..100), "{}", file(1));

    let told = scene.done(&["run", "--from", "earliest", "--until-end"]);
    assert!(told.err.contains("done     0 records committed"), "{}", told.err);
}

/// S51: a time starts each partition at its first record of that time or later, and at its end where there is none.
#[tokio::test(flavor = "multi_thread")]
async fn s51_from_a_time() {
    let topic = topic("backfill", 3).await;
    let start = 1_769_860_800_000; // 2026-01-31T12:00:00Z
    let aged =
        |offset: i64| numbered(10).zip(0..).map(move |(row, n)| Row { timestamp: Some(start + offset + n), ..row });
    produce(&topic, 0, aged(-4));
    produce(&topic, 1, aged(-100));
    produce(&topic, 2, aged(5));
    let scene = Scene::new(&topic, json!({}));
    scene.done(&["run", "--from", "2026-01-31T13:00:00+01:00", "--until-end", "--group", "mine"]);
    let file = |partition: i32| String::from_utf8(scene.file(format!("{topic}-{partition}.jsonl"))).unwrap();
    assert_eq!([file(0), file(1), file(2)], [lines(4..10), String::new(), lines(0..10)]);
    assert_eq!(committed(&topic, 0, "mine"), Some(10));
    assert_eq!(committed(&topic, 0, &scene.group), None);
}

/// S1, S51: killed in the middle and started again, it goes on where it had committed, and nothing is missing.
#[tokio::test(flavor = "multi_thread")]
async fn s51_an_interrupted_part_goes_on() {
    const RECORDS: usize = 240_000;
    let topic = topic("backfill", 1).await;
    produce(&topic, 0, numbered(RECORDS));
    let scene = Scene::new(&topic, json!({ "checkpoint": { "every_records": 500 }, "window": { "max_records": 100 } }));
    let group = format!("{}-from-earliest", scene.group);
    let onlooker = Onlooker::new(&group);
    let mut life = scene.start(&["run", "--from", "earliest", "--until-end"]);
    // Only then is it certain that the broker knows a coordinator to ask.
    wait("something is written", || !scene.file(format!("{topic}-0.jsonl")).is_empty());
    wait("something is committed", || onlooker.committed(&topic, 0).is_some_and(|offset| offset > 1000));
    life.kill().unwrap();
    life.wait().unwrap();
    let reached = onlooker.committed(&topic, 0).unwrap();
    assert!(reached < i64::try_from(RECORDS).unwrap(), "it was interrupted");
    let told = scene.done(&["run", "--from", "earliest", "--until-end"]);
    assert!(told.err.contains(&format!("start={reached}")), "{}", told.err);
    let text = String::from_utf8(scene.file(format!("{topic}-0.jsonl"))).unwrap();
    let seen: std::collections::BTreeSet<&str> = text.lines().collect();
    assert!((0..RECORDS).all(|n| seen.contains(format!("{{\"n\":{n}}}").as_str())), "nothing is missing");
    assert_eq!(onlooker.committed(&topic, 0), Some(i64::try_from(RECORDS).unwrap()));
}

/// S98, S99: what ends with a transaction's markers and aborted records ends all the same, committed to the log's end; what
/// is written meanwhile is left to the next time.
#[tokio::test(flavor = "multi_thread")]
async fn s99_markers_at_the_end_are_passed() {
    let topic = topic("backfill", 1).await;
    transactions(&topic, &[(5, true), (7, false), (3, true), (2, false)]);
    let scene = Scene::new(&topic, json!({ "sinks": { "kafka": { "copy": { "topic": format!("{topic}-copy") } } } }));
    broker().create_topic(&format!("{topic}-copy"), 1, &[]).await;
    let told = scene.done(&["run", "--until-end"]);
    assert!(told.err.contains("done     8 records committed"), "{}", told.err);
    assert_eq!(committed(&topic, 0, &scene.group), Some(21));
    // Nothing but markers is left.
    transactions(&topic, &[(4, false)]);
    scene.done(&["run", "--until-end"]);
    assert_eq!(committed(&topic, 0, &scene.group), Some(26));
}

/// S58: records that cannot be settled keep it from ending; interrupted it says so with its code.
#[tokio::test(flavor = "multi_thread")]
async fn s58_an_end_that_was_not_reached_is_no_success() {
    let topic = topic("backfill", 1).await;
    produce(&topic, 0, numbered(1));
    // A folder where the file should be: that destination never takes it.
    let mut scene = Scene::new(&topic, json!({}));
    scene.change(json!({ "sinks": { "filesystem": { "log": { "base_path": "files", "on_error": "abort" } } } }));
    std::fs::create_dir(scene.files().join(format!("{topic}-0.jsonl"))).unwrap();
    let mut life = scene.start(&["run", "--until-end"]);
    std::thread::sleep(Duration::from_secs(6));
    assert!(life.try_wait().unwrap().is_none_or(|status| status.code() == Some(1)));
    std::process::Command::new("kill").args(["-TERM", &life.id().to_string()]).status().unwrap();
    assert_eq!(life.wait().unwrap().code(), Some(1));
    assert_eq!(committed(&topic, 0, &scene.group), None);
}

/// S51, S58: the configured group is refused, and so is what is no time.
#[tokio::test(flavor = "multi_thread")]
async fn s58_the_configured_group_is_refused() {
    let scene = Scene::new(&topic("backfill", 1).await, json!({}));
    let told = scene.run(&["run", "--from", "earliest", "--group", &scene.group]);
    assert_eq!(told.code, Some(2), "{}", told.err);
    assert!(told.err.contains("is the configured group") && told.err.contains("hint: "), "{}", told.err);
    assert_eq!(scene.run(&["run", "--from", "yesterday"]).code, Some(2));
    assert_eq!(scene.run(&["run", "--group", "g"]).code, Some(2));
}
