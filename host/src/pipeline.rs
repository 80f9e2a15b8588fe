//! The loop: poll, collect, route, deliver, checkpoint. Generic over source, sinks and clock, so that the simulator runs
//! this very loop.

pub mod assignment;
pub mod buffer_shares;
pub mod collect_window;
pub mod delivery;
pub mod dlq;
mod failed_rows;
pub mod options;
pub mod orders;
pub mod policy;
pub mod replay;
pub mod route;
pub mod rows;
mod search;
pub mod shared;
pub mod waiting;
pub mod worker;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Clock;
use crate::collect::Collect;
use crate::model::{Fault, SinkKind};
use crate::sink::Sink;
use crate::source::{Event, Source};
use crate::telemetry::Counters;
use assignment::Assignment;
use buffer_shares::BufferShares;
use dlq::DeadLetters;
use options::DeliveryOptions;
use route::Routes;
use shared::{Settings, Shared, SinkSlot, millis, seconds};

/// The longest that one sink's or the queue's `close` may take (S57).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// One sink and what it is called.
#[derive(Clone)]
pub struct NamedSink {
    /// Its kind.
    pub kind: SinkKind,
    /// Its name in the configuration.
    pub name: String,
    /// The sink.
    pub sink: Arc<dyn Sink>,
    /// What it was told beside its own options.
    pub delivery: DeliveryOptions,
}

impl NamedSink {
    /// A sink that was told nothing in particular.
    pub fn new(kind: SinkKind, name: &str, sink: Arc<dyn Sink>) -> Self {
        Self { kind, name: name.to_owned(), sink, delivery: DeliveryOptions::default() }
    }
}

impl fmt::Display for NamedSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// Everything a pipeline is made of, save its source and clock. The sinks are connected.
pub struct Parts {
    /// The sinks in order of registration.
    pub sinks: Vec<NamedSink>,
    /// What turns records into payloads.
    pub collector: Arc<dyn Collect>,
    /// The collector's name, for dead letters.
    pub collector_name: String,
    /// Where given-up payloads go.
    pub dlq: Arc<dyn DeadLetters>,
    /// The configuration.
    pub settings: Settings,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// Runs until `stop` completes, the source ends, or a fault ends it; then drains within `executor.drain_timeout_seconds`
/// and closes everything (S54–S57).
///
/// # Errors
/// The first fault that ended it. What was settled is committed all the same.
pub async fn run<S: Source, C: Clock>(
    parts: Parts,
    mut source: S,
    clock: C,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Fault> {
    let Parts { sinks, collector, collector_name, dlq, settings, counters } = parts;
    let drain = seconds(settings.executor.drain_timeout_seconds);
    let shared = Arc::new(Shared {
        routes: Routes::new(sinks.iter().map(|sink| (sink.kind, sink.name.as_str()))),
        sinks: sinks
            .into_iter()
            .map(|named| {
                let counters = counters.sink(&named.to_string());
                SinkSlot::new(named, counters)
            })
            .collect(),
        collector,
        collector_name,
        dlq,
        settings,
        clock: clock.clone(),
        counters,
        buffered_bytes: AtomicU64::new(0),
        buffers: BufferShares::default(),
        collected: AtomicBool::new(false),
        unforgotten: Mutex::default(),
    });
    let mut assignment = Assignment::new(shared.clone());
    let outcome = serve(&mut source, &mut assignment, &shared.counters, stop).await;
    let drained = close_workers(&mut source, &mut assignment, &shared.counters, clock.now() + millis(drain)).await;
    close_parts(&shared, &mut source).await;
    outcome.and(drained)
}

/// Follows the assignment until there is a reason to end.
async fn serve<S: Source, C: Clock>(
    source: &mut S,
    assignment: &mut Assignment<C>,
    counters: &Counters,
    stop: impl Future<Output = ()>,
) -> Result<(), Fault> {
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            Some(ended) = assignment.ended() => {
                assignment.release(source).await;
                if let Some(fault) = ended.fault {
                    return Err(fault);
                }
            }
            change = source.next() => match change {
                Event::Assigned(readers) => assignment.assign(readers),
                Event::Gap { records, .. } => counters.lost_records.add(records),
                Event::Revoked(partitions) => assignment.leave(source, partitions, false).await,
                Event::Lost(partitions) => assignment.leave(source, partitions, true).await,
                Event::Failed(fault) => return Err(fault),
                Event::Ended => return Ok(()),
            },
        }
    }
}

/// Gives every worker until `deadline` for its last cut. Changes of the assignment go on being answered meanwhile.
async fn close_workers<S: Source, C: Clock>(
    source: &mut S,
    assignment: &mut Assignment<C>,
    counters: &Counters,
    deadline: u64,
) -> Result<(), Fault> {
    assignment.close_all(deadline);
    let mut outcome = Ok(());
    let mut listening = true;
    while !assignment.is_empty() {
        tokio::select! {
            biased;
            Some(ended) = assignment.ended() => {
                assignment.release(source).await;
                if let Some(fault) = ended.fault {
                    outcome = outcome.and(Err(fault));
                }
            }
            change = source.next(), if listening => match change {
                // What comes now is not begun any more; leaving the group gives it back.
                Event::Assigned(_) => {}
                Event::Gap { records, .. } => counters.lost_records.add(records),
                Event::Revoked(partitions) => assignment.leave(source, partitions, false).await,
                Event::Lost(partitions) => assignment.leave(source, partitions, true).await,
                Event::Failed(_) | Event::Ended => listening = false,
            },
        }
    }
    assignment.release(source).await;
    outcome
}

/// S57: every sink, then the dead letter queue, then the consumer; errors are logged and never stop the others.
async fn close_parts<S: Source, C: Clock>(shared: &Shared<C>, source: &mut S) {
    for slot in &shared.sinks {
        tokio::select! {
            biased;
            closed = slot.sink.close() => {
                if let Err(fault) = closed {
                    tracing::warn!(sink = slot.label(), %fault, "a sink did not close cleanly");
                }
            }
            () = shared.clock.sleep(CLOSE_TIMEOUT) => tracing::warn!(sink = slot.label(), "a sink took too long to close"),
        }
    }
    let rest = async {
        shared.collector.close().await;
        shared.dlq.close().await;
    };
    tokio::select! {
        biased;
        () = rest => {}
        () = shared.clock.sleep(CLOSE_TIMEOUT) => tracing::warn!("the dead letter queue took too long to close"),
    }
    source.close().await;
}
