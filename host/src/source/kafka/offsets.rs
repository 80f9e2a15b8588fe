//! Where an assigned partition starts (S51, S52).

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};

use super::OnOffsetGap;
use super::config::First;
use super::context::Context;
use super::probe::refused;
use crate::model::{Fault, Offset, TopicPartition};

/// How long the broker may take over one question; it is asked again after that.
pub(super) const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no start offset yet.
pub(super) enum Unresolved {
    /// Ask again.
    Later(String),
    /// Asking again does not help.
    Never(Fault),
}

/// The committed offset of each partition; without one, an end of its log. A committed offset whose records are gone is a
/// gap: it stops us, or is logged and skipped.
pub(super) fn resolve(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    first: First,
    on_gap: OnOffsetGap,
) -> Result<Vec<(TopicPartition, Offset)>, Unresolved> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let committed = consumer.committed_offsets(list(partitions), QUESTION_TIMEOUT).map_err(unresolved)?;
    let mut starts = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let found = committed.find_partition(&partition.topic, partition.partition);
        let committed = match found {
            Some(element) => {
                element.error().map_err(unresolved)?;
                element.offset()
            }
            None => Position::Invalid,
        };
        let (low, high) =
            consumer.fetch_watermarks(&partition.topic, partition.partition, QUESTION_TIMEOUT).map_err(unresolved)?;
        let start = match (committed, first) {
            (Position::Offset(offset), _) if offset < low || offset > high => {
                within(partition, offset, low, high, on_gap).map_err(Unresolved::Never)?
            }
            (Position::Offset(offset), _) => offset,
            (_, First::Earliest) => low,
            (_, First::Latest) => high,
        };
        starts.push((partition.clone(), start));
    }
    Ok(starts)
}

/// Answers an offset that the broker does not have: stops, or goes on at the first record that there is (S52).
fn within(
    partition: &TopicPartition,
    wanted: Offset,
    low: Offset,
    high: Offset,
    on_gap: OnOffsetGap,
) -> Result<Offset, Fault> {
    match on_gap {
        OnOffsetGap::Continue => {
            tracing::error!(
                %partition, wanted, low, high, records_lost = (low - wanted).max(0),
                "the broker no longer has the next record; going on at the first one that it has"
            );
            Ok(low)
        }
        OnOffsetGap::Stop => Err(gap(partition, wanted, low, high)),
    }
}

/// The offset to read next is not in the log.
pub(super) fn gap(partition: &TopicPartition, wanted: Offset, low: Offset, high: Offset) -> Fault {
    let why = if wanted < low {
        format!("{} records were deleted before they were read; the first one left is {low}", low - wanted)
    } else {
        format!("the log ends at {high}: was the topic deleted and created again?")
    };
    Fault::host(format!("`{}` is to be read next and is not there", partition.at(wanted)))
        .because(why)
        .hint("set `kafka.on_offset_gap: continue` to go on without them, or reset the group's offsets")
}

fn unresolved(error: KafkaError) -> Unresolved {
    match error.rdkafka_error_code() {
        Some(
            code @ (RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed),
        ) => Unresolved::Never(refused(code)),
        _ => Unresolved::Later(error.to_string()),
    }
}

/// A list without offsets.
pub(super) fn list(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

/// A list with one offset.
pub(super) fn at(partition: &TopicPartition, offset: Offset) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&partition.topic, partition.partition, Position::Offset(offset))?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// S52: offsets that are gone stop us with the literal facts, unless the operator has said to go on.
    #[test]
    fn a_gap_stops_unless_told_otherwise_s52() {
        let partition = TopicPartition::new("orders", 3);
        let stopped = within(&partition, 10, 25, 40, OnOffsetGap::Stop).unwrap_err();
        assert_eq!(stopped.message, "`orders[3]@10` is to be read next and is not there");
        assert!(stopped.causes[0].starts_with("15 records were deleted"), "{stopped}");
        let recreated = within(&partition, 10, 0, 4, OnOffsetGap::Stop).unwrap_err();
        assert!(recreated.causes[0].contains("ends at 4"), "{recreated}");
        assert_eq!(within(&partition, 10, 25, 40, OnOffsetGap::Continue).unwrap(), 25);
    }
}
