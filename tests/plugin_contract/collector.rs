//! A collector that misbehaves, and its hooks.

use std::time::Duration;

use tidegate::collect::{Collect, Collected, DeliveryError, Window};
use tidegate::model::{Action, CallError, FailureKind, Owner, SinkKind};

use super::*;

type Payloads = Vec<(SinkKind, usize)>;
type Failed = Vec<(u32, FailureKind)>;

fn counts(collected: &Collected) -> (Payloads, Failed) {
    let Collected::Payloads { payloads, failed } = collected else { panic!("payloads") };
    let payloads = payloads.iter().map(|(kind, list)| (*kind, list.len())).collect();
    (payloads, failed.iter().map(|failure| (failure.index, failure.kind)).collect())
}

async fn ready(more: Value) -> PluginCollector {
    let collector = faulty_collector(more).await.unwrap();
    collector.ready().await.unwrap();
    collector
}

#[tokio::test]
async fn records_become_payloads() {
    let more = json!({ "options": { "sinks": ["kafka/results", "filesystem", "csv"] } });
    let collector = ready(more).await;
    let collected = collector.collect(&records(0, 0, &["a", "nothing", "reject", "b"])).await.unwrap();
    let (payloads, failed) = counts(&collected);
    assert_eq!(payloads, [(SinkKind::Kafka, 2), (SinkKind::Filesystem, 2), (SinkKind::Plugin, 2)]);
    assert_eq!(failed, [(2, FailureKind::Reject)]);
    let Collected::Payloads { payloads, .. } = collected else { panic!() };
    let kafka = &payloads[0].1[1];
    assert_eq!((kafka.index, kafka.sink.as_str(), kafka.key.as_deref()), (3, "results", Some(&b"key"[..])));
    assert_eq!(kafka.value.as_deref(), Some(&br#"{"value":"b"}"#[..]));
    assert_eq!(payloads[1].1[0].target.as_deref(), Some("faulty.jsonl"));
}

/// S129: a collector with a list of sinks writes to those alone; a row with a payload for another is dead-lettered whole.
#[tokio::test]
async fn only_allowed_sinks_are_written_to() {
    let sinks = ["kafka/results", "csv"];
    let more = |allowed: Value| json!({ "options": { "sinks": sinks }, "grants": { "allowed_sinks": allowed } });
    let collector = ready(more(json!(["kafka/results"]))).await;
    let Collected::Payloads { payloads, failed } = collector.collect(&records(0, 0, &["a"])).await.unwrap() else {
        panic!()
    };
    assert_eq!(payloads.len(), 1);
    let reason = "SinkNotAllowedError: `collect.grants.allowed_sinks` does not name the `plugin` sink";
    assert_eq!(failed, [tidegate::model::Failure::reject(0, reason)]);
    let collector = ready(more(json!(["kafka/results", "plugin/csv"]))).await;
    assert_eq!(counts(&collector.collect(&records(0, 0, &["a"])).await.unwrap()).1, []);
}

#[tokio::test]
async fn the_search_plugin_collects() {
    let options = configured(&guest("search"), json!({}));
    let collector =
        PluginCollector::start(loaded(COLLECT, &options).await.unwrap(), &options, &Queries::new()).await.unwrap();
    let request = r#"{"request_id":"r-1","pattern":"time","text":"a time\nnone\ntimes"}"#;
    let collected = collector.collect(&records(0, 0, &[request, "no JSON"])).await.unwrap();
    let (payloads, failed) = counts(&collected);
    assert_eq!(payloads[0], (SinkKind::Kafka, 1));
    assert!(payloads.contains(&(SinkKind::Redis, 1)));
    assert_eq!(failed, [(1, FailureKind::Reject)]);
}

#[tokio::test]
async fn an_answer_that_cannot_be_true_counts_for_nothing() {
    let collector = ready(json!({})).await;
    for word in ["wrong-index", "poison"] {
        let answer = collector.collect(&records(0, 0, &["a", word])).await;
        assert!(matches!(&answer, Err(CallError::Trap(fault)) if fault.owner == Owner::Plugin), "{answer:?}");
    }
    let fault = collector.collect(&records(0, 0, &["fatal"])).await.unwrap_err();
    assert!(matches!(&fault, CallError::Fatal(fault) if fault.owner == Owner::Plugin), "{fault:?}");
    assert!(collector.collect(&records(0, 0, &["a"])).await.is_ok());
}

/// S63: a probe is asked of an instance of its own, so that the slot's keeps what it has seen.
#[tokio::test]
async fn a_probe_leaves_the_slots_alone() {
    let collector = ready(json!({})).await;
    assert!(collector.collect(&records(0, 0, &["a"])).await.is_ok());
    assert!(matches!(collector.probe(&records(0, 1, &["poison"])).await, Err(CallError::Trap(_))));
    assert!(collector.probe(&records(0, 1, &["b"])).await.is_ok());
    let window = Window { source: orders(0), first: 0, last: 0, records: 1 };
    assert_eq!(collector.window_complete(&window).await, Ok(None));
}

/// S62: the hook runs on the instance that saw the window, or not at all.
#[tokio::test]
async fn the_window_hook_speaks_for_what_it_saw() {
    let collector = ready(json!({ "options": { "window_payloads": true } })).await;
    assert!(collector.has_window_hook());
    let window = |partition: i32| Window { source: orders(partition), first: 4, last: 5, records: 2 };
    assert!(collector.collect(&records(0, 4, &["a", "b"])).await.is_ok());
    let answer = collector.window_complete(&window(0)).await.unwrap().unwrap();
    assert_eq!(counts(&answer).0, [(SinkKind::Kafka, 1)]);

    assert!(collector.collect(&records(0, 4, &["a", "b"])).await.is_ok());
    assert!(matches!(collector.collect(&records(1, 0, &["poison"])).await, Err(CallError::Trap(_))));
    assert!(matches!(collector.window_complete(&window(0)).await, Err(CallError::BufferLost(_))));
    assert!(collector.collect(&records(0, 4, &["a", "b"])).await.is_ok());
    assert!(collector.window_complete(&window(0)).await.is_ok());

    let wrong = ready(json!({ "options": { "window": "wrong-index" } })).await;
    assert!(wrong.collect(&records(0, 4, &["a", "b"])).await.is_ok());
    assert!(matches!(wrong.window_complete(&window(0)).await, Err(CallError::Trap(_))));
}

/// S66a: setup and the ready hook run on every instance, and a failing one spares the records.
#[tokio::test]
async fn every_instance_gets_ready() {
    let folder = Folder::new();
    let more = json!({
        "options": { "log": "/out/log" }, "limits": { "instances": 2 }, "grants": folder.grants("write"),
    });
    let collector = ready(more).await;
    assert_eq!(folder.lines("log"), ["setup collect 0/2", "setup collect 1/2", "ready", "ready"]);
    assert!(collector.collect(&records(0, 0, &["poison"])).await.is_err());
    assert!(collector.collect(&records(0, 0, &["a"])).await.is_ok());
    let log = folder.lines("log");
    assert_eq!(log.iter().filter(|line| *line == "ready").count(), 3, "{log:?}");

    let unready = faulty_collector(json!({ "options": { "ready": "poison" } })).await.unwrap();
    assert!(matches!(unready.ready().await, Err(CallError::Unavailable(fault)) if fault.owner == Owner::Plugin));
    let refused = unready.collect(&records(0, 0, &["a"])).await;
    assert!(matches!(refused, Err(CallError::Unavailable(_))), "no record is suspected: {refused:?}");
}

fn rejected() -> DeliveryError {
    DeliveryError {
        kind: SinkKind::Kafka,
        name: "results".into(),
        source: orders(0),
        offsets: vec![7],
        payloads: vec!["{}".into()],
        failure: FailureKind::Reject,
        error: "no".into(),
        attempt: 1,
    }
}

/// S79, S84: the hook decides, and one that fails decides nothing.
#[tokio::test]
async fn s84_the_delivery_hook_decides() {
    let error = rejected();
    for (answer, action) in [
        ("default", Action::Default),
        ("dlq", Action::Dlq),
        ("retry", Action::Retry),
        ("skip", Action::Skip),
        ("abort", Action::Abort),
        ("backpressure", Action::Backpressure(Duration::from_millis(100))),
        ("poison", Action::Default),
        ("spin", Action::Default),
    ] {
        let more = json!({ "options": { "delivery": answer }, "limits": { "call_timeout_seconds": 0.3 } });
        assert_eq!(ready(more).await.delivery_error(&error).await, action, "{answer}");
    }
    let options = configured(&guest("lookups"), json!({ "options": { "load": false } }));
    let artifact = loaded(COLLECT, &options).await.unwrap();
    assert_eq!(artifact.summary().hooks, Hooks { ready: true, ..Hooks::default() }, "F7: no hook but its own");
    let collector = PluginCollector::start(artifact, &options, &Queries::new()).await.unwrap();
    assert!(!collector.has_delivery_hook());
    assert_eq!(collector.delivery_error(&error).await, Action::Default, "no hook");
}

/// S79: what the hook is told of the destination is not blamed on the payloads.
#[tokio::test]
async fn s79_the_delivery_hook_is_told_the_kind() {
    let folder = Folder::new();
    let collector = ready(json!({ "options": { "log": "/out/log" }, "grants": folder.grants("write") })).await;
    let wait = Duration::from_secs(1);
    for failure in [
        FailureKind::Reject,
        FailureKind::Retry,
        FailureKind::NotTried,
        FailureKind::Unavailable,
        FailureKind::Backpressure(wait),
    ] {
        let error = DeliveryError { failure, ..rejected() };
        assert_eq!(collector.delivery_error(&error).await, Action::Default);
    }
    let log = folder.lines("log");
    let told: Vec<_> = log.iter().filter_map(|line| line.strip_prefix("delivery-error kafka/results ")).collect();
    let kinds: Vec<_> = told.iter().map(|line| line.split(' ').next().unwrap_or_default()).collect();
    let kind = |name: &str| format!("DeliveryErrorKind::{name}");
    assert_eq!(kinds, ["Reject", "Retry", "Retry", "Unavailable", "Unavailable"].map(kind));
}

/// S62: a window whose hook cannot be answered for now is asked about again, on the instance that saw it.
#[tokio::test]
async fn s62_a_window_hook_that_asks_to_wait_is_asked_again() {
    let window = Window { source: orders(0), first: 4, last: 5, records: 2 };
    for word in ["backpressure", "unavailable"] {
        let collector = ready(json!({ "options": { "window": word } })).await;
        assert!(collector.collect(&records(0, 4, &["a", "b"])).await.is_ok());
        for _ in 0..2 {
            let answer = collector.window_complete(&window).await;
            assert!(matches!(answer, Err(CallError::Backpressure(_) | CallError::Unavailable(_))), "{answer:?}");
        }
    }
    let collector = ready(json!({ "options": { "window": "reject-call" } })).await;
    assert!(collector.collect(&records(0, 4, &["a", "b"])).await.is_ok());
    assert!(matches!(collector.window_complete(&window).await, Err(CallError::Reject(_))));
    assert!(matches!(collector.window_complete(&window).await, Err(CallError::BufferLost(_))), "answered for");
}

/// A database that does not answer.
struct Silent;

#[async_trait::async_trait]
impl tidegate::sink::Query for Silent {
    async fn query(&self, _: &str, _: &str) -> Result<String, String> {
        std::future::pending().await
    }
}

/// S63: a statement that is under way when the call's time is over is the database's time.
#[tokio::test]
async fn s63_a_statement_that_is_not_answered_is_the_destinations_time() {
    let more = json!({
        "options": { "load": false },
        "limits": { "call_timeout_seconds": 0.3 },
        "grants": { "postgres": ["main"] },
    });
    let options = configured(&guest("lookups"), more);
    let queries = Queries::from([("main".to_owned(), Arc::new(Silent) as Arc<dyn tidegate::sink::Query>)]);
    let collector = PluginCollector::start(loaded(COLLECT, &options).await.unwrap(), &options, &queries).await.unwrap();
    collector.ready().await.unwrap();
    let asked = json!({ "statement": "SELECT 1", "parameters": [] }).to_string();
    let answer = collector.collect(&records(0, 0, &[&asked])).await;
    let Err(CallError::Timeout(fault)) = answer else { panic!("{answer:?}") };
    assert_eq!((fault.owner, fault.causes[0].as_str()), (Owner::Destination, "for an HTTP request or a statement"));
}

/// The contract alone is enough: guests made from wit/ without an SDK.
#[tokio::test]
async fn other_languages_collect() {
    for name in ["python-collector", "javascript-collector"] {
        let options = configured(&guest(name), json!({ "options": { "file_path": "x.jsonl" } }));
        let artifact = loaded(COLLECT, &options).await.unwrap();
        let collector = PluginCollector::start(artifact.clone(), &options, &Queries::new()).await.unwrap();
        let collected = collector.collect(&records(0, 0, &[r#"{"request_id":"r-1"}"#, "no JSON"])).await.unwrap();
        let (payloads, failed) = counts(&collected);
        assert_eq!(payloads, [(SinkKind::Kafka, 1), (SinkKind::Filesystem, 1), (SinkKind::Plugin, 1)], "{name}");
        assert_eq!(failed, [(1, FailureKind::Reject)], "{name}");

        let wrong = configured(&guest(name), json!({ "options": { "pth": "x" } }));
        let fault = PluginCollector::start(artifact, &wrong, &Queries::new()).await.err().unwrap();
        assert!(fault.owner == Owner::Config && fault.to_string().contains("`pth` is no option"), "{name}: {fault}");
    }
}
