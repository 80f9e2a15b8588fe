//! Buffering and direct plugins on a real broker, with default options: whatever they answer or break on, every record arrives once
//! or is dead-lettered because of itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::binary::{Scene, Told};
use super::help::{Row, broker, committed, contents, produce, topic};
use super::sandbox::guest;

/// Records that every test of many rows gives.
const RECORDS: i64 = 3_000;

/// The topic's records to the model sink alone, with these options of it and these limits.
fn scene(source: &str, mut options: Value, limits: Value) -> Scene {
    options["path"] = json!("/out/arrived.jsonl");
    let grants = json!({ "directories": [{ "host": "granted", "guest": "/out", "access": "write" }] });
    let model = json!({ "component": guest("model-sink"), "options": options, "limits": limits, "grants": grants });
    let scene = Scene::new(source, json!({ "sinks": { "plugin": { "model": model } }, "checkpoint": {} }));
    std::fs::create_dir(scene.dir.path().join("granted")).unwrap();
    scene
}

/// A record that the sink takes, or, with words, one on which it does what they say.
fn record(id: i64, words: Value) -> Row {
    let mut value = json!({ "id": id });
    value.as_object_mut().unwrap().extend(words.as_object().unwrap().clone());
    Row::value(value.to_string())
}

/// How often each record arrived, by its number.
fn arrived(scene: &Scene) -> BTreeMap<i64, usize> {
    let text = std::fs::read_to_string(scene.dir.path().join("granted/arrived.jsonl")).unwrap_or_default();
    let mut arrived = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        *arrived.entry(line["id"].as_i64().unwrap()).or_default() += 1;
    }
    arrived
}

/// The numbers of the records that were dead-lettered, ascending.
fn dead(source: &str) -> Vec<i64> {
    let letters = contents(&format!("{source}_dlq")).into_iter();
    let mut dead: Vec<i64> = letters
        .map(|(_, _, row)| {
            let letter: Value = serde_json::from_slice(row.value.as_deref().unwrap()).unwrap();
            let payload: Value = serde_json::from_str(letter["original_payloads"][0].as_str().unwrap()).unwrap();
            // A passed-through value stands in its payload as text.
            let data = payload["data"].as_str().map_or_else(|| payload["data"].to_string(), str::to_owned);
            serde_json::from_str::<Value>(&data).unwrap()["id"].as_i64().unwrap()
        })
        .collect();
    dead.sort_unstable();
    dead
}

/// Produces [`RECORDS`] records to one partition, those in `bad` with its words, and runs to the end. Every other record has to arrive,
/// and exactly those in `bad` have to be dead-lettered.
async fn only_bad_rows_are_given_up(name: &str, bad: &[(i64, Value)], options: Value, limits: Value) -> Told {
    let source = topic(name, 1).await;
    let words: BTreeMap<i64, &Value> = bad.iter().map(|(id, words)| (*id, words)).collect();
    produce(&source, 0, (0..RECORDS).map(|id| record(id, words.get(&id).map_or(json!({}), |words| (*words).clone()))));
    let scene = scene(&source, options, limits);
    let told = scene.done(&["run", "--until-end"]);
    let mut wanted: Vec<i64> = words.keys().copied().collect();
    wanted.sort_unstable();
    assert_eq!(dead(&source), wanted, "{}", told.err);
    let arrived = arrived(&scene);
    let missing: Vec<i64> = (0..RECORDS).filter(|id| !words.contains_key(id) && !arrived.contains_key(id)).collect();
    assert!(missing.is_empty(), "{missing:?} are lost: {}", told.err);
    assert!(words.keys().all(|id| !arrived.contains_key(id)), "what was given up was written");
    let more: Vec<_> = arrived.iter().filter(|(_, count)| **count > 1).collect();
    assert!(more.is_empty(), "written more than once, although nothing was unknown: {more:?}");
    assert_eq!(committed(&source, 0, &scene.group), Some(RECORDS));
    told
}

