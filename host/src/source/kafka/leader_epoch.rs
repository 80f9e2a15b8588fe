//! Leader epochs of records and offsets (KIP-320): under which leader a record was written. A log that was cut and
//! written again has a later epoch from the cut on, so that an offset with its epoch tells whether what lay below it is
//! still there.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use rdkafka::bindings;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaTopicPartition;

use super::offsets;
use crate::model::{Offset, TopicPartition};

/// The epoch is not known: the offset cannot be checked.
pub(super) const UNKNOWN: i32 = -1;
/// Epochs remembered of one partition; there is one more for each change of its leader since the last commit.
const REMEMBERED: usize = 64;

/// The epoch of a record.
#[allow(unsafe_code, reason = "the safe wrapper does not offer it")]
pub(super) fn of_record(record: &BorrowedMessage<'_>) -> i32 {
    // SAFETY: the record is alive for the whole call.
    unsafe { bindings::rd_kafka_message_leader_epoch(record.ptr()) }
}

/// The epochs that stand in a list beside the offsets, in its order.
#[allow(unsafe_code, reason = "the safe wrapper does not offer it")]
pub(super) fn listed(list: &TopicPartitionList) -> Vec<i32> {
    // SAFETY: the elements belong to the list, which is borrowed for the whole call.
    elements(list).map(|element| unsafe { bindings::rd_kafka_topic_partition_get_leader_epoch(element) }).collect()
}

/// Puts epochs beside the offsets in a list, in its order.
#[allow(unsafe_code, reason = "the safe wrapper does not offer it")]
pub(super) fn list(list: &mut TopicPartitionList, epochs: impl IntoIterator<Item = i32>) {
    for (element, epoch) in elements(list).zip(epochs) {
        // SAFETY: the element belongs to the list, which is borrowed mutably for the whole call.
        unsafe { bindings::rd_kafka_topic_partition_set_leader_epoch(element, epoch) };
    }
}

#[allow(unsafe_code, reason = "the safe wrapper does not give the elements themselves")]
fn elements(list: &TopicPartitionList) -> impl Iterator<Item = *mut RDKafkaTopicPartition> + '_ {
    // SAFETY: the library keeps as many elements in one piece as the list's count says, and the list is borrowed as
    // long as the iterator lives.
    (0..list.count()).map(|place| unsafe { (*list.ptr()).elems.add(place) })
}

/// A list with one offset and its epoch.
pub(super) fn at(partition: &TopicPartition, offset: Offset, epoch: i32) -> Result<TopicPartitionList, KafkaError> {
    let mut one = offsets::at(partition, offset)?;
    list(&mut one, [epoch]);
    Ok(one)
}

/// Which epoch the records of one partition have, as far as they were read. The epoch kept for an offset may be later
/// than the true one, if only some record further on in the same log has it: a cut below the offset begins a still
/// later one.
#[derive(Debug, Default)]
pub(super) struct LeaderEpochs(Mutex<VecDeque<(Offset, i32)>>);

impl LeaderEpochs {
    /// Everything below `start` is known to be of `epoch` or earlier.
    pub(super) fn new(start: Offset, epoch: i32) -> Self {
        Self(Mutex::new(VecDeque::from([(start - 1, epoch)])))
    }

    /// From this offset on, records are of this epoch.
    pub(super) fn note(&self, from: Offset, epoch: i32) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // After a rewind what lies there is read again.
        while known.back().is_some_and(|(first, _)| *first >= from) {
            known.pop_back();
        }
        known.push_back((from, epoch));
        if known.len() > REMEMBERED
            && let Some((first, _)) = known.pop_front()
            && let Some(front) = known.front_mut()
        {
            front.0 = first;
        }
    }

    /// The epoch of the last record below an offset.
    pub(super) fn below(&self, offset: Offset) -> i32 {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().rev().find(|(first, _)| *first < offset).map_or(UNKNOWN, |(_, epoch)| *epoch)
    }

    /// Forgets what is only of use below a committed offset.
    pub(super) fn forget_below(&self, committed: Offset) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while known.get(1).is_some_and(|(first, _)| *first < committed) {
            known.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// S52: an offset is committed with the epoch of the last record below it, also after a rewind and when many
    /// leaders followed one another; an epoch that is kept for too early an offset is a later one, never an earlier
    /// one.
    #[test]
    fn s52_the_epoch_below_an_offset() {
        let epochs = LeaderEpochs::new(100, 3);
        epochs.note(100, 4);
        epochs.note(150, 6);
        assert_eq!([99, 100, 101, 150, 151, 900].map(|at| epochs.below(at)), [UNKNOWN, 3, 4, 4, 6, 6]);
        epochs.note(120, 4);
        epochs.note(140, 7);
        assert_eq!([120, 140, 141, 151].map(|at| epochs.below(at)), [4, 4, 7, 7]);
        epochs.forget_below(140);
        assert_eq!([140, 141].map(|at| epochs.below(at)), [4, 7]);
        for n in 0..200 {
            epochs.note(200 + n, 8 + i32::try_from(n).unwrap());
        }
        assert_eq!(epochs.below(400), 207);
        assert!(epochs.below(141) > 7, "{epochs:?}");
        assert_eq!(epochs.0.lock().unwrap().len(), REMEMBERED);
    }

    /// S52: an epoch stands beside its offset in the library's lists.
    #[test]
    fn s52_epochs_in_lists() {
        let partition = TopicPartition::new("orders", 2);
        assert_eq!(listed(&at(&partition, 7, 5).unwrap()), [5]);
        assert_eq!(listed(&offsets::at(&partition, 7).unwrap()), [UNKNOWN]);
        let mut three = offsets::list(&[2, 0, 1].map(|number| TopicPartition::new("orders", number)));
        list(&mut three, [4, 5]);
        assert_eq!(listed(&three), [4, 5, UNKNOWN]);
    }
}
