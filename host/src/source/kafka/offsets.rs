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

/// The part of a partition's log that there was when it was asked about.
pub(super) struct Extent {
    pub partition: TopicPartition,
    /// The first offset to read.
    pub start: Offset,
    /// Where the log ended.
    pub end: Offset,
}

/// The committed offset of each partition; without one, where `first` says. A committed offset whose records are gone is a
/// gap: it stops us, or is logged and skipped.
pub(super) fn resolve(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    first: First,
    on_gap: OnOffsetGap,
) -> Result<Vec<Extent>, Unresolved> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let committed = consumer.committed_offsets(list(partitions), QUESTION_TIMEOUT).map_err(unresolved)?;
    let timed = match first {
        First::At(time) => Some(at_time(consumer, partitions, time).map_err(unresolved)?),
        First::Earliest | First::Latest => None,
    };
    let mut extents = Vec::with_capacity(partitions.len());
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
            (_, First::At(_)) => {
                let found = timed.as_ref().and_then(|list| list.find_partition(&partition.topic, partition.partition));
                found_at(found.map(|element| element.error().map(|()| element.offset())), low, high)
                    .map_err(unresolved)?
            }
        };
        extents.push(Extent { partition: partition.clone(), start, end: high });
    }
    Ok(extents)
}

/// Asks for the first offset of that time or later.
fn at_time(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    time: i64,
) -> Result<TopicPartitionList, KafkaError> {
    let mut times = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        times.add_partition_offset(&partition.topic, partition.partition, Position::Offset(time))?;
    }
    consumer.offsets_for_times(times, QUESTION_TIMEOUT)
}

/// A partition without a record of that time or later starts at its end.
fn found_at(found: Option<Result<Position, KafkaError>>, low: Offset, high: Offset) -> Result<Offset, KafkaError> {
    Ok(match found.transpose()? {
        Some(Position::Offset(offset)) => offset.clamp(low, high),
        _ => high,
    })
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

    /// S51: what the broker answers for a time becomes a start inside the log; without an answer it is the log's end.
    #[test]
    fn a_time_becomes_a_start_s51() {
        let at = |offset| found_at(Some(Ok(offset)), 10, 20).unwrap();
        assert_eq!([at(Position::Offset(15)), at(Position::Offset(3)), at(Position::End)], [15, 10, 20]);
        assert_eq!(found_at(None, 10, 20).unwrap(), 20);
        assert!(found_at(Some(Err(KafkaError::Canceled)), 10, 20).is_err());
    }

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
