//! What a buffering sink holds, and its flush (S20, S27).

use super::call::checked;
use super::{Delivery, DeliveryMode, Failed, Step, Stop};
use crate::checkpoint::Abort;
use crate::clock::Clock;
use crate::model::{CallError, Failure};
use crate::pipeline::policy::{Disposition, Stage, Suspicion, disposition};
use crate::pipeline::waiting::Waiting;
use crate::sink::BufferLimit;

impl<C: Clock> Delivery<'_, C> {
    /// Flushes the sink and stays with what it held until every row is settled.
    ///
    /// # Errors
    /// [`Stop`] when the records have to come again or the process has to end.
    pub fn flush(&mut self) -> Step<'_> {
        Box::pin(async move {
            let begun = self.shared.clock.now();
            match self.shared.timed(self.slot, self.slot.sink.flush(self.source)).await {
                Ok(failures) => self.flushed(failures, begun).await,
                Err(error) => self.flush_failed(error, begun).await,
            }
        })
    }

    async fn flushed(&mut self, failures: Vec<Failure>, begun: u64) -> Result<(), Stop> {
        let failures = checked(self.slot, self.state.buffered.counted(), failures)?;
        let failures = self.state.buffered.renumber(failures);
        let held = self.state.buffered.held();
        self.slot.counters.delivered.add((held - failures.len()) as u64);
        self.note_success(DeliveryMode::AddAndFlush, held, begun, &failures);
        let rows = self.take_buffered();
        let answered = super::Answered { failures, end: rows.len(), isolated: Vec::new() };
        self.resolve(DeliveryMode::AddAndFlush, rows, answered).await
    }

    async fn flush_failed(&mut self, error: CallError, begun: u64) -> Result<(), Stop> {
        match disposition(Stage::Flush, error) {
            Disposition::WaitForDestination(fault) => {
                self.discard().await;
                let (mut waiting, reason) = (Waiting::default(), fault.to_string());
                self.shared.wait_until_available(&mut waiting, &self.slot.label(), self.source, &reason).await;
                self.give_again().await?;
                self.shared.end_wait(&mut waiting, &self.slot.label(), self.source);
                Ok(())
            }
            Disposition::GiveAgain(_) => {
                self.discard().await;
                self.give_again().await
            }
            Disposition::Isolate(suspicion, fault) => {
                let failed = Failed { suspicion, fault, took: self.elapsed(begun), held: 0 };
                self.discard().await;
                let rows = self.take_buffered();
                if rows.is_empty() {
                    return Err(nothing_to_isolate(failed));
                }
                let all = 0..rows.len();
                let mode = DeliveryMode::AddAndFlush;
                let answered = self.isolate(mode, &rows, all, failed, &std::collections::BTreeSet::new()).await?;
                self.resolve(mode, rows, answered).await
            }
            other => Err(self.stop(other)),
        }
    }

    /// Whether the buffer has no room for so many rows and bytes more, so that it is flushed first (S15a).
    pub(super) fn is_full(&self, rows: usize, bytes: u64) -> bool {
        let held = self.state.buffered.held();
        held > 0
            && (held.saturating_add(rows) > self.state.flush_size.max_rows()
                || self.buffer_limit().is_some_and(|limit| self.shared.buffers.is_full(self.sink, limit, bytes)))
    }

    /// The memory of the instance that buffers this partition's rows.
    pub(super) fn buffer_limit(&self) -> Option<BufferLimit> {
        self.slot.sink.buffer_limit(self.source)
    }

    /// Tells the other partitions of the instance how much this one holds.
    pub(super) fn note_share(&self) {
        if let Some(limit) = self.buffer_limit() {
            self.shared.buffers.set(self.sink, limit, self.source, self.state.buffered.guest_bytes());
        }
    }
}

/// A flush of nothing that failed: no row can be at fault.
fn nothing_to_isolate(failed: Failed) -> Stop {
    match failed.suspicion {
        Suspicion::TimedOut | Suspicion::Unknown => Stop::Abort(Abort::Destination, failed.fault),
        Suspicion::Rejected | Suspicion::Trapped | Suspicion::LimitExceeded => {
            Stop::Abort(Abort::Failure, failed.fault)
        }
    }
}
