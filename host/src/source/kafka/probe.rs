//! Whether the cluster can be reached and has what is to be consumed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataPartition;

use super::Options;
use super::config;
use super::context::Context;
use crate::model::Fault;

/// How often the queue of complaints is looked at after a question failed.
const COMPLAINTS: usize = 16;
/// Up to so many topics are asked for one by one.
const FEW_TOPICS: usize = 4;

/// Asks the cluster for every topic and returns how many partitions each has, in the order of [`Options::topics`].
///
/// # Errors
/// Owner `config` when a topic does not exist or may not be read; owner `host` when no broker answers within `timeout`.
pub async fn probe(options: &Options, timeout: Duration) -> Result<Vec<(String, i32)>, Fault> {
    let options = options.clone();
    tokio::task::spawn_blocking(move || ask(&options, timeout))
        .await
        .map_err(|error| Fault::host("the question to the Kafka cluster was not finished").because(error))?
}

fn ask(options: &Options, timeout: Duration) -> Result<Vec<(String, i32)>, Fault> {
    let consumer: BaseConsumer<Context> = config::common(options)?
        .create_with_context(Context::default())
        .map_err(|error| Fault::config("the Kafka consumer cannot be created").because(error))?;
    let started = crate::clock::instant();
    let mut topics = Vec::new();
    for topic in options.topics() {
        let left = timeout.saturating_sub(started.elapsed());
        let metadata = consumer
            .fetch_metadata(Some(&topic), left)
            .map_err(|error| unreachable(&consumer, &options.brokers.joined(), timeout, &error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        if let Some(error) = found.and_then(rdkafka::metadata::MetadataTopic::error) {
            let code = RDKafkaErrorCode::from(error);
            return Err(match code {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => missing(&topic),
                RDKafkaErrorCode::TopicAuthorizationFailed => refused(code),
                other => Fault::host(format!("topic `{topic}` cannot be consumed now")).because(other),
            });
        }
        let partitions = found.map_or(0, |found| found.partitions().len());
        if partitions == 0 {
            return Err(missing(&topic));
        }
        topics.push((topic, i32::try_from(partitions).unwrap_or(i32::MAX)));
    }
    Ok(topics)
}

/// Whether the brokers say that there is no such topic. No answer says nothing.
pub(super) fn is_missing(consumer: &BaseConsumer<Context>, topic: &str, timeout: Duration) -> bool {
    let Ok(metadata) = consumer.fetch_metadata(Some(topic), timeout) else { return false };
    metadata.topics().iter().filter(|found| found.name() == topic).any(|found| {
        let code = found.error().map(RDKafkaErrorCode::from);
        matches!(code, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))
    })
}

/// What the brokers say of a topic.
#[derive(Debug, Default)]
pub(super) struct Led {
    error: Option<RDKafkaErrorCode>,
    /// Each partition's leader, or why there is none.
    pub leaders: BTreeMap<i32, Result<i32, RDKafkaErrorCode>>,
}

impl Led {
    /// The broker that leads the partition.
    pub(super) fn leader(&self, partition: i32) -> Result<i32, RDKafkaErrorCode> {
        let unknown = Err(self.error.unwrap_or(RDKafkaErrorCode::UnknownTopicOrPartition));
        self.leaders.get(&partition).copied().unwrap_or(unknown)
    }
}

/// The topics with the leaders of their partitions; a topic that is not there has none.
pub(super) fn leaders(
    consumer: &BaseConsumer<Context>,
    topics: &BTreeSet<&str>,
    timeout: Duration,
) -> Result<BTreeMap<String, Led>, KafkaError> {
    let mut found: BTreeMap<String, Led> = topics.iter().map(|topic| ((*topic).to_owned(), Led::default())).collect();
    // The library asks for one topic or for all: of a few, one by one costs less than all.
    let questions: Vec<Option<&str>> =
        if topics.len() > FEW_TOPICS { vec![None] } else { topics.iter().map(|topic| Some(*topic)).collect() };
    for question in questions {
        let metadata = consumer.fetch_metadata(question, timeout)?;
        for topic in metadata.topics() {
            let Some(led) = found.get_mut(topic.name()) else { continue };
            led.error = topic.error().map(RDKafkaErrorCode::from);
            led.leaders = topic.partitions().iter().map(|partition| (partition.id(), leader(partition))).collect();
        }
    }
    Ok(found)
}

fn leader(partition: &MetadataPartition) -> Result<i32, RDKafkaErrorCode> {
    match partition.leader() {
        leader @ 0.. => Ok(leader),
        _ => Err(partition.error().map_or(RDKafkaErrorCode::LeaderNotAvailable, RDKafkaErrorCode::from)),
    }
}

/// The topic is not there.
pub(super) fn missing(topic: &str) -> Fault {
    Fault::config(format!("topic `{topic}` does not exist"))
        .hint(format!("create `{topic}`, or correct `kafka.source_topic`"))
}

/// The cluster knows us and says no.
pub(super) fn refused(code: RDKafkaErrorCode) -> Fault {
    Fault::config("the Kafka cluster refuses access")
        .because(code)
        .hint("allow the principal to read the topics and the group, or correct `kafka.properties`")
}

fn unreachable(consumer: &BaseConsumer<Context>, brokers: &str, timeout: Duration, error: &KafkaError) -> Fault {
    // What the connections complained of waits in the queue; without it the user would read of a time-out only.
    for _ in 0..COMPLAINTS {
        let _ = consumer.poll(Duration::ZERO);
    }
    let fault = Fault::host(format!("no broker of `{brokers}` answered within {} s", timeout.as_secs_f64()))
        .hint("check `kafka.brokers`, that the cluster runs, and its TLS and SASL settings under `kafka.properties`");
    match consumer.context().take_complaint() {
        Some(complaint) => fault.because(complaint),
        None => fault.because(error),
    }
}
