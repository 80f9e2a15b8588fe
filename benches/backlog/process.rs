//! The process under measurement: its time and its memory.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::cases::Scene;
use super::support::child::binary;

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(100);
/// No case takes this long.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// How much of a log is shown.
const TAIL: usize = 40;
/// What log lines say of an instance that was lost: by a trap, a limit or a deadline, and by a wrong answer.
pub const TRAPS: [&str; 3] = ["trapped in", "and was stopped", "broke the contract in"];

/// What was seen of a process.
pub struct Run {
    /// None when a signal ended it.
    pub code: Option<i32>,
    /// From its start to its end, joining the group included.
    pub seconds: f64,
    /// Most MiB that were resident at a time, and most of them that were no mapped file.
    pub peak: u64,
    pub anonymous: u64,
    pub log: String,
}

/// Compiles the plugins into the user's cache, so that no measured start does.
pub fn check(scene: &Scene) {
    let checked = Command::new(binary()).arg("check").arg(scene.configuration()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(checked.status.success(), "{}{}", text(&checked.stdout), text(&checked.stderr));
}

/// Runs the scene to the end of its topic.
pub fn run(scene: &Scene) -> Run {
    let log = scene.dir.path().join("stderr.log");
    let started = Instant::now();
    let mut child = Command::new(binary())
        .args(["run", "--until-end"])
        .arg(scene.configuration())
        .env_remove("RUST_LOG")
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let (mut peak, mut anonymous) = (0, 0);
    let status = loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        peak = peak.max(mebibytes(&status, "VmRSS:")).max(mebibytes(&status, "VmHWM:"));
        anonymous = anonymous.max(mebibytes(&status, "RssAnon:"));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
        }
        std::thread::sleep(SAMPLE);
    };
    let seconds = started.elapsed().as_secs_f64();
    let log = fs::read_to_string(&log).unwrap_or_default();
    Run { code: status.code(), seconds, peak, anonymous, log }
}

/// A line of /proc/PID/status, rounded up.
fn mebibytes(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0).div_ceil(1024)
}

/// The last lines of a log.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
