//! A start with destinations that are not there: all are asked at the same time, all that failed are named, and nothing runs.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use serde_json::json;

use super::help::{Row, broker, committed, produce, topic, unique};
use crate::support::servers::Redis;

const SECRET: &str = "s3cret-w0rd";

/// S123, S124, S58: exit code 3, each with its type, name and cause; what did connect is closed; no record was read.
#[tokio::test]
async fn s123_every_sink_that_cannot_be_reached_is_named() {
    let redis = Redis::start();
    let (source, group) = (topic("orders", 1).await, unique("start"));
    produce(&source, 0, [Row::value("{}")]);
    // Nobody listens on one port; on the other somebody does who never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let document = json!({
        "kafka": { "brokers": broker().bootstrap(), "source_topic": source, "group": group, "start_timeout_seconds": 1 },
        "sinks": {
            "kafka": { "far": { "topic": "copies", "brokers": "127.0.0.1:1" } },
            "postgres": {
                "main": { "dsn": format!("postgresql://app:{SECRET}@127.0.0.1:1/app") },
                "silent": { "dsn": format!("postgresql://app:{SECRET}@{silent}/app") },
            },
            "mongo": { "archive": { "uri": format!("mongodb://app:{SECRET}@127.0.0.1:1"), "database": "app" } },
            "redis": {
                "cache": { "url": format!("redis://app:{SECRET}@127.0.0.1:1/0") },
                "sound": { "url": redis.url(0) },
            },
            "http": { "webhook": { "url": format!("http://app:{SECRET}@127.0.0.1:1/") } },
            "filesystem": { "log": { "base_path": folder.path() } },
        },
    });
    let file = folder.path().join("tidegate.yaml");
    fs::write(&file, document.to_string()).unwrap();
    for command in [&["run"][..], &["check", "--connect"]] {
        let file = file.clone();
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        process.args(command).arg(file);
        let output = tokio::task::spawn_blocking(move || process.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        for sink in ["kafka/far", "postgres/main", "postgres/silent", "mongo/archive", "redis/cache"] {
            assert!(said.contains(&format!("error: `{sink}`")), "`{sink}` is not named:\n{said}");
        }
        for sink in ["redis/sound", "http/webhook", "filesystem/log"] {
            assert!(!said.contains(&format!("error: `{sink}`")), "`{sink}` is blamed:\n{said}");
        }
        assert!(!said.contains(SECRET), "{said}");
        assert!(said.contains("Connection refused"), "no cause is given:\n{said}");
    }
    assert_eq!(committed(&source, 0, &group), None);
    assert_eq!(
        redis.cli(&["CLIENT", "LIST"]).lines().filter(|line| !line.is_empty()).count(),
        1,
        "a connection is left"
    );
}
