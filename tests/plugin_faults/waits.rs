//! Guests that wait in the host, for no request of theirs, until their time is over: stopped, and blamed for it (S63).

use serde_json::{Value, json};
use tidegate::collect::{Collect, Window};
use tidegate::model::{Fault, Owner};
use tidegate::sink::Sink;

use crate::stage::{Stage, not_started, stopped};
use crate::wat::Wat;

attacks! {
    asleep_in_deliver = deliver(),
    asleep_in_collect = collect(),
    asleep_in_flush = flush(),
    asleep_in_close = close(),
    asleep_in_connect = connect(),
    asleep_in_setup = setup(),
    asleep_in_on_window_complete = on_window_complete(),
    asleep_again_and_again = naps(),
    awake_between_naps = busy(),
    asleep_on_a_hundred_thousand_clocks = many(),
}

const HINT: &str = "if that is legitimate, raise `<place>.limits.call_timeout_seconds`";
const SETUP_HINT: &str = "if that is legitimate, raise `<place>.limits.setup_timeout_seconds`";
/// Waits for a minute.
const SLEEP: &str = "(call $block (call $subscribe (i64.const 60000000000)))";

fn sleepy(guest: Wat) -> Wat {
    guest
        .import("wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration", "subscribe", "(param i64) (result i32)")
        .import("wasi:io/poll@0.2.0", "[method]pollable.block", "block", "(param i32)")
        .import("wasi:io/poll@0.2.0", "[resource-drop]pollable", "forget", "(param i32)")
        .import("wasi:io/poll@0.2.0", "poll", "poll", "(param i32 i32 i32)")
}

fn sink(hook: &'static str) -> Wat {
    sleepy(Wat::sink()).on(hook, SLEEP)
}

fn armed() -> Value {
    json!({ "options": { "armed": true } })
}

fn was_waiting(stage: &Stage, fault: &Fault, hook: &str, hint: &str) {
    assert_eq!(fault.owner, Owner::Plugin, "{fault}");
    assert_eq!(fault.causes[0], "for a clock or a file, not for a request");
    stage.said(fault, &format!("`{{}}` was still waiting in `{hook}` when its 0.3 s were over, and was stopped"), hint);
    stage.is_silent();
}

async fn deliver(stage: &Stage) {
    let attacker = stage.sink(&stage.component(&sink("deliver").build()), json!({})).await.unwrap();
    was_waiting(stage, &stopped(attacker.deliver(&stage.records(&["!"])).await), "deliver", HINT);
    assert_eq!(attacker.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
}

async fn collect(stage: &Stage) {
    let guest = sleepy(Wat::collector()).on("collect", SLEEP).build();
    let attacker = stage.collector(&stage.component(&guest), json!({})).await.unwrap();
    was_waiting(stage, &stopped(attacker.collect(&stage.records(&["!"])).await), "collect", HINT);
    was_waiting(stage, &stopped(attacker.probe(&stage.records(&["!"])).await), "collect", HINT);
    assert!(attacker.collect(&stage.records(&["fine"])).await.is_ok());
}

async fn flush(stage: &Stage) {
    let attacker = stage.sink(&stage.component(&sink("flush").build()), json!({})).await.unwrap();
    assert_eq!(attacker.add(&stage.records(&["!"])).await, Ok(vec![]));
    was_waiting(stage, &stopped(attacker.flush(&stage.source(0)).await), "flush", HINT);
    attacker.discard(&stage.source(0)).await;
    assert_eq!(attacker.add(&stage.records(&["fine"])).await, Ok(vec![]));
    assert_eq!(attacker.flush(&stage.source(0)).await, Ok(vec![]));
}

async fn close(stage: &Stage) {
    let attacker = stage.sink(&stage.component(&sink("close").build()), json!({})).await.unwrap();
    assert_eq!(attacker.add(&stage.records(&["!"])).await, Ok(vec![]));
    was_waiting(stage, &attacker.close().await.unwrap_err(), "close", HINT);
    assert_eq!(attacker.close().await, Ok(()));
}

async fn connect(stage: &Stage) {
    let component = stage.component(&sink("connect").build());
    let attacker = stage.sink(&component, armed()).await.unwrap();
    was_waiting(stage, &not_started(attacker.connect().await), "connect", SETUP_HINT);
    let harmless = stage.sink(&component, json!({})).await.unwrap();
    assert_eq!(harmless.connect().await, Ok(()));
}

async fn setup(stage: &Stage) {
    let component = stage.component(&sink("setup").build());
    was_waiting(stage, &stage.sink(&component, armed()).await.err().unwrap(), "setup", SETUP_HINT);
    let harmless = stage.sink(&component, json!({})).await.unwrap();
    assert_eq!(harmless.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
}

async fn on_window_complete(stage: &Stage) {
    let guest = sleepy(Wat::collector()).on("on-window-complete", SLEEP).build();
    let attacker = stage.collector(&stage.component(&guest), json!({})).await.unwrap();
    let window = Window { source: stage.source(0), first: 0, last: 0, records: 1 };
    assert!(attacker.collect(&stage.records(&["!"])).await.is_ok());
    was_waiting(stage, &stopped(attacker.window_complete(&window).await), "on-window-complete", HINT);
    assert!(attacker.collect(&stage.records(&["fine"])).await.is_ok());
    assert_eq!(attacker.window_complete(&window).await, Ok(None));
}

/// No single wait is long.
async fn naps(stage: &Stage) {
    let nap = "(local.set $i (call $subscribe (i64.const 5000000))) (call $block (local.get $i)) (call $forget (local.get $i))";
    let guest = sleepy(Wat::sink()).on("deliver", format!("(loop $again {nap} (br $again))")).build();
    let attacker = stage.sink(&stage.component(&guest), json!({})).await.unwrap();
    was_waiting(stage, &stopped(attacker.deliver(&stage.records(&["!"])).await), "deliver", HINT);
    assert_eq!(attacker.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
}

/// A guest that is busy itself does not become innocent by a nap now and then.
async fn busy(stage: &Stage) {
    let work = "(local.set $i (i32.const 100000000))
                (loop $work (br_if $work (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))";
    let nap = "(local.set $i (call $subscribe (i64.const 1000000))) (call $block (local.get $i)) (call $forget (local.get $i))";
    let guest = sleepy(Wat::sink()).on("deliver", format!("(loop $again {work} {nap} (br $again))"));
    let fault = stage.stopped_in_deliver(&guest, json!({})).await;
    stage.said(&fault, "`{}` was still running in `deliver` when its 0.3 s were over, and was stopped", HINT);
    stage.is_silent();
}

/// One list that names the same clock again and again.
async fn many(stage: &Stage) {
    let wait = "(local.set $j (call $subscribe (i64.const 60000000000)))
         (loop $more
           (i32.store (i32.add (i32.const 524288) (i32.mul (local.get $i) (i32.const 4))) (local.get $j))
           (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100000))))
         (call $poll (i32.const 524288) (i32.const 100000) (i32.const 4096))";
    let guest = sleepy(Wat::sink()).memory("32").on("deliver", wait);
    let fault = stage.stopped_in_deliver(&guest, json!({})).await;
    let message = "`{}` wanted more than its 256 handles in `deliver`, and was stopped";
    stage.said(&fault, message, "if that is legitimate, raise `<place>.limits.handles`");
    stage.is_silent();
}