/// F1: a guest whose `add` refuses a call and forgets its buffer, as the contract allows, loses nothing; one that only refuses the call
/// has the right row dead-lettered, also where its flush names rows by their index.
#[tokio::test(flavor = "multi_thread")]
async fn s27a_a_guest_may_refuse_a_call_and_forget() {
    for word in ["reject_call_forget", "reject_call"] {
        let bad: Vec<(i64, Value)> = (0..RECORDS)
            .filter(|id| id % 100 == 7)
            .map(|id| (id, if id % 200 == 7 { json!({ "add": word }) } else { json!({ "flush": "reject" }) }))
            .collect();
        only_bad_rows_are_given_up("refuses", &bad, json!({}), json!({})).await;
        only_bad_rows_are_given_up("refuses-small", &bad, json!({ "max_rows": 7 }), json!({})).await;
    }
}

/// F2, K5: rows on which a buffering guest traps or never returns, in `add` or in `flush`, are found, each its own dead letter.
#[tokio::test(flavor = "multi_thread")]
async fn s63_a_row_that_breaks_add_or_flush_is_found() {
    let bad = [
        (5, json!({ "add": "trap" })),
        (700, json!({ "flush": "trap" })),
        (1_500, json!({ "add": "spin" })),
        (2_999, json!({ "flush": "spin" })),
    ];
    let limits = json!({ "call_timeout_seconds": 0.3 });
    only_bad_rows_are_given_up("breaks", &bad, json!({}), limits).await;
}

/// K5: a thousand poisonous records in one window cost a dead letter each, in a buffering and in a direct sink, and no neighbour.
#[tokio::test(flavor = "multi_thread")]
async fn s63_a_thousand_poisonous_records_stop_nobody() {
    for direct in [false, true] {
        let bad: Vec<(i64, Value)> =
            (1_010..2_040).filter(|id| id % 40 != 0).map(|id| (id, json!({ "flush": "trap" }))).collect();
        assert!(bad.len() > 1_000);
        only_bad_rows_are_given_up("poison", &bad, json!({ "direct": direct }), json!({})).await;
    }
}

/// F3: a guest whose buffer is full, and which says so with backpressure, is flushed and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn s27b_a_full_buffer_is_flushed_first() {
    only_bad_rows_are_given_up("full", &[], json!({ "full_at": 100, "max_rows": 40 }), json!({})).await;
}

/// S37: a guest that answers backpressure for ever costs nothing but time, and its neighbours none.
#[tokio::test(flavor = "multi_thread")]
async fn s37_a_guest_that_always_asks_to_wait_gives_up_no_row() {
    let source = topic("patience", 2).await;
    produce(&source, 0, (0..10).map(|id| record(id, json!({ "add": "backpressure", "times": 1_000_000 }))));
    produce(&source, 1, (100..200).map(|id| record(id, json!({}))));
    let scene = scene(&source, json!({}), json!({ "instances": 2 }));
    let mut process = super::binary::Process::start(&scene, &["run"]);
    super::binary::wait("the neighbour is committed", || committed(&source, 1, &scene.group) == Some(100));
    super::binary::wait("the wait is told", || process.told().contains("waiting as asked"));
    process.signal("-TERM");
    assert_eq!(process.ended(), Some(0), "{}", process.told());
    assert_eq!(committed(&source, 0, &scene.group), None);
    assert_eq!((dead(&source), arrived(&scene).len()), (vec![], 100));
}

/// F6, S15a: rows that outgrow the guest's memory are given in smaller portions, and none is suspected.
#[tokio::test(flavor = "multi_thread")]
async fn s15a_a_guest_that_hoards_is_given_less() {
    let hoard = json!({ "hoard_bytes_per_row": 60_000 });
    only_bad_rows_are_given_up("hoards", &[], hoard, json!({ "memory_mebibytes": 16 })).await;
}

