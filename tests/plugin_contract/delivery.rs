//! The pipeline's delivery to the component that takes every freedom of the contract: whatever its rows make it do, each is durable, or is
//! dead-lettered because of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use tidegate::clock::RealClock;
use tidegate::collect::Passthrough;
use tidegate::memory::Account;
use tidegate::model::SinkKind;
use tidegate::pipeline::NamedSink;
use tidegate::pipeline::delivery::{Delivery, SinkState};
use tidegate::pipeline::dlq::{DeadLetters, Letter};
use tidegate::pipeline::route::{Group, Routes};
use tidegate::pipeline::rows::Rows;
use tidegate::pipeline::shared::{Settings, Shared, SinkSlot};

use super::*;

/// Runs that are drawn.
const SEEDS: u64 = 24;

#[derive(Default)]
struct Queue(Mutex<BTreeSet<i64>>);

#[async_trait]
impl DeadLetters for Queue {
    async fn send(&self, letters: &[Letter]) -> Result<(), Fault> {
        self.0.lock().unwrap().extend(letters.iter().map(|letter| letter.offset));
        Ok(())
    }

    async fn connect(&self) -> Result<(), Fault> {
        Ok(())
    }

    async fn close(&self) {}
}

/// What a row asks the component for, and whether that is to be its own end.
fn drawn(random: &mut fastrand::Rng) -> (Value, bool) {
    let words = [
        (json!({ "add": "refuse_reject" }), true),
        (json!({ "add": "reject_call" }), true),
        (json!({ "add": "reject_call_forget" }), true),
        (json!({ "add": "trap" }), true),
        (json!({ "add": "spin" }), true),
        (json!({ "add": "unavailable" }), false),
        (json!({ "add": "backpressure", "times": 2 }), false),
        (json!({ "add": "backpressure_when_held" }), false),
        (json!({ "add": "refuse_retry", "times": 1 }), false),
        (json!({ "flush": "reject" }), true),
        (json!({ "flush": "reject_call" }), true),
        (json!({ "flush": "trap" }), true),
        (json!({ "flush": "retry", "times": 1 }), false),
    ];
    if random.u8(0..6) > 0 { (json!({}), false) } else { words[random.usize(0..words.len())].clone() }
}

fn shared(sink: PluginSink, queue: Arc<Queue>) -> Shared<RealClock> {
    let named = NamedSink::new(SinkKind::Plugin, "model", Arc::new(sink));
    Shared {
        sinks: vec![SinkSlot::new(named, Arc::default())],
        routes: Routes::new([(SinkKind::Plugin, "model")]),
        collector: Arc::new(Passthrough),
        collector_name: String::new(),
        dlq: queue,
        settings: Settings::default(),
        clock: RealClock::start(),
        counters: Arc::default(),
        memory: Account::new(u64::MAX),
        buffers: Default::default(),
        collected: AtomicBool::new(false),
        troubles: Default::default(),
        unforgotten: Mutex::default(),
    }
}

/// S27, S27a, S27b, S63, S79b, on real instances: what is drawn for `host/src/pipeline/tests/buffering.rs` is drawn here for a component.
#[tokio::test(flavor = "multi_thread")]
async fn s27_nothing_that_a_component_was_given_is_lost() {
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = Folder::new();
        let (full_at, max_rows) = ([0, 5, 20][random.usize(0..3)], [0, 1, 7][random.usize(0..3)]);
        let options = json!({
            "path": "/out/arrivals",
            "forget_on_fault": random.bool(),
            "full_at": full_at,
            "max_rows": max_rows,
        });
        let more = json!({
            "options": options, "grants": folder.grants("write"), "limits": { "call_timeout_seconds": 0.2 },
        });
        let configured = configured(&guest("model-sink"), more);
        let artifact = loaded("sinks.plugin.model", &configured).await.unwrap();
        let sink = PluginSink::start(artifact, "model", &configured, &Queries::new()).await.unwrap();
        tidegate::sink::Sink::connect(&sink).await.unwrap();
        let queue = Arc::new(Queue::default());
        let shared = shared(sink, queue.clone());
        let (mut state, mut dead, mut first, source) = (SinkState::default(), BTreeSet::new(), 0, orders(0));
        for _ in 0..random.usize(1..4) {
            let mut values = Vec::new();
            for offset in (first..).take(random.usize(2..40)) {
                // The first row of a window is fine, so that the plugin as a whole is not.
                let (mut words, is_dead) = if values.is_empty() { (json!({}), false) } else { drawn(&mut random) };
                words["id"] = offset.into();
                values.push(words.to_string());
                dead.extend(is_dead.then_some(offset));
            }
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let window = records(0, first, &values);
            first += i64::try_from(values.len()).unwrap();
            let rows = Rows::of_group(&Group { sink: 0, batch: window.clone(), origin: None }, &window);
            let mut delivery = Delivery::new(&shared, 0, &source, &mut state);
            let given = delivery.give(rows).await;
            assert!(given.is_ok(), "seed {seed}: {given:?}");
            let flushed = if random.bool() { delivery.flush().await } else { Ok(()) };
            assert!(flushed.is_ok(), "seed {seed}: {flushed:?}");
        }
        let flushed = Delivery::new(&shared, 0, &source, &mut state).flush().await;
        assert!(flushed.is_ok(), "seed {seed}: {flushed:?}");
        assert_eq!(*queue.0.lock().unwrap(), dead, "seed {seed}");
        let mut arrived: BTreeMap<i64, usize> = BTreeMap::new();
        for line in folder.lines("arrivals") {
            let line: Value = serde_json::from_str(&line).unwrap();
            *arrived.entry(line["id"].as_i64().unwrap()).or_default() += 1;
        }
        let wanted: Vec<i64> = (0..first).filter(|offset| !dead.contains(offset)).collect();
        assert_eq!(arrived.keys().copied().collect::<Vec<_>>(), wanted, "seed {seed}");
    }
}
