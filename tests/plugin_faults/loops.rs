//! Guests that never come back, wherever they are called: stopped when their time is over, and blamed for it.

use serde_json::{Value, json};
use tidegate::collect::{Collect, DeliveryError, Window};
use tidegate::model::{Action, FailureKind, Fault, Owner, SinkKind};
use tidegate::sink::Sink;

use crate::stage::{Stage, not_started, stopped};
use crate::wat::Wat;

attacks! {
    endless_in_collect = collect("collect"),
    endless_in_what_cleans_up_after_collect = collect("post"),
    endless_where_the_host_asks_for_memory = realloc(),
    endless_in_a_destructor = destructor(),
    endless_in_deliver = deliver("deliver"),
    endless_in_what_cleans_up_after_deliver = deliver("post"),
    endless_in_add = add(),
    endless_in_flush = flush(),
    endless_in_discard = discard(),
    endless_in_close = close(),
    endless_in_connect = connect(),
    endless_in_setup = setup(),
    endless_before_setup = instantiation(),
    endless_in_on_ready = on_ready(),
    endless_in_on_window_complete = on_window_complete(),
    endless_in_on_delivery_error = on_delivery_error(),
}

/// A function of its own, so that the fault can name it.
const ENDLESS: &str = "(func $treadmill (loop $again (br $again)))";
const HINT: &str = "if that is legitimate, raise `<place>.limits.call_timeout_seconds`";
const SETUP_HINT: &str = "if that is legitimate, raise `<place>.limits.setup_timeout_seconds`";

fn sink(hook: &'static str) -> Wat {
    Wat::sink().with(ENDLESS).on(hook, "(call $treadmill)")
}

fn collector(hook: &'static str) -> Wat {
    Wat::collector().with(ENDLESS).on(hook, "(call $treadmill)")
}

fn armed() -> Value {
    json!({ "options": { "armed": true } })
}

fn overran(stage: &Stage, fault: &Fault, hook: &str, hint: &str) {
    assert_eq!(fault.owner, Owner::Plugin);
    let message = format!("`{{}}` was still running in `{hook}` when its 0.3 s were over, and was stopped");
    stage.said(fault, &message, hint);
    assert!(fault.causes.iter().any(|cause| cause.starts_with("in `treadmill`")), "{fault}");
}

async fn collect(stage: &Stage, hook: &'static str) {
    let fault = stage.stopped_in_collect(&collector(hook), json!({})).await;
    overran(stage, &fault, "collect", HINT);
    stage.is_silent();
}

async fn deliver(stage: &Stage, hook: &'static str) {
    let fault = stage.stopped_in_deliver(&sink(hook), json!({})).await;
    overran(stage, &fault, "deliver", HINT);
    stage.is_silent();
}