/// K6: a guest that takes 15 ms a record, so that a window never fits into a call, is slow and complete, running or asleep.
#[tokio::test(flavor = "multi_thread")]
async fn s79b_a_slow_guest_gets_smaller_calls() {
    for (direct, busy) in [(true, true), (false, false)] {
        let source = topic("slow-guest", 1).await;
        produce(&source, 0, (0..600).map(|id| record(id, json!({}))));
        let options = json!({ "direct": direct, "busy": busy, "milliseconds_per_row": 5 });
        let scene = scene(&source, options, json!({ "call_timeout_seconds": 1 }));
        let told = scene.done(&["run", "--until-end"]);
        assert_eq!((dead(&source), arrived(&scene).len()), (vec![], 600), "{}", told.err);
    }
}

/// A row that alone takes longer than the deadline is its own dead letter.
#[tokio::test(flavor = "multi_thread")]
async fn s63_a_row_that_takes_longer_than_the_deadline_is_given_up() {
    let limits = json!({ "call_timeout_seconds": 0.3 });
    only_bad_rows_are_given_up("endless", &[(1_234, json!({ "flush": "spin" }))], json!({ "direct": true }), limits)
        .await;
}

/// S63, S41: a plugin that fails on every record ends the host with code 1 and dead-letters nothing; what others had settled is
/// committed.
#[tokio::test(flavor = "multi_thread")]
async fn s63_a_plugin_that_fails_on_everything_ends_the_host() {
    for word in ["add", "flush"] {
        let source = topic("hopeless-sink", 2).await;
        produce(&source, 0, (0..50).map(|id| record(id, json!({ word: "trap" }))));
        produce(&source, 1, (100..150).map(|id| record(id, json!({}))));
        let mut scene = scene(&source, json!({}), json!({ "instances": 2 }));
        scene.change(json!({ "checkpoint": { "interval_seconds": 0.5 } }));
        let told = scene.run(&["run"]);
        assert_eq!(told.code, Some(1), "{}", told.err);
        assert_eq!((dead(&source), arrived(&scene).len()), (vec![], 50), "{}", told.err);
        assert_eq!(committed(&source, 0, &scene.group), None);
        assert_eq!(committed(&source, 1, &scene.group), Some(50));
    }
}

/// F6: the csv plugin takes a backlog of any size on default options: no limit is met.
#[tokio::test(flavor = "multi_thread")]
async fn s15a_csv_takes_a_backlog_on_default_options() {
    let source = topic("backlog", 4).await;
    let records: i64 = 150_000;
    for partition in 0..4 {
        let value = |n: i64| Row::value(format!("{{\"id\":\"{partition}-{n}\",\"text\":\"{}\"}}", "x".repeat(110)));
        produce(&source, partition, (0..records).map(value));
    }
    let grants = json!({ "directories": [{ "host": "granted", "guest": "/rows", "access": "write" }] });
    let options = json!({ "path": "/rows/{partition}.csv" });
    let csv = json!({ "component": guest("csv"), "options": options, "grants": grants });
    let mut scene = Scene::new(&source, json!({ "sinks": { "plugin": { "csv": csv } }, "checkpoint": {} }));
    std::fs::create_dir(scene.dir.path().join("granted")).unwrap();
    // The default session: a short one is lost on a busy machine, which repeats rows.
    let kafka = json!({ "brokers": broker().bootstrap(), "source_topic": source, "group": scene.group });
    scene.change(json!({ "kafka": kafka }));
    let told = scene.done(&["run", "--until-end"]);
    assert!(!told.err.contains("and was stopped") && !told.err.contains("trapped"), "{}", told.err);
    for partition in 0..4 {
        let file = std::fs::read(scene.dir.path().join(format!("granted/{partition}.csv"))).unwrap();
        let rows = i64::try_from(file.iter().filter(|byte| **byte == b'\n').count()).unwrap();
        assert!(rows == records || rows == records + 1, "{rows} lines, with or without a header");
        assert_eq!(committed(&source, partition, &scene.group), Some(records));
    }
}
