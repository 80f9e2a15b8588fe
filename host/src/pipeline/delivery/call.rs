//! Single calls to a sink.

use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use super::{Delivery, DeliveryMode, Rows, Stop, shifted};
use crate::clock::Clock;
use crate::model::{Answer, CallError, Failure, Fault, SinkKind};
use crate::pipeline::shared::{Shared, SinkSlot, seconds};
use crate::pipeline::waiting::Waiting;

impl<C: Clock> Delivery<'_, C> {
    /// The rows of the next call: as many as the sink wishes for, as earlier calls showed to fit, and as its memory allows.
    pub(super) fn next_call(&self, mode: DeliveryMode, rows: &Rows, start: usize) -> Range<usize> {
        let flush_rows = self.state.flush_size.max_rows();
        match mode {
            // Runs are cut apart by the calls of `add` that this consists of.
            DeliveryMode::AddAndFlush => start..start.saturating_add(flush_rows).min(rows.len()),
            DeliveryMode::Deliver => self.next_batch(rows, start, self.state.call_size.max_rows()),
            DeliveryMode::Add => self.next_batch(rows, start, self.state.call_size.max_rows().min(flush_rows)),
        }
    }

    fn next_batch(&self, rows: &Rows, start: usize, max_rows: usize) -> Range<usize> {
        let unbounded = |wish: usize| if wish == 0 { usize::MAX } else { wish };
        let wishes = &self.slot.description;
        let share = self.buffer_limit().map_or(u64::MAX, |limit| self.shared.buffers.call_bytes(self.sink, limit));
        rows.next_call(start, max_rows.min(unbounded(wishes.max_rows)), unbounded(wishes.max_bytes), share)
    }

    /// Makes one call. `Err` in the answer: nothing of it counts, and a buffering sink has discarded or is to discard.
    pub(super) async fn call(&mut self, mode: DeliveryMode, rows: &Rows, call: Range<usize>) -> Result<Answer, Stop> {
        match mode {
            DeliveryMode::Deliver => self.deliver(rows, call).await,
            DeliveryMode::Add => self.add(rows, call).await,
            DeliveryMode::AddAndFlush => self.add_and_flush(&rows.slice(call)).await,
        }
    }

    async fn deliver(&self, rows: &Rows, call: Range<usize>) -> Result<Answer, Stop> {
        let _writing = self.state.writing.lock().await;
        let mut failures = Vec::new();
        let mut start = 0;
        // Rows for a direct sink are of one window, so there is one run.
        for segment in rows.slice(call).segments() {
            match self.shared.timed(self.slot, self.slot.sink.deliver(&segment.batch)).await {
                Ok(failed) => failures.extend(shifted(checked(self.slot, segment.batch.len(), failed)?, start)),
                Err(error) => return Ok(Err(error)),
            }
            start += segment.batch.len();
        }
        self.slot.counters.delivered.add((start - failures.len()) as u64);
        Ok(Ok(failures))
    }

    async fn add(&mut self, rows: &Rows, call: Range<usize>) -> Result<Answer, Stop> {
        let before = self.state.buffered.guest_bytes();
        // Counted before the call, so that partitions which add at the same time see it.
        self.note_share(before.saturating_add(rows.guest_bytes(call.clone())));
        let part = rows.slice(call);
        let Some(segment) = part.segments().first() else { return Ok(Ok(Vec::new())) };
        match self.shared.timed(self.slot, self.slot.sink.add(&segment.batch)).await {
            Ok(failures) => {
                let failures = checked(self.slot, segment.batch.len(), failures)?;
                self.state.buffered.accept(segment.clone(), &failures);
                self.note_share(self.state.buffered.guest_bytes());
                Ok(Ok(failures))
            }
            Err(error) => {
                self.note_share(before);
                Ok(Err(error))
            }
        }
    }

    /// Adds rows to a buffer that is empty, and flushes them; more than once where the sink takes no more in between (S27b).
    async fn add_and_flush(&mut self, rows: &Rows) -> Result<Answer, Stop> {
        let mut failures: Vec<Failure> = Vec::new();
        let mut waiting = Waiting::default();
        let (mut flushed, mut added) = (0, 0);
        while added < rows.len() {
            let next = self.next_batch(rows, added, self.state.call_size.max_rows());
            let bytes = rows.guest_bytes(flushed..next.end);
            let has_room = |limit| !self.shared.buffers.is_full_beside(self.sink, limit, self.source, bytes);
            if added > flushed && !self.buffer_limit().is_none_or(has_room) {
                if let Err(error) = self.flush_added(flushed..added, &mut failures).await? {
                    return Ok(Err(error));
                }
                flushed = added;
                continue;
            }
            self.note_share(bytes);
            let part = rows.slice(next.clone());
            let Some(segment) = part.segments().first() else { break };
            match self.shared.timed(self.slot, self.slot.sink.add(&segment.batch)).await {
                Ok(refused) => {
                    failures.extend(shifted(checked(self.slot, next.len(), refused)?, added));
                    added = next.end;
                }
                Err(CallError::Backpressure(_)) if added > flushed => {
                    if let Err(error) = self.flush_added(flushed..added, &mut failures).await? {
                        return Ok(Err(error));
                    }
                    flushed = added;
                }
                Err(CallError::Backpressure(asked)) => {
                    self.shared.wait_as_asked(&mut waiting, &self.slot.label(), self.source, asked).await;
                }
                Err(error) => {
                    self.discard().await;
                    self.note_share(0);
                    return Ok(Err(error));
                }
            }
        }
        if let Err(error) = self.flush_added(flushed..added, &mut failures).await? {
            return Ok(Err(error));
        }
        self.slot.counters.delivered.add((rows.len() - failures.len()) as u64);
        Ok(Ok(failures))
    }

    /// Flushes rows that were added since the last flush, and adds what it says of them to the failures.
    async fn flush_added(
        &mut self,
        added: Range<usize>,
        failures: &mut Vec<Failure>,
    ) -> Result<Result<(), CallError>, Stop> {
        let refused = failures.iter().filter(|failure| added.contains(&(failure.index as usize))).count();
        if refused == added.len() {
            // Nothing is in the buffer; the sink's count of rows starts anew.
            self.discard().await;
            self.note_share(0);
            return Ok(Ok(()));
        }
        match self.shared.timed(self.slot, self.slot.sink.flush(self.source)).await {
            Ok(failed) => {
                self.note_share(0);
                self.state.flush_refusals = 0;
                let failed = shifted(checked(self.slot, added.len(), failed)?, added.start);
                for failure in failed {
                    // A row that its `add` refused is answered already.
                    if failures.iter().all(|known| known.index != failure.index) {
                        failures.push(failure);
                    }
                }
                failures.sort_by_key(|failure| failure.index);
                Ok(Ok(()))
            }
            Err(error) => {
                self.note_refusal(&error);
                self.discard().await;
                self.note_share(0);
                Ok(Err(error))
            }
        }
    }
}

