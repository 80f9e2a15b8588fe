//! Commits what is settled while the partition is at something else that takes its time: a destination or a plugin that is waited
//! for, the dead letter topic, a back-off. A crash during a long outage then repeats only what is open (S79a).

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::checkpoint::{Abort, Partition};
use crate::clock::{Clock, Millis};
use crate::model::{CallError, Fault, Offset, TopicPartition};
use crate::pipeline::shared::{Shared, Stop, millis, seconds};
use crate::source::{CommitError, Reader};
use crate::telemetry::PartitionState;

/// The shortest time before such a commit, in milliseconds: what is done sooner is committed by its own checkpoint.
const SHORTEST_INTERVAL: Millis = 1_000;

/// What is needed of a worker to commit while its other parts are at work.
pub(super) struct SettledCommits<'a, R, C: Clock> {
    pub shared: &'a Shared<C>,
    pub source: &'a TopicPartition,
    pub core: &'a mut Partition,
    pub reader: &'a mut R,
    /// For each sink, held while it writes.
    pub writing: &'a [Arc<Mutex<()>>],
    /// Why a sync failed, until the partition starts over for it.
    pub unsynced: &'a mut Option<Fault>,
}

impl<R: Reader, C: Clock> SettledCommits<'_, R, C> {
    /// Does the work, and commits at the checkpoint's interval what was settled before it.
    ///
    /// # Errors
    /// When a commit or a sync shows that the process has to end. The work is given up then.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut work = pin!(work);
        let clock = self.shared.clock.clone();
        let mut due = self.core.due_at().max(clock.now().saturating_add(SHORTEST_INTERVAL));
        loop {
            let wait = Duration::from_millis(due.saturating_sub(clock.now()));
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = clock.sleep(wait) => {}
            }
            let mut done = None;
            {
                let mut commit = pin!(self.commit());
                loop {
                    tokio::select! {
                        biased;
                        committed = &mut commit => {
                            committed?;
                            break;
                        }
                        answer = &mut work, if done.is_none() => done = Some(answer),
                    }
                }
            }
            if let Some(done) = done {
                return Ok(done);
            }
            let interval = millis(seconds(self.shared.settings.checkpoint.interval_seconds));
            due = clock.now().saturating_add(interval.max(SHORTEST_INTERVAL));
        }
    }

    /// Commits the watermark. A commit that fails is tried again later, by the checkpoint itself at the latest.
    async fn commit(&mut self) -> Result<(), Stop> {
        let Some(offset) = self.core.uncommitted().filter(|_| self.unsynced.is_none()) else { return Ok(()) };
        if !self.core.is_synced() {
            match self.sync().await {
                Ok(()) => self.core.settled_synced(),
                Err(Stop::Abort(_, fault)) => {
                    // The work is not given up for it: a wait that a destination asked for would be forgotten (S29).
                    *self.unsynced = Some(fault);
                    return Ok(());
                }
                Err(fatal) => return Err(fatal),
            }
        }
        match self.commit_at(offset).await {
            Ok(()) => Ok(()),
            Err(CommitError::Stale(_)) => Ok(()),
            Err(CommitError::Retry(fault)) => {
                self.shared.note_commit_failed(self.source, offset, &fault);
                Ok(())
            }
            Err(CommitError::Fatal(fault)) => Err(Stop::Fatal(fault)),
        }
    }

    /// Commits an offset at or below the watermark, and counts what that settles for good.
    pub async fn commit_at(&mut self, offset: Offset) -> Result<(), CommitError> {
        self.reader.commit(offset).await?;
        self.shared.note_committed(self.source, offset);
        self.shared.counters.records.add(self.core.committed_at(offset));
        place(self.shared, self.source, self.core, self.reader);
        Ok(())
    }

    /// Has what direct sinks wrote forced to the disk, one sink after the other, each between two of its calls.
    ///
    /// # Errors
    /// What a sync said, now or while other work was done: what was written since the last one that held has to come again.
    pub async fn sync(&mut self) -> Result<(), Stop> {
        if let Some(fault) = self.unsynced.take() {
            return Err(Stop::Abort(Abort::Unsynced, fault));
        }
        for (slot, writing) in self.shared.sinks.iter().zip(self.writing) {
            let _writing = writing.lock().await;
            self.shared.timed(slot, slot.sink.sync(self.source)).await.map_err(|error| match error {
                CallError::Fatal(fault) => Stop::Fatal(fault),
                error => {
                    let fault = error.fault().cloned();
                    let unsynced = || Fault::destination(format!("`{}` could not sync", slot.label()));
                    Stop::Abort(Abort::Unsynced, fault.unwrap_or_else(unsynced))
                }
            })?;
        }
        Ok(())
    }
}

/// Shows how far the partition has come.
pub(super) fn place<R: Reader, C: Clock>(shared: &Shared<C>, source: &TopicPartition, core: &Partition, reader: &R) {
    let state = PartitionState { position: core.position(), committed: core.committed(), end: reader.log_end() };
    shared.counters.place(source, state);
}
