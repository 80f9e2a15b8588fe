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
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;

use crate::clock::{Clock, Millis};
use crate::collect::Collect;
use crate::memory::Account;
use crate::model::{Fault, SinkKind, TopicPartition};
use crate::sink::Sink;
use crate::source::{Event, Source};
use crate::telemetry::Counters;
use assignment::Assignment;
use buffer_shares::BufferShares;
use dlq::DeadLetters;
use options::DeliveryOptions;
use route::Routes;
use shared::{Settings, Shared, SinkSlot, millis, seconds};
use waiting::Troubles;

/// The share of `executor.drain_timeout_seconds` that is left to closing sinks, the dead letter queue and the consumer: one in
/// so many.
const CLOSE_SHARE: u64 = 3;
/// What closing may take even when that time is up (S46).
const CLOSE_FLOOR: Duration = Duration::from_secs(5);

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
    /// What records take in memory, shared with the source.
    pub memory: Arc<Account>,
}

/// Runs until `stop` completes, the source ends, or a fault ends it; then drains and closes everything, within
/// `executor.drain_timeout_seconds` in all (S54–S57).
///
/// # Errors
/// The first fault that ended it. What was settled is committed all the same.
pub async fn run<S: Source, C: Clock>(
    parts: Parts,
    mut source: S,
    clock: C,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Fault> {
    let Parts { sinks, collector, collector_name, dlq, settings, counters, memory } = parts;
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
        memory,
        buffers: BufferShares::default(),
        troubles: Troubles::default(),
        collected: AtomicBool::new(false),
        unforgotten: Mutex::default(),
    });
    let mut assignment = Assignment::new(shared.clone());
    let mut stop = StopRequest { request: Box::pin(stop), clock, drain: millis(drain), since: None };
    let outcome = serve(&mut source, &mut assignment, &shared.counters, &mut stop).await;
    let drained = close_workers(&mut source, &mut assignment, &shared.counters, &mut stop).await;
    close_parts(&shared, &mut source, stop.close_deadline()).await;
    outcome.and(drained)
}

/// The request to stop, and the one deadline that follows from it.
struct StopRequest<F, C> {
    request: Pin<Box<F>>,
    clock: C,
    /// What a stop may take in all (S55).
    drain: Millis,
    /// When it was requested, or became necessary.
    since: Option<Millis>,
}

impl<F: Future<Output = ()>, C: Clock> StopRequest<F, C> {
    /// Waits for the request. Never completes a second time. May be cancelled.
    async fn requested(&mut self) {
        if self.since.is_some() {
            return std::future::pending().await;
        }
        self.request.as_mut().await;
        self.begin();
    }

    /// The stop begins now, unless it has begun.
    fn begin(&mut self) -> Millis {
        *self.since.get_or_insert_with(|| self.clock.now())
    }

    /// Until when workers may settle what they have in hand.
    fn worker_deadline(&mut self) -> Millis {
        self.begin().saturating_add(self.drain - self.drain / CLOSE_SHARE)
    }

    /// Until when everything is to be closed.
    fn close_deadline(&mut self) -> Millis {
        self.begin().saturating_add(self.drain).max(self.clock.now().saturating_add(millis(CLOSE_FLOOR)))
    }
}

/// Follows the assignment until there is a reason to end.
async fn serve<S: Source, C: Clock, F: Future<Output = ()>>(
    source: &mut S,
    assignment: &mut Assignment<C>,
    counters: &Counters,
    stop: &mut StopRequest<F, C>,
) -> Result<(), Fault> {
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => return Ok(()),
            Some(ended) = assignment.ended() => {
                release(source, assignment, stop).await;
                if let Some(fault) = ended.fault {
                    return Err(fault);
                }
            }
            change = source.next() => match change {
                Event::Assigned(readers) => assignment.assign(readers),
                Event::Gap { records, .. } => counters.lost_records.add(records),
                Event::Revoked(partitions) => leave(source, assignment, stop, partitions, false).await,
                Event::Lost(partitions) => leave(source, assignment, stop, partitions, true).await,
                Event::Failed(fault) => return Err(fault),
                Event::Ended => return Ok(()),
            },
        }
        if stop.since.is_some() {
            return Ok(());
        }
    }
}

/// Ends the workers of partitions that were taken away.
async fn leave<S: Source, C: Clock, F: Future<Output = ()>>(
    source: &mut S,
    assignment: &mut Assignment<C>,
    stop: &mut StopRequest<F, C>,
    partitions: Vec<TopicPartition>,
    lost: bool,
) {
    assignment.leave(partitions, lost);
    release(source, assignment, stop).await;
}

/// Lets partitions go that no worker serves any more. The source may wait for a commit that is on its way; a request to stop that
/// comes meanwhile is passed on to the workers at once.
async fn release<S: Source, C: Clock, F: Future<Output = ()>>(
    source: &mut S,
    assignment: &mut Assignment<C>,
    stop: &mut StopRequest<F, C>,
) {
    for partitions in assignment.take_left() {
        let mut releasing = source.release(partitions);
        loop {
            tokio::select! {
                biased;
                () = &mut releasing => break,
                () = stop.requested() => assignment.close_all(stop.worker_deadline()),
            }
        }
    }
}

/// Gives every worker until the deadline for its last cut. Changes of the assignment go on being answered meanwhile.
async fn close_workers<S: Source, C: Clock, F: Future<Output = ()>>(
    source: &mut S,
    assignment: &mut Assignment<C>,
    counters: &Counters,
    stop: &mut StopRequest<F, C>,
) -> Result<(), Fault> {
    assignment.close_all(stop.worker_deadline());
    let mut outcome = Ok(());
    let mut listening = true;
    while !assignment.is_empty() {
        tokio::select! {
            biased;
            Some(ended) = assignment.ended() => {
                release(source, assignment, stop).await;
                if let Some(fault) = ended.fault {
                    outcome = outcome.and(Err(fault));
                }
            }
            change = source.next(), if listening => match change {
                // What comes now is not begun any more; leaving the group gives it back.
                Event::Assigned(_) => {}
                Event::Gap { records, .. } => counters.lost_records.add(records),
                Event::Revoked(partitions) => leave(source, assignment, stop, partitions, false).await,
                Event::Lost(partitions) => leave(source, assignment, stop, partitions, true).await,
                Event::Failed(_) | Event::Ended => listening = false,
            },
        }
    }
    release(source, assignment, stop).await;
    outcome
}

/// S57: every sink, then the dead letter queue, then the consumer; errors are logged and never stop the others. Sinks close at the
/// same time. Each of the three gets half of what is left until the deadline, and the last one all of it.
async fn close_parts<S: Source, C: Clock>(shared: &Shared<C>, source: &mut S, deadline: Millis) {
    let clock = &shared.clock;
    let half = || Duration::from_millis(deadline.saturating_sub(clock.now()) / 2);
    let patience = half();
    join_all(shared.sinks.iter().map(|slot| async move {
        tokio::select! {
            biased;
            closed = slot.sink.close() => {
                if let Err(fault) = closed {
                    tracing::warn!(sink = slot.label(), fault = %fault.with_hint(), "a sink did not close cleanly");
                }
            }
            () = clock.sleep(patience) => tracing::warn!(sink = slot.label(), "a sink took too long to close"),
        }
    }))
    .await;
    let rest = async { tokio::join!(shared.collector.close(), shared.dlq.close()) };
    tokio::select! {
        biased;
        _ = rest => {}
        () = clock.sleep(half()) => tracing::warn!("the dead letter queue took too long to close"),
    }
    source.close(half() * 2).await;
}
