//! A call that failed as a whole says nothing about a single row: it is asked again in parts until every row has an answer of its
//! own (S63, S79b).

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Answered, Delivery, DeliveryMode, Failed, Rows, Stop, index, shifted};
use crate::checkpoint::Abort;
use crate::checkpoint::bisection::Bisection;
use crate::clock::Clock;
use crate::model::{Failure, FailureKind};
use crate::pipeline::policy::{Disposition, disposition};
use crate::pipeline::search::{Search, Tail, TailPatience};
use crate::pipeline::waiting::Waiting;

impl<C: Clock> Delivery<'_, C> {
    /// Asks again in parts, lowest rows first, about rows that a call of all of them has failed for. Rows that pass are done with on the
    /// way; a row that fails alone while others pass is answered as [`Suspicion::of_a_single_row`] says. Where nothing passes, rows
    /// behind are tried too; where none of them passes either, a destination is waited for, and a plugin is blamed.
    pub(super) async fn isolate(
        &mut self,
        mode: DeliveryMode,
        rows: &Rows,
        call: Range<usize>,
        failed: Failed,
        known: &BTreeSet<usize>,
    ) -> Result<Answered, Stop> {
        let first_size = call.len();
        let mut end = call.end;
        let mut search = Search::new(Bisection::new(call.clone()), known.clone(), self.any_passed);
        search.failed(failed.suspicion, failed.fault.clone(), self.shared.clock.now());
        tracing::info!(
            sink = self.slot.label(), partition = %self.source, rows = first_size, reason = %failed.fault,
            "a call failed as a whole: its rows are tried in parts"
        );
        let mut waiting = Waiting::default();
        let mut failures = Vec::new();
        loop {
            while let Some(part) = search.parts.next() {
                self.try_part(mode, rows, part, &mut search, &mut failures, &mut waiting).await?;
            }
            if search.is_answered() {
                break;
            }
            if end < rows.len() {
                let next = self.next_call(mode, rows, end);
                end = next.end;
                search.parts.extend(next);
                continue;
            }
            if let Some(fault) = search.maybe_plugin() {
                // S63: a single row is judged by those before it.
                if rows.len() == 1 && self.slot.has_passed() {
                    break;
                }
                return Err(Stop::Abort(Abort::Failure, fault.clone()));
            }
            let window = rows.segments().last().map_or(0, |segment| segment.window.len());
            let is_full = window >= self.shared.settings.window.max_records;
            match search.tail(self.shared.clock.now(), self.state.tail, is_full) {
                Tail::Wait => self.wait_out_outage(&mut search, &mut waiting).await,
                Tail::Rewind(fault) => {
                    self.state.tail.note_rewind();
                    return Err(Stop::Abort(Abort::Destination, fault));
                }
                Tail::Blame => break,
            }
        }
        self.state.tail = TailPatience::default();
        self.shared.end_wait(&mut waiting, &self.slot.label(), self.source);
        self.note_size(mode, first_size, &failed, &search.parts);
        let mut isolated = Vec::new();
        for (row, (kind, fault)) in search.into_failures() {
            if kind != FailureKind::Reject {
                isolated.push(row);
            }
            failures.push(Failure::new(index(row), kind, fault.to_string()));
        }
        failures.sort_by_key(|failure| failure.index);
        Ok(Answered { failures, end, isolated })
    }

    /// Tries one part, until it has passed or failed.
    async fn try_part(
        &mut self,
        mode: DeliveryMode,
        rows: &Rows,
        part: Range<usize>,
        search: &mut Search,
        failures: &mut Vec<Failure>,
        waiting: &mut Waiting,
    ) -> Result<(), Stop> {
        let error = match self.call(mode, rows, part.clone()).await? {
            Ok(failed) => {
                self.shared.end_wait(waiting, &self.slot.label(), self.source);
                if failed.len() < part.len() {
                    self.any_passed = true;
                    self.slot.note_passed();
                }
                search.answered(&failed);
                failures.extend(shifted(failed, part.start));
                return Ok(());
            }
            Err(error) => error,
        };
        match disposition(mode.stage(), error) {
            Disposition::WaitAndRepeat(asked) => {
                waiting.asked_before(self.state.flush_refusals.saturating_sub(1));
                self.shared.wait_as_asked(waiting, &self.slot.label(), self.source, asked).await;
                // S29: what is refused again is offered in smaller portions.
                if mode == DeliveryMode::AddAndFlush && waiting.asked() > 1 && part.len() > 1 {
                    search.parts.failed();
                }
            }
            Disposition::WaitForDestination(fault) => {
                self.discard().await;
                let reason = fault.with_hint().to_string();
                self.shared.wait_until_available(waiting, &self.slot.label(), self.source, &reason).await;
            }
            Disposition::GiveAgain(_) => {
                self.discard().await;
                self.shared.back_off(1).await;
            }
            Disposition::Isolate(suspicion, fault) => {
                self.discard().await;
                search.failed(suspicion, fault.clone(), self.shared.clock.now());
                if search.is_plugin_stuck() {
                    return Err(Stop::Abort(Abort::Failure, fault));
                }
                if search.is_outage() {
                    self.wait_out_outage(search, waiting).await;
                }
            }
            other => return Err(self.stop(other)),
        }
        Ok(())
    }

    /// Rows have failed alone with none that passed after them: the destination counts as unavailable (S79b). They are tried again
    /// after a wait.
    async fn wait_out_outage(&mut self, search: &mut Search, waiting: &mut Waiting) {
        let reason = search.outage().map(|fault| fault.with_hint().to_string()).unwrap_or_default();
        self.shared.wait_until_available(waiting, &self.slot.label(), self.source, &reason).await;
        search.retry_unconfirmed(self.shared.clock.now());
    }

    /// Where a call ran into its time or a limit and every part of it passed, its size was what it failed for: the next ones are
    /// smaller (S15a, S79b). A trap that does not come again was chance, and says nothing about the size.
    fn note_size(&mut self, mode: DeliveryMode, rows: usize, failed: &Failed, parts: &Bisection) {
        if !parts.suspects().is_empty() || !failed.suspicion.is_slow() {
            return;
        }
        let time = Some(failed.took);
        let passed = parts.largest_passed();
        match mode {
            DeliveryMode::Deliver | DeliveryMode::Add => self.state.call_size.shrink(rows, passed, time),
            DeliveryMode::AddAndFlush => self.state.flush_size.shrink(rows, passed, time),
        }
    }
}
