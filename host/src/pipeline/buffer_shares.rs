//! How much of a plugin's memory its partitions may fill between two flushes (S15a).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::TopicPartition;
use crate::sink::BufferLimit;

/// What a call may always have, however full the instance is: a call has at least one row, whatever its size.
const LEAST_CALL_BYTES: u64 = 1;

/// One instance of one sink, by the sink's index.
type Instance = (usize, usize);

/// What every instance holds, per topic-partition that it serves.
///
/// An instance may be given `max_bytes` between two flushes, over all its partitions. Half of it is shared by whoever comes
/// first: at that mark a partition flushes what it holds before it adds more, and the checkpoint of the one that holds most is
/// due. The other half is divided evenly, and bounds what one call adds, so that a partition with nothing to flush never waits for
/// its neighbours.
#[derive(Debug, Default)]
pub struct BufferShares(Mutex<BTreeMap<Instance, BTreeMap<TopicPartition, u64>>>);

impl BufferShares {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Instance, BTreeMap<TopicPartition, u64>>> {
        // A map is whole after every step, so a panic elsewhere spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition is served from now on.
    pub fn join(&self, sink: usize, limit: BufferLimit, partition: &TopicPartition) {
        self.set(sink, limit, partition, 0);
    }

    /// A partition is not served any longer.
    pub fn leave(&self, sink: usize, limit: BufferLimit, partition: &TopicPartition) {
        let mut instances = self.lock();
        if let Some(partitions) = instances.get_mut(&(sink, limit.instance)) {
            partitions.remove(partition);
            if partitions.is_empty() {
                instances.remove(&(sink, limit.instance));
            }
        }
    }

    /// A partition's buffer holds so many bytes now.
    pub fn set(&self, sink: usize, limit: BufferLimit, partition: &TopicPartition, bytes: u64) {
        self.lock().entry((sink, limit.instance)).or_default().insert(partition.clone(), bytes);
    }

    /// Most bytes of one call. At most half of what is left, because partitions that joined when there were fewer may have taken
    /// more than a share is now.
    pub fn call_bytes(&self, sink: usize, limit: BufferLimit) -> u64 {
        let instances = self.lock();
        let held = instances.get(&(sink, limit.instance));
        let (partitions, total) = held.map_or((1, 0), |held| (held.len().max(1), held.values().sum()));
        (limit.max_bytes / 2 / partitions as u64).min(limit.max_bytes.saturating_sub(total) / 2).max(LEAST_CALL_BYTES)
    }

    /// Whether a call of so many bytes would take the instance beyond what its partitions share.
    pub fn is_full(&self, sink: usize, limit: BufferLimit, more: u64) -> bool {
        let total: u64 = self.lock().get(&(sink, limit.instance)).map_or(0, |partitions| partitions.values().sum());
        total.saturating_add(more) > limit.max_bytes / 2
    }

    /// The same for a partition that would hold so many bytes in all.
    pub fn is_full_beside(&self, sink: usize, limit: BufferLimit, partition: &TopicPartition, bytes: u64) -> bool {
        let instances = self.lock();
        let others = instances.get(&(sink, limit.instance)).into_iter().flatten();
        let total: u64 = others.filter(|(other, _)| *other != partition).map(|(_, bytes)| *bytes).sum();
        total.saturating_add(bytes) > limit.max_bytes / 2
    }

    /// Whether the instance holds nearly all that its partitions share, and this partition the most of it: then its checkpoint is
    /// due, so that others need not flush the little they have.
    pub fn is_largest_of_full(&self, sink: usize, limit: BufferLimit, partition: &TopicPartition) -> bool {
        let instances = self.lock();
        let Some(partitions) = instances.get(&(sink, limit.instance)) else { return false };
        let own = partitions.get(partition).copied().unwrap_or(0);
        let total: u64 = partitions.values().sum();
        own > 0 && total >= limit.max_bytes / 8 * 3 && partitions.values().all(|other| *other <= own)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("orders", number)
    }

    proptest! {
        /// S15a: however many partitions add in whatever order, an instance never holds more than its limit, and nobody waits.
        #[test]
        fn s15a_an_instance_stays_below_its_limit(
            partitions in 1i32..70,
            adds in proptest::collection::vec((0i32..70, 1u64..2_000), 1..400),
        ) {
            let (shares, limit) = (BufferShares::default(), BufferLimit { instance: 0, max_bytes: 16_000 });
            let mut held = BTreeMap::new();
            for (number, bytes) in adds {
                let number = number % partitions;
                // Partitions join one after the other.
                if !held.contains_key(&number) {
                    shares.join(0, limit, &partition(number));
                }
                let call = bytes.min(shares.call_bytes(0, limit));
                let own = held.entry(number).or_insert(0);
                if *own > 0 && shares.is_full(0, limit, call) {
                    *own = 0;
                }
                *own += call;
                shares.set(0, limit, &partition(number), *own);
                // Where nothing is left a partition is still given the least that a call can be, so that it never waits.
                prop_assert!(held.values().sum::<u64>() <= limit.max_bytes + held.len() as u64 * LEAST_CALL_BYTES);
            }
        }
    }

    #[test]
    fn s15a_the_largest_holder_of_a_full_instance_is_due() {
        let (shares, limit) = (BufferShares::default(), BufferLimit { instance: 3, max_bytes: 1_600 });
        shares.set(1, limit, &partition(0), 400);
        shares.set(1, limit, &partition(1), 100);
        assert!(!shares.is_largest_of_full(1, limit, &partition(0)));
        shares.set(1, limit, &partition(1), 350);
        assert!(shares.is_largest_of_full(1, limit, &partition(0)));
        assert!(!shares.is_largest_of_full(1, limit, &partition(1)));
        assert!(!shares.is_largest_of_full(2, limit, &partition(0)), "another sink");
        shares.leave(1, limit, &partition(0));
        assert!(!shares.is_full(1, limit, 450) && shares.is_full(1, limit, 451));
    }
}
