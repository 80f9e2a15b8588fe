//! What becomes of rows that a sink did not take: the collector's hook or the sink's `on_error` chooses, the table decides
//! (S79–S82).

use std::collections::BTreeMap;
use std::time::Duration;

use super::collect_window::DeadRecord;
use super::dlq::{Letter, payload_json};
use super::policy::{RowDisposition, chosen, is_chosen, row_disposition};
use super::rows::Rows;
use super::shared::{Shared, SinkSlot, Stop};
use crate::clock::Clock;
use crate::collect::DeliveryError;
use crate::model::{Action, Batch, Failure, FailureKind, Fault};

/// What was decided about failed rows. Rows are ascending.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    /// Rows to send again.
    pub(super) retry: Vec<usize>,
    /// Those of them for which the call counts as an attempt.
    pub(super) attempted: Vec<usize>,
    /// Rows that were dead-lettered or skipped.
    pub(super) given_up: Vec<usize>,
    /// The destination or the hook asked to wait this long.
    pub(super) wait: Option<Duration>,
    /// The destination is not available, and why.
    pub(super) unavailable: Option<String>,
}

/// Rows that failed in the same way as often.
struct FailureGroup<'f> {
    kind: FailureKind,
    /// Calls made, this one included.
    attempt: u32,
    failures: Vec<&'f Failure>,
}

impl FailureGroup<'_> {
    fn rows(&self) -> impl Iterator<Item = usize> {
        self.failures.iter().map(|failure| failure.index as usize)
    }

    /// Why the first of them failed.
    fn reason(&self) -> &str {
        self.failures.first().map_or("", |failure| failure.reason.as_str())
    }
}

/// Groups failures of one kind that were tried as often, so that each group is asked about once. `attempts` are each row's before
/// this call.
fn groups<'f>(failures: &'f [Failure], attempts: &[u32]) -> Vec<FailureGroup<'f>> {
    // Where no row is to blame, none can be left out: what was not tried has failed as well (S79c).
    let no_culprit = failures.iter().all(|failure| failure.kind == FailureKind::NotTried);
    let mut groups: BTreeMap<(FailureKind, u32), Vec<&Failure>> = BTreeMap::new();
    for failure in failures {
        let attempt = attempts.get(failure.index as usize).copied().unwrap_or(0) + 1;
        let kind = if no_culprit { FailureKind::Retry } else { failure.kind };
        groups.entry((kind, attempt)).or_default().push(failure);
    }
    groups.into_iter().map(|((kind, attempt), failures)| FailureGroup { kind, attempt, failures }).collect()
}

impl<C: Clock> Shared<C> {
    /// Decides what becomes of failed rows and does it, save for sending rows again. `attempts` are each row's before this call.
    pub(super) async fn decide(
        &self,
        slot: &SinkSlot,
        rows: &Rows,
        failures: &[Failure],
        attempts: &[u32],
    ) -> Result<Decisions, Stop> {
        let mut decisions = Decisions::default();
        for group in groups(failures, attempts) {
            let action = if is_chosen(group.kind) { self.choose(slot, rows, &group).await } else { Action::Default };
            let attempts_left = group.attempt <= self.settings.executor.max_retries;
            match row_disposition(group.kind, action, attempts_left) {
                RowDisposition::Retry => {
                    decisions.attempted.extend(group.rows());
                    decisions.retry.extend(group.rows());
                }
                RowDisposition::SendAgain => decisions.retry.extend(group.rows()),
                RowDisposition::Wait(wait) => {
                    decisions.wait = decisions.wait.max(Some(wait));
                    decisions.retry.extend(group.rows());
                }
                RowDisposition::WaitForDestination => {
                    decisions.unavailable = Some(group.reason().to_owned());
                    decisions.retry.extend(group.rows());
                }
                RowDisposition::Skip => {
                    slot.counters.skipped.add(group.failures.len() as u64);
                    decisions.given_up.extend(group.rows());
                }
                RowDisposition::Abort => {
                    let fault = Fault::destination(format!("`{}` failed, which was answered with abort", slot.label()))
                        .because(group.reason());
                    return Err(Stop::abort(fault));
                }
                RowDisposition::DeadLetter => {
                    self.dead_letter_rows(slot, rows, &group).await?;
                    decisions.given_up.extend(group.rows());
                }
            }
        }
        decisions.retry.sort_unstable();
        decisions.given_up.sort_unstable();
        Ok(decisions)
    }

