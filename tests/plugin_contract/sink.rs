//! A sink that misbehaves: what is answered, what is left, and what counts.

use std::time::{Duration, Instant};

use tidegate::model::{Answer, CallError, Failure, FailureKind, Owner};
use tidegate::sink::{BufferLimit, Sink, Style};

use super::*;

async fn direct(more: Value) -> PluginSink {
    let mut options = json!({ "options": { "direct": true } });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let sink = faulty_sink(options).await.unwrap();
    sink.connect().await.unwrap();
    sink
}

async fn buffering(options: Value) -> PluginSink {
    let sink = faulty_sink(json!({ "options": options })).await.unwrap();
    sink.connect().await.unwrap();
    sink
}

#[track_caller]
fn trapped(answer: &Answer) -> Fault {
    match answer {
        Err(CallError::Trap(fault)) => {
            assert_eq!(fault.owner, Owner::Plugin);
            fault.clone()
        }
        other => panic!("not a trap: {other:?}"),
    }
}

#[track_caller]
fn met_limit(answer: &Answer) -> Fault {
    match answer {
        Err(CallError::LimitExceeded(fault)) => {
            assert_eq!(fault.owner, Owner::Plugin);
            fault.clone()
        }
        other => panic!("not a limit: {other:?}"),
    }
}

/// Whatever happened before, the next call finds a good instance (S130).
async fn works(sink: &PluginSink) {
    assert_eq!(sink.deliver(&records(0, 1, &["fine"])).await, Ok(vec![]));
}

#[tokio::test]
async fn a_sink_describes_itself() {
    let more = json!({
        "options": { "direct": true, "idempotent": true, "max_rows": 7, "max_bytes": 99 },
        "limits": { "call_timeout_seconds": 2.5, "instances": 3 },
    });
    let described = faulty_sink(more).await.unwrap().description();
    assert_eq!((described.style, described.idempotent), (Style::Direct, true));
    assert_eq!((described.max_rows, described.max_bytes), (7, 99));
}

/// S130: a trap is told in the guest's own words, and the next call gets a new instance.
#[tokio::test]
async fn a_panic_is_readable_and_its_instance_replaced() {
    let sink = direct(json!({})).await;
    let fault = trapped(&sink.deliver(&records(0, 0, &["fine", "poison"])).await);
    assert_eq!(fault.message, "`plugin/faulty` trapped in `deliver`");
    assert!(fault.causes[0].starts_with("guest panic: poison in deliver ("), "{fault}");
    assert!(fault.causes[0].contains("src/lib.rs:"), "{fault}");
    assert!(fault.to_string().contains("wasm `unreachable` instruction executed"), "{fault}");
    works(&sink).await;
}

/// S129: the guest's own deadline, for what no import ever waits for.
#[tokio::test]
async fn an_endless_loop_is_stopped() {
    let sink = direct(json!({ "limits": { "call_timeout_seconds": 0.3 } })).await;
    let start = Instant::now();
    let fault = met_limit(&sink.deliver(&records(0, 0, &["spin"])).await);
    assert!(fault.message.contains("was still running in `deliver` when its 0.3 s were over"), "{fault}");
    assert!(fault.causes[0].contains("faults::misbehave"), "{fault}");
    assert!(start.elapsed() >= Duration::from_millis(250) && start.elapsed() < Duration::from_secs(5));
    works(&sink).await;
}

/// S63: a guest that waits on a clock spends its own time, as one that runs does.
#[tokio::test]
async fn s63_a_guest_that_sleeps_past_its_deadline_is_to_blame() {
    let sink = direct(json!({ "limits": { "call_timeout_seconds": 0.3 } })).await;
    let fault = met_limit(&sink.deliver(&records(0, 0, &["sleep"])).await);
    assert!(fault.message.contains("was still waiting in `deliver` when its 0.3 s were over"), "{fault}");
    assert_eq!(fault.causes[0], "for a clock or a file, not for a request");
    works(&sink).await;
}

