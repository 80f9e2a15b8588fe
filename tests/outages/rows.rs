//! The records of a cell, and what a destination has of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Partitions of a cell's source.
pub const PARTITIONS: i32 = 2;
/// Keys of a partition that come again and again; every other record has a key of its own.
const HOT_KEYS: i64 = 5;
/// An id is the partition's number times this, and the offset.
const PER_PARTITION: i64 = 1_000_000;

/// The record's key.
pub fn key(partition: i32, offset: i64) -> String {
    if offset % 2 == 0 {
        format!("own-{partition}-{offset}")
    } else {
        format!("hot-{partition}-{}", offset / 2 % HOT_KEYS)
    }
}

pub fn id(partition: i32, offset: i64) -> i64 {
    i64::from(partition) * PER_PARTITION + offset
}

/// The record's value.
pub fn value(partition: i32, offset: i64) -> Value {
    json!({ "id": id(partition, offset), "k": key(partition, offset) })
}

/// What one sink has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// A row for each record, in the order in which they stand there.
    Rows(Vec<i64>),
    /// The same, from a destination that keeps no order.
    Unordered(Vec<i64>),
    /// One row for each key.
    Newest(BTreeMap<String, i64>),
}

impl Written {
    /// What of the records below these offsets is not there.
    pub fn missing(&self, below: &[i64]) -> Vec<i64> {
        let records = || (0..PARTITIONS).zip(below).flat_map(|(p, end)| (0..*end).map(move |n| (p, n)));
        match self {
            Self::Rows(ids) | Self::Unordered(ids) => {
                let found: BTreeSet<&i64> = ids.iter().collect();
                records().map(|(p, n)| id(p, n)).filter(|id| !found.contains(id)).collect()
            }
            // A newer row of its key may stand there already.
            Self::Newest(rows) => records()
                .filter(|(p, n)| rows.get(&key(*p, *n)).is_none_or(|newest| *newest < id(*p, *n)))
                .map(|(p, n)| id(p, n))
                .collect(),
        }
    }

    /// Rows that stand there again.
    pub fn repeated(&self) -> usize {
        match self {
            Self::Rows(ids) | Self::Unordered(ids) => ids.len() - ids.iter().collect::<BTreeSet<_>>().len(),
            Self::Newest(_) => 0,
        }
    }

    /// What was not written in order of its key, or is no record of ours.
    pub fn out_of_order(&self, ends: &[i64]) -> Vec<i64> {
        let is_ours = |id: &i64| {
            let end = usize::try_from(id / PER_PARTITION).ok().and_then(|partition| ends.get(partition));
            end.is_some_and(|end| id % PER_PARTITION < *end)
        };
        match self {
            Self::Unordered(ids) => ids.iter().filter(|id| !is_ours(id)).copied().collect(),
            Self::Rows(ids) => {
                let (mut seen, mut newest) = (BTreeSet::new(), BTreeMap::new());
                let firsts = ids.iter().filter(|id| seen.insert(**id));
                let wrong = firsts.filter(|id| {
                    let key = key(i32::try_from(**id / PER_PARTITION).unwrap_or(-1), **id % PER_PARTITION);
                    let before = newest.insert(key, **id);
                    before.is_some_and(|before| before > **id) || !is_ours(id)
                });
                wrong.copied().collect()
            }
            // The last row of a key is its newest.
            Self::Newest(rows) => rows
                .iter()
                .filter(|(found, id)| {
                    let (partition, offset) = (*id / PER_PARTITION, *id % PER_PARTITION);
                    let partition = i32::try_from(partition).unwrap_or(-1);
                    let newer = (offset + 1..offset + 1 + 2 * HOT_KEYS).map(|n| (id_is_below(ends, partition, n), n));
                    let overtaken = newer.into_iter().any(|(is, n)| is && key(partition, n) == **found);
                    !is_ours(id) || **found != key(partition, offset) || overtaken
                })
                .map(|(_, id)| *id)
                .collect(),
        }
    }
}

fn id_is_below(ends: &[i64], partition: i32, offset: i64) -> bool {
    usize::try_from(partition).ok().and_then(|partition| ends.get(partition)).is_some_and(|end| offset < *end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [i64; 2] = [20, 10];

    fn all() -> Vec<i64> {
        (0..20).map(|n| id(0, n)).chain((0..10).map(|n| id(1, n))).collect()
    }

    fn newest(ids: &[i64]) -> Written {
        let key = |id: i64| key(i32::try_from(id / PER_PARTITION).unwrap(), id % PER_PARTITION);
        Written::Newest(ids.iter().map(|id| (key(*id), *id)).collect())
    }

    #[test]
    fn what_is_whole_has_no_flaw() {
        for written in [Written::Rows(all()), Written::Unordered(all()), newest(&all())] {
            let flaws = (written.missing(&ENDS), written.repeated(), written.out_of_order(&ENDS));
            assert_eq!(flaws, (vec![], 0, vec![]), "{written:?}");
        }
    }

    #[test]
    fn each_flaw_is_found() {
        let without: Vec<i64> = all().into_iter().filter(|id| *id != 4).collect();
        assert_eq!(Written::Rows(without.clone()).missing(&ENDS), [4]);
        assert_eq!(newest(&without).missing(&ENDS), [4]);
        let twice = [all(), vec![3]].concat();
        assert_eq!((Written::Rows(twice.clone()).repeated(), Written::Rows(twice).out_of_order(&ENDS)), (1, vec![]));
        // 1 and 11 are of one key.
        let turned: Vec<i64> = all()
            .into_iter()
            .map(|id| {
                if id == 1 {
                    11
                } else if id == 11 {
                    1
                } else {
                    id
                }
            })
            .collect();
        assert_eq!(Written::Rows(turned.clone()).out_of_order(&ENDS), [1]);
        assert_eq!(newest(&turned).out_of_order(&ENDS), [1]);
        assert_eq!(Written::Unordered([all(), vec![id(1, 10)]].concat()).out_of_order(&ENDS), [id(1, 10)]);
    }
}
