//! Which member of a consumer group has which partition.

use std::collections::BTreeMap;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::context::Context;
use super::offsets::QUESTION_TIMEOUT;
use crate::model::TopicPartition;

/// Asks the group's coordinator. A partition that nobody has is left out.
pub(super) fn ask(
    consumer: &BaseConsumer<Context>,
    group: &str,
) -> Result<BTreeMap<TopicPartition, String>, KafkaError> {
    let groups = consumer.client().fetch_group_list(Some(group), QUESTION_TIMEOUT)?;
    let mut holders = BTreeMap::new();
    for member in groups.groups().iter().flat_map(|group| group.members()) {
        let name = format!("`{}` on {}", member.id(), member.client_host().trim_start_matches('/'));
        for partition in assigned(member.assignment().unwrap_or_default()).unwrap_or_default() {
            holders.insert(partition, name.clone());
        }
    }
    Ok(holders)
}

/// The partitions in a member's assignment, in the classic consumer protocol's form: a version, then topics with their
/// partitions. `None` when it is cut off.
fn assigned(mut bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    let bytes = &mut bytes;
    take::<2>(bytes)?;
    let mut partitions = Vec::new();
    for _ in 0..i32::from_be_bytes(take(bytes)?) {
        let length = usize::try_from(i16::from_be_bytes(take(bytes)?)).ok()?;
        let (name, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        let topic = std::str::from_utf8(name).ok()?;
        for _ in 0..i32::from_be_bytes(take(bytes)?) {
            partitions.push(TopicPartition::new(topic, i32::from_be_bytes(take(bytes)?)));
        }
    }
    Some(partitions)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// S58: the partitions of a member are read from its assignment; what is cut off or is none is no partition.
    #[test]
    fn s58_partitions_of_a_member() {
        let bytes = b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x07\0\x02bc\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff";
        let expected = [TopicPartition::new("a", 0), TopicPartition::new("a", 7), TopicPartition::new("bc", 1)];
        assert_eq!(assigned(bytes).unwrap(), expected);
        for length in 0..bytes.len() - 4 {
            assert!(assigned(&bytes[..length]).is_none(), "{length}");
        }
        assert_eq!(assigned(b"\0\0\0\0\0\0").unwrap(), []);
        assert!(assigned(b"\0\0\x7f\xff\xff\xff\xff\xff").is_none());
    }
}
