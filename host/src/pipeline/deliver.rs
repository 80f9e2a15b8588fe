//! Attempts and back-off: every payload that is given to a sink stays here until it is settled. Knows `dyn Sink` only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::rows::{Added, Rows, joined};
use super::shared::{Shared, SinkSlot, Stop, seconds};
use crate::checkpoint::order::again;
use crate::checkpoint::window::Halving;
use crate::checkpoint::{Abort, Millis};
use crate::clock::Clock;
use crate::model::{Answer, Batch, CallError, Failure, Fault, SinkKind, TopicPartition};

/// How rows are given to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `deliver`: written at once.
    Deliver,
    /// `add`: into the buffer.
    Add,
    /// `add` and `flush`: what an earlier flush refused, once more.
    AddAndFlush,
}

impl<C: Clock> Shared<C> {
    /// Flushes one sink, and takes what it did not take to its end (S20, S27). `added` is what the sink was given since its last
    /// flush.
    ///
    /// # Errors
    /// [`Stop`] when the records have to come again or the process has to end.
    pub async fn flush(&self, source: &TopicPartition, sink: usize, added: &[Added]) -> Result<(), Stop> {
        let slot = &self.sinks[sink];
        let answer = self.timed(slot, slot.sink.flush(source)).await;
        let taken = || added.iter().map(|call| call.rows.group.batch.len() - call.refused.len()).sum::<usize>();
        match answer {
            Ok(failures) if failures.is_empty() => slot.counters.delivered.add(taken() as u64),
            answer => {
                let rows: usize = added.iter().map(|call| call.rows.group.batch.len()).sum();
                let answer = match answer {
                    Ok(failures) => Ok(checked(slot, rows, failures)?),
                    Err(error) => Err(error),
                };
                let (rows, answer) = joined(source, sink, added, answer);
                self.settle(Way::AddAndFlush, rows, Some(answer)).await?;
            }
        }
        Ok(())
    }

    /// Gives rows to a sink and stays with them until each is taken, dead-lettered or skipped (S76–S84), in portions as
    /// small as the sink wishes for. `first` is the answer of a call that already took place with all of them.
    ///
    /// For [`Way::Deliver`] and [`Way::AddAndFlush`] a return means that every row is settled; for [`Way::Add`] that every
    /// row is either in the buffer or settled, and the calls of `add` that were made come back.
    ///
    /// # Errors
    /// [`Stop`] when the rows have to come again or the process has to end.
    pub async fn settle(&self, way: Way, rows: Rows, first: Option<Answer>) -> Result<Vec<Added>, Stop> {
        let mut added = Vec::new();
        let wishes = &self.sinks[rows.group.sink].description;
        let portions = portions(&rows.group.batch, wishes.max_rows, wishes.max_bytes);
        if first.is_some() || portions.len() < 2 {
            self.settle_portion(way, rows, first, &mut added).await?;
        } else {
            // A portion begins only when the one before it is settled, so order is kept across them.
            for portion in portions {
                let portion: Vec<usize> = portion.collect();
                self.settle_portion(way, rows.select(&portion), None, &mut added).await?;
            }
        }
        Ok(added)
    }

