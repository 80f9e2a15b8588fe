//! The end, in order and not: a drain that runs out, a second signal, a sink that does not close, a fault; and a broker that
//! does not answer a commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate::model::{CallError, Fault};
use tidegate::sink::Style;

use super::binary::{Process, Scene, wait};
use super::ensemble::{Act, Call, Ensemble, Script, What, all};
use super::help::{Row, committed, produce, topic};
use crate::support::broker::Broker;
use crate::support::servers::Http;

/// Takes so many calls of a kind, and then does as it is told.
fn after(what: What, calls: usize, act: impl Fn() -> Act + Send + Sync + 'static) -> Script {
    Arc::new(move |call: &Call<'_>| if call.what == what && call.earlier >= calls { act() } else { Act::Take })
}

/// S55: a drain that runs out commits what is settled, ends without a fault, and loses nothing: the next start goes on there.
#[tokio::test(flavor = "multi_thread")]
async fn s55_a_drain_that_runs_out_commits_the_watermark() {
    for (style, what, calls, settled) in [(Style::Direct, What::Deliver, 2, 100), (Style::Buffering, What::Flush, 0, 0)]
    {
        let mut ensemble = Ensemble::new("drain", 1, 200).await;
        let mut plan = ensemble.plan();
        plan.settings.executor.drain_timeout_seconds = 1.0;
        plan.settings.checkpoint.interval_seconds = if style == Style::Direct { 300.0 } else { 0.2 };
        plan.sinks = vec![("rows", style, after(what, calls, || Act::Hang))];
        let host = ensemble.start(plan);
        let hangs = move |fact: &super::ensemble::Fact| fact.what == what;
        ensemble.log.until("a call hangs", |facts| facts.iter().filter(|fact| hangs(fact)).count() > calls).await;
        let began = Instant::now();
        host.stop().await.unwrap();
        // Two thirds of the limit are the workers'.
        assert!(began.elapsed() >= Duration::from_millis(660), "it was given its time");
        assert_eq!(ensemble.committed(0), settled, "{what:?}");
        let mut plan = ensemble.plan();
        plan.sinks = vec![("rows", style, super::ensemble::willing())];
        let host = ensemble.start(plan);
        ensemble.until_committed(0..1, 200).await;
        host.stop().await.unwrap();
        assert_eq!(ensemble.log.written("rows", 0), all(200), "{what:?}");
    }
}

/// S54, S55, S58: the same through the binary, with an endpoint that never answers: code 0 after the drain, everything at the
/// next start. A second SIGINT does not wait for the drain.
#[tokio::test(flavor = "multi_thread")]
async fn s54_the_binary_ends_beside_a_hanging_sink() {
    let http = Http::start();
    let source = topic("hangs", 1).await;
    produce(&source, 0, (0..5).map(|n| Row::value(format!("{{\"n\": {n}}}"))));
    let sink = |test: &str, behaviour: &str| json!({ "http": { "webhook": { "url": http.url(test, behaviour), "concurrency": 1 } } });
    let scene = |drain: u32| {
        Scene::new(&source, json!({ "executor": { "drain_timeout_seconds": drain }, "sinks": sink(&source, "hang") }))
    };
    let mut scene = [scene(1), scene(600)];
    let mut processes = scene.each_ref().map(|scene| Process::start(scene, &["run"]));
    for process in &processes {
        wait("it serves", || process.told().contains(": assigned"));
    }
    // The first request of each has arrived, as far as it will.
    let started = Instant::now();
    while http.requests(&source).await.len() < 2 {
        assert!(started.elapsed() < super::help::PATIENCE, "no request came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    processes[0].signal("-TERM");
    processes[1].signal("-INT");
    wait("it stops", || processes[1].told().contains("stopping"));
    processes[1].signal("-INT");
    assert_eq!(processes[1].ended(), Some(130), "{}", processes[1].told());
    assert_eq!(processes[0].ended(), Some(0), "{}", processes[0].told());
    // S58: what was read is not what was committed, and what is left is named.
    let closing = format!(
        "stopped  by SIGTERM: 0 records committed, 0 dead letters, 0 of 1 partitions committed to their end; 5 left of {source}[0]\n"
    );
    assert!(processes[0].told().contains(&closing), "{}", processes[0].told());
    for (number, scene) in scene.iter_mut().enumerate() {
        assert_eq!(committed(&source, 0, &scene.group), None);
        let test = format!("{source}-again-{number}");
        scene.change(json!({ "sinks": sink(&test, "ok") }));
        let told = scene.done(&["run", "--until-end"]);
        let closing = "done     5 records committed, 0 dead letters, 1 of 1 partitions committed to their end\n";
        assert!(told.err.contains(closing), "{}", told.err);
        assert_eq!(committed(&source, 0, &scene.group), Some(5));
        assert_eq!(http.requests(&test).await.len(), 5);
    }
}

/// S44, S56: a fault that nothing can be done about ends the host with it; what was settled before is committed, and nothing
/// else.
#[tokio::test(flavor = "multi_thread")]
async fn s44_a_fatal_fault_commits_what_is_settled() {
    let mut ensemble = Ensemble::new("fatal", 2, 200).await;
    let mut plan = ensemble.plan();
    let fatal = || Act::Fail(CallError::Fatal(Fault::destination("the disk is gone")));
    plan.settings.checkpoint.interval_seconds = 300.0;
    plan.sinks = vec![("rows", Style::Direct, after(What::Deliver, 2, fatal))];
    let mut host = ensemble.start(plan);
    let fault = host.ended().await.unwrap_err();
    assert!(fault.message.contains("the disk is gone"), "{fault}");
    for partition in 0..2 {
        let written = i64::try_from(ensemble.log.written("rows", partition).len()).unwrap();
        assert_eq!(ensemble.committed(partition), written, "[{partition}]");
    }
    assert!(ensemble.committed(0).max(ensemble.committed(1)) >= 100);
}

/// S57: a sink that never closes holds up neither the others nor the end, and the group is left in order.
#[tokio::test(flavor = "multi_thread")]
async fn s57_a_sink_that_never_closes_does_not_hold_up_the_end() {
    let mut ensemble = Ensemble::new("close", 1, 50).await;
    let mut plan = ensemble.plan();
    plan.sinks = vec![
        ("rows", Style::Buffering, after(What::Close, 0, || Act::Hang)),
        ("other", Style::Buffering, super::ensemble::willing()),
    ];
    let host = ensemble.start(plan);
    ensemble.until_committed(0..1, 50).await;
    host.stop().await.unwrap();
    let closed = |sink: &'static str| move |fact: &super::ensemble::Fact| fact.what == What::Close && fact.sink == sink;
    assert_eq!((ensemble.log.count(closed("rows")), ensemble.log.count(closed("other"))), (1, 1));
    // Who leaves in order leaves nobody waiting for its session.
    let mut plan = ensemble.plan();
    plan.options.properties.insert("session.timeout.ms".into(), "30000".into());
    let next = ensemble.start(plan);
    ensemble.produce(0, 10);
    ensemble.until_committed(0..1, 60).await;
    next.stop().await.unwrap();
    assert_eq!(ensemble.log.written("rows", 0), all(60));
}

/// S57: neither does a plugin, in the binary: the process is gone soon after everything else is done.
#[tokio::test(flavor = "multi_thread")]
async fn s57_a_plugin_that_never_closes_does_not_hold_up_the_end() {
    let source = topic("plugin-close", 1).await;
    produce(&source, 0, (0..5).map(|n| Row::value(format!("row {n}"))));
    let mut scene = Scene::new(&source, json!({}));
    let component = super::handover::guest("faulty-sink.wasm");
    let directory = json!({ "host": scene.files(), "guest": "/out", "access": "write" });
    let faulty = json!({
        "component": component, "options": { "log": "/out/log", "close": "sleep" },
        "grants": { "directories": [directory] },
    });
    scene.change(json!({ "sinks": { "plugin": { "faulty": faulty } } }));
    let began = Instant::now();
    scene.done(&["run", "--until-end"]);
    assert!(began.elapsed() < Duration::from_secs(50), "the plugin sleeps for a minute");
    assert_eq!(committed(&source, 0, &scene.group), Some(5));
}

/// S12, S101: a broker that stands still while an offset is to be committed, for longer than a session, costs neither a record
/// nor the host: the commit is made later, or its records come again.
#[tokio::test(flavor = "multi_thread")]
async fn s12_a_commit_without_an_answer_loses_nothing() {
    let own = Arc::new(Broker::start());
    let mut ensemble = Ensemble::on(&own, "commits", 2).await;
    for partition in 0..2 {
        ensemble.produce(partition, 100);
    }
    let stopped = Arc::new(AtomicBool::new(false));
    let mut plan = ensemble.plan();
    plan.options.properties.insert("session.timeout.ms".into(), "6000".into());
    let (broker, once) = (own.clone(), stopped.clone());
    plan.sinks = vec![(
        "rows",
        Style::Buffering,
        Arc::new(move |call: &Call<'_>| {
            // Between the write and its commit.
            if call.what == What::Flush && !once.swap(true, Ordering::Relaxed) {
                broker.signal("-STOP");
            }
            Act::Take
        }),
    )];
    let host = ensemble.start(plan);
    ensemble.log.until("the broker stands still", |_| stopped.load(Ordering::Relaxed)).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    own.signal("-CONT");
    ensemble.until_committed(0..2, 100).await;
    for partition in 0..2 {
        ensemble.produce(partition, 20);
    }
    ensemble.until_committed(0..2, 120).await;
    assert!(host.is_running());
    host.stop().await.unwrap();
    for partition in 0..2 {
        let mut written = ensemble.log.written("rows", partition);
        written.sort_unstable();
        written.dedup();
        assert_eq!(written, all(120));
    }
}
