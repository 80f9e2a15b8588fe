//! Guests whose answers lie about memory: lengths, addresses and cases that are not there.

use serde_json::json;
use tidegate::model::{Action, Fault};
use tidegate::sink::Sink;

use crate::machine::peak_mebibytes;
use crate::stage::{Stage, stopped};
use crate::wat::{Wat, bytes, words};

attacks! {
    a_list_of_four_billion = collects(list(KAFKA, 4096, u32::MAX), "list pointer/length out of bounds"),
    a_list_that_ends_outside = collects(list(KAFKA, 4096, 1 << 20), "list pointer/length out of bounds"),
    a_list_that_begins_outside = collects(list(KAFKA, 0xffff_fff0, 1), "list pointer/length out of bounds"),
    a_list_that_is_not_aligned = collects(list(KAFKA, 4097, 1), "list pointer is not aligned"),
    a_text_that_wraps_around = collects(kafka_data(0xffff_ffff, 16), "string pointer/length out of bounds"),
    a_text_of_four_billion = collects(kafka_data(4096, u32::MAX), "string pointer/length out of bounds"),
    a_text_that_is_not_utf8 = collects(kafka_data(TEXT, 4), "invalid utf-8 sequence"),
    an_option_that_is_neither = collects(kafka_key(7), "invalid option discriminant"),
    a_result_that_is_neither = collects(words(ANSWER, &[2]), "invalid expected discriminant"),
    an_answer_outside = returned("(i32.const -16)", "pointer"),
    an_answer_that_is_not_aligned = returned("(i32.const 4097)", "pointer not aligned"),
    a_fault_that_is_none = delivers(words(ANSWER, &[1, 0, 200]), "unexpected discriminant"),
    a_failure_of_no_kind = delivers(failures(9), "unexpected discriminant"),
    a_boolean_that_is_255 = boolean(),
    an_action_that_is_none = action(),
    memory_for_an_argument_outside = lends("(return (i32.const -16))", "realloc return: beyond end of memory"),
    memory_for_an_argument_that_is_not_aligned = lends("(return (i32.const 4097))", "realloc return"),
    memory_for_every_argument_in_one_place = lends_the_same(),
    one_text_sent_sixty_thousand_times = aliased_texts(),
    one_list_of_headers_sent_thousands_of_times = aliased_headers(),
}

/// Where the answer stands.
const ANSWER: u32 = 8192;
/// Where its first payload or failure stands.
const FIRST: u32 = 8448;
/// Where bytes stand that are no text.
const TEXT: u32 = 8960;
/// The places of the lists in an answer to `collect`.
const KAFKA: u32 = 8;
const PLUGIN: u32 = 56;
/// The process must not grow by more, in MiB; other attacks run meanwhile.
const PEAK: u64 = 1024;

/// An answer to `collect` with one list.
fn list(at: u32, pointer: u32, length: u32) -> String {
    words(ANSWER + at, &[pointer, length])
}

/// One Kafka payload with that data: index, sink, no key, data.
fn kafka_data(pointer: u32, length: u32) -> String {
    list(KAFKA, FIRST, 1) + &words(FIRST, &[0, 0, 0, 0, 0, 0, pointer, length]) + &no_text()
}

/// One Kafka payload whose key has that case.
fn kafka_key(case: u32) -> String {
    list(KAFKA, FIRST, 1) + &words(FIRST, &[0, 0, 0, case, 0, 0, 0, 0])
}

/// One failure of that kind in an answer to `deliver`.
fn failures(kind: u32) -> String {
    words(ANSWER + 8, &[FIRST, 1]) + &words(FIRST, &[0, kind, 0, 0])
}

