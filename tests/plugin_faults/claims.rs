//! Guests that keep to the types and say what cannot be true.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::collect::{Collect, Window};
use tidegate::model::{CallError, Owner};
use tidegate::sink::Sink;

use crate::stage::{Stage, guest, stopped};
use crate::wat::{Wat, bytes, words};

attacks! {
    a_row_that_is_not_there = delivers(&[(1, 1)], "it names row 1 of 1, counted from 0"),
    a_row_far_beyond = delivers(&[(u32::MAX, 0)], "it names row 4294967295 of 1, counted from 0"),
    a_row_both_retried_and_rejected = delivers(&[(0, 0), (0, 1)], "row 0 is to be tried again and rejected in one answer"),
    a_hundred_thousand_failures_of_one_row = duplicates(),
    more_failures_in_flush_than_rows_added = flush(),
    a_row_of_a_call_that_it_refused = refused(),
    a_payload_of_a_row_that_is_not_there = payload(5, "csv", "a payload for plugin: it names row 5 of 1, counted from 0"),
    a_payload_for_a_sink_type_that_is_not_there = payload(0, "ftp\n/x", "a payload for `ftp\\n/x`: no sink type has that name"),
    a_payload_for_a_sink_that_it_may_not_use = barred(),
    a_window_of_records_that_it_has_not_seen = window(),
    more_payloads_than_one_call_may_yield = many_payloads(),
    more_bytes_than_one_call_may_yield = large_payloads(),
    more_payloads_than_a_window_may_yield = many_in_the_window(),
    a_description_that_changes = changing(),
    wishes_beyond_all_bounds = wishes(),
    a_wait_without_end = wait(),
    asking_to_try_again_for_ever = again(),
    a_call_given_up_and_forgotten = given_up(),
}

const ANSWER: u32 = 8192;
const FIRST: u32 = 12_288;

fn answers(guest: Wat, hook: &'static str, data: &[String]) -> Wat {
    guest.with(data.concat()).on(hook, format!("(return (i32.const {ANSWER}))"))
}

/// The answer of a sink: those rows failed, with 0 for retry and 1 for reject.
fn failures(failed: &[(u32, u32)]) -> [String; 2] {
    let all: Vec<u32> = failed.iter().flat_map(|(index, kind)| [*index, *kind, 0, 0]).collect();
    [words(ANSWER + 8, &[FIRST, u32::try_from(failed.len()).unwrap()]), words(FIRST, &all)]
}

