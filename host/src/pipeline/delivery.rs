//! Rows on their way to one sink: given in calls, repeated, isolated, and kept until each is written, buffered, dead-lettered or
//! skipped (S76–S84). What is done about a failure is decided in [`super::policy`]; this file does it.

use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::policy::{Disposition, Stage, Suspicion, disposition};
use super::rows::{BufferedRows, Rows};
use super::search::TailPatience;
use super::shared::{Shared, SinkSlot, Stop};
use super::waiting::Waiting;
use crate::checkpoint::Abort;
use crate::checkpoint::call_size::CallSize;
use crate::checkpoint::retry_plan::RetryPlan;
use crate::clock::{Clock, Millis};
use crate::model::{Failure, Fault, TopicPartition};
use crate::sink::Style;

mod call;
mod flush;
mod isolate;

/// A step that may need another of its kind first, such as a flush before an `add`.
type Step<'s> = Pin<Box<dyn Future<Output = Result<(), Stop>> + Send + 's>>;

/// How rows are given to a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// `deliver`: written at once.
    Deliver,
    /// `add`: into the buffer.
    Add,
    /// `add` and `flush`: rows that come again, written at once.
    AddAndFlush,
}

impl DeliveryMode {
    fn stage(self) -> Stage {
        match self {
            Self::Deliver => Stage::Deliver,
            Self::Add => Stage::Add,
            Self::AddAndFlush => Stage::AddAndFlush,
        }
    }
}

/// What a partition remembers of one sink from call to call.
#[derive(Debug, Default)]
pub struct SinkState {
    /// What the sink holds of the partition.
    pub buffered: BufferedRows,
    /// Most rows of one call of `deliver` or `add`.
    call_size: CallSize,
    /// Most rows between two flushes.
    flush_size: CallSize,
    /// How often in a row a flush asked to wait, over all calls (S33).
    pub flush_refusals: u32,
    /// How often the window came again for its last rows.
    tail: TailPatience,
    /// Held while the sink writes, so that a sync meanwhile is of what is written.
    pub writing: Arc<Mutex<()>>,
}

/// One partition's rows on their way to one sink.
pub struct Delivery<'a, C> {
    shared: &'a Shared<C>,
    slot: &'a SinkSlot,
    /// The sink's index.
    sink: usize,
    source: &'a TopicPartition,
    state: &'a mut SinkState,
    /// Some call with rows of this delivery has passed.
    any_passed: bool,
}

/// What a call, or the search that it led to, says of the rows up to `end`.
struct Answered {
    /// The rows that failed, numbered as those that were given, ascending.
    failures: Vec<Failure>,
    /// The first row that is not answered yet.
    end: usize,
    /// Those of the failures that were found by trying rows alone, ascending.
    isolated: Vec<usize>,
}

impl<'a, C: Clock> Delivery<'a, C> {
    /// Rows of `source` on their way to the sink of that index.
    pub fn new(shared: &'a Shared<C>, sink: usize, source: &'a TopicPartition, state: &'a mut SinkState) -> Self {
        Self { shared, slot: &shared.sinks[sink], sink, source, state, any_passed: shared.settings.is_replay }
    }

    /// Gives rows to the sink. On return each is in the buffer of a buffering sink, or settled.
    ///
    /// # Errors
    /// [`Stop`] when the rows have to come again or the process has to end.
    pub async fn give(&mut self, rows: Rows) -> Result<(), Stop> {
        let mode = match self.slot.description.style {
            Style::Direct => DeliveryMode::Deliver,
            Style::Buffering => DeliveryMode::Add,
        };
        self.settle(mode, rows).await
    }

    /// Gives rows in calls as small as they have to be. A call begins only when the rows of the one before are settled, so order is
    /// kept across calls.
    async fn settle(&mut self, mode: DeliveryMode, rows: Rows) -> Result<(), Stop> {
        let mut start = 0;
        while start < rows.len() {
            let call = self.next_call(mode, &rows, start);
            let mut answered = self.answer(mode, &rows, call, &BTreeSet::new()).await?;
            let end = answered.end;
            if !answered.failures.is_empty() {
                renumber(&mut answered, start);
                self.resolve(mode, rows.slice(start..end), answered).await?;
            }
            start = end;
        }
        Ok(())
    }

