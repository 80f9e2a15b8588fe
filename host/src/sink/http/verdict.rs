//! What becomes of a call's rows once it is known which of them the endpoint took.

use std::collections::BTreeMap;

use super::answer::{Class, Refusal};
use crate::model::{Answer, Batch, CallError, Failure, FailureKind, Fault};
use crate::sink::suspects::Suspects;

/// A row that was not delivered.
#[derive(Clone, Debug)]
pub(super) enum Undelivered {
    Refused(Refusal),
    /// Not sent, because of this row.
    Unsent {
        behind: usize,
    },
}

/// Answers for the rows that were not delivered. `taken`: the endpoint took another row of the call.
pub(super) fn answer(
    batch: &Batch,
    undelivered: &BTreeMap<usize, Undelivered>,
    taken: bool,
    suspects: &Suspects,
    shown: &str,
) -> Answer {
    let refused = || {
        undelivered.iter().filter_map(|(row, one)| match one {
            Undelivered::Refused(refusal) => Some((*row, refusal)),
            Undelivered::Unsent { .. } => None,
        })
    };
    let kinds: BTreeMap<usize, Option<FailureKind>> = refused()
        .map(|(row, refusal)| (row, kind(refusal.class, taken, || suspects.is_to_blame(batch, row, taken))))
        .collect();
    // Rows of which none was taken, and whose failure does not say whether they are its cause, are asked for in parts
    // (S79b),
    // unless something else says that the endpoint is unavailable.
    let waits = |kind: &FailureKind| matches!(kind, FailureKind::Unavailable | FailureKind::Backpressure(_));
    if !kinds.values().flatten().any(waits)
        && let Some((_, refusal)) = refused().find(|(row, _)| kinds.get(row) == Some(&None))
    {
        let fault = Fault::destination(format!("`{shown}` failed")).because(&refusal.reason);
        return Err(CallError::Unknown(fault));
    }
    let kind_of = |row: usize| kinds.get(&row).copied().flatten().unwrap_or(FailureKind::Unavailable);
    Ok(undelivered
        .iter()
        .map(|(row, one)| match one {
            Undelivered::Refused(refusal) => failure(*row, kind_of(*row), refusal.reason.clone()),
            Undelivered::Unsent { behind } => {
                let kind = match kind_of(*behind) {
                    FailureKind::Reject | FailureKind::Retry => FailureKind::NotTried,
                    kind => kind,
                };
                let reason = refused().find(|(row, _)| row == behind).map(|(_, refusal)| refusal.reason.as_str());
                let waited = batch.source.at(batch.row(*behind).offset);
                let reason = format!("not sent, because it waits for {waited}: {}", reason.unwrap_or_default());
                failure(*row, kind, reason)
            }
        })
        .collect())
}

/// What a refused row is; `None`: unknown whether the row is the cause. `taken`: the endpoint takes other rows
/// meanwhile;
/// `suspect`: it does, or did when this row failed before.
fn kind(class: Class, taken: bool, suspect: impl Fn() -> bool) -> Option<FailureKind> {
    Some(match class {
        Class::Reject => FailureKind::Reject,
        Class::Retry => FailureKind::Retry,
        Class::Unavailable => FailureKind::Unavailable,
        Class::Backpressure(wait) => FailureKind::Backpressure(wait),
        Class::Forbidden if taken => FailureKind::Reject,
        Class::Failed | Class::Unanswered if suspect() => FailureKind::Retry,
        Class::Forbidden | Class::Unanswered => FailureKind::Unavailable,
        Class::Failed => return None,
    })
}

fn failure(row: usize, kind: FailureKind, reason: String) -> Failure {
    Failure::new(index(row), kind, reason)
}

