//! Every sink in every outage of its destination: servers are killed, stalled, refused, failed over, read-only, full, closed to
//! their user and slow while records are written, each through a scripted TCP proxy. What is driven is the binary on default
//! options, with `on_error` left out. Every row has to arrive, in order of its key, once where the sink is idempotent; nothing
//! is committed before it has arrived, and nothing is dead-lettered.
//!
//! The matrix is in `outages/matrix.rs`, and `docs/guarantees.md` prints it. `TIDEGATE_OUTAGES=postgres/killed,redis` runs
//! some of it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

#[path = "kafka/help.rs"]
#[allow(dead_code, reason = "the broker's tests use the rest")]
mod help;
#[path = "outages"]
mod outages {
    pub mod cell;
    pub mod destinations;
    pub mod matrix;
    pub mod process;
    pub mod proxy;
    pub mod rows;
}
#[path = "support"]
mod support {
    pub mod broker;
    pub mod certificates;
    pub mod child;
    pub mod cluster;
    pub mod proxy;
    pub mod servers;
}

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

use outages::cell;
use outages::matrix::{self, Kind, Outage, cells};

/// Cells that run at the same time. Most of their time is waiting.
const AT_ONCE: usize = 8;

/// Whether `TIDEGATE_OUTAGES` asks for the cell, by `SINK` or `SINK/OUTAGE`; left out, it asks for all.
fn is_wanted(kind: Kind, outage: Outage) -> bool {
    let Ok(wanted) = std::env::var("TIDEGATE_OUTAGES") else { return true };
    let (sink, cell) = (kind.name(), format!("{}/{}", kind.name(), outage.name()));
    wanted.split(',').any(|one| one == sink || one == cell)
}

/// S1, S41, S76a, S79, S79a: whatever happens to a destination, every sink writes every row, in order of its key, commits nothing
/// before, and dead-letters nothing.
#[test]
fn s79a_every_sink_writes_every_row_in_every_outage() {
    let mut wanted: Vec<(Kind, Outage)> = cells().filter(|(kind, outage)| is_wanted(*kind, *outage)).collect();
    assert!(!wanted.is_empty(), "`TIDEGATE_OUTAGES` names no cell");
    // The longest first; taken from the end.
    let is_long = |outage: Outage| matches!(outage, Outage::Stalled | Outage::HalfOpen);
    wanted.sort_by_key(|(kind, outage)| (is_long(*outage), *kind == Kind::Kafka, *outage == Outage::FailedOver));
    let (left, done) = (Mutex::new(wanted), Mutex::new(BTreeMap::new()));
    let started = Instant::now();
    help::broker();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((kind, outage)) = { left.lock().unwrap().pop() } {
                    let ran = catch_unwind(AssertUnwindSafe(|| cell::run(kind, outage)));
                    let verdict = ran.unwrap_or_else(|panic| {
                        let text = panic.downcast_ref::<String>().cloned();
                        Err(text
                            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                            .unwrap_or_default())
                    });
                    done.lock().unwrap().insert((kind.name(), outage.name()), verdict);
                }
            });
        }
    });
    let done: BTreeMap<(&str, &str), Result<cell::Verdict, String>> = done.into_inner().unwrap();
    for ((sink, outage), verdict) in &done {
        let cell = format!("{sink:<10} {outage:<14}");
        match verdict {
            Ok(cell::Verdict { rows, repeated, took }) => {
                println!("{cell} {rows} rows, lost 0, again {repeated}, dead letters 0, {:.0} s", took.as_secs_f64());
            }
            Err(why) => println!("{cell} FAILED: {why}\n"),
        }
    }
    println!("{}\n{} cells in {:.0?}", matrix::table(), done.len(), started.elapsed());
    let failed: Vec<_> = done.iter().filter(|(_, verdict)| verdict.is_err()).map(|(cell, _)| cell).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
