//! SIGTERM before anything runs: the step under way is given up, and the process ends as any stopped one.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::binary::{Process, Scene, wait};
use super::help::{broker, topic, unique};

/// Stops a start that waits for the listener. A step that ran into its own limit would end with another code.
fn stops_promptly(document: &Value, listener: &TcpListener) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.yaml");
    std::fs::write(&file, document.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let mut child = command.arg("run").arg(&file).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The step is under way once somebody connects; nobody ever answers.
    let _connection = listener.accept().unwrap();
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let mut ended = None;
    wait("the process ends", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(ended.unwrap().code(), Some(0), "{said}");
    assert!(said.lines().any(|line| line.starts_with("stopped  by SIGTERM")), "{said}");
}

/// S54: a sink's destination takes the connection and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn s54_a_signal_ends_the_connecting_of_sinks() {
    let source = topic("interrupted", 1).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    let document = json!({
        "kafka": { "brokers": broker().bootstrap(), "source_topic": source, "group": unique("interrupted") },
        "sinks": { "postgres": { "silent": { "dsn": format!("postgresql://app@{silent}/app") } } },
    });
    tokio::task::spawn_blocking(move || stops_promptly(&document, &listener)).await.unwrap();
}

/// S54: a broker takes the connection and never answers.
#[test]
fn s54_a_signal_ends_the_wait_for_a_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().to_string();
    let document = json!({
        "kafka": { "brokers": silent, "source_topic": "orders", "group": "interrupted", "start_timeout_seconds": 120 },
        "sinks": { "filesystem": { "log": { "base_path": "out" } } },
    });
    stops_promptly(&document, &listener);
}

/// S54: a plugin sleeps in its `setup`.
#[tokio::test(flavor = "multi_thread")]
async fn s54_a_signal_ends_a_setup_that_sleeps() {
    let mut scene = Scene::new(&topic("interrupted", 1).await, json!({}));
    let directory = json!({ "host": scene.files(), "guest": "/out", "access": "write" });
    let faulty = json!({
        "component": super::handover::guest("faulty-sink.wasm"),
        "options": { "log": "/out/log", "setup": "sleep" },
        "grants": { "directories": [directory] },
    });
    scene.change(json!({ "sinks": { "plugin": { "faulty": faulty } } }));
    let mut process = Process::start(&scene, &["run"]);
    wait("its setup runs", || !scene.file("log").is_empty());
    process.signal("-TERM");
    assert_eq!(process.ended(), Some(0), "{}", process.told());
    assert!(process.told().contains("stopped  by SIGTERM"), "{}", process.told());
}

/// S54: a plugin is compiled, which takes this one several seconds where no cache has it.
#[tokio::test(flavor = "multi_thread")]
async fn s54_a_signal_ends_the_compiling_of_a_plugin() {
    let source = topic("interrupted", 1).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.yaml");
    let document = json!({
        "kafka": { "brokers": broker().bootstrap(), "source_topic": source, "group": unique("interrupted") },
        "collect": { "component": super::handover::guest("python-collector.wasm") },
        "sinks": { "filesystem": { "log": { "base_path": folder.path() } } },
    });
    std::fs::write(&file, document.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("run").arg(&file).env("XDG_CACHE_HOME", folder.path().join("cache"));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // A child of the process compiles.
    let compiler = || {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
        let others = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
        let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let all: String = others.map(|task| of(task.unwrap())).chain([children]).collect();
        all.split_whitespace().next().map(str::to_owned)
    };
    let mut compiles = None;
    wait("it compiles", || {
        compiles = compiler();
        compiles.is_some()
    });
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.lines().any(|line| line.starts_with("stopped  by SIGTERM")), "{said}");
    let left = std::path::PathBuf::from(format!("/proc/{}", compiles.unwrap()));
    wait("the compiler is gone", || !left.exists());
    let kept = std::fs::read_dir(folder.path().join("cache/tidegate")).map_or(0, Iterator::count);
    assert_eq!(kept, 0, "the compilation was given up: {said}");
}
