//! A destination that asks to wait: one partition waits, with or without a rewind, and nobody else notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::model::SinkKind;
use tidegate::sink::Style;
use tidegate::sink::http::{HttpSink, Options as HttpOptions};

use super::binary::Scene;
use super::ensemble::{Act, Call, Ensemble, Fact, Script, What, all, held, willing};
use super::help::{Row, committed, contents, produce, topic};
use crate::support::servers::Http;

const WAIT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(600);

/// Answers backpressure to such calls for partition 0 until the gate is opened.
fn gated(what: What, gate: &Arc<AtomicBool>) -> Script {
    let gate = gate.clone();
    Arc::new(move |call: &Call<'_>| {
        let refused = call.what == what && call.partition == 0 && !gate.load(Ordering::Relaxed);
        if refused { Act::Backpressure(WAIT) } else { Act::Take }
    })
}

fn refusals(facts: &[Fact]) -> usize {
    facts.iter().filter(|fact| fact.what == What::Refused).count()
}

/// S29, S33, S34, S5: the flush of one partition is refused again and again. It goes back to its last commit each time, its
/// buffers are dropped in every sink, nothing of it is committed, and it comes again in smaller portions; the others are
/// committed to their ends meanwhile, twice over.
#[tokio::test(flavor = "multi_thread")]
async fn s29_a_refused_flush_holds_its_partition_alone() {
    let mut ensemble = Ensemble::new("refused", 3, 200).await;
    let gate = Arc::new(AtomicBool::new(false));
    let mut plan = ensemble.plan();
    plan.sinks = vec![
        ("before", Style::Buffering, willing()),
        ("rows", Style::Buffering, gated(What::Flush, &gate)),
        ("behind", Style::Buffering, willing()),
    ];
    let host = ensemble.start(plan);
    ensemble.log.until("the flush is refused", |facts| refusals(facts) >= 2).await;
    ensemble.until_committed(1..3, 200).await;
    for partition in 1..3 {
        ensemble.produce(partition, 50);
    }
    ensemble.until_committed(1..3, 250).await;
    ensemble.log.until("the flush is refused again", |facts| refusals(facts) >= 4).await;
    assert_eq!(ensemble.onlooker.committed(&ensemble.topic, 0), None, "S29: nothing of it is committed");
    assert!(ensemble.log.written("rows", 0).is_empty());
    gate.store(true, Ordering::Relaxed);
    ensemble.until_committed(0..1, 200).await;
    host.assert_nothing_was_given_up();
    host.stop().await.unwrap();

    let facts = ensemble.log.facts();
    assert_eq!(
        ensemble.log.written("rows", 0),
        all(200),
        "refused flushes wrote nothing, the rest came once and in order"
    );
    assert_eq!(ensemble.log.written("behind", 0), all(200), "what stands behind was not asked before");
    for sink in ["before", "rows", "behind"] {
        for partition in 1..3 {
            assert_eq!(ensemble.log.written(sink, partition), all(250), "{sink} [{partition}]");
        }
        let discarded = |fact: &Fact| fact.what == What::Discard && fact.sink == sink;
        assert_eq!(ensemble.log.count(|fact| discarded(fact) && fact.partition == 0), refusals(&facts), "S26: {sink}");
        assert_eq!(ensemble.log.count(|fact| discarded(fact) && fact.partition != 0), 0, "{sink}");
    }
    // After each refusal every sink forgets, and the next rows are the first ones again.
    let mut sizes = Vec::new();
    for (at, refused) in facts.iter().enumerate().filter(|(_, fact)| fact.what == What::Refused) {
        sizes.push(refused.offsets.len());
        let later = || facts[at..].iter().filter(|fact| fact.partition == 0);
        let next = later().position(|fact| fact.what == What::Add).unwrap();
        assert_eq!(later().nth(next).unwrap().offsets[0], 0, "S34: back to the first offset of the checkpoint");
        assert_eq!(later().take(next).filter(|fact| fact.what == What::Discard).count(), 3);
    }
    for (size, next) in sizes.iter().zip(&sizes[1..]) {
        assert!(*next <= (size / 2).max(50), "S29 (g): {sizes:?}");
    }
    // What stands before had written its rows each time: whole passes, each in order.
    let before = ensemble.log.written("before", 0);
    let passes: Vec<&[i64]> = before.chunk_by(|one, next| next == &(one + 1)).collect();
    assert_eq!((passes[0][0], passes.last().unwrap().last()), (0, Some(&199)));
}

