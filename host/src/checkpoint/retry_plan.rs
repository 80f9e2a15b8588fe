//! Which rows have to be written again so that a row that is tried later does not end up behind its successors (S76a).

use std::collections::HashSet;

/// What another attempt has to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryPlan {
    /// The rows, ascending.
    pub rows: Vec<usize>,
    /// Rows that were already written and will now stand before an earlier row of their key: the sink is not
    /// idempotent, so they are not repeated.
    pub reordered: u64,
}

impl RetryPlan {
    /// The rows of another attempt among `0..rows`, given those to `retry` and those `given_up`, both ascending. `key` tells a
    /// row's key.
    ///
    /// A row to retry holds back the rows after it of the same key; a row without a key holds back all that follow. An
    /// idempotent sink writes what was held back again, behind the row. A row that was given up holds nothing back.
    pub fn new<'k>(
        rows: usize,
        key: impl Fn(usize) -> Option<&'k [u8]>,
        retry: &[usize],
        given_up: &[usize],
        idempotent: bool,
    ) -> Self {
        let Some(&first) = retry.first() else { return Self::default() };
        let mut held: HashSet<&[u8]> = HashSet::new();
        let mut all_held = false;
        let mut plan = Self::default();
        for row in first..rows {
            let key = key(row);
            if retry.binary_search(&row).is_ok() {
                match key {
                    Some(key) => {
                        held.insert(key);
                    }
                    None => all_held = true,
                }
                plan.rows.push(row);
            } else if given_up.binary_search(&row).is_err() && (all_held || key.is_some_and(|key| held.contains(key))) {
                if idempotent {
                    plan.rows.push(row);
                } else {
                    plan.reordered += 1;
                }
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Batch, TopicPartition};

    fn batch(keys: &[Option<u8>]) -> Batch {
        let mut batch = Batch::new(TopicPartition::new("t", 0));
        for (offset, key) in (0..).zip(keys) {
            batch.push(offset, -1, key.as_ref().map(std::slice::from_ref), Some(b"v"));
        }
        batch
    }

    fn plan(batch: &Batch, retry: &[usize], given_up: &[usize], idempotent: bool) -> RetryPlan {
        RetryPlan::new(batch.len(), |row| batch.keys.get(row), retry, given_up, idempotent)
    }

    /// S76a: rows of the same key go behind the row that is tried again; other keys stay; a dead letter holds nothing.
    #[test]
    fn s76a_holds_back_the_same_key_only() {
        let batch = batch(&[Some(1), Some(2), Some(1), Some(2), Some(1)]);
        assert_eq!(plan(&batch, &[0], &[2], true), RetryPlan { rows: vec![0, 4], reordered: 0 });
        assert_eq!(plan(&batch, &[0], &[], false), RetryPlan { rows: vec![0], reordered: 2 });
        assert_eq!(plan(&batch, &[], &[1], true), RetryPlan::default());
    }

    /// S76a: a row without a key holds back its whole partition.
    #[test]
    fn s76a_a_row_without_a_key_holds_back_all() {
        let batch = batch(&[Some(1), None, Some(3), None]);
        assert_eq!(plan(&batch, &[1], &[], true), RetryPlan { rows: vec![1, 2, 3], reordered: 0 });
    }

    proptest! {
        /// S76a: replaying attempts on an idempotent sink leaves, per key, the newest row that was not rejected.
        #[test]
        fn s76a_an_upsert_ends_at_the_newest_value(
            keys in proptest::collection::vec(proptest::option::weighted(0.9, 0u8..3), 1..20),
            verdicts in proptest::collection::vec(0u8..3, 20),
        ) {
            let batch = batch(&keys);
            let retry: Vec<usize> = (0..keys.len()).filter(|row| verdicts[*row] == 1).collect();
            let rejected: Vec<usize> = (0..keys.len()).filter(|row| verdicts[*row] == 2).collect();
            let mut table = std::collections::HashMap::new();
            for row in 0..keys.len() {
                if verdicts[row] == 0 {
                    table.insert(keys[row], row);
                }
            }
            for row in plan(&batch, &retry, &rejected, true).rows {
                table.insert(keys[row], row);
            }
            for (key, last) in &table {
                let newest = (0..keys.len()).rev().find(|row| keys[*row] == *key && verdicts[*row] != 2);
                prop_assert_eq!(Some(*last), newest);
            }
        }
    }
}
