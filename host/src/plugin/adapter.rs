//! Between the host's types and the contract's, and the proof that what a guest answers can be true.

use std::collections::BTreeMap;

use super::bindings::types;
use super::report::{WORDS_BYTES, printable};
use crate::model::{Batch, Column, Failure, FailureKind, TopicPartition};

pub(crate) mod addressed;
pub(crate) mod collector;
mod payloads;
pub(crate) mod sink;

/// The batch as the contract has it: the same columns, copied once.
fn batch(batch: &Batch) -> types::Batch {
    types::Batch {
        topic: batch.source.topic.to_string(),
        partition: batch.source.partition,
        offsets: batch.offsets.clone(),
        ordinals: batch.ordinals.clone(),
        timestamps: batch.timestamps.clone(),
        keys: column(&batch.keys),
        values: column(&batch.values),
        header_counts: batch.header_counts.clone(),
        header_names: column(&batch.header_names),
        header_values: column(&batch.header_values),
    }
}

fn column(column: &Column) -> types::Column {
    types::Column { bytes: column.bytes().to_vec(), lengths: column.lengths().to_vec() }
}

fn source(source: &TopicPartition) -> types::TopicPartition {
    types::TopicPartition { topic: source.topic.to_string(), partition: source.partition }
}

/// The rows that failed, in order, each once.
///
/// # Errors
/// How the guest broke the contract: it names a row that is not there, or says two things of one row.
fn failures(answered: Vec<types::Failure>, rows: u64) -> Result<Vec<Failure>, String> {
    let mut failed: BTreeMap<u32, Failure> = BTreeMap::new();
    for types::Failure { index, kind, reason } in answered {
        in_range(index, rows)?;
        let kind = match kind {
            types::FailureKind::Retry => FailureKind::Retry,
            types::FailureKind::Reject => FailureKind::Reject,
        };
        let known = failed.entry(index).or_insert_with(|| Failure::new(index, kind, printable(&reason, WORDS_BYTES)));
        if known.kind != kind {
            return Err(format!("row {index} is to be tried again and rejected in one answer"));
        }
    }
    Ok(failed.into_values().collect())
}

fn in_range(index: u32, rows: u64) -> Result<(), String> {
    if u64::from(index) < rows { Ok(()) } else { Err(format!("it names row {index} of {rows}, counted from 0")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn failure(index: u32, kind: types::FailureKind) -> types::Failure {
        types::Failure { index, kind, reason: "no\n".into() }
    }

    /// S131: outcomes are per row, and an answer that cannot be true is no answer.
    #[test]
    fn answers_are_proved() {
        use types::FailureKind::{Reject, Retry};
        let good = failures(vec![failure(2, Reject), failure(0, Retry), failure(2, Reject)], 3).unwrap();
        assert_eq!(good, [Failure::retry(0, "no\\n"), Failure::reject(2, "no\\n")]);
        assert!(failures(vec![failure(3, Reject)], 3).unwrap_err().contains("row 3 of 3"));
        assert!(failures(vec![failure(1, Reject), failure(1, Retry)], 3).is_err());
    }

    #[test]
    fn columns_cross_unchanged() {
        let mut rows = Batch::new(TopicPartition::new("orders", 3));
        rows.push(7, -1, None, Some(b"one"));
        rows.push(8, 5, Some(b"k"), None);
        rows.push_headers([(&b"h"[..], None)]);
        let crossed = batch(&rows);
        assert_eq!((crossed.topic.as_str(), crossed.partition), ("orders", 3));
        assert_eq!(crossed.values.lengths, [3, -1]);
        assert_eq!(crossed.keys.bytes, b"k");
        assert_eq!(crossed.header_counts, [0, 1]);
    }
}