/// S37: `add`, `deliver` and `collect` are held and repeated with the same rows: no rewind, no second collect, no attempt,
/// no dead letter. The neighbour is committed to its end meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn s37_a_held_call_is_repeated_as_it_was() {
    futures_util::future::join_all([What::Add, What::Deliver, What::Collect].map(held_call)).await;
}

async fn held_call(what: What) {
    let mut ensemble = Ensemble::new("held", 2, 120).await;
    let gate = Arc::new(AtomicBool::new(false));
    let mut plan = ensemble.plan();
    let script = gated(what, &gate);
    plan.sinks = vec![("buffered", Style::Buffering, script.clone()), ("direct", Style::Direct, script.clone())];
    plan.collector = script;
    let host = ensemble.start(plan);
    ensemble.log.until("the call is refused", |facts| refusals(facts) >= 3).await;
    ensemble.until_committed(1..2, 120).await;
    assert_eq!(ensemble.onlooker.committed(&ensemble.topic, 0), None);
    gate.store(true, Ordering::Relaxed);
    ensemble.until_committed(0..1, 120).await;
    host.assert_nothing_was_given_up();
    assert_eq!(host.counters.aborts.get(), 0, "{what:?}: no fresh start");
    host.stop().await.unwrap();

    let facts = ensemble.log.facts();
    let mut calls: BTreeMap<Vec<i64>, usize> = BTreeMap::new();
    for fact in facts.iter().filter(|fact| fact.what == What::Refused) {
        *calls.entry(fact.offsets.clone()).or_default() += 1;
    }
    assert_eq!(calls.len(), 1, "{what:?}: the same rows each time: {calls:?}");
    assert_eq!(ensemble.log.count(|fact| fact.what == What::Discard), 0);
    for partition in 0..2 {
        for sink in ["buffered", "direct"] {
            assert_eq!(ensemble.log.written(sink, partition), all(120), "{what:?}: {sink} [{partition}]");
        }
        let collected: Vec<i64> = facts
            .iter()
            .filter(|fact| fact.what == What::Collect && fact.partition == partition)
            .flat_map(|fact| fact.offsets.clone())
            .collect();
        let again = if what == What::Collect && partition == 0 { refusals(&facts) } else { 0 };
        let first = calls.keys().next().unwrap().len();
        assert_eq!(collected.len(), 120 + again * first, "{what:?}: each record is collected once");
    }
}

/// S37, S113: an endpoint that answers 429 and 503 with `Retry-After` gets every row once, in order, none of them counted as
/// an attempt.
#[tokio::test(flavor = "multi_thread")]
async fn s37_an_endpoint_that_asks_to_wait_is_waited_for() {
    let http = Http::start();
    for code in ["429", "503"] {
        let mut ensemble = Ensemble::new("retry-after", 1, 5).await;
        let url = http.url(&ensemble.topic, &format!("retry-after/{code}/3/1"));
        let options: HttpOptions = serde_json::from_value(json!({ "url": url, "concurrency": 1 })).unwrap();
        let mut plan = ensemble.plan();
        plan.sinks.clear();
        plan.native = Some((SinkKind::Http, Arc::new(HttpSink::new("held", &options).unwrap())));
        let host = ensemble.start(plan);
        ensemble.until_committed(0..1, 5).await;
        host.assert_nothing_was_given_up();
        assert_eq!(host.counters.aborts.get(), 0);
        host.stop().await.unwrap();
        let requests = http.requests(&ensemble.topic).await;
        let bodies: Vec<Value> =
            requests.iter().skip(3).map(|request| serde_json::from_str(&request.text()).unwrap()).collect();
        assert_eq!(bodies, (0..5).map(|n| json!({ "n": n })).collect::<Vec<_>>(), "{code}");
    }
}

/// S29, S37: the same from a plugin, through the binary, in each of its calls.
#[tokio::test(flavor = "multi_thread")]
async fn s29_a_plugin_that_asks_to_wait_is_waited_for() {
    let component = super::handover::guest("faulty-sink.wasm");
    let cases = [json!({ "acts_in": "flush" }), json!({ "acts_in": "add" }), json!({ "direct": true })];
    for mut options in cases {
        let source = topic("plugin-waits", 1).await;
        produce(&source, 0, (0..40).map(|n| Row::value(format!("row {n}"))));
        let extra = json!({ "log": "/out/log", "backpressure_times": 3, "backpressure_milliseconds": 250 });
        options.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let mut scene = Scene::new(&source, json!({}));
        let directory = json!({ "host": scene.files(), "guest": "/out", "access": "write" });
        let faulty = json!({ "component": component, "options": options, "grants": { "directories": [directory] } });
        scene.change(json!({ "sinks": { "plugin": { "faulty": faulty } } }));
        scene.done(&["run", "--until-end"]);
        let log = String::from_utf8(scene.file("log")).unwrap();
        let wrote: Vec<String> = log
            .lines()
            .filter(|line| line.starts_with("wrote "))
            .map(|line| line.split_once(".0 ").unwrap().1.into())
            .collect();
        assert_eq!(wrote, (0..40).map(|n| format!("row {n}")).collect::<Vec<_>>(), "{options}: {log}");
        assert_eq!(committed(&source, 0, &scene.group), Some(40));
        assert!(contents(&format!("{source}_dlq")).is_empty());
    }
}