#[tokio::test]
async fn s15a_memory_and_stack_have_their_limits() {
    let sink = direct(json!({ "limits": { "memory_mebibytes": 16 } })).await;
    let fault = met_limit(&sink.deliver(&records(0, 0, &["hog"])).await);
    assert!(fault.message.contains("wanted more memory than its 16 MiB in `deliver`, and was stopped"), "{fault}");
    assert!(fault.hint.unwrap().contains("sinks.plugin.faulty.limits.memory_mebibytes"));
    works(&sink).await;
    trapped(&sink.deliver(&records(0, 0, &["recurse"])).await);
    works(&sink).await;
    trapped(&sink.deliver(&records(0, 0, &["exit"])).await);
    works(&sink).await;
    assert_eq!(sink.deliver(&records(0, 0, &["flood"])).await, Ok(vec![]), "a flood of output is no fault");

    let tiny = json!({ "limits": { "memory_mebibytes": 1 }, "options": { "direct": true } });
    let fault = faulty_sink(tiny).await.err().unwrap();
    assert!(fault.message.contains("wanted more memory than its 1 MiB in `instantiation`"), "{fault}");
}

/// S131: outcomes are per row, and a row that is not there spoils the answer.
#[tokio::test]
async fn rows_that_failed_are_named() {
    let sink = direct(json!({})).await;
    let answer = sink.deliver(&records(0, 0, &["fine", "retry", "reject", "twice"])).await.unwrap();
    let kinds: Vec<_> = answer.iter().map(|failure| (failure.index, failure.kind)).collect();
    assert_eq!(kinds, [(1, FailureKind::Retry), (2, FailureKind::Reject), (3, FailureKind::Reject)]);

    let fault = trapped(&sink.deliver(&records(0, 0, &["fine", "wrong-index"])).await);
    assert_eq!(fault.message, "`plugin/faulty` broke the contract in `deliver`");
    works(&sink).await;
}

/// S44: the faults of a whole call.
#[tokio::test]
async fn faults_keep_their_types() {
    let sink = direct(json!({ "options": { "direct": true, "backpressure_milliseconds": 1234 } })).await;
    let answer = async |word: &str| sink.deliver(&records(0, 0, &[word])).await;
    assert_eq!(answer("backpressure").await, Err(CallError::Backpressure(Duration::from_millis(1234))));
    assert!(
        matches!(answer("unavailable").await, Err(CallError::Unavailable(fault)) if fault.owner == Owner::Destination)
    );
    assert!(matches!(answer("reject-call").await, Err(CallError::Reject(_))));
    let fatal = answer("fatal").await;
    assert!(
        matches!(&fatal, Err(CallError::Fatal(fault)) if fault.to_string().contains("told to give up")),
        "{fatal:?}"
    );
    works(&sink).await;

    let endless = direct(json!({ "options": { "direct": true, "backpressure_milliseconds": u64::MAX } })).await;
    let Err(CallError::Backpressure(wait)) = endless.deliver(&records(0, 0, &["backpressure"])).await else { panic!() };
    assert!(wait <= Duration::from_secs(3600), "S33: bounded");
}

