//! What the calls said of each row, so that each dead letter can be held against it: whoever was neither named by a
//! call nor failed alone is a neighbour, and neighbours are never blamed.

use std::collections::{BTreeMap, BTreeSet};

use tidegate::model::{Answer, CallError, Failure, FailureKind, Offset};
use tidegate::pipeline::options::OnError;

use super::stage::Stage;
use super::world::{Row, World, Write};

/// What one member heard of one row of one sink; of one source record, where there is no sink.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Refused for good, by name or as the only row of a call.
    rejected: bool,
    /// Where a guest did not survive it alone.
    broke: BTreeSet<Stage>,
    /// Calls after which it was to be tried again.
    attempts: u32,
    /// Where an attempt was a call with this row alone whose outcome is unknown, and how many calls had passed there
    /// when that happened first.
    unknown: BTreeMap<Stage, u64>,
    /// Calls in which the destination was unavailable, or may have been.
    unavailable: u32,
    /// The delivery hook gave it up, or wanted it to be tried again.
    hook_gave_up: bool,
    hook_retried: bool,
}

/// A row, or a source record, as one member knows it.
pub type Known = (usize, Option<usize>, usize, Offset, bool, u32);

const fn known(member: usize, row: Row) -> Known {
    let (sink, partition, offset, window, ordinal) = row;
    (member, Some(sink), partition, offset, window, ordinal)
}

const fn record(member: usize, partition: usize, offset: Offset) -> Known {
    (member, None, partition, offset, false, 0)
}

impl World {
    fn account(&mut self, key: Known) -> &mut Account {
        self.accounts.entry(key).or_default()
    }

    /// A sink answered a call with these rows; failures count them. `alone`: nothing else was in the call or the
    /// buffer.
    pub fn heard(&mut self, member: usize, stage: Stage, rows: &[Write], alone: bool, answer: &Answer) {
        let Some(sink) = stage.sink() else { return };
        let keys: Vec<Known> = rows.iter().map(|row| known(member, row.row(sink))).collect();
        self.hear(member, stage, &keys, alone, answer);
    }

    /// The collector answered a call with these records.
    pub fn heard_records(&mut self, member: usize, partition: usize, offsets: &[Offset], answer: &Answer) {
        let keys: Vec<Known> = offsets.iter().map(|offset| record(member, partition, *offset)).collect();
        self.hear(member, Stage::Collect, &keys, keys.len() == 1, answer);
    }

    fn hear(&mut self, member: usize, stage: Stage, keys: &[Known], alone: bool, answer: &Answer) {
        match answer {
            Ok(failures) => {
                // The call was survived, and the destination was there.
                let answered = |failure: &&Failure| matches!(failure.kind, FailureKind::Reject | FailureKind::Retry);
                if failures.len() < keys.len() || failures.iter().any(|failure| answered(&failure)) {
                    self.pass(member, stage);
                } else if !failures.is_empty() {
                    self.named_unavailable.insert((member, stage));
                }
                // Rows that were refused by name need no flush.
                if stage == Stage::Add && failures.len() == keys.len() && self.passes(member, stage) > 0 {
                    self.pass(member, Stage::Flush);
                }
                for failure in failures {
                    let Some(key) = keys.get(failure.index as usize) else { continue };
                    self.excuse(stage, key.2, key.3);
                    let account = self.account(*key);
                    match failure.kind {
                        FailureKind::Reject => account.rejected = true,
                        FailureKind::Retry => account.attempts += 1,
                        FailureKind::Unavailable => account.unavailable += 1,
                        FailureKind::Backpressure(_) | FailureKind::NotTried => {}
                    }
                }
            }
            Err(CallError::Backpressure(_) | CallError::Fatal(_) | CallError::BufferLost(_)) => {}
            Err(error) => {
                let passes = self.passes(member, stage);
                for key in keys {
                    if alone {
                        self.excuse(stage, key.2, key.3);
                    }
                    let account = self.account(*key);
                    match error {
                        CallError::Trap(_) | CallError::LimitExceeded(_) if alone => {
                            account.broke.insert(stage);
                        }
                        CallError::Reject(_) if alone => account.rejected = true,
                        CallError::Unknown(_) | CallError::Timeout(_) => {
                            account.unavailable += 1;
                            if alone {
                                account.attempts += 1;
                                account.unknown.entry(stage).or_insert(passes);
                            }
                        }
                        CallError::Unavailable(_) => account.unavailable += 1,
                        _ => {}
                    }
                }
            }
        }
    }

