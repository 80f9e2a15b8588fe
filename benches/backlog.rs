//! A backlog on default options: how much memory the binary takes, how fast it is, and whether everything arrives.
//!
//! One topic for each number of partitions is filled once on a real broker. Each case then reads all of it with
//! `tidegate run --until-end`, in a process of its own and under a group of its own. Nothing is configured but what a case
//! consists of: no limit, no interval, no log level. A line per case tells what was seen; there is no assertion about time
//! or memory. The measurement fails when a process ends with another code than 0, when there are dead letters, or when rows
//! are missing.
//!
//! `make backlog` runs it with the release binary. `TIDEGATE_BACKLOG_RECORDS`, `TIDEGATE_BACKLOG_CASES=files,csv` and
//! `TIDEGATE_BACKLOG_PARTITIONS=4,64` choose what is measured, `TIDEGATE_BIN` another binary.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a measurement")]

#[path = "backlog/cases.rs"]
mod cases;
#[path = "backlog/process.rs"]
mod process;
#[path = "backlog/rows.rs"]
mod rows;
#[path = "backlog/topics.rs"]
mod topics;
#[path = "../tests/support"]
mod support {
    pub mod broker;
    pub mod certificates;
    pub mod child;
    pub mod proxy;
}

use std::str::FromStr;

use cases::{Case, Scene};
use process::Run;
use rows::Rows;
use support::broker::Broker;
use support::child::binary;

const RECORDS: u64 = 5_000_000;
const PARTITIONS: &str = "4,64";

#[tokio::main]
async fn main() {
    let records: u64 = chosen("TIDEGATE_BACKLOG_RECORDS", &RECORDS.to_string()).remove(0);
    let partitions: Vec<i32> = chosen("TIDEGATE_BACKLOG_PARTITIONS", PARTITIONS);
    let cases: Vec<Case> = chosen("TIDEGATE_BACKLOG_CASES", &Case::ALL.map(Case::name).join(","));
    let mut broker = Broker::start();
    println!("{records} records of {} bytes, {}", topics::request(0).len(), binary().display());
    println!(
        "{:<11} {:>10} {:>11} {:>8} {:>10} {:>9} {:>9} {:>5} {:>8} {:>6} {:>8} {:>6}",
        "case",
        "partitions",
        "records",
        "seconds",
        "records/s",
        "peak MiB",
        "anon MiB",
        "exit",
        "letters",
        "traps",
        "missing",
        "twice"
    );
    let mut failed = Vec::new();
    for partitions in partitions {
        let topic = topics::fill(&broker, partitions, records).await;
        for case in &cases {
            failed.extend(measure(&broker, *case, &topic, partitions, records).await);
        }
    }
    broker.stop();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The parts of a variable, or of what stands for it when it is not set.
fn chosen<T: FromStr<Err: std::fmt::Display>>(name: &str, usual: &str) -> Vec<T> {
    let text = std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    let parse = |part: &str| match part.trim().replace('_', "").parse() {
        Ok(part) => part,
        Err(error) => panic!("`{name}={text}`: {error}"),
    };
    text.split(',').map(parse).collect()
}

/// Runs one case, prints its line and answers what was wrong with it.
async fn measure(broker: &Broker, case: Case, topic: &str, partitions: i32, records: u64) -> Option<String> {
    let scene = Scene::new(broker, case, topic, partitions).await;
    process::check(&scene);
    let before = topics::records(broker, &scene.dead_letters);
    let Run { code, seconds, peak, anonymous, log } = process::run(&scene);
    let letters = topics::records(broker, &scene.dead_letters) - before;
    let traps = log.lines().filter(|line| process::TRAPS.iter().any(|words| line.contains(words))).count();
    let Rows { missing, repeated } = rows::count(&scene, records, topics::records(broker, &scene.results));
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let rate = records as f64 / seconds;
    println!(
        "{:<11} {partitions:>10} {records:>11} {seconds:>8.1} {rate:>10.0} {peak:>9} {anonymous:>9} {:>5} {letters:>8} {traps:>6} \
         {missing:>8} {repeated:>6}",
        case.name(),
        code.map_or_else(|| "-".to_owned(), |code| code.to_string()),
    );
    if code == Some(0) && letters == 0 && missing == 0 {
        return None;
    }
    Some(format!(
        "{} on {partitions} partitions: exit code {code:?}, {letters} dead letters, {missing} rows missing; the log ends with\n{}",
        case.name(),
        process::tail(&log)
    ))
}