/// The answer of a collector: so many payloads for a plugin sink, all like the first.
fn payloads(index: u32, sink: &str, value: u32, count: u32) -> [String; 3] {
    let mut all = Vec::new();
    for _ in 0..count {
        // Index, sink, no key, a value, no headers.
        all.extend([index, 9000, u32::try_from(sink.len()).unwrap(), 0, 0, 0, 1, 196_608, value, 0, 0]);
    }
    let name = format!(r#"(data (i32.const 9000) "{}")"#, bytes(sink.as_bytes()));
    [words(ANSWER + 56, &[262_144, count]), words(262_144, &all), name]
}

async fn broke(stage: &Stage, fault: tidegate::model::Fault, hook: &str, how: &str) {
    stage.said(&fault, &format!("`{{}}` broke the contract in `{hook}`"), "");
    assert_eq!(fault.causes, [how]);
    stage.is_silent();
}

async fn delivers(stage: &Stage, failed: &[(u32, u32)], how: &str) {
    let fault = stage.stopped_in_deliver(&answers(Wat::sink(), "deliver", &failures(failed)), json!({})).await;
    broke(stage, fault, "deliver", how).await;
}

/// It is said once, whoever says it how often.
async fn duplicates(stage: &Stage) {
    // Beyond what the host hands over.
    let far = 262_144;
    let data = [words(ANSWER + 8, &[far, 100_000]), words(far, &[0, 1, 0, 0].repeat(100_000))];
    let guest = answers(Wat::sink().memory("64"), "deliver", &data).build();
    let sink =
        stage.sink(&stage.component(&guest), json!({ "limits": { "call_timeout_seconds": 5.0 } })).await.unwrap();
    let failed = sink.deliver(&stage.records(&["!"])).await.unwrap();
    assert_eq!(failed.len(), 1);
    assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    stage.is_silent();
}

async fn flush(stage: &Stage) {
    let guest = answers(Wat::sink(), "flush", &failures(&[(0, 0), (2, 1)])).build();
    let sink = stage.sink(&stage.component(&guest), json!({})).await.unwrap();
    assert_eq!(sink.add(&stage.records(&["!", "a"])).await, Ok(vec![]));
    let fault = stopped(sink.flush(&stage.source(0)).await);
    broke(stage, fault, "flush", "it names row 2 of 2, counted from 0").await;
    assert!(matches!(sink.flush(&stage.source(0)).await, Err(CallError::BufferLost(_))));
    sink.discard(&stage.source(0)).await;
    assert_eq!(sink.add(&stage.records(&["fine"])).await, Ok(vec![]));
    assert_eq!(sink.flush(&stage.source(0)).await, Ok(vec![]));
}

/// S27: a call that was answered with a fault has no index, so that naming one of its rows is naming none.
async fn refused(stage: &Stage) {
    let (backpressure, data) = (16_384, failures(&[(1, 1)]).concat());
    let guest = answers(Wat::sink(), "flush", &[data, words(backpressure, &[1, 0, 0, 0, 5, 0])])
        .on("add", format!("(return (i32.const {backpressure}))"))
        .build();
    let sink = stage.sink(&stage.component(&guest), json!({})).await.unwrap();
    assert_eq!(sink.add(&stage.records(&["fine"])).await, Ok(vec![]));
    let answer = sink.add(&stage.records(&["!"])).await;
    assert_eq!(answer, Err(CallError::Backpressure(Duration::from_millis(5))));
    let fault = stopped(sink.flush(&stage.source(0)).await);
    broke(stage, fault, "flush", "it names row 1 of 1, counted from 0").await;
    sink.discard(&stage.source(0)).await;
    assert_eq!(sink.add(&stage.records(&["fine"])).await, Ok(vec![]));
    assert_eq!(sink.flush(&stage.source(0)).await, Ok(vec![]));
}

async fn payload(stage: &Stage, index: u32, sink: &str, how: &str) {
    let guest = answers(Wat::collector().memory("8"), "collect", &payloads(index, sink, 0, 1));
    let fault = stage.stopped_in_collect(&guest, json!({})).await;
    broke(stage, fault, "collect", how).await;
}

/// The record is rejected whole, and the instance lives: what it wanted is no fault of the call.
async fn barred(stage: &Stage) {
    let guest = answers(Wat::collector().memory("8"), "collect", &payloads(0, "kafka/billing", 0, 1)).build();
    let grants = json!({ "grants": { "allowed_sinks": ["kafka/results"] } });
    let collector = stage.collector(&stage.component(&guest), grants).await.unwrap();
    for _ in 0..2 {
        let answer = collector.collect(&stage.records(&["!"])).await.unwrap();
        let reason = "SinkNotAllowedError: `collect.grants.allowed_sinks` does not name `kafka/billing`";
        let failed = vec![tidegate::model::Failure::reject(0, reason)];
        assert_eq!(answer, tidegate::collect::Collected::Payloads { payloads: vec![], failed });
    }
    let label = stage.label();
    let line = format!(
        "WARN plugin: `{label}` was refused: payloads for `kafka/billing`: `collect.grants.allowed_sinks` would have to name it, as \
         `type/name` plugin=\"{label}\""
    );
    assert_eq!(stage.log(), [line.clone(), line]);
}

async fn window(stage: &Stage) {
    // The answer of the hook is optional, so that it begins 4 bytes later.
    let data = [words(ANSWER + 8, &[1]), words(ANSWER + 12 + 56, &[FIRST, 1]), words(FIRST, &[7, 1, 0, 0])];
    let guest = answers(Wat::collector(), "on-window-complete", &data).build();
    let collector = stage.collector(&stage.component(&guest), json!({})).await.unwrap();
    let window = Window { source: stage.source(0), first: 0, last: 0, records: 1 };
    assert!(collector.collect(&stage.records(&["!"])).await.is_ok());
    let fault = stopped(collector.window_complete(&window).await);
    broke(stage, fault, "on-window-complete", "it names row 7 of 1, counted from 0").await;
    assert!(collector.collect(&stage.records(&["fine"])).await.is_ok());
}

async fn many_payloads(stage: &Stage) {
    let guest = answers(Wat::collector().memory("8"), "collect", &payloads(0, "csv", 0, 11));
    let fault = stage.stopped_in_collect(&guest, json!({ "limits": { "payloads_per_call": 10 } })).await;
    let message = "`{}` wanted to yield more than its 10 payloads in one call in `collect`, and was stopped";
    stage.said(&fault, message, "if that is legitimate, raise `<place>.limits.payloads_per_call`");
    let guest = answers(Wat::collector().memory("8"), "collect", &payloads(0, "csv", 0, 10)).build();
    let limits = json!({ "limits": { "payloads_per_call": 10 } });
    let collector = stage.collector(&stage.component(&guest), limits).await.unwrap();
    assert!(collector.collect(&stage.records(&["!"])).await.is_ok(), "as many as allowed");
    stage.is_silent();
}

async fn large_payloads(stage: &Stage) {
    let guest = answers(Wat::collector().memory("8"), "collect", &payloads(0, "csv", 65_536, 17));
    let fault = stage.stopped_in_collect(&guest, json!({ "limits": { "payload_mebibytes_per_call": 1 } })).await;
    let message = "`{}` wanted to yield more than its 1 MiB of payloads in one call in `collect`, and was stopped";
    stage.said(&fault, message, "if that is legitimate, raise `<place>.limits.payload_mebibytes_per_call`");
    stage.is_silent();
}

async fn many_in_the_window(stage: &Stage) {
    let mut data = payloads(0, "csv", 0, 11).to_vec();
    data[0] = words(ANSWER + 8, &[1]) + &words(ANSWER + 12 + 48, &[262_144, 11]);
    let guest = answers(Wat::collector().memory("8"), "on-window-complete", &data).build();
    let limits = json!({ "limits": { "payloads_per_call": 10 } });
    let collector = stage.collector(&stage.component(&guest), limits).await.unwrap();
    let window = Window { source: stage.source(0), first: 0, last: 0, records: 1 };
    assert!(collector.collect(&stage.records(&["!"])).await.is_ok());
    let fault = stopped(collector.window_complete(&window).await);
    let message = "`{}` wanted to yield more than its 10 payloads in one call in `on-window-complete`, and was stopped";
    stage.said(&fault, message, "if that is legitimate, raise `<place>.limits.payloads_per_call`");
    assert!(collector.collect(&stage.records(&["fine"])).await.is_ok());
    stage.is_silent();
}

/// Every instance draws lots about its style and the most rows that it wishes for.
async fn changing(stage: &Stage) {
    let draw = format!("(i64.store (i32.const {}) (call $random)) (return (i32.const {ANSWER}))", ANSWER + 16);
    let guest = Wat::sink()
        .import("wasi:random/random@0.2.0", "get-random-u64", "random", "(result i64)")
        .on("setup", draw)
        .on("deliver", "unreachable")
        .build();
    let armed = json!({ "options": { "armed": true } });
    let component = stage.component(&guest);
    let sink = stage.sink(&component, armed.clone()).await.unwrap();
    let described = sink.description();
    stopped(sink.deliver(&stage.records(&["!"])).await);
    let answer = sink.deliver(&stage.records(&["fine"])).await;
    let Err(CallError::Unavailable(fault)) = answer else { panic!("{answer:?}") };
    assert_eq!(fault.owner, Owner::Plugin);
    stage.said(
        &fault,
        "`{}` describes itself differently on different instances",
        "`setup` must answer the same to the same options",
    );
    assert_eq!(sink.description(), described);
    let two = json!({ "options": { "armed": true }, "limits": { "instances": 2 } });
    let fault = stage.sink(&component, two).await.err().unwrap();
    assert!(fault.message.ends_with("describes itself differently on different instances"), "{fault}");
    assert_eq!(stage.sink(&component, json!({})).await.unwrap().deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    stage.is_silent();
}

async fn wishes(stage: &Stage) {
    for (rows, size) in [(0_u32, 0_u64), (u32::MAX, u64::MAX)] {
        let mut data = String::new();
        let _ = write!(data, "{}", words(ANSWER + 12, &[rows]));
        let _ = write!(data, r#"(data (i32.const {}) "{}")"#, ANSWER + 16, bytes(&size.to_le_bytes()));
        let guest = answers(Wat::sink(), "setup", &[data]).build();
        let armed = json!({ "options": { "armed": true } });
        let sink = stage.sink(&stage.component(&guest), armed).await.unwrap();
        let described = sink.description();
        assert_eq!(described.max_rows, usize::try_from(rows).unwrap());
        assert_eq!(described.max_bytes, usize::try_from(size).unwrap());
        assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    }
    stage.is_silent();
}

/// S33: a wait is cut to an hour.
async fn wait(stage: &Stage) {
    let data = format!(r#"{}(data (i32.const {}) "{}")"#, words(ANSWER, &[1]), ANSWER + 16, bytes(&[0xff; 8]));
    let guest = answers(Wat::sink(), "deliver", &[data]).build();
    let sink = stage.sink(&stage.component(&guest), json!({})).await.unwrap();
    let answer = sink.deliver(&stage.records(&["!"])).await;
    assert_eq!(answer, Err(CallError::Backpressure(Duration::from_secs(3600))));
    assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    stage.is_silent();
}

/// An instance that answers is not retired, however often it says no; how often it is asked is the pipeline's to bound (S81).
async fn again(stage: &Stage) {
    let sink = stage.sink(&guest("faulty-sink"), json!({ "options": { "direct": true } })).await.unwrap();
    for _ in 0..100 {
        let answer = sink.deliver(&stage.records(&["unavailable"])).await;
        let Err(CallError::Unavailable(fault)) = answer else { panic!("{answer:?}") };
        assert_eq!(fault.owner, Owner::Destination);
        stage.said(&fault, "`{}` finds its destination unavailable in `deliver`", "");
    }
    assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    stage.is_silent();
}

/// The caller goes away in the middle of a loop: what ran is stopped, long before its time is over.
async fn given_up(stage: &Stage) {
    let guest = Wat::sink().on("deliver", "(loop $again (br $again))").build();
    let limits: Value = json!({ "limits": { "call_timeout_seconds": 600.0 } });
    let sink = stage.sink(&stage.component(&guest), limits).await.unwrap();
    for _ in 0..3 {
        let batch = stage.records(&["!"]);
        let answer = tokio::time::timeout(Duration::from_millis(50), sink.deliver(&batch)).await;
        assert!(answer.is_err(), "{answer:?}");
        let next = tokio::time::timeout(Duration::from_secs(60), sink.deliver(&stage.records(&["fine"]))).await;
        assert_eq!(next.unwrap(), Ok(vec![]));
    }
    stage.is_silent();
}