    fn pass(&mut self, member: usize, stage: Stage) {
        *self.passed.entry((member, stage)).or_default() += 1;
    }

    fn passes(&self, member: usize, stage: Stage) -> u64 {
        self.passed.get(&(member, stage)).copied().unwrap_or_default()
    }

    /// A row of the file sink that failed by itself may come after rows behind it from then on (S76a).
    pub fn excuse(&mut self, stage: Stage, partition: usize, offset: Offset) {
        if stage == Stage::Deliver(1) {
            self.excused.insert((partition, offset));
        }
    }

    /// The window hook failed: that speaks for all records of the window (S64).
    pub fn window_failed(&mut self, member: usize, partition: usize, first: Offset, last: Offset) {
        let of_window = |offset: &Offset| (first..=last).contains(offset);
        let offsets: Vec<Offset> = self.logs[partition].offsets.iter().copied().filter(of_window).collect();
        for offset in offsets {
            self.account(record(member, partition, offset)).rejected = true;
        }
    }

    /// The delivery hook decided about rows.
    pub fn hook_gave_up(&mut self, member: usize, row: Row) {
        self.account(known(member, row)).hook_gave_up = true;
    }

    pub fn hook_retried(&mut self, member: usize, row: Row) {
        self.account(known(member, row)).hook_retried = true;
    }

    /// Whether nothing has passed since the row failed, so that it may have been an outage.
    pub fn may_be_an_outage(&self, member: usize, row: Row) -> bool {
        self.accounts.get(&known(member, row)).is_some_and(|account| {
            let since = |(stage, passes): (&Stage, &u64)| self.passes(member, *stage) == *passes;
            !account.rejected
                && account.broke.is_empty()
                && !account.unknown.is_empty()
                && account.unknown.iter().all(since)
        })
    }

    /// Why this row's dead letter is wrong, if it is.
    pub fn wrongly_blamed(&self, member: usize, row: Row) -> Option<String> {
        let on_error = self.members[member].on_error[row.0];
        self.judge(known(member, row), on_error)
    }

    /// The same for a source record.
    pub fn record_wrongly_blamed(&self, member: usize, partition: usize, offset: Offset) -> Option<String> {
        self.judge(record(member, partition, offset), None)
    }

    fn judge(&self, key: Known, on_error: Option<OnError>) -> Option<String> {
        let (member, ..) = key;
        let Some(account) = self.accounts.get(&key) else {
            return Some("a neighbour was blamed: no call said anything against it".into());
        };
        let passed = |stage: &Stage| self.passes(member, *stage) > 0;
        if account.rejected || account.hook_gave_up || account.broke.iter().any(passed) {
            return None;
        }
        let retries = self.members[member].settings.executor.max_retries;
        let needed = if on_error == Some(OnError::Dlq) { 1 } else { retries + 1 };
        if account.attempts >= needed && (account.unknown.is_empty() || account.unknown.keys().any(passed)) {
            return None;
        }
        let wants = matches!(on_error, Some(OnError::Dlq | OnError::Retry)) || account.hook_retried;
        // What broke a call among rows whose destination was unavailable counts as one of them.
        let untold = account.broke.iter().any(|stage| self.named_unavailable.contains(&(member, *stage)));
        if wants && (untold || account.attempts + account.unavailable >= needed) {
            return None;
        }
        Some(match account {
            _ if !account.broke.is_empty() => format!("a row was blamed where nothing passed: {account:?}"),
            Account { attempts: 0, unavailable: 1.., .. } => format!("an outage cost a dead letter: {account:?}"),
            Account { attempts: 0, .. } => format!("a neighbour was blamed: {account:?}"),
            _ => format!("it had not used up its {needed} attempts: {account:?}"),
        })
    }
}
