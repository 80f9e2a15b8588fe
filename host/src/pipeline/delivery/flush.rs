//! What a buffering sink holds, and its flush (S20, S27).

use std::ops::Range;

use super::call::checked;
use super::{Answered, Delivery, DeliveryMode, Rows, Step, Stop};
use crate::checkpoint::Abort;
use crate::clock::Clock;
use crate::model::{CallError, Failure, Fault};
use crate::pipeline::policy::{Disposition, Stage, Suspicion, disposition};
use crate::pipeline::waiting::Waiting;
use crate::sink::BufferLimit;

impl<C: Clock> Delivery<'_, C> {
    /// Flushes the sink and stays with what it held until every row is settled.
    ///
    /// # Errors
    /// [`Stop`] when the records have to come again or the process has to end.
    pub async fn flush(&mut self) -> Result<(), Stop> {
        match self.flush_once().await? {
            None => Ok(()),
            Some(again) => self.settle_step(DeliveryMode::AddAndFlush, again).await,
        }
    }

    /// Flushes the sink. After a fault the sink has discarded, and what it held is returned, to be given again (S27a).
    pub(super) async fn flush_once(&mut self) -> Result<Option<Rows>, Stop> {
        let begun = self.shared.clock.now();
        match self.shared.timed(self.slot, self.slot.sink.flush(self.source)).await {
            Ok(failures) => {
                self.state.flush_refusals = 0;
                self.shared.note_available(&self.slot.label(), self.source);
                self.flushed(failures, begun).await.map(|()| None)
            }
            Err(error) => {
                self.note_refusal(&error);
                self.flush_failed(error, begun).await.map(Some)
            }
        }
    }

    /// A flush failed; counted where it asked to wait.
    pub(super) fn note_refusal(&mut self, error: &CallError) {
        if matches!(error, CallError::Backpressure(_)) {
            self.state.flush_refusals = self.state.flush_refusals.saturating_add(1);
        }
    }

    async fn flushed(&mut self, failures: Vec<Failure>, begun: u64) -> Result<(), Stop> {
        let failures = checked(self.slot, self.state.buffered.counted(), failures)?;
        let failures = self.state.buffered.renumber(failures);
        let held = self.state.buffered.held();
        self.slot.counters.delivered.add((held - failures.len()) as u64);
        self.note_success(DeliveryMode::AddAndFlush, held, begun, &failures);
        let rows = self.take_buffered();
        let answered = Answered { failures, end: rows.len(), isolated: Vec::new() };
        self.resolve_step(DeliveryMode::AddAndFlush, rows, answered).await
    }

    fn resolve_step(&mut self, mode: DeliveryMode, rows: Rows, answered: Answered) -> Step<'_> {
        Box::pin(async move { self.resolve(mode, rows, answered).await })
    }

    async fn flush_failed(&mut self, error: CallError, begun: u64) -> Result<Rows, Stop> {
        match disposition(Stage::Flush, error) {
            Disposition::WaitForDestination(fault) => {
                self.discard().await;
                let (mut waiting, reason) = (Waiting::default(), fault.with_hint().to_string());
                self.shared.wait_until_available(&mut waiting, &self.slot.label(), self.source, &reason).await;
                Ok(self.take_buffered())
            }
            Disposition::GiveAgain(_) => {
                self.discard().await;
                Ok(self.take_buffered())
            }
            Disposition::Isolate(suspicion, fault) => {
                let took = self.elapsed(begun);
                self.discard().await;
                let again = self.take_buffered();
                if again.is_empty() {
                    return Err(nothing_to_isolate(suspicion, fault));
                }
                if suspicion.is_slow() && again.len() > 1 {
                    self.state.flush_size.shrink(again.len(), again.len() / 2, Some(took));
                }
                Ok(again)
            }
            other => Err(self.stop(other)),
        }
    }

    /// Whether the buffer has no room for the rows of a call, so that it is flushed first (S15a).
    pub(super) fn is_full(&self, rows: &Rows, call: Range<usize>) -> bool {
        let held = self.state.buffered.held();
        if held == 0 {
            return false;
        }
        let bytes = |limit| {
            let more = rows.guest_bytes(call.clone());
            self.shared.buffers.is_full(self.sink, limit, more)
        };
        held.saturating_add(call.len()) > self.state.flush_size.max_rows() || self.buffer_limit().is_some_and(bytes)
    }

    /// The memory of the instance that buffers this partition's rows.
    pub(super) fn buffer_limit(&self) -> Option<BufferLimit> {
        self.slot.sink.buffer_limit(self.source)
    }

    /// Tells the other partitions of the instance how much this one holds.
    pub(super) fn note_share(&self, bytes: u64) {
        if let Some(limit) = self.buffer_limit() {
            self.shared.buffers.set(self.sink, limit, self.source, bytes);
        }
    }
}

/// A flush of nothing that failed: no row can be at fault.
fn nothing_to_isolate(suspicion: Suspicion, fault: Fault) -> Stop {
    let abort = if suspicion.may_be_an_outage() { Abort::Destination } else { Abort::Failure };
    Stop::Abort(abort, fault)
}