    /// Stays with rows, some of which have failed, until each is settled.
    async fn resolve(&mut self, mode: DeliveryMode, mut rows: Rows, mut answered: Answered) -> Result<(), Stop> {
        // Calls that count as attempts, for each row; and rows that failed alone before.
        let mut attempts = vec![0u32; rows.len()];
        let mut isolated: BTreeSet<usize> = BTreeSet::new();
        let mut waiting = Waiting::default();
        while !answered.failures.is_empty() {
            let decisions = self.shared.decide(self.slot, &rows, &answered.failures, &attempts).await?;
            let idempotent = self.slot.description.idempotent;
            let plan =
                RetryPlan::new(rows.len(), |row| rows.key(row), &decisions.retry, &decisions.given_up, idempotent);
            self.slot.counters.reordered.add(plan.reordered);
            if plan.rows.is_empty() {
                break;
            }
            // S37, S41: neither a wait that a destination asked for nor one for its return is an attempt.
            if let Some(asked) = decisions.wait {
                self.shared.wait_as_asked(&mut waiting, &self.slot.label(), self.source, asked).await;
            } else if let Some(reason) = &decisions.unavailable {
                self.shared.wait_until_available(&mut waiting, &self.slot.label(), self.source, reason).await;
            }
            for &row in &decisions.attempted {
                attempts[row] += 1;
            }
            if let Some(most) = decisions.attempted.iter().map(|row| attempts[*row]).max() {
                self.slot.counters.retried.add(plan.rows.len() as u64);
                self.shared.back_off(most).await;
            }
            isolated.extend(&answered.isolated);
            isolated =
                (0..).zip(&plan.rows).filter(|(_, row)| isolated.contains(row)).map(|(place, _)| place).collect();
            attempts = plan.rows.iter().map(|row| attempts[*row]).collect();
            rows = rows.select(&plan.rows);
            answered = self.answer_all(mode, &rows, &isolated).await?;
        }
        self.shared.end_wait(&mut waiting, &self.slot.label(), self.source);
        Ok(())
    }

    /// Gives all rows, in as many calls as that takes. `isolated`: rows that failed alone before.
    async fn answer_all(
        &mut self,
        mode: DeliveryMode,
        rows: &Rows,
        isolated: &BTreeSet<usize>,
    ) -> Result<Answered, Stop> {
        let mut all = Answered { failures: Vec::new(), end: 0, isolated: Vec::new() };
        while all.end < rows.len() {
            let call = self.next_call(mode, rows, all.end);
            let answered = self.answer(mode, rows, call, isolated).await?;
            all.failures.extend(answered.failures);
            all.isolated.extend(answered.isolated);
            all.end = answered.end;
        }
        Ok(all)
    }

    /// Gives the rows of one call until each has an answer of its own: a call that fails as a whole is waited out, repeated or
    /// asked again in parts, as the table says.
    async fn answer(
        &mut self,
        mode: DeliveryMode,
        rows: &Rows,
        mut call: Range<usize>,
        isolated: &BTreeSet<usize>,
    ) -> Result<Answered, Stop> {
        let mut waiting = Waiting::default();
        loop {
            if mode == DeliveryMode::Add
                && self.is_full(rows, call.clone())
                && let Some(again) = self.flush_once().await?
            {
                return self.write(again, rows, call.start).await;
            }
            let begun = self.shared.clock.now();
            let error = match self.call(mode, rows, call.clone()).await? {
                Ok(failures) => {
                    self.shared.end_wait(&mut waiting, &self.slot.label(), self.source);
                    self.note_success(mode, call.len(), begun, &failures);
                    return Ok(Answered {
                        failures: shifted(failures, call.start),
                        end: call.end,
                        isolated: Vec::new(),
                    });
                }
                Err(error) => error,
            };
            match disposition(mode.stage(), error) {
                Disposition::WaitAndRepeat(asked) => {
                    waiting.asked_before(self.state.flush_refusals.saturating_sub(1));
                    self.shared.wait_as_asked(&mut waiting, &self.slot.label(), self.source, asked).await;
                    // S29: what is refused again is offered in smaller portions.
                    if mode == DeliveryMode::AddAndFlush && waiting.asked() > 1 && call.len() > 1 {
                        let half = call.len() / 2;
                        self.state.flush_size.shrink(call.len(), half, None);
                        call.end = call.start + half;
                    }
                }
                Disposition::FlushAndRepeat(asked) => {
                    if self.state.buffered.is_empty() {
                        self.shared.wait_as_asked(&mut waiting, &self.slot.label(), self.source, asked).await;
                    } else if let Some(again) = self.flush_once().await? {
                        return self.write(again, rows, call.start).await;
                    }
                }
                Disposition::WaitForDestination(fault) => {
                    self.discard().await;
                    let reason = fault.with_hint().to_string();
                    self.shared.wait_until_available(&mut waiting, &self.slot.label(), self.source, &reason).await;
                    if mode == DeliveryMode::Add {
                        let again = self.take_buffered();
                        return self.write(again, rows, call.start).await;
                    }
                }
                Disposition::GiveAgain(fault) => {
                    tracing::debug!(sink = self.slot.label(), partition = %self.source, fault = %fault.with_hint(), "giving its rows again");
                    self.discard().await;
                    self.shared.back_off(1).await;
                    if mode == DeliveryMode::Add {
                        let again = self.take_buffered();
                        return self.write(again, rows, call.start).await;
                    }
                }
                Disposition::Isolate(suspicion, _) if mode == DeliveryMode::Add => {
                    self.discard().await;
                    let again = self.take_buffered();
                    if suspicion == Suspicion::LimitExceeded && !again.is_empty() {
                        // What had been buffered may be what filled the guest's memory (S15a).
                        let all = again.len() + call.len();
                        self.state.flush_size.shrink(all, all / 2, None);
                    }
                    return self.write(again, rows, call.start).await;
                }
                Disposition::Isolate(suspicion, fault) => {
                    let failed = Failed { suspicion, fault, took: self.elapsed(begun) };
                    self.discard().await;
                    return self.isolate(mode, rows, call, failed, isolated).await;
                }
                other => return Err(self.stop(other)),
            }
        }
    }