    /// What the collector's delivery hook or the sink's `on_error` chooses.
    async fn choose(&self, slot: &SinkSlot, rows: &Rows, group: &FailureGroup<'_>) -> Action {
        if !self.collector.has_delivery_hook() {
            return chosen(slot.delivery.on_error, group.kind);
        }
        let Some(first) = group.rows().next() else { return Action::Default };
        let offset = |row: usize| {
            let (segment, row) = rows.find(row);
            segment.batch.offsets[row]
        };
        let error = DeliveryError {
            kind: slot.kind,
            name: slot.name.clone(),
            source: rows.find(first).0.batch.source.clone(),
            offsets: group.rows().map(offset).collect(),
            payloads: group.rows().map(|row| self.payload(slot, rows, row)).collect(),
            failure: group.kind,
            error: group.reason().to_owned(),
            attempt: group.attempt,
        };
        match self.collector.delivery_error(&error).await {
            // A hook without an opinion leaves the choice to the configuration.
            Action::Default => chosen(slot.delivery.on_error, group.kind),
            action => action,
        }
    }

    /// Writes the source records that no payload was made of to the dead letter topic (S63, S64).
    pub(super) async fn dead_letter_records(
        &self,
        window: &Batch,
        dead: &BTreeMap<usize, DeadRecord>,
    ) -> Result<(), Stop> {
        let Some((row, first)) = dead.first_key_value() else { return Ok(()) };
        let letter = |(row, dead): (&usize, &DeadRecord)| Letter {
            sink_name: self.collector_name.clone(),
            error: dead.reason.clone(),
            attempt_count: dead.attempts,
            failed_at: self.clock.unix_millis(),
            ..Letter::of_record(window, *row)
        };
        self.dead_letter(dead.iter().map(letter).collect()).await?;
        self.counters.dead_records.add(dead.len() as u64);
        let (at, reason) = (window.source.at(window.offsets[*row]), &first.reason);
        tracing::warn!(records = dead.len(), first = at, reason, "dead-lettered as they came");
        Ok(())
    }

    async fn dead_letter_rows(&self, slot: &SinkSlot, rows: &Rows, group: &FailureGroup<'_>) -> Result<(), Stop> {
        let letters = group.failures.iter().map(|failure| self.letter(slot, rows, failure, group.attempt)).collect();
        self.dead_letter(letters).await?;
        slot.counters.dead_lettered.add(group.failures.len() as u64);
        if let Some(first) = group.rows().next() {
            let (segment, row) = rows.find(first);
            tracing::warn!(
                sink = slot.label(),
                rows = group.failures.len(),
                first = segment.batch.source.at(segment.batch.offsets[row]),
                reason = group.reason(),
                "dead-lettered"
            );
        }
        Ok(())
    }

    /// The payload as it stands in a dead letter.
    fn payload(&self, slot: &SinkSlot, rows: &Rows, row: usize) -> String {
        let (segment, row) = rows.find(row);
        let default = slot.sink.target(&segment.window.source);
        payload_json(slot.kind, &slot.name, default.as_deref(), &segment.batch, row)
    }

    fn letter(&self, slot: &SinkSlot, rows: &Rows, failure: &Failure, attempt: u32) -> Letter {
        let row = failure.index as usize;
        let (segment, place) = rows.find(row);
        let mut letter = Letter::of_record(&segment.window, segment.origin(place));
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
