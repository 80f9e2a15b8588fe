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
/// The wait before a probe is repeated.
const WAIT: Duration = Duration::from_millis(500);
/// Up to so many topics are asked for one by one.
const FEW_TOPICS: usize = 4;

/// Why a probe failed.
enum Failed {
    /// It may pass by itself (S124a).
    ForNow(Fault),
    ForGood(Fault),
}

impl Failed {
    fn into_fault(self) -> Fault {
        match self {
            Self::ForNow(fault) | Self::ForGood(fault) => fault,
        }
    }
}

/// Asks the cluster for every topic and returns how many partitions each has, in the order of [`Options::topics`].
///
/// # Errors
/// Owner `config` when a topic does not exist or may not be read; owner `host` when no broker answers within `timeout`.
pub async fn probe(options: &Options, timeout: Duration) -> Result<Vec<(String, i32)>, Fault> {
    once(options, timeout).await.map_err(Failed::into_fault)
}

/// The same, repeated for `patience` where the cause may pass by itself: a topic that was created a moment ago, a leader that
/// is not elected yet, brokers that do not answer (S124a).
///
/// # Errors
/// What the last try found.
pub async fn probe_for(options: &Options, timeout: Duration, patience: Duration) -> Result<Vec<(String, i32)>, Fault> {
    let started = crate::clock::instant();
    let mut said = false;
    loop {
        match once(options, timeout).await {
            Ok(topics) => return Ok(topics),
            Err(Failed::ForNow(fault)) if started.elapsed() < patience => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!("{}; asked again for {} s", fault.message, patience.as_secs_f64());
                }
                tokio::time::sleep(WAIT).await;
            }
            Err(failed) => return Err(failed.into_fault()),
        }
    }
}

async fn once(options: &Options, timeout: Duration) -> Result<Vec<(String, i32)>, Failed> {
    let options = options.clone();
    tokio::task::spawn_blocking(move || ask(&options, timeout)).await.map_err(|error| {
        Failed::ForGood(Fault::host("the question to the Kafka cluster was not finished").because(error))
    })?
}

fn ask(options: &Options, timeout: Duration) -> Result<Vec<(String, i32)>, Failed> {
    let consumer: BaseConsumer<Context> = config::common(options)
        .map_err(Failed::ForGood)?
        .create_with_context(Context::default())
        .map_err(|error| Failed::ForGood(Fault::config("the Kafka consumer cannot be created").because(error)))?;
    let started = crate::clock::instant();
    let (mut topics, mut absent) = (Vec::new(), Vec::new());
    for topic in options.topics() {
        let left = timeout.saturating_sub(started.elapsed());
        let metadata = consumer
            .fetch_metadata(Some(&topic), left)
            .map_err(|error| Failed::ForNow(unreachable(&consumer, &options.brokers.joined(), timeout, &error)))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let code = found.and_then(rdkafka::metadata::MetadataTopic::error).map(RDKafkaErrorCode::from);
        let partitions = found.map_or(0, |found| found.partitions().len());
        match code {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => absent.push(topic),
            Some(code @ RDKafkaErrorCode::TopicAuthorizationFailed) => return Err(Failed::ForGood(refused(code))),
            // The topic as a whole has no leaders yet, such as right after it was created.
            Some(other) => {
                let fault = Fault::host(format!("topic `{topic}` cannot be consumed now")).because(other);
                return Err(Failed::ForNow(fault));
            }
            None if partitions == 0 => absent.push(topic),
            None => topics.push((topic, i32::try_from(partitions).unwrap_or(i32::MAX))),
        }
    }
    if absent.is_empty() { Ok(topics) } else { Err(Failed::ForNow(missing(&absent))) }
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

/// These topics are not there.
pub(super) fn missing(topics: &[String]) -> Fault {
    let named: Vec<String> = topics.iter().map(|topic| format!("`{topic}`")).collect();
    let named = named.join(", ");
    let (message, option) = match topics {
        [_] => (format!("topic {named} does not exist"), "kafka.source_topic"),
        _ => (format!("topics {named} do not exist"), "kafka.source_topics"),
    };
    Fault::config(message).hint(format!("create {named}, or correct `{option}`"))
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