/// Row numbers cross as `u32`; a call never has so many rows that one is cut off.
pub(super) fn index(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::*;
    use crate::model::TopicPartition;

    const WAIT: FailureKind = FailureKind::Backpressure(Duration::from_secs(7));

    fn batch() -> Batch {
        let mut batch = Batch::new(TopicPartition::new("orders", 0));
        for offset in 0..8 {
            batch.push(offset, -1, None, Some(b"1"));
        }
        batch
    }

    fn refused(class: Class) -> Undelivered {
        Undelivered::Refused(Refusal { class, reason: "why".into() })
    }

    fn answered(
        rows: &[(usize, Undelivered)],
        taken: bool,
        suspects: &Suspects,
    ) -> Result<Vec<(u32, FailureKind)>, CallError> {
        let rows = rows.iter().cloned().collect();
        let failures = answer(&batch(), &rows, taken, suspects, "there")?;
        Ok(failures.into_iter().map(|failure| (failure.index, failure.kind)).collect())
    }

    /// S79a, S79b: what each class is alone, and among rows that were taken.
    #[test]
    fn s79b_what_a_refusal_means_depends_on_its_neighbours() {
        let table = [
            (Class::Reject, Some(FailureKind::Reject), FailureKind::Reject),
            (Class::Retry, Some(FailureKind::Retry), FailureKind::Retry),
            (Class::Unavailable, Some(FailureKind::Unavailable), FailureKind::Unavailable),
            (Class::Backpressure(Duration::from_secs(7)), Some(WAIT), WAIT),
            (Class::Forbidden, Some(FailureKind::Unavailable), FailureKind::Reject),
            (Class::Failed, None, FailureKind::Retry),
            (Class::Unanswered, Some(FailureKind::Unavailable), FailureKind::Retry),
        ];
        for (class, alone, among) in table {
            let suspects = Suspects::default();
            let rows = [(2, refused(class))];
            match alone {
                Some(kind) => assert_eq!(answered(&rows, false, &suspects), Ok(vec![(2, kind)]), "{class:?}"),
                None => assert!(matches!(answered(&rows, false, &suspects), Err(CallError::Unknown(_))), "{class:?}"),
            }
            assert_eq!(answered(&rows, true, &suspects), Ok(vec![(2, among)]), "{class:?}");
            // A row that failed among others goes on to be the one that failed.
            if among == FailureKind::Retry {
                assert_eq!(answered(&rows, false, &suspects), Ok(vec![(2, among)]), "{class:?}");
                suspects.forget(&batch().source);
                assert_ne!(answered(&rows, false, &suspects), Ok(vec![(2, FailureKind::Reject)]), "{class:?}");
            }
        }
    }

    /// S79c: a row that was not sent has no trouble of its own, and does not overtake one that waits.
    #[test]
    fn s79c_a_row_that_was_not_sent_is_not_tried_or_waits() {
        for (class, taken, expected) in [
            (Class::Retry, false, FailureKind::NotTried),
            (Class::Forbidden, true, FailureKind::NotTried),
            (Class::Failed, true, FailureKind::NotTried),
            (Class::Forbidden, false, FailureKind::Unavailable),
            (Class::Unanswered, false, FailureKind::Unavailable),
            (Class::Unavailable, true, FailureKind::Unavailable),
            (Class::Backpressure(Duration::from_secs(7)), true, WAIT),
        ] {
            let rows = [(1, refused(class)), (5, Undelivered::Unsent { behind: 1 })];
            let answered = answered(&rows, taken, &Suspects::default()).unwrap();
            assert_eq!(answered[1], (5, expected), "{class:?}");
        }
    }

    /// What says that the endpoint is unavailable decides for failures that say nothing.
    #[test]
    fn a_failure_beside_an_unavailable_endpoint_waits_with_it() {
        let rows = [(0, refused(Class::Failed)), (1, refused(Class::Unavailable)), (2, refused(Class::Reject))];
        let expected = [FailureKind::Unavailable, FailureKind::Unavailable, FailureKind::Reject];
        let answered = answered(&rows, false, &Suspects::default()).unwrap();
        assert_eq!(answered.into_iter().map(|(_, kind)| kind).collect::<Vec<_>>(), expected);
    }
}
