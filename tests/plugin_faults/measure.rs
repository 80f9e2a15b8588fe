//! One attack after the other in a process of its own: what is left of each, and what it costs the plugin beside it.
//!
//! `make attacks` plays every attack and prints a table; `make test` plays some of each kind and only looks at what is left.

use std::panic::AssertUnwindSafe;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use crate::beside::Beside;
use crate::machine::{open_files, peak_mebibytes, status};
use crate::stage::{Stage, plugins};
use crate::{Attack, EVERY, journal};

/// What asks for it: `some`, or `every` for all of them and the table.
const ASKED: &str = "TIDEGATE_ATTACKS";
/// How many of each kind are played for `some`.
const SOME: usize = 3;
/// Shortest time for which is measured in peace, and under an attack, which is repeated until then.
const LEAST: Duration = Duration::from_millis(200);
/// How often peace and attack alternate.
const TURNS: usize = 2;
/// Longest that is waited until what an attack had begun is over.
const PATIENCE: Duration = Duration::from_secs(90);
/// Threads and files that may be there more at the end: what the runtime made for itself meanwhile.
const SLACK: usize = 4;

/// S129, S130: threads and open files are back to what they were.
#[test]
fn nothing_is_left_behind() {
    match std::env::var(ASKED).as_deref() {
        Ok("every") => play(usize::MAX, TURNS),
        Ok("some") => play(SOME, 0),
        _ => {
            // Other tests come and go in this process, so that nothing can be counted here.
            let itself = std::env::current_exe().unwrap();
            let name = "measure::nothing_is_left_behind";
            let ran = Command::new(itself).env(ASKED, "some").args([name, "--exact", "--nocapture"]).output().unwrap();
            assert!(
                ran.status.success(),
                "{}\n{}",
                String::from_utf8_lossy(&ran.stdout),
                String::from_utf8_lossy(&ran.stderr)
            );
            assert!(String::from_utf8_lossy(&ran.stdout).contains("attacks left nothing behind"), "nothing was played");
        }
    }
}

fn play(of_each: usize, turns: usize) {
    journal::start();
    let attacks: Vec<&Attack> = EVERY.iter().flat_map(|some| some.iter().take(of_each)).collect();
    let mut failed = Vec::new();
    if turns > 0 {
        println!("{:<58} {:>8} {:>8} {:>10}", "attack", "median", "p99", "peak MiB");
    }
    let mut before = None;
    for attack in &attacks {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let measured = runtime.block_on(AssertUnwindSafe(measure(attack, turns)).catch_unwind());
        // With the runtime its threads end.
        drop(runtime);
        match measured {
            Ok(cost) if turns > 0 => println!("{:<58} {cost}", attack.name),
            Ok(_) => {}
            Err(_) => failed.push(attack.name),
        }
        // What is made once for the whole process stands after the first attack.
        before.get_or_insert_with(taken);
    }
    let (before, end) = (before.unwrap(), Instant::now() + PATIENCE);
    // The attackers' own servers hold what they were asked for a while longer.
    while taken().0 > before.0 + SLACK && Instant::now() < end {
        std::thread::sleep(LEAST);
    }
    let after = taken();
    assert!(failed.is_empty(), "these went wrong: {failed:?}");
    assert!(after.0 <= before.0 + SLACK, "{} threads, {} before", after.0, before.0);
    assert!(after.1 <= before.1 + SLACK, "{} files, {} before: {:?}", after.1, before.1, open_files());
    println!("{} attacks left nothing behind: {after:?} threads and files, {before:?} before", attacks.len());
}

/// Threads and open files.
fn taken() -> (usize, usize) {
    (usize::try_from(status("Threads")).unwrap(), open_files().len())
}

/// What an attack costs the plugin beside it: how many times longer its batches take, and how much more memory the process has.
struct Cost {
    median: f64,
    p99: f64,
    peak_mebibytes: u64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>8.2} {:>8.2} {:>10}", self.median, self.p99, self.peak_mebibytes)
    }
}

async fn measure(attack: &Attack, turns: usize) -> Cost {
    let mut beside = Beside::start(plugins()).await;
    beside.round().await;
    if turns == 0 {
        let stage = Stage::new(attack.name, beside.folder());
        (attack.run)(&stage).await;
    }
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    let (mut quiet_peak, mut attacked_peak) = (0, 0);
    for _ in 0..turns {
        forget_peak();
        let running = beside.run();
        tokio::time::sleep(LEAST).await;
        let (after, taken) = running.end().await;
        quiet.extend(taken);
        quiet_peak = quiet_peak.max(peak_mebibytes());
        forget_peak();
        let folder = after.folder().to_owned();
        let (running, begun) = (after.run(), Instant::now());
        while begun.elapsed() < LEAST {
            (attack.run)(&Stage::new(attack.name, &folder)).await;
        }
        let (after, taken) = running.end().await;
        attacked.extend(taken);
        attacked_peak = attacked_peak.max(peak_mebibytes());
        beside = after;
    }
    beside.delivered_all();
    let ratio = |percent| at(&mut attacked.clone(), percent) / at(&mut quiet.clone(), percent);
    Cost { median: ratio(50), p99: ratio(99), peak_mebibytes: attacked_peak.saturating_sub(quiet_peak) }
}

/// The time at that percentile, in seconds.
fn at(times: &mut [Duration], percent: usize) -> f64 {
    times.sort();
    let place = times.len().saturating_sub(1) * percent / 100;
    times.get(place).map_or(f64::NAN, Duration::as_secs_f64)
}

/// Lets the peak begin anew at what there is now.
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}
