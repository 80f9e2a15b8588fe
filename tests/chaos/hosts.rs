//! The processes under test: three hosts, each with one life after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::stamps::Life;
use super::support::child::{Running, binary};

/// How much of its log a life leaves in a failure.
const TAIL: usize = 40;
const LOOK: Duration = Duration::from_millis(20);

/// One host: its folder, its configuration and its process.
pub struct Host {
    index: u16,
    dir: PathBuf,
    configuration: Value,
    lives: u16,
    running: Option<Alive>,
}

struct Alive {
    process: Running,
    since: Instant,
}

impl Host {
    /// A host with a folder of its own, where its files sink and its plugin sinks write to.
    pub fn new(index: usize, dir: &Path, mut configuration: Value) -> Self {
        let dir = dir.join(format!("h{index}"));
        fs::create_dir_all(dir.join("files")).unwrap();
        configuration["sinks"]["filesystem"]["log"]["base_path"] = dir.join("files").to_string_lossy().into();
        for (name, plugin) in configuration["sinks"]["plugin"].as_object_mut().unwrap() {
            fs::create_dir_all(dir.join(name)).unwrap();
            plugin["grants"]["directories"][0]["host"] = dir.join(name).to_string_lossy().into();
        }
        Self { index: u16::try_from(index).unwrap(), dir, configuration, lives: 0, running: None }
    }

    /// The host's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Compiles the plugins into the user's cache, so that no start waits for that.
    pub fn check(&self) {
        let configuration = self.dir.join("check.yaml");
        fs::write(&configuration, self.configuration.to_string()).unwrap();
        let checked = Command::new(binary()).arg("check").arg(&configuration).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(checked.status.success(), "{}{}", text(&checked.stdout), text(&checked.stderr));
    }

    /// Begins the next life.
    pub fn start(&mut self) -> Life {
        assert!(self.running.is_none(), "a host has one life at a time");
        self.lives += 1;
        let life = self.life();
        self.configuration["collect"]["options"]["host"] = life.to_string().into();
        let configuration = self.dir.join(format!("{life}.yaml"));
        fs::write(&configuration, self.configuration.to_string()).unwrap();
        let mut command = Command::new(binary());
        command.arg("run").arg(&configuration).env("RUST_LOG", "tidegate=info");
        let process = Running::start("host", &command, &self.dir, &self.log());
        self.running = Some(Alive { process, since: Instant::now() });
        life
    }

    /// The present life, or the last one.
    pub fn life(&self) -> Life {
        Life { host: self.index, number: self.lives.saturating_sub(1) }
    }

    /// How many lives there were.
    pub fn lives(&self) -> u16 {
        self.lives
    }

    /// The process of the present life.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|alive| alive.process.pid())
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The code with which the life has ended, and when it had begun; the host is then without one.
    pub fn ended(&mut self) -> Option<(i32, Instant)> {
        let alive = self.running.as_mut()?;
        let (code, since) = (alive.process.ended()?, alive.since);
        self.running = None;
        Some((code, since))
    }

    /// The same, waiting for it. `None`: it does not end.
    pub fn wait(&mut self, patience: Duration) -> Option<(i32, Instant)> {
        let started = Instant::now();
        while started.elapsed() < patience {
            if let Some(ended) = self.ended() {
                return Some(ended);
            }
            std::thread::sleep(LOOK);
        }
        None
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(alive) = &self.running {
            let process = Pid::from_raw(i32::try_from(alive.process.pid()).unwrap()).unwrap();
            // It may have ended by itself just now.
            let _ = kill_process(process, signal);
        }
    }

    /// SIGKILL: nothing is told.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Some(alive) = self.running.take() {
            alive.process.kill();
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.life()))
    }

    /// What the life told last.
    pub fn tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("{} told last:\n{}", self.life(), lines[lines.len().saturating_sub(TAIL)..].join("\n"))
    }

    /// Lines of all lives' logs that contain the word.
    pub fn told(&self, word: &str) -> Vec<String> {
        let logs = fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path());
        let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        let lines = |path: PathBuf| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines = text.lines().filter(|line| line.contains(word)).map(|line| format!("{name}: {line}"));
            lines.collect::<Vec<_>>()
        };
        logs.flat_map(lines).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}
