//! A disk that is full, on a small file system of its own.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::help::{PATIENCE, Row, broker, committed, produce, topic, unique};

/// Mounts 256 KiB, takes most of it away, and gives it back once Tidegate says that it waits.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs -o size=256k tmpfs "$1/small"
head -c 180000 /dev/zero >"$1/small/filler"
timeout 45 "$2" run --until-end "$1/tidegate.yaml" >"$1/log" 2>&1 &
pid=$!
for _ in $(seq 300); do grep -q waiting "$1/log" && break; sleep 0.1; done
grep -q waiting "$1/log"
rm "$1/small/filler"
wait $pid
cat "$1/small/"*.jsonl >"$1/written"
"#;

/// S41, S119: nothing of a write that does not fit stays behind, nothing is dead-lettered, and the other sink is not held up.
#[tokio::test]
async fn s119_a_full_disk_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["small", "large"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let (source, group) = (topic("lines", 1).await, unique("disk"));
    let configuration = json!({
        "kafka": { "brokers": broker().bootstrap(), "source_topic": source, "group": group },
        "window": { "max_records": 16 },
        "sinks": { "filesystem": { "full": { "base_path": "small" }, "rest": { "base_path": "large" } } },
    });
    fs::write(folder.path().join("tidegate.yaml"), configuration.to_string()).unwrap();
    let line = |number: u32| json!({ "n": number, "padding": "x".repeat(1_000) }).to_string();
    produce(&source, 0, (0..120).map(|number| Row::value(line(number))));

    let mut running = Command::new("unshare");
    running.args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "disk"]);
    running.arg(folder.path()).arg(env!("CARGO_BIN_EXE_tidegate"));
    let output = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || running.output().unwrap()));
    let output = output.await.expect("the run did not end").unwrap();
    let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "a file system of one's own needs `unshare` and user namespaces: {said}\n{log}");

    let expected: String = (0..120).map(|number| line(number) + "\n").collect();
    assert!(
        fs::read_to_string(folder.path().join("written")).unwrap() == expected,
        "the lines are not those, once each"
    );
    let rest = fs::read_to_string(folder.path().join("large").join(format!("{source}-0.jsonl"))).unwrap();
    assert!(rest == expected, "the other sink has not those lines, once each");
    assert!(log.contains("No space left on device"), "{log}");
    assert_eq!(committed(&source, 0, &group), Some(120));
}
