//! The binary, delivering one topic on default options.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::help::broker;
use crate::support::child::{Running, binary};

/// How much of its log a failure shows.
const TAIL: usize = 25;
const LOOK: Duration = Duration::from_millis(50);

pub struct Process {
    running: Option<Running>,
    dir: TempDir,
}

impl Process {
    /// Starts it with these sinks; `around` is a command that runs another one.
    pub fn start(source: &str, group: &str, sinks: &Value, around: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let document = json!({
            "kafka": { "brokers": broker().bootstrap(), "source_topic": source, "group": group },
            "checkpoint": { "interval_seconds": 0.5 },
            "sinks": sinks,
        });
        let file = dir.path().join("tidegate.yaml");
        fs::write(&file, document.to_string()).unwrap();
        let program = binary().display().to_string();
        let words: Vec<&str> = around.iter().map(String::as_str).chain([program.as_str(), "run"]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(&file).env("RUST_LOG", "tidegate=info").env("NO_COLOR", "1");
        let running = Running::start("tidegate", &command, dir.path(), &log(dir.path()));
        Self { running: Some(running), dir }
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().unwrap().pid()
    }

    /// What it wrote to standard error.
    pub fn told(&self) -> String {
        fs::read_to_string(log(self.dir.path())).unwrap_or_default()
    }

    /// The end of that.
    pub fn tail(&self) -> String {
        let told = self.told();
        let lines: Vec<&str> = told.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Whether it says that it waits for the destination.
    pub fn waits(&self) -> bool {
        self.told().contains("waiting until it is available")
    }

    pub fn has_ended(&mut self) -> bool {
        self.running.as_mut().is_none_or(|running| running.ended().is_some())
    }

    pub fn signal(&self, signal: &str) {
        Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// When it does not end with code 0.
    pub fn end(&mut self, patience: Duration) -> Result<(), String> {
        self.signal("-TERM");
        let started = Instant::now();
        loop {
            match self.running.as_mut().and_then(Running::ended) {
                Some(0) => return Ok(()),
                Some(code) => return Err(format!("it ended with code {code}")),
                None if started.elapsed() > patience => return Err("it does not end".into()),
                None => std::thread::sleep(LOOK),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }
}

fn log(dir: &Path) -> PathBuf {
    dir.join("tidegate.log")
}
