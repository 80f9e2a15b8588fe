//! One partition's worker: does what the core says, and reports back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Mutex, watch};

use super::collect_window::{CollectState, CollectedWindow, Collection};
use super::delivery::{Delivery, SinkState};
use super::orders::{Interrupt, Order, interrupted};
use super::route::{Group, Routed};
use super::rows::Rows;
use super::shared::{Shared, Stop};
use crate::checkpoint::{Abort, Command, Millis, Partition};
use crate::clock::Clock;
use crate::memory::Lease;
use crate::model::{Batch, Fault, TopicPartition};
use crate::sink::Style;
use crate::source::{CommitError, Reader};
use settled::SettledCommits;

mod buffers;
mod read;
mod settled;

/// What a last commit may take even when the time for a clean end is up (S46).
const COMMIT_FLOOR: Duration = Duration::from_secs(5);

/// How a worker ended.
#[derive(Debug)]
pub struct Ended {
    /// The partition.
    pub partition: TopicPartition,
    /// The fault that ended it, if it did not end as ordered.
    pub fault: Option<Fault>,
}

/// Serves one partition until it is told to end. The reader is dropped on return.
pub async fn serve<R: Reader, C: Clock>(
    shared: Arc<Shared<C>>,
    reader: R,
    mut orders: watch::Receiver<Order>,
) -> Ended {
    let partition = reader.partition().clone();
    let mut worker = Worker::new(shared, reader);
    let fault = worker.run(&mut orders).await;
    worker.leave_buffers();
    if orders.borrow().is_leaving() {
        worker.shared.counters.forget(&partition);
    }
    Ended { partition, fault }
}

/// Borrows what commits need of a worker, and leaves its sinks and its collector to the work that goes on meanwhile.
macro_rules! settled_commits {
    ($worker:ident) => {
        SettledCommits {
            shared: &$worker.shared,
            source: &$worker.source,
            core: &mut $worker.core,
            reader: &mut $worker.reader,
            writing: &$worker.writing,
            unsynced: &mut $worker.unsynced,
        }
    };
}

struct Worker<R, C: Clock> {
    shared: Arc<Shared<C>>,
    reader: R,
    source: TopicPartition,
    core: Partition,
    window: Option<Arc<Batch>>,
    /// What the partition knows of each sink.
    sinks: Vec<SinkState>,
    /// For each sink, held while it writes.
    writing: Vec<Arc<Mutex<()>>>,
    /// What it knows of the collector.
    collect: CollectState,
    fault: Option<Fault>,
    /// Why a sync failed while other work was done.
    unsynced: Option<Fault>,
    /// Bytes of windows that are kept for dead letters of buffered rows.
    kept_window_bytes: u64,
    /// Counts what plugins have copied of the partition's rows.
    guest_memory: Lease,
    /// A sink may still hold something from an earlier assignment; nothing is read before it has forgotten that.
    unforgotten: bool,
}

impl<R: Reader, C: Clock> Worker<R, C> {
    fn new(shared: Arc<Shared<C>>, reader: R) -> Self {
        let buffering = shared.sinks.iter().map(|slot| slot.description.style == Style::Buffering).collect();
        let core = Partition::new(shared.settings.limits(), buffering, reader.start(), shared.clock.now());
        let source = reader.partition().clone();
        let unforgotten = shared.unforgotten().contains(&source);
        let sinks: Vec<SinkState> = shared.sinks.iter().map(|_| SinkState::default()).collect();
        let writing = sinks.iter().map(|state| Arc::clone(&state.writing)).collect();
        let guest_memory = shared.memory.lease(None, 0);
        let worker = Self {
            shared,
            reader,
            source,
            core,
            window: None,
            sinks,
            writing,
            collect: CollectState::default(),
            fault: None,
            unsynced: None,
            kept_window_bytes: 0,
            guest_memory,
            unforgotten,
        };
        worker.join_buffers();
        worker
    }

