//! A look at what a topic holds, from one end to the other. It joins no group and commits nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};

use super::config::{self, First};
use super::context::Context;
use super::inquiry::{Inquiry, Rules};
use super::offsets::{self, Extent, QUESTION_TIMEOUT, Unresolved};
use super::probe::refused;
use super::{OnOffsetGap, Options, headers};
use crate::clock;
use crate::memory::{self, Prefetch};
use crate::model::{Batch, Fault, Offset, TopicPartition};

/// How long the brokers may send nothing before the look is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// One wait for a record.
const POLL: Duration = Duration::from_millis(200);

/// Where a look begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the first record that there is.
    First,
    /// Where the group of the options stands; at the first record where it has committed nothing.
    Committed,
}

/// Hands over every record that the topic with so many partitions holds now, one at a time as a batch of one row, each
/// partition in order, and returns what came of `state`.
///
/// # Errors
/// Owner `config` when the cluster refuses access, owner `host` when it does not answer.
pub async fn scan<T: Send + 'static>(
    options: &Options,
    (topic, count): (&str, i32),
    begin: Begin,
    state: T,
    each: impl FnMut(&mut T, &Batch) + Send + 'static,
) -> Result<T, Fault> {
    let partitions = (0..count).map(|partition| TopicPartition::new(topic, partition)).collect();
    let options = options.clone();
    tokio::task::spawn_blocking(move || look(&options, partitions, begin, state, each))
        .await
        .map_err(|error| Fault::host("the topic was not read to its end").because(error))?
}

/// What the group of the options has committed; nothing for partitions of which it has committed nothing.
///
/// # Errors
/// Owner `config` when the cluster refuses access, owner `host` when it does not answer.
pub async fn committed(
    options: &Options,
    (topic, count): (&str, i32),
) -> Result<BTreeMap<TopicPartition, Offset>, Fault> {
    let partitions: Vec<TopicPartition> = (0..count).map(|partition| TopicPartition::new(topic, partition)).collect();
    let client = config::consumer(options, prefetch(partitions.len()))?.client;
    let asked = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer<Context> = client.create_with_context(Context::default())?;
        let list = consumer.committed_offsets(offsets::list(&partitions), QUESTION_TIMEOUT)?;
        let of = |partition: &TopicPartition| match list
            .find_partition(&partition.topic, partition.partition)
            .map(|element| element.offset())
        {
            Some(Position::Offset(offset)) => Some((partition.clone(), offset)),
            _ => None,
        };
        Ok::<_, KafkaError>(partitions.iter().filter_map(of).collect())
    });
    match asked.await {
        Ok(found) => found.map_err(unread),
        Err(error) => Err(Fault::host("the group's offsets were not read").because(error)),
    }
}

/// A scan keeps to the default budget: it reads what it was asked to show and nothing else.
fn prefetch(partitions: usize) -> Prefetch {
    memory::Options::default().budget().prefetch(partitions)
}

fn unread(error: KafkaError) -> Fault {
    match error.rdkafka_error_code() {
        Some(code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed)) => {
            refused(code)
        }
        _ => Fault::host("the topic cannot be read").because(error),
    }
}

fn look<T>(
    options: &Options,
    partitions: Vec<TopicPartition>,
    begin: Begin,
    mut state: T,
    mut each: impl FnMut(&mut T, &Batch),
) -> Result<T, Fault> {
    let client = config::onlooker(config::consumer(options, prefetch(partitions.len()))?.client);
    let read_committed = config::reads_committed(&client);
    let consumer: BaseConsumer<Context> = client
        .create_with_context(Context::default())
        .map_err(|error| Fault::config("the Kafka consumer cannot be created").because(error))?;
    let consumer = Arc::new(consumer);
    let mut ends: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    for Extent { partition, start, end, .. } in extents(&consumer, partitions, begin, read_committed)? {
        if start < end {
            let place = Position::Offset(start);
            list.add_partition_offset(&partition.topic, partition.partition, place).map_err(unread)?;
            ends.insert(partition, end);
        }
    }
    consumer.assign(&list).map_err(unread)?;
    let mut heard = clock::instant();
    while !ends.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(record)) => {
                heard = clock::instant();
                let partition = TopicPartition::new(record.topic(), record.partition());
                let Some(end) = ends.get(&partition).copied() else { continue };
                if record.offset() < end {
                    let mut batch = Batch::new(partition.clone());
                    let time = record.timestamp().to_millis().unwrap_or(-1);
                    batch.push(record.offset(), time, record.key(), record.payload());
                    headers::push(&mut batch, &record);
                    each(&mut state, &batch);
                }
                if record.offset() + 1 >= end {
                    ends.remove(&partition);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                heard = clock::instant();
                // Behind the last record may stand what is none, such as a transaction's markers.
                ends.retain(|place, _| place.partition != partition);
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::GroupAuthorizationFailed
                    | RDKafkaErrorCode::UnknownTopicOrPartition,
                ) => return Err(unread(error)),
                _ => tracing::warn!("Kafka consumer: {error}"),
            },
            None if heard.elapsed() >= PATIENCE => {
                let fault = Fault::host(format!("the brokers sent nothing for {} s", PATIENCE.as_secs()));
                return Err(match consumer.context().take_complaint() {
                    Some(complaint) => fault.because(complaint),
                    None => fault,
                });
            }
            None => {}
        }
    }
    Ok(state)
}

fn extents(
    consumer: &Arc<BaseConsumer<Context>>,
    partitions: Vec<TopicPartition>,
    begin: Begin,
    read_committed: bool,
) -> Result<Vec<Extent>, Fault> {
    let rules = Rules { topics: Vec::new(), first: First::Earliest, on_gap: OnOffsetGap::Continue, read_committed };
    let mut inquiry = Inquiry::new(Arc::clone(consumer), rules)?;
    if begin == Begin::First {
        inquiry.forget_the_group();
    }
    let mut found = inquiry.ask(0, partitions);
    while !inquiry.is_idle() {
        found.extend(inquiry.wait(POLL));
    }
    found.into_iter().map(|found| found.start.map_err(unknown)).collect()
}

fn unknown(unresolved: Unresolved) -> Fault {
    match unresolved {
        Unresolved::Later(why) => Fault::host("the brokers do not say where partitions end").because(why),
        Unresolved::Never(fault) => fault,
    }
}