/// S39: a partition that waits is taken away. Its new owner serves it at once, and so does the first one when it comes
/// back, although the wait that was asked for is far from over.
#[tokio::test(flavor = "multi_thread")]
async fn s39_a_pause_ends_with_the_assignment() {
    let mut ensemble = Ensemble::new("pause-moves", 2, 60).await;
    let mut plan = ensemble.plan();
    plan.sinks = vec![(
        "rows",
        Style::Buffering,
        Arc::new(|call: &Call<'_>| {
            // The first flush of each partition only.
            if call.what == What::Flush && call.earlier == 0 { Act::Backpressure(LONG) } else { Act::Take }
        }),
    )];
    let first = ensemble.start(plan);
    ensemble.log.until("both partitions wait", |facts| refusals(facts) == 2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let second = ensemble.start(ensemble.plan());
    ensemble
        .log
        .until("one partition moved", |facts| facts.iter().any(|fact| fact.host == 1 && fact.what == What::Assigned))
        .await;
    let moved = *ensemble.log.held(1).first().unwrap();
    ensemble.until_committed(moved..moved + 1, 60).await;
    assert_eq!(ensemble.log.written("rows", moved), all(60));
    let kept = 1 - moved;
    assert_eq!(ensemble.onlooker.committed(&ensemble.topic, kept), None, "the other one waits on");
    second.stop().await.unwrap();
    ensemble.log.until("it is back", |facts| held(facts, 0).len() == 2).await;
    ensemble.produce(moved, 10);
    ensemble.until_committed(moved..moved + 1, 70).await;
    assert_eq!(ensemble.log.written("rows", moved), all(70));
    assert!(ensemble.log.written("rows", kept).is_empty());
    first.stop().await.unwrap();
}

/// S14: a flush, and a delivery, that take three times as long as `max.poll.interval.ms` allows between two polls cost the
/// member nothing: the group is not left, the other partitions are served, and the commit afterwards holds.
#[tokio::test(flavor = "multi_thread")]
async fn s14_a_slow_call_does_not_cost_the_membership() {
    let [flush, deliver] = [What::Flush, What::Deliver].map(|what| tokio::spawn(slow_call(what)));
    flush.await.unwrap();
    deliver.await.unwrap();
}

async fn slow_call(what: What) {
    let mut ensemble = Ensemble::new("slow", 2, 100).await;
    let mut plan = ensemble.plan();
    for (name, value) in [("max.poll.interval.ms", "2000"), ("session.timeout.ms", "1500")] {
        plan.options.properties.insert(name.into(), value.into());
    }
    let script: Script = Arc::new(move |call: &Call<'_>| {
        let slow = call.what == what && call.partition == 0 && call.earlier == 0;
        if slow { Act::Slow(Duration::from_millis(6500)) } else { Act::Take }
    });
    let style = if what == What::Flush { Style::Buffering } else { Style::Direct };
    plan.sinks = vec![("rows", style, script)];
    let host = ensemble.start(plan);
    let began = move |fact: &Fact| fact.what == what && fact.partition == 0;
    ensemble.log.until("the slow call began", |facts| facts.iter().any(began)).await;
    for portion in 1..=3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ensemble.produce(1, 100);
        ensemble.until_committed(1..2, 100 + portion * 100).await;
    }
    assert!(ensemble.log.written("rows", 0).is_empty(), "{what:?} was still under way all that time");
    ensemble.until_committed(0..1, 100).await;
    host.stop().await.unwrap();
    assert_eq!(
        ensemble.log.count(|fact| matches!(fact.what, What::Revoked | What::Lost)),
        0,
        "{}",
        ensemble.log.tail()
    );
    assert_eq!((ensemble.log.written("rows", 0), ensemble.log.written("rows", 1)), (all(100), all(400)));
}