    async fn settle_portion(
        &self,
        way: Way,
        mut rows: Rows,
        mut first: Option<Answer>,
        added: &mut Vec<Added>,
    ) -> Result<(), Stop> {
        let slot = &self.sinks[rows.group.sink];
        // Calls that count as attempts, for each row; and waits in a row that are none.
        let (mut attempts, mut waits) = (vec![0u32; rows.len()], 0u32);
        loop {
            let answer = match first.take() {
                Some(answer) => answer,
                None => self.call(slot, way, &rows.group.batch).await,
            };
            let failures = self.failures(slot, way, &rows, answer).await?;
            if way == Way::Add {
                let refused = failures.iter().map(|failure| failure.index as usize).collect();
                added.push(Added { rows: rows.clone(), refused });
            } else {
                slot.counters.delivered.add((rows.len() - failures.len()) as u64);
            }
            if failures.is_empty() {
                return Ok(());
            }
            let verdicts = self.judge(slot, &rows, &failures, &attempts).await?;
            let next = again(&rows.group.batch, &verdicts.retry, &verdicts.given_up, slot.description.idempotent);
            slot.counters.reordered.add(next.reordered);
            if next.rows.is_empty() {
                return Ok(());
            }
            if verdicts.held.is_none() || !verdicts.tried.is_empty() {
                slot.counters.retried.add(next.rows.len() as u64);
            }
            // S37, S41: neither a wait that a destination asked for nor one for its return is an attempt.
            waits = if verdicts.held.is_some() || verdicts.away { waits + 1 } else { 0 };
            if let Some(wait) = verdicts.held {
                self.hold(wait, waits > 1).await;
            } else if verdicts.away {
                self.back_off_abort(waits).await;
            }
            for &row in &verdicts.tried {
                attempts[row] += 1;
            }
            if let Some(most) = verdicts.tried.iter().map(|row| attempts[*row]).max() {
                self.back_off(most).await;
            }
            attempts = next.rows.iter().map(|row| attempts[*row]).collect();
            rows = rows.select(&next.rows);
        }
    }

    /// Turns any answer into failed rows, or stops. An answer to the whole call is waited out, halved or spread over its
    /// rows, whichever it asks for.
    async fn failures(&self, slot: &SinkSlot, way: Way, rows: &Rows, answer: Answer) -> Result<Vec<Failure>, Stop> {
        let mut answer = answer;
        let mut held = false;
        loop {
            match answer {
                Ok(failures) => return checked(slot, rows.len(), failures),
                Err(CallError::Backpressure(wait)) if way == Way::AddAndFlush => {
                    // S29: what was flushed before stays, the rest comes again after the wait.
                    let wait: Millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    let fault = Fault::destination(format!("`{}` takes no more for {wait} ms", slot.label()));
                    return Err(Stop::Abort(Abort::Backpressure(wait), fault));
                }
                Err(CallError::Backpressure(wait)) => {
                    self.hold(wait, held).await;
                    held = true;
                    answer = self.call(slot, way, &rows.group.batch).await;
                }
                Err(CallError::Fatal(fault)) => return Err(Stop::Fatal(fault)),
                Err(CallError::BufferLost(fault)) => return Err(Stop::Abort(Abort::Destination, fault)),
                Err(CallError::Timeout(fault)) if slot.kind == SinkKind::Plugin => {
                    // S63: a plugin that waits for its destination is never mistaken for a record that breaks it.
                    return Err(Stop::Abort(Abort::Destination, fault));
                }
                Err(CallError::Unavailable(fault)) if way == Way::Deliver => {
                    let reason = fault.to_string();
                    return Ok((0..rows.len()).map(|row| Failure::unavailable(index(row), reason.clone())).collect());
                }
                Err(CallError::Unknown(fault) | CallError::Timeout(fault)) if way == Way::Deliver => {
                    let reason = fault.to_string();
                    return Ok((0..rows.len()).map(|row| Failure::retry(index(row), reason.clone())).collect());
                }
                Err(CallError::Unknown(fault) | CallError::Timeout(fault) | CallError::Unavailable(fault)) => {
                    return Err(Stop::Abort(Abort::Destination, fault));
                }
                Err(CallError::Trap(fault) | CallError::LimitExceeded(fault)) if way != Way::Deliver => {
                    return Err(Stop::abort(fault));
                }
                Err(error @ (CallError::Reject(_) | CallError::Trap(_) | CallError::LimitExceeded(_))) => {
                    return self.halve(slot, way, rows, &error).await;
                }
            }
        }
    }

