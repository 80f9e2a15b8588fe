//! The raw memory that a guest answers with: every list, pointer, length, discriminant and string of it is the input's.
//!
//! The guest copies the record's value to address 0x100 and says that its answer stands there, laid out as the component model
//! lays out `result<collect-result, fault>`. What the host makes of it goes to the sinks' routes and into dead letters.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use tidegate::collect::{Collect as _, Collected};
use tidegate::model::{Batch, CallError, Owner, Payload, SinkKind, TopicPartition};
use tidegate::pipeline::route::Routes;
use tidegate::plugin::{Options, PluginCollector};
use tidegate::sink::Queries;

use super::dlq::round_trip;
use super::plugins::{PLACE, file, plugins};
use super::runtime::wait_for;

/// Longest input: what follows it in the guest's memory is the host's batch.
const LONGEST: usize = 0xfe00;
/// Records in a batch.
const ROWS: u32 = 3;
/// Most payloads in one answer.
const PAYLOADS: u64 = 100;
/// Most bytes of the payloads of one answer.
const BYTES: usize = 1 << 20;

const GUEST: &str = include_str!("collect.wat");

/// The sinks that a collector with a grant may write to.
const ALLOWED: [(SinkKind, &str); 3] =
    [(SinkKind::Kafka, "results"), (SinkKind::Plugin, "results"), (SinkKind::Filesystem, "results")];

/// One that may write to every sink, and one that may not.
static FREE: LazyLock<PluginCollector> = LazyLock::new(|| start(json!({})));
static BOUND: LazyLock<PluginCollector> =
    LazyLock::new(|| start(json!({ "allowed_sinks": ALLOWED.map(|(kind, name)| format!("{kind}/{name}")) })));

fn start(grants: Value) -> PluginCollector {
    let started = wait_for(async {
        let guest = wat::parse_str(GUEST).unwrap_or_else(|error| panic!("{error}"));
        let options = json!({
            "component": file("collect.wasm", &guest),
            "limits": {
                "memory_mebibytes": 1,
                "payloads_per_call": PAYLOADS,
                "payload_mebibytes_per_call": BYTES >> 20,
                "hostcall_mebibytes": 16,
            },
            "grants": grants,
        });
        let options: Options = serde_json::from_value(options).unwrap_or_else(|error| panic!("{error}"));
        let artifact = plugins().load(PLACE, &options, Path::new("/")).await?;
        PluginCollector::start(artifact, &options, &Queries::new()).await
    });
    started.unwrap_or_else(|fault| panic!("{fault}"))
}

/// S64, S131: what cannot be true is the plugin's fault and nothing of it counts; what counts is within every bound.
pub fn run(data: &[u8]) {
    if data.len() > LONGEST {
        return;
    }
    let mut batch = Batch::new(TopicPartition::new("orders", 3));
    batch.push(40, 1_700_000_000_000, Some(b"key"), Some(data));
    (1..ROWS).for_each(|row| batch.push(40 + i64::from(row), -1, None, None));
    let batch = Arc::new(batch);
    // Whichever: the last byte is of no list's head.
    let bound = data.last().is_some_and(|byte| byte % 2 == 1);
    let collector = if bound { &BOUND } else { &FREE };
    match wait_for(collector.collect(&batch)) {
        Ok(collected) => count(&batch, collected, bound),
        Err(CallError::Backpressure(wait)) => assert!(wait.as_secs() <= 3600, "{wait:?}"),
        // The guest's own word for what it talks to.
        Err(CallError::Unavailable(fault)) => assert_eq!(fault.owner, Owner::Destination, "{fault:?}"),
        Err(
            CallError::Reject(fault)
            | CallError::Fatal(fault)
            | CallError::Trap(fault)
            | CallError::LimitExceeded(fault),
        ) => {
            assert_eq!(fault.owner, Owner::Plugin, "{fault:?}");
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn count(batch: &Batch, collected: Collected, bound: bool) {
    let Collected::Payloads { payloads, failed } = collected else { panic!("a plugin passes nothing through") };
    let named: BTreeSet<u32> = failed.iter().map(|failure| failure.index).collect();
    assert!(named.len() == failed.len() && named.iter().all(|row| *row < ROWS), "{failed:?}");
    for failure in &failed {
        assert!(!failure.reason.contains(|part: char| part.is_control() && part != '\t'), "{failure:?}");
    }
    let kinds: BTreeSet<SinkKind> = payloads.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds.len(), payloads.len(), "one list per kind");
    let all = || payloads.iter().flat_map(|(_, list)| list);
    assert!(all().count() as u64 <= PAYLOADS, "{} payloads", all().count());
    assert!(all().map(bytes).sum::<usize>() <= BYTES, "{} bytes", all().map(bytes).sum::<usize>());
    assert!(all().all(|payload| payload.index < ROWS));
    for (kind, list) in payloads.iter().filter(|_| bound) {
        let may = |payload: &&Payload| {
            ALLOWED.iter().any(|(known, name)| known == kind && (payload.sink.is_empty() || payload.sink == *name))
        };
        assert!(list.iter().all(|payload| may(&payload)), "{kind}: {list:?}");
    }
    let sinks = SinkKind::ALL.map(|kind| (kind, "results"));
    let routes = Routes::new(sinks.into_iter().chain([(SinkKind::Kafka, "alerts")]));
    let given = all().count();
    let routed = routes.route(batch, payloads).unwrap_or_else(|fault| panic!("{fault}"));
    assert!(routed.groups.iter().map(|group| group.batch.len()).sum::<usize>() <= given);
    for group in &routed.groups {
        let kind = sinks.get(group.sink).map_or(SinkKind::Kafka, |(kind, _)| *kind);
        for row in 0..group.batch.len() {
            assert!(group.origin.as_ref().map_or(row, |origin| origin[row]) < batch.len());
            round_trip(kind, &group.batch, row);
        }
    }
}

/// What a payload holds.
fn bytes(payload: &Payload) -> usize {
    let headers = payload.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
    let fields = [&payload.key, &payload.value].into_iter().flatten().map(Vec::len);
    fields.chain(headers).sum::<usize>() + payload.sink.len() + payload.target.as_ref().map_or(0, String::len)
}
