//! What the hosts are told. `on_error` is left out everywhere: no default may give a record up.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::arrivals::{Files, Format};
use super::hosts::Host;
use super::plan::{Course, SESSION_TIMEOUT};
use super::support::child::{REMEDY, target_dir};
use super::world::{GROUP, KEYS, PARTITIONS, RESULTS, SOURCE, WINDOW_RECORDS};

/// The random traps: one batch in so many.
const TRAP_ONE_IN: u64 = 5;

fn guest(name: &str) -> PathBuf {
    let path = target_dir().join(format!("guests/{name}.wasm"));
    assert!(path.exists(), "`{}` is not built: {REMEDY}", path.display());
    path
}

/// What every host is told, but for its own name and directories.
pub fn configuration(bootstrap: &str, dsn: &str, redis: &str, course: Course) -> Value {
    let plugin = |guest_name: &str, options: Value| {
        let directory = json!({ "host": "", "guest": "/out", "access": "write" });
        json!({
            "component": guest(guest_name),
            "options": options,
            "grants": { "directories": [directory] },
        })
    };
    let mut plugins = json!({
        "csv": plugin("csv", json!({ "path": "/out/{topic}-{partition}.csv", "columns": ["value"] })),
    });
    if course == Course::Faults {
        plugins["python"] = plugin("python-sink", json!({ "directory": "/out" }));
        plugins["python"]["limits"] = json!({ "memory_mebibytes": 256 });
        plugins["trap"] = plugin("random-trap-sink", json!({ "directory": "/out", "trap_one_in": TRAP_ONE_IN }));
    }
    let names: Vec<&String> = plugins.as_object().unwrap().keys().collect();
    let has_redis = course == Course::Faults;
    let options = json!({
        "host": "check", "table": "latest", "file": "stamps.jsonl", "redis": has_redis, "plugins": names,
    });
    let mut document = json!({
        "kafka": {
            "brokers": bootstrap,
            "source_topic": SOURCE,
            "group": GROUP,
            "properties": {
                "session.timeout.ms": SESSION_TIMEOUT.as_millis().to_string(),
                "heartbeat.interval.ms": "500",
            },
        },
        "window": { "max_records": WINDOW_RECORDS },
        "collect": { "component": guest("stamp"), "options": options },
        "sinks": {
            "kafka": { "results": { "topic": RESULTS } },
            "postgres": { "main": { "dsn": dsn, "key": ["k"], "upsert": { "guard": "written_at" } } },
            "filesystem": { "log": { "base_path": "" } },
            "plugin": plugins,
        },
    });
    if has_redis {
        document["sinks"]["redis"] = json!({ "cache": { "url": redis } });
    }
    if course == Course::Faults {
        document["kafka"]["properties"]["max.poll.interval.ms"] = "10000".into();
        document["kafka"]["revoke_budget_seconds"] = 2.into();
        document["checkpoint"] = json!({ "interval_seconds": 0.7 });
        document["executor"] = json!({ "drain_timeout_seconds": 15 });
    }
    document
}

/// Where the hosts' sinks write their lines.
pub fn files(hosts: &[Host], course: Course) -> Vec<Files> {
    let of_partitions = |dir: &str, prefix: &str, suffix: &str| {
        let path = |host: &Host, partition| host.dir().join(dir).join(format!("{prefix}{partition}.{suffix}"));
        hosts.iter().flat_map(|host| (0..PARTITIONS).map(move |partition| path(host, partition))).collect()
    };
    let logs = hosts.iter().map(|host| host.dir().join("files/stamps.jsonl")).collect();
    let mut files = vec![
        Files::new("filesystem", Format::Json, logs, KEYS),
        Files::new("csv", Format::Csv, of_partitions("csv", &format!("{SOURCE}-"), "csv"), KEYS),
    ];
    if course == Course::Faults {
        files.push(Files::new("python", Format::Json, of_partitions("python", "", "jsonl"), KEYS));
        files.push(Files::new("trap", Format::Json, of_partitions("trap", "", "jsonl"), KEYS));
    }
    files
}