    /// Finds by halves the rows that break the call; the others are given to the sink on the way (S44, S63).
    async fn halve(&self, slot: &SinkSlot, way: Way, rows: &Rows, error: &CallError) -> Result<Vec<Failure>, Stop> {
        let mut reasons: BTreeMap<usize, String> = BTreeMap::new();
        let mut failures = Vec::new();
        let mut halving = Halving::new(rows.len());
        let mut last = error.to_string();
        let mut held = false;
        while let Some(range) = halving.next() {
            let part: Vec<usize> = range.clone().collect();
            match self.call(slot, way, &Arc::new(rows.group.batch.select(&part))).await {
                Ok(failed) => {
                    let failed = checked(slot, part.len(), failed)?;
                    failures.extend(
                        failed.into_iter().map(|one| Failure { index: index(range.start + one.index as usize), ..one }),
                    );
                    halving.answer(false);
                    held = false;
                }
                Err(CallError::Backpressure(wait)) if way != Way::AddAndFlush => {
                    self.hold(wait, held).await;
                    held = true;
                }
                Err(CallError::Reject(fault) | CallError::Trap(fault) | CallError::LimitExceeded(fault)) => {
                    last = fault.to_string();
                    if range.len() == 1 {
                        reasons.insert(range.start, last.clone());
                    }
                    halving.answer(true);
                    let limit = self.settings.window.max_poison_per_window;
                    if matches!(error, CallError::Trap(_)) && halving.found().len() > limit {
                        let fault = Fault::plugin(format!(
                            "`{}` trapped on more than {limit} rows of one window",
                            slot.label()
                        ))
                        .because(&last);
                        return Err(Stop::abort(fault));
                    }
                }
                Err(CallError::Fatal(fault)) => return Err(Stop::Fatal(fault)),
                Err(other) => {
                    let fault = other
                        .fault()
                        .cloned()
                        .unwrap_or_else(|| Fault::destination(format!("`{}` takes no more for now", slot.label())));
                    return Err(Stop::Abort(Abort::Destination, fault));
                }
            }
        }
        for row in halving.found() {
            let reason = reasons.remove(row).unwrap_or_else(|| last.clone());
            failures.push(Failure::reject(index(*row), reason));
        }
        failures.sort_by_key(|failure| failure.index);
        Ok(failures)
    }

    async fn call(&self, slot: &SinkSlot, way: Way, batch: &Arc<Batch>) -> Answer {
        match way {
            Way::Deliver => self.timed(slot, slot.sink.deliver(batch)).await,
            Way::Add => self.timed(slot, slot.sink.add(batch)).await,
            Way::AddAndFlush => {
                let refused = self.timed(slot, slot.sink.add(batch)).await?;
                let mut failures = self.timed(slot, slot.sink.flush(&batch.source)).await?;
                failures.retain(|failure| refused.iter().all(|other| other.index != failure.index));
                failures.extend(refused);
                Ok(failures)
            }
        }
    }

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
fn checked(slot: &SinkSlot, rows: usize, mut failures: Vec<Failure>) -> Result<Vec<Failure>, Stop> {
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

/// Row numbers cross as `u32`; a window never has so many rows that one is cut off.
fn index(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}

/// Cuts a batch into runs of rows that keep to a sink's wishes; a single row may exceed them.
fn portions(batch: &Batch, max_rows: usize, max_bytes: usize) -> Vec<std::ops::Range<usize>> {
    let bytes = |row: usize| batch.keys.get(row).map_or(0, <[u8]>::len) + batch.values.get(row).map_or(0, <[u8]>::len);
    if (max_rows == 0 || batch.len() <= max_rows) && (max_bytes == 0 || batch.size_bytes() <= max_bytes) {
        return std::iter::once(0..batch.len()).collect();
    }
    let mut portions = Vec::new();
    let (mut start, mut size) = (0, 0usize);
    for row in 0..batch.len() {
        let next = bytes(row);
        let full =
            (max_rows > 0 && row - start >= max_rows) || (max_bytes > 0 && size.saturating_add(next) > max_bytes);
        if row > start && full {
            portions.push(start..row);
            (start, size) = (row, 0);
        }
        size += next;
    }
    portions.push(start..batch.len());
    portions
}