#[tokio::test]
async fn a_buffer_is_flushed_and_discarded() {
    let folder = Folder::new();
    let more = json!({ "options": { "log": "/out/log" }, "grants": folder.grants("write") });
    let sink = faulty_sink(more).await.unwrap();
    sink.connect().await.unwrap();
    assert_eq!(sink.add(&records(0, 0, &["a"])).await, Ok(vec![]));
    assert_eq!(sink.add(&records(0, 1, &["b", "reject"])).await, Ok(vec![]));
    assert_eq!(sink.flush(&orders(0)).await, Ok(vec![Failure::reject(2, "told to reject")]), "indices count all adds");
    assert_eq!(sink.flush(&orders(0)).await, Ok(vec![]), "S22: nothing added");
    assert_eq!(sink.add(&records(0, 3, &["c"])).await, Ok(vec![]));
    sink.discard(&orders(0)).await;
    sink.discard(&orders(0)).await;
    assert_eq!(sink.flush(&orders(0)).await, Ok(vec![]));
    sink.close().await.unwrap();
    let log = folder.lines("log");
    let wrote: Vec<_> = log.iter().filter(|line| line.starts_with("wrote")).collect();
    assert_eq!(wrote, ["wrote orders[0]@0.0 a", "wrote orders[0]@1.0 b"], "S26: what was discarded is not written");
    assert_eq!(log.iter().filter(|line| *line == "discard orders[0]").count(), 2);
    assert_eq!(log.last().map(String::as_str), Some("close"));
}

/// S27, S129: one partition's trap takes the buffers of every partition of its slot, and each is told.
#[tokio::test]
async fn a_lost_buffer_is_never_flushed_as_if_it_were_there() {
    let folder = Folder::new();
    let more = json!({ "options": { "log": "/out/log" }, "grants": folder.grants("write") });
    let sink = faulty_sink(more).await.unwrap();
    sink.connect().await.unwrap();
    for partition in [0, 1, 2] {
        assert_eq!(sink.add(&records(partition, 0, &["a"])).await, Ok(vec![]));
    }
    assert_eq!(sink.add(&records(3, 0, &["poison"])).await, Ok(vec![]));
    trapped(&sink.flush(&orders(3)).await);

    let lost = |answer: Answer| matches!(answer, Err(CallError::BufferLost(_)));
    assert!(lost(sink.flush(&orders(0)).await) && lost(sink.flush(&orders(0)).await), "until it is discarded");
    assert!(lost(sink.add(&records(1, 1, &["b"])).await));
    assert!(lost(sink.flush(&orders(3)).await), "the trapping partition too");
    for partition in [0, 1, 3] {
        sink.discard(&orders(partition)).await;
        assert_eq!(sink.add(&records(partition, 0, &["again"])).await, Ok(vec![]));
        assert_eq!(sink.flush(&orders(partition)).await, Ok(vec![]));
    }
    assert!(lost(sink.flush(&orders(2)).await), "a new instance does not make the old one's rows come back");
    let log = folder.lines("log");
    assert_eq!(log.iter().filter(|line| line.starts_with("wrote")).count(), 3, "{log:?}");
    assert_eq!(log.iter().filter(|line| *line == "connect").count(), 2, "S66a: the new instance was connected");
    assert!(
        !log.iter().any(|line| line.starts_with("discard")),
        "a retired instance's buffer is gone already: {log:?}"
    );
}

/// S28: a call that nobody waits for any more is stopped, and its instance never serves again.
#[tokio::test]
async fn a_call_that_is_given_up_takes_its_instance_with_it() {
    let sink = buffering(json!({ "acts_in": "add" })).await;
    assert_eq!(sink.add(&records(0, 0, &["a"])).await, Ok(vec![]));
    for word in ["spin", "sleep"] {
        let batch = records(1, 0, &[word]);
        let given_up = tokio::time::timeout(Duration::from_millis(100), sink.add(&batch)).await;
        assert!(given_up.is_err(), "{word}");
        let start = Instant::now();
        sink.discard(&orders(1)).await;
        assert_eq!(sink.add(&records(1, 0, &["fine"])).await, Ok(vec![]));
        assert!(start.elapsed() < Duration::from_secs(3), "{word} kept its slot");
        sink.discard(&orders(1)).await;
    }
    assert!(matches!(sink.flush(&orders(0)).await, Err(CallError::BufferLost(_))));
}

