//! Where an assigned partition starts (S51, S52).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::time::Duration;

use rdkafka::bindings;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::OnOffsetGap;
use super::config::First;
use super::context::Context;
use super::leader_epoch;
use super::probe::refused;
use crate::model::{Fault, Offset, TopicPartition};

/// How long the brokers may take over one question. A slow one is waited for: who gives up too early gets no answer at all.
pub(super) const QUESTION_TIMEOUT: Duration = Duration::from_secs(30);

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
    /// Whether the group has committed nothing for it.
    pub fresh: bool,
    /// What was to be read and is gone: from the first offset to before the second.
    pub gap: Option<(Offset, Offset)>,
    /// The leader epoch below the start, committed with it.
    pub leader_epoch: i32,
}

/// How starts are chosen.
pub(super) struct Starts<'a> {
    /// Where a partition starts for which the group has committed nothing.
    pub first: First,
    /// How many partitions each topic had when this member began. What has come since then has nothing in it to pass over.
    pub known: Option<&'a BTreeMap<String, i32>>,
    pub on_gap: OnOffsetGap,
}

impl Starts<'_> {
    fn first_of(&self, partition: &TopicPartition) -> First {
        let count = self.known.and_then(|known| known.get(&*partition.topic));
        match self.first {
            First::Latest if count.is_some_and(|count| partition.partition >= *count) => First::Earliest,
            first => first,
        }
    }
}

/// What the brokers said of one partition's log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    pub low: Offset,
    pub high: Offset,
    /// The first offset of the time that was asked for, where one was and there is one.
    pub timed: Option<Offset>,
}

impl Starts<'_> {
    /// The committed offset; without one, where these starts say. A committed offset whose records are gone is a gap: it
    /// stops us, or is logged and skipped.
    pub(super) fn extent(
        &self,
        partition: &TopicPartition,
        committed: Option<(Offset, i32)>,
        Marks { low, high, timed }: Marks,
    ) -> Result<Extent, Fault> {
        let mut gap = None;
        let start = match (committed, self.first_of(partition)) {
            (Some((offset, _)), _) if offset < low || offset > high => {
                gap = Some((offset, low)).filter(|(wanted, low)| wanted < low);
                within(partition, offset, low, high, self.on_gap)?
            }
            (Some((offset, _)), _) => offset,
            (None, First::Earliest) => low,
            (None, First::Latest) => high,
            (None, First::At(_)) => found_at(timed, low, high),
        };
        let leader_epoch =
            committed.filter(|(offset, _)| *offset == start).map_or(leader_epoch::UNKNOWN, |(_, epoch)| epoch);
        Ok(Extent { partition: partition.clone(), start, end: high, fresh: committed.is_none(), gap, leader_epoch })
    }
}

/// A partition without a record of that time or later starts at its end.
fn found_at(found: Option<Offset>, low: Offset, high: Offset) -> Offset {
    found.map_or(high, |offset| offset.clamp(low, high))
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
            tracing::warn!(
                %partition, wanted, low, high,
                "the broker does not have the next record; going on at the first one that it has"
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
        format!("the log ends at {high}: it was cut, or the topic was deleted and created again")
    };
    Fault::host(format!("`{}` is to be read next and is not there", partition.at(wanted)))
        .because(why)
        .hint("set `kafka.on_offset_gap: continue` to go on without them, or reset the group's offsets")
}

/// Whether it helps to ask again.
pub(super) fn unresolved(error: &KafkaError) -> Unresolved {
    error.rdkafka_error_code().map_or_else(|| Unresolved::Later(error.to_string()), unresolved_code)
}

/// The same for a code alone.
pub(super) fn unresolved_code(code: RDKafkaErrorCode) -> Unresolved {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed => Unresolved::Never(refused(code)),
        _ => Unresolved::Later(code.to_string()),
    }
}

/// How far the library has read these partitions, in their order. Asks nobody, and costs what it is asked for: the safe
/// wrapper answers for the whole assignment, which it has to be told by the client's main thread.
#[allow(unsafe_code, reason = "the safe wrapper answers for the whole assignment")]
pub(super) fn positions(consumer: &BaseConsumer<Context>, partitions: &[TopicPartition]) -> Vec<Option<(Offset, i32)>> {
    let asked = list(partitions);
    // SAFETY: the client is alive as long as the consumer that is borrowed, and the list outlives the call, which fills it in.
    let answered = unsafe { bindings::rd_kafka_position(consumer.client().native_ptr(), asked.ptr()) };
    if answered != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Vec::new();
    }
    let place = |(position, leader_epoch)| match position {
        Position::Offset(offset) => Some((offset, leader_epoch)),
        _ => None,
    };
    let positions: Vec<Position> = asked.elements().iter().map(|element| element.offset()).collect();
    positions.into_iter().zip(leader_epoch::listed(&asked)).map(place).collect()
}

/// The first offset that the broker had when it last sent anything of the partition, where it matters: then a jump over
/// offsets below it is a loss, and any other is not (S52, S98). Asks nobody.
pub(super) fn lowest(
    consumer: &BaseConsumer<Context>,
    on_gap: OnOffsetGap,
    partition: &TopicPartition,
) -> Option<Offset> {
    if on_gap == OnOffsetGap::Stop {
        // Reported as an error instead of being jumped over.
        return None;
    }
    last_watermarks(consumer, partition).map(|(low, _)| low).filter(|low| *low >= 0)
}

/// Where the log began and ended when the broker last sent anything of the partition; negative where it has not yet. Asks nobody.
#[allow(unsafe_code, reason = "the safe wrapper asks the broker every time")]
pub(super) fn last_watermarks(
    consumer: &BaseConsumer<Context>,
    partition: &TopicPartition,
) -> Option<(Offset, Offset)> {
    let name = CString::new(&*partition.topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    let client = consumer.client().native_ptr();
    // SAFETY: the client is alive as long as the consumer that is borrowed, and the name and both places outlive the call.
    let found = unsafe {
        bindings::rd_kafka_get_watermark_offsets(
            client,
            name.as_ptr(),
            partition.partition,
            &raw mut low,
            &raw mut high,
        )
    };
    (found == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then_some((low, high))
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
        let at = |offset| found_at(offset, 10, 20);
        assert_eq!([at(Some(15)), at(Some(3)), at(None)], [15, 10, 20]);
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
