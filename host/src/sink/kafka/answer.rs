//! The outcomes of rows as the sink's answer.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::code::{Meaning, meaning};
use super::producer::{Written, cannot_write, unusable};
use super::report::Missed;
use crate::model::{Batch, CallError, Failure, Fault};
use crate::sink::TOO_LARGE;

/// What became of a call's rows.
#[derive(Default)]
pub(super) struct Outcome {
    missed: Vec<Missed>,
    unfit: Vec<Failure>,
}

/// Why there is no answer for each row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The topic is said not to exist.
    Missing(Code),
    /// Anything else.
    Call(CallError),
}

impl From<Stop> for CallError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Missing(code) => Self::Unavailable(Fault::destination("the topic is unknown").because(code)),
            Stop::Call(error) => error,
        }
    }
}

/// Rows whose outcome is known only when they are sent again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    /// They were too large together: in smaller batches.
    pub(super) together: Vec<u32>,
    /// One of them was refused for good: in parts.
    pub(super) suspects: Vec<u32>,
}

impl Outcome {
    /// Adds what became of rows that were sent in batches of at most so many bytes.
    pub(super) fn add(&mut self, written: Written, batch: &Batch, batch_size: u64) -> Open {
        self.unfit.extend(written.unfit);
        let (mut together, mut suspects) = (Vec::new(), Vec::new());
        for (row, code) in written.missed {
            match meaning(code) {
                // What is larger than a batch was sent by itself.
                Meaning::TooLarge if least_bytes(batch, row) <= batch_size => together.push((row, code)),
                Meaning::Reject => suspects.push((row, code)),
                _ => self.missed.push((row, code)),
            }
        }
        if together.len() == 1 || batch_size <= 1 {
            self.missed.append(&mut together);
        }
        if suspects.len() == 1 {
            self.missed.append(&mut suspects);
        }
        let rows = |missed: Vec<Missed>| missed.into_iter().map(|(row, _)| row).collect();
        Open { together: rows(together), suspects: rows(suspects) }
    }

    /// Leaves rows to a later call.
    pub(super) fn leave(&mut self, rows: &[u32]) {
        self.missed.extend(rows.iter().map(|row| (*row, Code::InvalidDifferentRecord)));
    }

    /// The sink's answer, unless the call failed as a whole.
    pub(super) fn answer(self, topic: &str) -> Result<Vec<Failure>, Stop> {
        let (mut failures, mut unknown) = (self.unfit, None);
        for (row, code) in self.missed {
            failures.push(match meaning(code) {
                Meaning::Reject => Failure::reject(row, format!("topic `{topic}` does not take it: {code}")),
                Meaning::TooLarge => Failure::too_large(row, format!("{TOO_LARGE}: {code}")),
                Meaning::Unavailable => Failure::unavailable(row, format!("topic `{topic}` did not take it: {code}")),
                Meaning::NotTried => Failure::not_tried(row, format!("topic `{topic}` was not given it: {code}")),
                Meaning::Unknown => {
                    unknown.get_or_insert(code);
                    continue;
                }
                Meaning::Missing => return Err(Stop::Missing(code)),
                Meaning::Config => return Err(Stop::Call(CallError::Fatal(unusable(topic, code)))),
            });
        }
        if let Some(code) = unknown {
            return Err(Stop::Call(CallError::Unknown(cannot_write(topic).because(code))));
        }
        failures.sort_unstable_by_key(|failure| failure.index);
        Ok(failures)
    }
}

/// What a row's record takes at least, in bytes.
fn least_bytes(batch: &Batch, row: u32) -> u64 {
    let row = batch.row(row as usize);
    (row.key.map_or(0, <[u8]>::len) + row.value.map_or(0, <[u8]>::len)) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::model::{FailureKind, TopicPartition};

    fn rows(sizes: &[usize]) -> Batch {
        let mut batch = Batch::new(TopicPartition::new("orders", 0));
        for (offset, size) in (0..).zip(sizes) {
            batch.push(offset, -1, None, Some(&vec![b'x'; *size]));
        }
        batch
    }

    fn written(missed: &[Missed]) -> Written {
        Written { missed: missed.to_vec(), unfit: Vec::new() }
    }

    fn answer(missed: &[Missed]) -> Result<Vec<Failure>, Stop> {
        Outcome { missed: missed.to_vec(), unfit: Vec::new() }.answer("out")
    }

    /// S79c: a culprit is rejected, its neighbours are sent again at once.
    #[test]
    fn s79c_neighbours_of_a_culprit_are_not_blamed() {
        let different = Code::InvalidDifferentRecord;
        let failures = answer(&[(0, different), (1, Code::InvalidRecord), (2, different)]).unwrap();
        let kinds: Vec<FailureKind> = failures.iter().map(|failure| failure.kind).collect();
        assert_eq!(kinds, [FailureKind::NotTried, FailureKind::Reject, FailureKind::NotTried]);
        assert!(!failures[1].too_large);
    }

    /// S79b: codes that name no row are the call's.
    #[test]
    fn s79b_what_names_no_row_is_the_calls() {
        let of = |stop| if let Err(Stop::Call(error)) = stop { error } else { panic!("{stop:?}") };
        assert!(matches!(of(answer(&[(3, Code::MessageTimedOut), (4, Code::Unknown)])), CallError::Unknown(_)));
        assert!(matches!(of(answer(&[(0, Code::Unknown), (1, Code::TopicAuthorizationFailed)])), CallError::Fatal(_)));
        assert_eq!(answer(&[(1, Code::UnknownTopic)]), Err(Stop::Missing(Code::UnknownTopic)));
    }

    /// S76: rows that may have shared a batch which was too large are sent again; one that cannot have is rejected.
    #[test]
    fn s76_rows_too_large_together_are_told_from_one_that_is() {
        let batch = rows(&[10, 10, 5000, 10]);
        let large = Code::MessageSizeTooLarge;
        let mut outcome = Outcome::default();
        let open = outcome.add(written(&[(0, large), (1, large), (2, large)]), &batch, 1000);
        assert_eq!(open, Open { together: vec![0, 1], suspects: vec![] });
        // Alone in its batch.
        assert_eq!(outcome.add(written(&[(1, large)]), &batch, 500), Open::default());
        let failures = outcome.answer("out").unwrap();
        let found: Vec<(u32, bool)> = failures.iter().map(|failure| (failure.index, failure.too_large)).collect();
        assert_eq!(found, [(1, true), (2, true)]);
    }

    /// S79c: of rows that share a refusal one may be the culprit; a row that is refused alone is, and what was not found in
    /// time is left to a later call.
    #[test]
    fn s79c_a_refusal_of_several_rows_names_none() {
        let (batch, refused) = (rows(&[1, 1, 1, 1]), Code::InvalidRecord);
        let mut outcome = Outcome::default();
        let open = outcome.add(written(&[(0, refused), (1, refused), (2, Code::InvalidDifferentRecord)]), &batch, 1000);
        assert_eq!(open, Open { together: vec![], suspects: vec![0, 1] });
        assert_eq!(outcome.add(written(&[(1, refused)]), &batch, 1000), Open::default());
        outcome.leave(&[3]);
        let kinds: Vec<(u32, FailureKind)> =
            outcome.answer("out").unwrap().iter().map(|failure| (failure.index, failure.kind)).collect();
        assert_eq!(kinds, [(1, FailureKind::Reject), (2, FailureKind::NotTried), (3, FailureKind::NotTried)]);
    }
}
