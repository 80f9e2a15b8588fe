//! Guests that never come back, wherever they are called.

use serde_json::json;
use tidegate::collect::{Collect, DeliveryError, Window};
use tidegate::model::{Action, FailureKind, Owner, SinkKind};
use tidegate::sink::Sink;

use crate::stage::{Stage, trapped, unborn};
use crate::wat::Wat;

attacks! {
    an_endless_loop_in_collect = collect(Wat::collector().on("collect", ENDLESS)),
    an_endless_loop_after_collect = collect(Wat::collector().on("post", ENDLESS)),
    an_endless_loop_in_deliver = deliver(Wat::sink().on("deliver", ENDLESS)),
}

/// A function of its own, so that the fault can say where.
const ENDLESS: &str = "(loop $again (br $again))";

fn armed() -> serde_json::Value {
    json!({ "options": { "armed": true } })
}

async fn collect(stage: &Stage, guest: Wat) {
    let component = stage.component(&guest.build());
    let collector = stage.collector(&component, json!({})).await.unwrap();
    collector.ready().await.unwrap();
    let fault = trapped(collector.collect(&stage.records(&["!"])).await);
    overran(stage, &fault, "collect");
    assert!(collector.collect(&stage.records(&["fine"])).await.is_ok());
}

async fn deliver(stage: &Stage, guest: Wat) {
    let component = stage.component(&guest.build());
    let sink = stage.sink(&component, json!({})).await.unwrap();
    let fault = trapped(sink.deliver(&stage.records(&["!"])).await);
    overran(stage, &fault, "deliver");
    assert_eq!(sink.deliver(&stage.records(&["fine"])).await, Ok(vec![]));
}

fn overran(stage: &Stage, fault: &tidegate::model::Fault, hook: &str) {
    let (message, hint) = stage.words(fault);
    assert_eq!(message, format!("`{{}}` was still running in `{hook}` when its 0.3 s were over, and was stopped"));
    assert_eq!(hint, "if that is legitimate, raise `<place>.limits.call_timeout_seconds`");
    assert_eq!(stage.log(), [""; 0]);
}