/// S66: a configuration's fault in `setup`, a start failure in `connect`.
#[tokio::test]
async fn setup_and_connect_fail_the_start() {
    let fault = faulty_sink(json!({ "options": { "setup": "reject" } })).await.err().unwrap();
    assert_eq!((fault.owner, fault.message.as_str()), (Owner::Config, "`plugin/faulty` does not accept its options"));
    let fault = faulty_sink(json!({ "options": { "setup": "poison" } })).await.err().unwrap();
    assert_eq!((fault.owner, fault.message.as_str()), (Owner::Plugin, "`plugin/faulty` trapped in `setup`"));

    let sink = faulty_sink(json!({ "options": { "connect": "unavailable" } })).await.unwrap();
    assert!(matches!(sink.connect().await, Err(CallError::Unavailable(fault)) if fault.owner == Owner::Destination));
    let sink = faulty_sink(json!({ "options": { "connect": "reject-call" } })).await.unwrap();
    assert!(matches!(sink.connect().await, Err(CallError::Fatal(_))));
    let sink = faulty_sink(json!({ "options": { "connect": "poison" } })).await.unwrap();
    assert!(matches!(sink.connect().await, Err(CallError::Unavailable(fault)) if fault.owner == Owner::Plugin));
}

/// S15a: what a buffering instance may be given follows from its memory, and every partition of the instance shares it.
#[tokio::test]
async fn s15a_a_buffer_is_bounded_by_a_share_of_its_instance() {
    let more = json!({ "limits": { "memory_mebibytes": 20, "instances": 2 } });
    let sink = faulty_sink(more).await.unwrap();
    let limits: Vec<_> = (0..4).map(|partition| sink.buffer_limit(&orders(partition)).unwrap()).collect();
    assert!(limits.iter().all(|limit| limit.max_bytes == 5 << 20), "{limits:?}");
    assert_eq!(limits[0].instance, limits[2].instance);
    assert_ne!(limits[0].instance, limits[1].instance);
    assert!(limits.iter().all(|limit| limit.instance < 2), "{limits:?}");
    let direct = faulty_sink(json!({ "options": { "direct": true } })).await.unwrap();
    assert_eq!(direct.buffer_limit(&orders(0)), None, "it buffers nothing between two calls");
    let row = records(0, 0, &["value"]);
    assert!(BufferLimit::bytes_of(&row) > u64::try_from(row.size_bytes()).unwrap(), "empty rows take memory as well");
}

/// S46: guests that keep their threads leave those of files and commits alone, even where these have only one.
#[test]
fn s46_guests_that_wait_keep_no_thread_from_commits_and_files() {
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = Folder::new();
        let sink = direct(json!({
            "options": { "direct": true, "log": "/out/log" },
            "limits": { "instances": 2, "call_timeout_seconds": 5 },
            "grants": folder.grants("write"),
        }));
        let sink = Arc::new(sink.await);
        let sleeping: Vec<_> = [0, 1]
            .map(|partition| {
                let sink = Arc::clone(&sink);
                tokio::spawn(async move { sink.deliver(&records(partition, 0, &["sleep"])).await })
            })
            .into();
        let inside = || folder.lines("log").iter().filter(|line| line.starts_with("deliver")).count();
        while inside() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let path = folder.path().join("file");
        tokio::task::spawn_blocking(move || std::fs::write(path, "{}\n")).await.unwrap().unwrap();
        assert!(sleeping.iter().all(|call| !call.is_finished()), "the file waited for the guests");
        for call in sleeping {
            met_limit(&call.await.unwrap());
        }
    });
}

#[tokio::test]
async fn a_failing_discard_or_close_is_survived() {
    let sink = buffering(json!({ "discard": "poison" })).await;
    assert_eq!(sink.add(&records(0, 0, &["a"])).await, Ok(vec![]));
    sink.discard(&orders(0)).await;
    assert_eq!(sink.flush(&orders(0)).await, Ok(vec![]));
    let sink = buffering(json!({ "close": "reject" })).await;
    assert!(sink.close().await.unwrap_err().to_string().contains("close was told to fail"));
}