    async fn run(&mut self, orders: &mut watch::Receiver<Order>) -> Option<Fault> {
        let mut extended: Option<Millis> = None;
        loop {
            let order = *orders.borrow_and_update();
            match order {
                Order::Serve => {}
                Order::Close { .. } => self.core.close(),
                Order::Drop => {
                    self.forget().await;
                    return self.fault.take();
                }
            }
            if self.unforgotten {
                if order != Order::Serve {
                    return None;
                }
                self.unforgotten = !self.forget().await;
                continue;
            }
            let now = self.shared.clock.now();
            let command = self.core.next(now, self.is_pressed());
            settled::place(&self.shared, &self.source, &self.core, &self.reader);
            if command == Command::End {
                return self.fault.take();
            }
            let clock = self.shared.clock.clone();
            let order = match (order, extended) {
                (Order::Close { commit_late, .. }, Some(deadline)) => Order::Close { deadline, commit_late },
                _ => order,
            };
            // A commit under way is given its floor, so that a deadline does not turn what arrived into duplicates.
            let floor = if matches!(command, Command::Commit(_)) { COMMIT_FLOOR } else { Duration::ZERO };
            let may_look = matches!(command, Command::Read { .. } | Command::BackOff { .. } | Command::Pause(_));
            let interrupt = tokio::select! {
                biased;
                interrupt = interrupted(orders, order, may_look, floor, &clock) => interrupt,
                done = self.perform(command) => {
                    if let Err(stop) = done {
                        self.stop(stop);
                    }
                    continue;
                }
            };
            match interrupt {
                Interrupt::Look => {}
                Interrupt::Dropped => {
                    self.forget().await;
                    return self.fault.take();
                }
                Interrupt::TimeIsUp { commit_late: true } if extended.is_none() => {
                    extended = Some(clock.now() + super::shared::millis(COMMIT_FLOOR));
                    self.window = None;
                    self.core.abandon();
                }
                Interrupt::TimeIsUp { .. } => {
                    tracing::warn!(partition = %self.source, "time is up: what is unsettled is left to the next owner");
                    self.forget().await;
                    return self.fault.take();
                }
            }
        }
    }

    async fn perform(&mut self, command: Command) -> Result<(), Stop> {
        match command {
            Command::Read { until } => self.read(until).await,
            Command::Process => self.process().await,
            Command::Flush(sink) => self.flush(&[sink]).await,
            Command::FlushTogether(sinks) => self.flush(&sinks).await,
            Command::Sync => self.sync().await,
            Command::Commit(offset) => self.commit(offset).await,
            Command::Discard => {
                // Sinks forget what they have not synced yet; what is settled of it never comes again.
                if !self.core.is_synced() {
                    settled_commits!(self).sync().await?;
                    self.core.settled_synced();
                }
                self.discard().await;
                self.core.discarded();
                Ok(())
            }
            Command::Rewind(offset) => {
                self.reader.rewind(offset).await.map_err(Stop::abort)?;
                self.core.rewound();
                Ok(())
            }
            Command::BackOff { attempt } => {
                let (mut commits, wait) = (settled_commits!(self), self.shared.back_off_abort(attempt));
                commits.during(wait).await?;
                self.core.waited(self.shared.clock.now());
                Ok(())
            }
            Command::Pause(wait) => {
                self.reader.set_paused(true).await.map_err(Stop::abort)?;
                let repeated = self.sinks.iter().any(|state| state.flush_refusals > 1);
                let wait = self.shared.wait_paused(Duration::from_millis(wait), repeated);
                settled_commits!(self).during(wait).await?;
                self.reader.set_paused(false).await.map_err(Stop::abort)?;
                self.core.waited(self.shared.clock.now());
                Ok(())
            }
            Command::End => Ok(()),
        }
    }

    /// Takes a failure to the core.
    fn stop(&mut self, stop: Stop) {
        self.window = None;
        match stop {
            Stop::Fatal(fault) => {
                self.fault = Some(fault);
                self.core.abandon();
            }
            Stop::Abort(abort, fault) => {
                self.shared.counters.aborts.add(1);
                let to = self.core.watermark();
                match abort {
                    Abort::Backpressure(_) => {
                        tracing::info!(partition = %self.source, fault = %fault.with_hint(), "backpressure")
                    }
                    _ => {
                        tracing::warn!(partition = %self.source, fault = %fault.with_hint(), to, "starting over from the watermark")
                    }
                }
                if !self.core.abort(abort) {
                    let fault = Fault { message: format!("{}: gave up on {}", fault.message, self.source), ..fault };
                    self.fault = Some(fault);
                    self.core.abandon();
                }
            }
        }
    }