/// The host asks the guest for memory to put its arguments into, which is the guest's code as well.
async fn realloc(stage: &Stage) {
    let attacker = stage.sink(&stage.component(&sink("realloc").build()), json!({})).await.unwrap();
    let large = "x".repeat(100_000);
    let fault = stopped(attacker.deliver(&stage.records(&[&large])).await);
    overran(stage, &fault, "deliver", HINT);
    assert_eq!(attacker.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    stage.is_silent();
}

/// The contract has no resources, so the host never drops one of the guest's; the guest drops it itself.
async fn destructor(stage: &Stage) {
    let things = "attack:guest/things";
    let guest = Wat::sink()
        .package("interface things { resource thing; }", "export things;")
        .import_only(&format!("[export]{things}"), "[resource-new]thing", "new", "(param i32) (result i32)")
        .import_only(&format!("[export]{things}"), "[resource-drop]thing", "drop", "(param i32)")
        .with(ENDLESS)
        .with(format!(r#"(func (export "{things}#[dtor]thing") (param i32) (call $treadmill))"#))
        .on("deliver", "(call $drop (call $new (i32.const 1)))");
    let fault = stage.stopped_in_deliver(&guest, json!({})).await;
    overran(stage, &fault, "deliver", HINT);
    stage.is_silent();
}

async fn add(stage: &Stage) {
    let attacker = stage.sink(&stage.component(&sink("add").build()), json!({})).await.unwrap();
    overran(stage, &stopped(attacker.add(&stage.records(&["!"])).await), "add", HINT);
    attacker.discard(&stage.source(0)).await;
    assert_eq!(attacker.add(&stage.records(&["fine"])).await, Ok(vec![]));
    assert_eq!(attacker.flush(&stage.source(0)).await, Ok(vec![]));
    stage.is_silent();
}

async fn flush(stage: &Stage) {
    let attacker = stage.sink(&stage.component(&sink("flush").build()), json!({})).await.unwrap();
    assert_eq!(attacker.add(&stage.records(&["!"])).await, Ok(vec![]));
    overran(stage, &stopped(attacker.flush(&stage.source(0)).await), "flush", HINT);
    attacker.discard(&stage.source(0)).await;
    assert_eq!(attacker.add(&stage.records(&["fine"])).await, Ok(vec![]));
    assert_eq!(attacker.flush(&stage.source(0)).await, Ok(vec![]));
    stage.is_silent();
}

async fn discard(stage: &Stage) {
    let attacker = stage.sink(&stage.component(&sink("discard").build()), json!({})).await.unwrap();
    assert_eq!(attacker.add(&stage.records(&["!"])).await, Ok(vec![]));
    attacker.discard(&stage.source(0)).await;
    let label = stage.label();
    let line = format!(
        "WARN tidegate::plugin::adapter::sink: `{label}` could not discard `endless_in_discard[0]`: `{label}` was still \
         running in `discard` when its 0.3 s were over, and was stopped: in `treadmill`"
    );
    let log = stage.log();
    assert!(log.len() == 1 && log[0].starts_with(&line), "{log:?}");
    assert_eq!(attacker.add(&stage.records(&["fine"])).await, Ok(vec![]));
    assert_eq!(attacker.flush(&stage.source(0)).await, Ok(vec![]));
}

async fn close(stage: &Stage) {
    let attacker = stage.sink(&stage.component(&sink("close").build()), json!({})).await.unwrap();
    assert_eq!(attacker.add(&stage.records(&["!"])).await, Ok(vec![]));
    overran(stage, &attacker.close().await.unwrap_err(), "close", HINT);
    assert_eq!(attacker.close().await, Ok(()), "nothing lives that could be closed");
    stage.is_silent();
}

async fn connect(stage: &Stage) {
    let component = stage.component(&sink("connect").build());
    let attacker = stage.sink(&component, armed()).await.unwrap();
    overran(stage, &not_started(attacker.connect().await), "connect", SETUP_HINT);
    overran(stage, &not_started(attacker.deliver(&stage.records(&["fine"])).await), "connect", SETUP_HINT);
    let harmless = stage.sink(&component, json!({})).await.unwrap();
    assert_eq!(harmless.connect().await, Ok(()));
    stage.is_silent();
}

async fn setup(stage: &Stage) {
    let component = stage.component(&sink("setup").build());
    overran(stage, &stage.sink(&component, armed()).await.err().unwrap(), "setup", SETUP_HINT);
    let harmless = stage.sink(&component, json!({})).await.unwrap();
    assert_eq!(harmless.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
    stage.is_silent();
}

async fn instantiation(stage: &Stage) {
    let guest = Wat::sink().with(ENDLESS).with("(start $treadmill)").build();
    overran(stage, &stage.sink(&stage.component(&guest), json!({})).await.err().unwrap(), "instantiation", SETUP_HINT);
    stage.is_silent();
}

async fn on_ready(stage: &Stage) {
    let component = stage.component(&collector("on-ready").build());
    let attacker = stage.collector(&component, armed()).await.unwrap();
    overran(stage, &not_started(attacker.ready().await), "on-ready", SETUP_HINT);
    let harmless = stage.collector(&component, json!({})).await.unwrap();
    assert_eq!(harmless.ready().await, Ok(()));
    stage.is_silent();
}

async fn on_window_complete(stage: &Stage) {
    let component = stage.component(&collector("on-window-complete").build());
    let attacker = stage.collector(&component, json!({})).await.unwrap();
    let window = Window { source: stage.source(0), first: 0, last: 0, records: 1 };
    assert!(attacker.collect(&stage.records(&["!"])).await.is_ok());
    overran(stage, &stopped(attacker.window_complete(&window).await), "on-window-complete", HINT);
    assert!(attacker.collect(&stage.records(&["fine"])).await.is_ok());
    assert_eq!(attacker.window_complete(&window).await, Ok(None));
    stage.is_silent();
}

async fn on_delivery_error(stage: &Stage) {
    let component = stage.component(&collector("on-delivery-error").build());
    let attacker = stage.collector(&component, json!({})).await.unwrap();
    let error = DeliveryError {
        kind: SinkKind::Kafka,
        name: "results".into(),
        source: stage.source(0),
        offsets: vec![7],
        payloads: vec!["{}".into()],
        failure: FailureKind::Retry,
        error: "no".into(),
        attempt: 1,
    };
    assert!(attacker.collect(&stage.records(&["!"])).await.is_ok());
    assert_eq!(attacker.delivery_error(&error).await, Action::Default);
    let log = stage.log();
    let line =
        "`collect` could not decide about 1 payloads of `endless_in_on_delivery_error[0]`, treated as without a hook: ";
    let stopped = "was still running in `on-delivery-error` when its 0.3 s were over, and was stopped: in `treadmill`";
    assert!(log.len() == 1 && log[0].contains(line) && log[0].contains(stopped), "{log:?}");
    assert!(attacker.collect(&stage.records(&["fine"])).await.is_ok());
    assert_eq!(attacker.delivery_error(&error).await, Action::Default);
    assert_eq!(stage.log().len(), 1, "decided");
}
