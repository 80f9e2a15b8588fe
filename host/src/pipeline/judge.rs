//! What becomes of payloads that a sink did not take: the collector's hook or the sink's `on_error` says it (S79–S82).

use std::collections::BTreeMap;
use std::time::Duration;

use super::dlq::{Letter, payload_json};
use super::options::OnError;
use super::rows::Rows;
use super::shared::{Shared, SinkSlot, Stop};
use crate::clock::Clock;
use crate::collect::DeliveryError;
use crate::model::{Action, Failure, FailureKind, Fault};

/// A sink's failures sorted by what becomes of them.
#[derive(Default)]
pub(super) struct Verdicts {
    /// Rows to try again.
    pub(super) retry: Vec<usize>,
    /// Those of them for which the call counts as an attempt.
    pub(super) tried: Vec<usize>,
    /// Rows that were dead-lettered or skipped.
    pub(super) given_up: Vec<usize>,
    /// The destination asked to wait this long.
    pub(super) held: Option<Duration>,
    /// The destination is away, and nobody wants anything else done about it than to wait.
    pub(super) away: bool,
}

impl<C: Clock> Shared<C> {
    /// Asks what to do about failed rows and does it, save for those to try again. `attempts` are each row's before this call.
    pub(super) async fn judge(
        &self,
        slot: &SinkSlot,
        rows: &Rows,
        failures: &[Failure],
        attempts: &[u32],
    ) -> Result<Verdicts, Stop> {
        let mut verdicts = Verdicts::default();
        // Rows of one kind that were tried as often are asked about together.
        let mut groups: BTreeMap<(FailureKind, u32), Vec<&Failure>> = BTreeMap::new();
        for failure in failures {
            let row = failure.index as usize;
            if let FailureKind::Backpressure(wait) = failure.kind {
                // S37: backpressure never ends in the dead letter queue, so nobody is asked.
                verdicts.held = verdicts.held.max(Some(wait));
                verdicts.retry.push(row);
            } else {
                let attempt = attempts.get(row).copied().unwrap_or(0) + 1;
                groups.entry((failure.kind, attempt)).or_default().push(failure);
            }
        }
        for ((kind, attempt), failed) in groups {
            let Some(first) = failed.first() else { continue };
            let action = match self.ask(slot, rows, &failed, kind, first, attempt).await {
                Some(action) => action,
                None if kind == FailureKind::Unavailable => {
                    // S41: a destination that is down is waited for, without end.
                    tracing::warn!(sink = slot.label(), rows = failed.len(), reason = first.reason, "waiting");
                    verdicts.away = true;
                    verdicts.retry.extend(failed.iter().map(|failure| failure.index as usize));
                    continue;
                }
                None => Action::Dlq,
            };
            match action {
                Action::Retry if attempt <= self.settings.executor.max_retries => {
                    verdicts.tried.extend(failed.iter().map(|failure| failure.index as usize));
                    verdicts.retry.extend(failed.iter().map(|failure| failure.index as usize));
                }
                Action::Skip => {
                    slot.counters.skipped.add(failed.len() as u64);
                    verdicts.given_up.extend(failed.iter().map(|failure| failure.index as usize));
                }
                Action::Abort => {
                    let fault = Fault::destination(format!("`{}` failed, which was answered with abort", slot.label()))
                        .because(&first.reason);
                    return Err(Stop::abort(fault));
                }
                Action::Backpressure(wait) => {
                    verdicts.held = verdicts.held.max(Some(wait));
                    verdicts.retry.extend(failed.iter().map(|failure| failure.index as usize));
                }
                Action::Default | Action::Dlq | Action::Retry => {
                    let letters = failed.iter().map(|failure| self.letter(slot, rows, failure, attempt)).collect();
                    self.dead_letter(letters).await?;
                    slot.counters.dead_lettered.add(failed.len() as u64);
                    tracing::warn!(
                        sink = slot.label(),
                        rows = failed.len(),
                        first = rows.group.batch.source.at(rows.group.batch.offsets[first.index as usize]),
                        reason = first.reason,
                        "dead-lettered"
                    );
                    verdicts.given_up.extend(failed.iter().map(|failure| failure.index as usize));
                }
            }
        }
        verdicts.retry.sort_unstable();
        verdicts.given_up.sort_unstable();
        Ok(verdicts)
    }

    /// What is to be done about failed rows, where the collector's hook or the sink's `on_error` says it.
    async fn ask(
        &self,
        slot: &SinkSlot,
        rows: &Rows,
        failed: &[&Failure],
        kind: FailureKind,
        first: &Failure,
        attempt: u32,
    ) -> Option<Action> {
        if !self.collector.has_delivery_hook() {
            return slot.delivery.on_error.map(|chosen| match chosen {
                OnError::Dlq => Action::Dlq,
                // What never will be written is not tried again.
                OnError::Retry if kind == FailureKind::Reject => Action::Dlq,
                OnError::Retry => Action::Retry,
                OnError::Skip => Action::Skip,
                OnError::Abort => Action::Abort,
            });
        }
        let batch = &rows.group.batch;
        let error = DeliveryError {
            kind: slot.kind,
            name: slot.name.clone(),
            source: batch.source.clone(),
            offsets: failed.iter().map(|failure| batch.offsets[failure.index as usize]).collect(),
            payloads: failed.iter().map(|failure| self.payload(slot, rows, failure.index as usize)).collect(),
            failure: kind,
            error: first.reason.clone(),
            attempt,
        };
        Some(self.collector.delivery_error(&error).await)
    }

    /// The payload as it stands in a dead letter.
    fn payload(&self, slot: &SinkSlot, rows: &Rows, row: usize) -> String {
        let default = slot.sink.target(&rows.window.source);
        payload_json(slot.kind, &slot.name, default.as_deref(), &rows.group.batch, row)
    }

    fn letter(&self, slot: &SinkSlot, rows: &Rows, failure: &Failure, attempt: u32) -> Letter {
        let row = failure.index as usize;
        let mut letter = Letter::of_record(&rows.window, rows.group.origin(row));
        slot.kind.name().clone_into(&mut letter.sink_type);
        slot.name.clone_into(&mut letter.sink_name);
        letter.error.clone_from(&failure.reason);
        letter.kind = failure.kind;
        letter.attempt_count = attempt;
        letter.failed_at = self.clock.unix_millis();
        letter.payloads = vec![self.payload(slot, rows, row)];
        letter
    }
}