fn no_text() -> String {
    format!(r#"(data (i32.const {TEXT}) "{}")"#, bytes(b"\xff\xfe\xc0\x80"))
}

#[track_caller]
fn told(stage: &Stage, fault: &Fault, hook: &str, cause: &str) {
    stage.said(fault, &format!("`{{}}` trapped in `{hook}`"), "");
    assert!(fault.to_string().contains(cause), "{fault}");
    stage.is_silent();
}

async fn collects(stage: &Stage, data: String, cause: &str) {
    let guest = Wat::collector().with(data).on("collect", format!("(return (i32.const {ANSWER}))"));
    let fault = stage.stopped_in_collect(&guest, json!({})).await;
    told(stage, &fault, "collect", cause);
}

async fn delivers(stage: &Stage, data: String, cause: &str) {
    let guest = Wat::sink().with(data).on("deliver", format!("(return (i32.const {ANSWER}))"));
    let fault = stage.stopped_in_deliver(&guest, json!({})).await;
    told(stage, &fault, "deliver", cause);
}

async fn returned(stage: &Stage, address: &str, cause: &str) {
    let guest = Wat::collector().on("collect", format!("(return {address})"));
    let fault = stage.stopped_in_collect(&guest, json!({})).await;
    told(stage, &fault, "collect", cause);
}

/// The contract has one boolean and no character; every byte but 0 is true, as the canonical ABI has it.
async fn boolean(stage: &Stage) {
    let data = format!(r#"(data (i32.const {ANSWER}) "\00\00\00\00\00\00\00\00\01\ff")"#);
    let guest = Wat::sink().with(data).on("setup", format!("(return (i32.const {ANSWER}))")).build();
    let sink = stage.sink(&stage.component(&guest), json!({ "options": { "armed": true } })).await.unwrap();
    assert!(sink.description().idempotent);
    assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    stage.is_silent();
}

async fn action(stage: &Stage) {
    use tidegate::collect::{Collect, DeliveryError};
    let guest = Wat::collector()
        .with(words(ANSWER, &[200]))
        .on("on-delivery-error", format!("(return (i32.const {ANSWER}))"))
        .build();
    let collector = stage.collector(&stage.component(&guest), json!({})).await.unwrap();
    assert!(collector.collect(&stage.records(&["!"])).await.is_ok());
    let error = DeliveryError {
        kind: tidegate::model::SinkKind::Kafka,
        name: "results".into(),
        source: stage.source(0),
        offsets: vec![7],
        payloads: vec!["{}".into()],
        failure: tidegate::model::FailureKind::Retry,
        error: "no".into(),
        attempt: 1,
    };
    assert_eq!(collector.delivery_error(&error).await, Action::Default);
    let log = stage.log();
    let line = "treated as without a hook: `plugin/an_action_that_is_none` trapped in `on-delivery-error`: unexpected \
                discriminant";
    assert!(log.len() == 1 && log[0].contains(line), "{log:?}");
    assert!(collector.collect(&stage.records(&["fine"])).await.is_ok());
}

/// The host asks for memory to put its arguments into, and is given what is not there.
async fn lends(stage: &Stage, body: &str, cause: &str) {
    let guest = Wat::sink().on("realloc", body).build();
    let sink = stage.sink(&stage.component(&guest), json!({})).await.unwrap();
    // So many rows that their offsets and lengths, which are to be aligned, take more than 64 KiB as well.
    let many = stage.records(&["xxxxxxxx"; 20_000]);
    told(stage, &stopped(sink.deliver(&many).await), "deliver", cause);
    assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
}

/// The guest may spoil its own arguments; nobody else's.
async fn lends_the_same(stage: &Stage) {
    let guest = Wat::sink().on("realloc", "(return (i32.const 65536))").memory("8").build();
    let sink = stage.sink(&stage.component(&guest), json!({})).await.unwrap();
    let large = "x".repeat(100_000);
    let answer = sink.deliver(&stage.records(&[&large, &large])).await;
    assert_eq!(answer, Ok(vec![]));
    assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    stage.is_silent();
}

#[track_caller]
fn handed_over_too_much(stage: &Stage, fault: &Fault, before: u64) {
    let message = "`{}` wanted to hand over more than its 128 MiB in one call in `collect`, and was stopped";
    stage.said(fault, message, "if that is legitimate, raise `<place>.limits.hostcall_mebibytes`");
    let grown = peak_mebibytes() - before;
    assert!(grown < PEAK, "{grown} MiB");
    stage.is_silent();
}

/// 60,000 payloads that all point at the same 64 KiB: 4 GB for the host if it copied each.
async fn aliased_texts(stage: &Stage) {
    let fill = format!(
        "(memory.fill (i32.const 65536) (i32.const 97) (i32.const 65536))
         (loop $more
           (local.set $j (i32.add (i32.const 524288) (i32.mul (local.get $i) (i32.const 32))))
           (i32.store offset=24 (local.get $j) (i32.const 65536))
           (i32.store offset=28 (local.get $j) (i32.const 65536))
           (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 60000))))
         (return (i32.const {ANSWER}))"
    );
    let guest = Wat::collector().memory("64").with(list(KAFKA, 524_288, 60_000)).on("collect", fill);
    let before = peak_mebibytes();
    let more = json!({ "limits": { "call_timeout_seconds": 5.0, "payloads_per_call": 10_000_000 } });
    let fault = stage.stopped_in_collect(&guest, more).await;
    handed_over_too_much(stage, &fault, before);
}

/// 10,000 payloads that all point at the same 10,000 empty headers, which are 100,000,000 small things for the host.
async fn aliased_headers(stage: &Stage) {
    let fill = format!(
        "(loop $more
           (local.set $j (i32.add (i32.const 524288) (i32.mul (local.get $i) (i32.const 44))))
           (i32.store offset=36 (local.get $j) (i32.const 2097152))
           (i32.store offset=40 (local.get $j) (i32.const 10000))
           (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 10000))))
         (return (i32.const {ANSWER}))"
    );
    let guest = Wat::collector().memory("64").with(list(PLUGIN, 524_288, 10_000)).on("collect", fill);
    let before = peak_mebibytes();
    let more = json!({ "limits": { "call_timeout_seconds": 5.0, "payloads_per_call": 10_000_000 } });
    let fault = stage.stopped_in_collect(&guest, more).await;
    handed_over_too_much(stage, &fault, before);
}
