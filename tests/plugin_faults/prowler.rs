//! The guest `prowler`, which asks WASI for whatever it is told to.

use std::sync::Arc;

use serde_json::Value;
use tidegate::model::{Batch, FailureKind};
use tidegate::plugin::PluginSink;
use tidegate::sink::Sink;

use crate::stage::{Stage, guest};

/// Starts it as the attacker.
pub(crate) async fn start(stage: &Stage, more: Value) -> PluginSink {
    let sink = stage.sink(&guest("prowler"), more).await.unwrap();
    sink.connect().await.unwrap();
    sink
}

/// Records that tell it what to do.
pub(crate) fn steps(stage: &Stage, steps: &[Value]) -> Arc<Batch> {
    let texts: Vec<_> = steps.iter().map(Value::to_string).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    stage.records(&texts)
}

/// What it saw: `ok …` or `no …` for every step.
pub(crate) async fn told(stage: &Stage, sink: &PluginSink, all: &[Value]) -> Vec<String> {
    let failed = sink.deliver(&steps(stage, all)).await.unwrap();
    assert!(
        failed.len() == all.len() && failed.iter().all(|failure| failure.kind == FailureKind::Reject),
        "{failed:?}"
    );
    failed.into_iter().map(|failure| failure.reason).collect()
}
