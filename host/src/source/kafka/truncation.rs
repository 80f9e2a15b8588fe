//! A log that was cut below an offset that was read already, and may have been written again, as after an unclean
//! leader election (KIP-320). What was read from the cut on is no longer in the log, and what stands there now was not
//! read.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionListElem;

use super::context::Context;
use super::{OnOffsetGap, config, leader_epoch, offsets};
use crate::clock;
use crate::model::{Fault, Offset, TopicPartition};

/// How long the brokers may take to say where the log was cut.
const PATIENCE: Duration = Duration::from_secs(10);
/// One wait for it.
const POLL: Duration = Duration::from_millis(100);
/// How long the client library may take over one seek, which only its own threads are concerned with.
pub(super) const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// Which part of a partition is read, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// The first offset.
    pub start: Offset,
    /// The leader epoch below it.
    pub leader_epoch: i32,
    /// Where reading stops.
    pub end: Option<Offset>,
    /// What to do where the log was cut.
    pub on_gap: OnOffsetGap,
}

/// The library went back to where the log was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Truncation {
    /// The first record of the new log that was not read.
    pub to: Offset,
    /// The offset that was to be read next.
    pub wanted: Offset,
}

impl Truncation {
    /// Whether a record shows that the library went back: below what was to be read next, and of another epoch than
    /// what was read.
    pub(super) fn found((offset, epoch): (Offset, i32), (wanted, last_epoch): (Offset, i32)) -> Option<Self> {
        let other = last_epoch != leader_epoch::UNKNOWN && epoch != last_epoch;
        (offset < wanted && other).then_some(Self { to: offset, wanted })
    }
}

/// Why the record to read next is not in the log, as a fault. Asks the brokers with a consumer of its own and blocks.
pub(super) fn explain(client: &ClientConfig, partition: &TopicPartition, (wanted, epoch): (Offset, i32)) -> Fault {
    let asked = || {
        let consumer: BaseConsumer<Context> =
            config::onlooker(client.clone()).create_with_context(Context::default())?;
        let marks = consumer.fetch_watermarks(&partition.topic, partition.partition, offsets::QUESTION_TIMEOUT)?;
        let known = epoch != leader_epoch::UNKNOWN && wanted >= marks.0;
        Ok::<_, KafkaError>((marks, if known { cut(&consumer, partition, (wanted, epoch))? } else { None }))
    };
    match asked() {
        Ok((_, Some(cut))) => truncated(partition, wanted, Some(cut)),
        Ok(((low, high), None)) if (low..=high).contains(&wanted) => truncated(partition, wanted, None),
        Ok(((low, high), None)) => offsets::gap(partition, wanted, low, high),
        Err(error) => {
            Fault::host(format!("`{}` is to be read next and is not there", partition.at(wanted))).because(error)
        }
    }
}

/// The log was cut below an offset that was read or committed.
fn truncated(partition: &TopicPartition, wanted: Offset, cut: Option<Offset>) -> Fault {
    let at = cut.map_or_else(String::new, |cut| format!(" at {cut}"));
    Fault::host(format!("the log of `{partition}` was cut below `{}`, which is to be read next", partition.at(wanted)))
        .because(format!(
            "it was cut{at} and written again, as after an unclean leader election, or the topic was created again: \
             what stands there now was not read"
        ))
        .hint("set `kafka.on_offset_gap: continue` to read on from the cut, or reset the group's offsets")
}

/// The first record behind the cut, if the log was cut below an offset of that epoch.
fn cut(
    consumer: &BaseConsumer<Context>,
    partition: &TopicPartition,
    (wanted, epoch): (Offset, i32),
) -> Result<Option<Offset>, KafkaError> {
    consumer.assign(&offsets::at(partition, wanted)?)?;
    let started = clock::instant();
    // An assignment alone is taken as it is; a seek asks the broker for the epoch's end, once the assignment has begun.
    while let Err(error) = seek(consumer, partition, (wanted, epoch)) {
        if started.elapsed() >= PATIENCE {
            return Err(error);
        }
        std::thread::sleep(POLL);
    }
    while started.elapsed() < PATIENCE {
        match consumer.poll(POLL) {
            Some(Ok(record)) => return Ok(Some(record.offset()).filter(|found| *found < wanted)),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) => tracing::debug!(%partition, "Kafka consumer: {error}"),
            None => {}
        }
    }
    Ok(None)
}

/// Goes to an offset; with an epoch the library goes to where the log was cut instead, or reports an error, as
/// `auto.offset.reset` says.
fn seek(
    consumer: &BaseConsumer<Context>,
    partition: &TopicPartition,
    (to, epoch): (Offset, i32),
) -> Result<(), KafkaError> {
    let place = leader_epoch::at(partition, to, epoch)?;
    let sought = consumer.seek_partitions(place, SEEK_TIMEOUT)?;
    // The call succeeds whatever became of the partition in its list.
    sought.elements().iter().try_for_each(TopicPartitionListElem::error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S52: a record below the one that is due is read on from where it has another epoch; where epochs tell nothing it
    /// is no cut.
    #[test]
    fn s52_a_record_that_shows_a_cut() {
        assert_eq!(Truncation::found((600, 2), (1000, 0)), Some(Truncation { to: 600, wanted: 1000 }));
        // A topic that was created again begins with its first epoch.
        assert_eq!(Truncation::found((0, 0), (1000, 5)), Some(Truncation { to: 0, wanted: 1000 }));
        assert_eq!(Truncation::found((1000, 2), (1000, 0)), None);
        assert_eq!(Truncation::found((600, 2), (1000, 2)), None);
        assert_eq!(Truncation::found((600, 2), (1000, leader_epoch::UNKNOWN)), None);
    }
}