    /// Collect, route, deliver: the whole of one window (S59–S76).
    async fn process(&mut self) -> Result<(), Stop> {
        let Some(window) = self.window.clone() else {
            return Err(Stop::abort(Fault::host("a window was lost between reading and delivering")));
        };
        let collection = Collection::new(&self.shared, &window, &mut self.collect);
        let CollectedWindow { mut round, mut window_round, dead } =
            settled_commits!(self).during(collection.run()).await??;
        for group in round.iter_mut().chain([&mut window_round]).flat_map(|round| &mut round.groups) {
            // Shared batches are the window, which is counted already.
            if let Some(batch) = Arc::get_mut(&mut group.batch) {
                batch.guard(self.shared.memory.lease(None, batch.memory_bytes()));
            }
        }
        settled_commits!(self).during(self.shared.dead_letter_records(&window, &dead)).await??;
        let round = round.unwrap_or_else(|| Routed {
            groups: (0..self.shared.sinks.len())
                .filter(|sink| self.shared.sinks[*sink].delivery.takes(&self.source.topic))
                .map(|sink| Group { sink, batch: window.clone(), origin: None })
                .collect(),
            ..Routed::default()
        });
        self.deliver_round(&window, round).await?;
        self.deliver_round(&window, window_round).await?;
        self.core.window_done(window.len() as u64);
        self.window = None;
        Ok(())
    }

    /// Gives every group to its sink, all at once; a group that fails cancels none of the others (S74, S75).
    async fn deliver_round(&mut self, window: &Arc<Batch>, round: Routed) -> Result<(), Stop> {
        for group in &round.groups {
            for &offset in &group.batch.offsets {
                self.core.owe(offset, group.sink);
            }
        }
        let (shared, source) = (&self.shared, &self.source);
        let mut groups: BTreeMap<usize, &Group> = round.groups.iter().map(|group| (group.sink, group)).collect();
        let calls = self.sinks.iter_mut().enumerate().filter_map(|(sink, state)| {
            let group = groups.remove(&sink)?;
            let rows = Rows::of_group(group, window);
            Some(async move { (group, Delivery::new(shared, sink, source, state).give(rows).await) })
        });
        let answers = settled_commits!(self).during(join_all(calls)).await?;
        let mut stopped = None;
        for (group, answer) in answers {
            match answer {
                Ok(()) if self.shared.sinks[group.sink].description.style == Style::Direct => {
                    for &offset in &group.batch.offsets {
                        self.core.settle(offset, group.sink);
                    }
                }
                Ok(()) => {}
                Err(stop) => {
                    self.note_wait(&stop);
                    stopped = Some(stop.after(stopped));
                }
            }
        }
        self.count_buffers(&round, window);
        stopped.map_or(Ok(()), Err)
    }

    /// Flushes these sinks at the same time. One that fails keeps none of the others from its end.
    async fn flush(&mut self, sinks: &[usize]) -> Result<(), Stop> {
        let (shared, source) = (&self.shared, &self.source);
        let calls = self.sinks.iter_mut().enumerate().filter(|(sink, _)| sinks.contains(sink));
        let calls =
            calls.map(|(sink, state)| async move { (sink, Delivery::new(shared, sink, source, state).flush().await) });
        let answers = settled_commits!(self).during(join_all(calls)).await?;
        let mut stopped = None;
        for (sink, answer) in answers {
            match answer {
                Ok(()) => self.core.flushed(sink),
                Err(stop) => {
                    self.note_wait(&stop);
                    stopped = Some(stop.after(stopped));
                }
            }
        }
        self.recount_buffers();
        stopped.map_or(Ok(()), Err)
    }

    /// S29: the wait that a destination asked for holds, whatever else stops the partition at the same time.
    fn note_wait(&mut self, stop: &Stop) {
        if let Stop::Abort(Abort::Backpressure(wait), _) = stop {
            self.core.asked_to_wait(*wait);
        }
    }

    async fn sync(&mut self) -> Result<(), Stop> {
        settled_commits!(self).sync().await?;
        self.core.synced();
        Ok(())
    }

    async fn commit(&mut self, offset: i64) -> Result<(), Stop> {
        match settled_commits!(self).commit_at(offset).await {
            Ok(()) => Ok(()),
            Err(CommitError::Stale(why)) => {
                tracing::info!(partition = %self.source, offset, why, "nothing was committed");
                self.core.commit_stale(self.shared.clock.now());
                Ok(())
            }
            Err(CommitError::Retry(fault)) => {
                self.shared.note_commit_failed(&self.source, offset, &fault);
                if self.core.commit_failed() { Ok(()) } else { Err(Stop::Fatal(fault)) }
            }
            Err(CommitError::Fatal(fault)) => Err(Stop::Fatal(fault)),
        }
    }
}
