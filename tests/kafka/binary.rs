//! The binary with a configuration of its own, on the shared broker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::help::{PATIENCE, broker, unique};

/// One configuration, in a folder where its sinks write too.
pub struct Scene {
    pub dir: TempDir,
    pub group: String,
    document: Value,
}

/// How a process ended and what it said.
#[derive(Debug)]
pub struct Told {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Scene {
    /// The topic's records to one file sink, with other parts of the configuration as given.
    pub fn new(source: &str, parts: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("files")).unwrap();
        let group = unique("group");
        let mut document = json!({
            "kafka": {
                "brokers": broker().bootstrap(),
                "source_topic": source,
                "group": group,
                "properties": { "session.timeout.ms": "1500", "heartbeat.interval.ms": "300" },
            },
            // Longer than any of these tests: an end must not wait for it.
            "checkpoint": { "interval_seconds": 300 },
            "sinks": { "filesystem": { "log": { "base_path": "files" } } },
        });
        document.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
        let scene = Self { dir, group, document };
        scene.write();
        scene
    }

    /// Replaces parts of the configuration.
    pub fn change(&mut self, parts: Value) {
        self.document.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
        self.write();
    }

    fn write(&self) {
        fs::write(self.dir.path().join("tidegate.yaml"), self.document.to_string()).unwrap();
    }

    pub fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    /// A file of the sink, empty when it is not there.
    pub fn file(&self, name: impl AsRef<Path>) -> Vec<u8> {
        fs::read(self.files().join(name)).unwrap_or_default()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(arguments).current_dir(self.dir.path()).env_remove("RUST_LOG");
        command
    }

    /// Starts it.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Told {
        let child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let id = child.id().to_string();
        let (done, ended) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || done.send(child.wait_with_output().unwrap()));
        let Output { status, stdout, stderr } = ended.recv_timeout(PATIENCE * 2).unwrap_or_else(|_| {
            Command::new("kill").args(["-KILL", &id]).status().unwrap();
            panic!("`{arguments:?}` does not end: {}", String::from_utf8_lossy(&ended.recv().unwrap().stderr));
        });
        waiting.join().unwrap().unwrap();
        Told { code: status.code(), out: String::from_utf8(stdout).unwrap(), err: String::from_utf8(stderr).unwrap() }
    }

    /// The same, which has to end with code 0.
    pub fn done(&self, arguments: &[&str]) -> Told {
        let told = self.run(arguments);
        assert_eq!(told.code, Some(0), "{arguments:?}: {}\n{}", told.out, told.err);
        told
    }
}

/// A process of a scene that is still running, with what it has said so far.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(scene: &Scene, arguments: &[&str]) -> Self {
        let log = scene.dir.path().join(unique("told"));
        let file = fs::File::create(&log).unwrap();
        let child = scene.command(arguments).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Self { child, log }
    }

    /// What it wrote to standard error, without colours.
    pub fn told(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal such as `-TERM`.
    pub fn signal(&self, signal: &str) {
        Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end and returns its code.
    pub fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        wait("the process ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds.
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
