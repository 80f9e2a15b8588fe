//! Rows that failed while the destination took others, so that their failure is known to be their own (S79b).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::model::{Batch, Offset, TopicPartition};

/// Rows that are remembered by one sink; beyond it all are forgotten.
const SUSPECTS: usize = 1000;

/// Rows that failed among taken ones. When one is asked for again alone and fails, that is its own trouble still.
#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<HashSet<(TopicPartition, Offset, u32)>>);

impl Suspects {
    /// Whether a failure that may be a row's or the destination's is the row's: the destination took `others` of the
    /// call, or
    /// did when the row failed before.
    pub(super) fn is_to_blame(&self, batch: &Batch, row: usize, others: bool) -> bool {
        let record = batch.row(row);
        let coordinates = (batch.source.clone(), record.offset, record.ordinal);
        let mut suspects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !others {
            return suspects.contains(&coordinates);
        }
        if suspects.len() >= SUSPECTS {
            suspects.clear();
        }
        suspects.insert(coordinates);
        true
    }

    /// The partition starts over, or is gone.
    pub(super) fn forget(&self, source: &TopicPartition) {
        let mut suspects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        suspects.retain(|(partition, _, _)| partition != source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s79b_a_row_that_failed_among_others_is_to_blame_alone() {
        let suspects = Suspects::default();
        let mut batch = Batch::new(TopicPartition::new("orders", 0));
        for offset in 0..3 {
            batch.push(offset, -1, None, Some(b"1"));
        }
        assert!(!suspects.is_to_blame(&batch, 1, false));
        assert!(suspects.is_to_blame(&batch, 1, true));
        let alone = batch.select(&[1]);
        assert!(suspects.is_to_blame(&alone, 0, false));
        assert!(!suspects.is_to_blame(&batch, 2, false));
        suspects.forget(&TopicPartition::new("orders", 1));
        assert!(suspects.is_to_blame(&alone, 0, false));
        suspects.forget(&batch.source);
        assert!(!suspects.is_to_blame(&alone, 0, false));
    }

    #[test]
    fn suspects_have_a_bound() {
        let suspects = Suspects::default();
        let mut batch = Batch::new(TopicPartition::new("orders", 0));
        for offset in 0..2 * SUSPECTS as i64 {
            batch.push(offset, -1, None, None);
        }
        for row in 0..batch.len() {
            assert!(suspects.is_to_blame(&batch, row, true));
            assert!(suspects.0.lock().is_ok_and(|known| known.len() <= SUSPECTS));
        }
    }
}