impl<C: Clock> Shared<C> {
    /// Bounds a native sink's call (S77). A plugin's calls have their own deadline, counted from when its instance is free.
    pub async fn timed<T>(
        &self,
        slot: &SinkSlot,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        if slot.kind == SinkKind::Plugin {
            return call.await;
        }
        let limit: Duration = seconds(self.settings.executor.delivery_timeout_seconds).max(slot.description.patience);
        tokio::select! {
            biased;
            answer = call => answer,
            () = self.clock.sleep(limit) => Err(CallError::Timeout(Fault::destination(format!(
                "`{}` did not answer within {} s (`executor.delivery_timeout_seconds`), so whether it wrote is unknown",
                slot.label(),
                limit.as_secs_f64()
            )))),
        }
    }
}

/// Refuses an answer that names rows which were not asked about: nothing of such a call counts.
pub(super) fn checked(slot: &SinkSlot, rows: usize, mut failures: Vec<Failure>) -> Result<Vec<Failure>, Stop> {
    failures.sort_by_key(|failure| failure.index);
    failures.dedup_by_key(|failure| failure.index);
    match failures.last() {
        Some(last) if last.index as usize >= rows => Err(Stop::abort(Fault::plugin(format!(
            "`{}` named row {} as failed in a call of {rows} rows",
            slot.label(),
            last.index
        )))),
        _ => Ok(failures),
    }
}
