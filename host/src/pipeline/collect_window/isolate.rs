//! Finds the records on which a collector breaks, with instances of their own whose answers are thrown away (S63).

use std::collections::{BTreeMap, BTreeSet};

use super::{COLLECT, Collection, DeadRecord, Stop, stop};
use crate::checkpoint::Abort;
use crate::checkpoint::bisection::Bisection;
use crate::clock::Clock;
use crate::model::{FailureKind, Fault};
use crate::pipeline::policy::{Disposition, Stage, Suspicion, disposition};
use crate::pipeline::search::{Search, Tail, TailPatience};

impl<C: Clock> Collection<'_, C> {
    /// Finds the records of a call that break it alone while others pass. Where none of them passes, those behind are tried too;
    /// where none of them passes either, the plugin is at fault, or a destination of its own that it waits for. Records that only wait
    /// are asked about again before they are given up; none may be left to give up then.
    ///
    /// `call` and `rows` are rows of the window, ascending, and `call` is the part of `rows` that was asked about. `passed`: rows of
    /// the window ahead of the call have passed.
    pub(super) async fn isolate(
        &mut self,
        call: &[usize],
        rows: &[usize],
        passed: bool,
        suspicion: Suspicion,
        fault: Fault,
    ) -> Result<BTreeMap<usize, DeadRecord>, Stop> {
        let first = rows.partition_point(|row| call.first().is_some_and(|first| row < first));
        let rest = &rows[first..];
        let waited_before = |place: &usize| self.timed_out.contains_key(&rest[*place]);
        let known: BTreeSet<usize> = (0..call.len()).filter(waited_before).collect();
        let mut search = Search::new(Bisection::new(0..call.len()), known, passed);
        search.failed(suspicion, fault.clone(), self.shared.clock.now());
        let mut end = call.len();
        loop {
            self.probe_parts(rest, &mut search).await?;
            if search.is_answered() {
                break;
            }
            if end < rest.len() {
                let next = end..end.saturating_add(call.len()).min(rest.len());
                end = next.end;
                search.parts.extend(next);
                continue;
            }
            if let Some(fault) = search.maybe_plugin() {
                // A window of one record is judged by those before it.
                if self.window.len() == 1 && self.shared.has_collected() {
                    break;
                }
                return Err(Stop::Abort(Abort::Failure, fault.clone()));
            }
            let is_full = self.window.len() >= self.shared.settings.window.max_records;
            match search.tail(self.shared.clock.now(), self.state.tail, is_full) {
                Tail::Wait => self.wait_out_outage(&mut search).await,
                Tail::Rewind(fault) => {
                    self.state.tail.note_rewind();
                    return Err(Stop::Abort(Abort::Destination, fault));
                }
                Tail::Blame => break,
            }
        }
        self.state.tail = TailPatience::default();
        let failures = search.into_failures();
        if failures.is_empty() {
            // Every part passes, so it was the size, or chance: ask about fewer, but not for ever.
            if call.len() > 1 {
                self.state.size.shrink(call.len(), call.len() / 2, None);
            }
            self.restart(|_| Stop::abort(fault)).await?;
            return Ok(BTreeMap::new());
        }
        self.given_up(rest, failures).await
    }

    /// Probes one part after the other until each row has passed or failed alone.
    async fn probe_parts(&mut self, rest: &[usize], search: &mut Search) -> Result<(), Stop> {
        while let Some(part) = search.parts.next() {
            let error = match self.shared.collector.probe(&self.select(&rest[part.clone()])).await {
                Ok(()) => {
                    self.shared.note_collected();
                    search.passed();
                    continue;
                }
                Err(error) => error,
            };
            match disposition(Stage::Collect, error) {
                Disposition::WaitAndRepeat(asked) => self.wait_as_asked(asked).await,
                Disposition::WaitForDestination(fault) => self.wait_until_available(&fault).await,
                Disposition::CollectAgain(_) => self.shared.back_off(1).await,
                Disposition::Isolate(suspicion, fault) => {
                    search.failed(suspicion, fault.clone(), self.shared.clock.now());
                    if search.is_plugin_stuck() {
                        return Err(Stop::Abort(Abort::Failure, fault));
                    }
                    if search.is_outage() {
                        self.wait_out_outage(search).await;
                    }
                }
                other => return Err(stop(other)),
            }
        }
        Ok(())
    }

    /// Records have waited alone until their time was over, with none that passed after them: what they wait for counts as unavailable.
    /// They are tried again after a wait.
    async fn wait_out_outage(&mut self, search: &mut Search) {
        if let Some(fault) = search.outage().cloned() {
            self.wait_until_available(&fault).await;
        }
        search.retry_unconfirmed(self.shared.clock.now());
    }

    /// The records to dead-letter. Those that may succeed later are not given up before their attempts are used up (S80).
    async fn given_up(
        &mut self,
        rest: &[usize],
        failures: BTreeMap<usize, (FailureKind, Fault)>,
    ) -> Result<BTreeMap<usize, DeadRecord>, Stop> {
        let mut found = BTreeMap::new();
        let mut most = 0;
        for (place, (kind, fault)) in failures {
            let row = rest[place];
            if kind == FailureKind::Reject {
                found.insert(row, DeadRecord::new(fault.to_string(), 1));
                continue;
            }
            let attempts = self.timed_out.entry(row).or_insert(0);
            *attempts += 1;
            if *attempts > self.shared.settings.executor.max_retries {
                found.insert(row, DeadRecord::new(fault.to_string(), *attempts));
            } else {
                most = most.max(*attempts);
            }
        }
        if most > 0 {
            tracing::debug!(sink = COLLECT, partition = %self.window.source, attempts = most, "asking again");
            self.shared.back_off(most).await;
        }
        Ok(found)
    }
}