    /// After a fault: has the rows written that the sink had buffered before it was discarded, and behind them the rest of `rows` from
    /// `start` on, so that they can show which of them is at fault (S27a).
    async fn write(&mut self, again: Rows, rows: &Rows, start: usize) -> Result<Answered, Stop> {
        let mut all = again;
        for segment in rows.slice(start..rows.len()).segments() {
            all.push(segment.clone());
        }
        self.settle_step(DeliveryMode::AddAndFlush, all).await?;
        Ok(Answered { failures: Vec::new(), end: rows.len(), isolated: Vec::new() })
    }

    fn settle_step(&mut self, mode: DeliveryMode, rows: Rows) -> Step<'_> {
        Box::pin(async move { self.settle(mode, rows).await })
    }

    /// The rows that the sink held; from now on it counts as empty.
    fn take_buffered(&mut self) -> Rows {
        let rows = self.state.buffered.rows();
        self.state.buffered.clear();
        self.note_share(0);
        rows
    }

    /// Tells a buffering sink to forget the partition's rows, after any fault and before anything else (S27a).
    async fn discard(&self) {
        if self.slot.description.style == Style::Buffering {
            self.slot.sink.discard(self.source).await;
        }
    }

    fn elapsed(&self, begun: Millis) -> Duration {
        Duration::from_millis(self.shared.clock.now().saturating_sub(begun))
    }

    /// A call got an answer row by row.
    fn note_success(&mut self, mode: DeliveryMode, rows: usize, begun: Millis, failures: &[Failure]) {
        // Only a flush shows that a guest can write what its calls of `add` have taken.
        if failures.len() < rows && mode != DeliveryMode::Add {
            self.any_passed = true;
            self.slot.note_passed();
        }
        let took = self.elapsed(begun);
        match mode {
            DeliveryMode::Deliver | DeliveryMode::Add => self.state.call_size.succeeded(rows, took),
            DeliveryMode::AddAndFlush => self.state.flush_size.succeeded(rows, took),
        }
    }

    /// The dispositions that end a delivery.
    fn stop(&self, disposition: Disposition) -> Stop {
        match disposition {
            Disposition::Stop(fault) => Stop::Fatal(fault),
            Disposition::Abort(fault) => Stop::Abort(Abort::Failure, fault),
            Disposition::RewindAndWait(asked) => {
                let wait: Millis = u64::try_from(asked.as_millis()).unwrap_or(u64::MAX);
                let fault = Fault::destination(format!("`{}` takes no more for {wait} ms", self.slot.label()));
                Stop::Abort(Abort::Backpressure(wait), fault)
            }
            other => {
                let fault = format!("`{}`: no delivery ends with {other:?}, which is a bug", self.slot.label());
                Stop::abort(Fault::host(fault))
            }
        }
    }
}

/// A call that failed as a whole and is asked again in parts.
struct Failed {
    suspicion: Suspicion,
    fault: Fault,
    /// How long it took.
    took: Duration,
}

/// Numbers rows from `start`.
fn renumber(answered: &mut Answered, start: usize) {
    for failure in &mut answered.failures {
        failure.index = index(failure.index as usize - start);
    }
    for row in &mut answered.isolated {
        *row -= start;
    }
}

/// Failures of a call whose first row is `start`, numbered as the rows that it belongs to.
fn shifted(failures: Vec<Failure>, start: usize) -> Vec<Failure> {
    failures.into_iter().map(|one| Failure { index: index(start + one.index as usize), ..one }).collect()
}

/// Row numbers cross as `u32`; no more rows are buffered or given at once than that counts.
fn index(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}
