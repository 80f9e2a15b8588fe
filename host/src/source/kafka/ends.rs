//! Where the topics ended when the source began, and how far the group has come since: asked of the brokers on a thread of its
//! own, for a source that has an end. Records of transactions that are open count too, though they cannot be read yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};

use super::config::{self, First};
use super::context::{Bell, Context};
use super::offsets::{self, QUESTION_TIMEOUT};
use super::{holders, probe};
use crate::clock;
use crate::model::{Fault, Offset, TopicPartition};

/// The wait before the brokers are asked again where the topics end, and how long that goes on.
const WAIT: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(120);

/// The part of a partition that a source with an end is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// What the group had committed, or where it begins.
    pub begin: Offset,
    /// Where the log ended.
    pub end: Offset,
}

/// How far a partition has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// What the group has committed.
    pub committed: Option<Offset>,
    /// The log's first offset.
    pub low: Offset,
    /// Up to where records may be read now: an open transaction ends it.
    pub readable: Offset,
}

/// What the thread is asked.
pub(super) struct Question {
    /// Whose progress.
    pub partitions: Vec<TopicPartition>,
    /// Also which member has each of them.
    pub holders: bool,
}

/// What it answers.
pub(super) enum Answer {
    /// Once, at first: what there is to do.
    Bounds(BTreeMap<TopicPartition, Bounds>),
    /// How far the partitions have come, and which member has each if that was asked.
    Progress(BTreeMap<TopicPartition, Progress>, Option<BTreeMap<TopicPartition, String>>),
    /// The brokers did not answer this time.
    Unanswered(String),
    /// There will be no answer.
    Failed(Fault),
}

/// The thread, as long as it is asked.
pub(super) struct Surveyor {
    pub questions: Sender<Question>,
    pub answers: Receiver<Answer>,
}

impl Surveyor {
    /// Starts the thread; its first answer comes unasked.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(super) fn start(
        client: ClientConfig,
        topics: Vec<String>,
        first: First,
        bell: Arc<Bell>,
    ) -> Result<Self, Fault> {
        let (questions, asked) = channel();
        let (reports, answers) = channel();
        let report = move |answer| {
            let wanted = reports.send(answer).is_ok();
            bell.ring();
            wanted
        };
        std::thread::Builder::new()
            .name("kafka-ends".into())
            .spawn(move || serve(&client, &topics, first, &asked, report))
            .map_err(|error| Fault::host("the thread that asks where topics end cannot be started").because(error))?;
        Ok(Self { questions, answers })
    }
}

/// Answers until nobody asks any more.
fn serve(
    client: &ClientConfig,
    topics: &[String],
    first: First,
    asked: &Receiver<Question>,
    report: impl Fn(Answer) -> bool,
) {
    let clients = match Clients::new(client) {
        Ok(clients) => clients,
        Err(error) => {
            report(Answer::Failed(Fault::config("the Kafka consumer cannot be created").because(error)));
            return;
        }
    };
    let started = clock::instant();
    let bounds = loop {
        match clients.bounds(topics, first) {
            Ok(bounds) => break Answer::Bounds(bounds),
            Err(error) if started.elapsed() < PATIENCE => {
                if !report(Answer::Unanswered(error.to_string())) {
                    return;
                }
                std::thread::sleep(WAIT);
            }
            Err(error) => {
                break Answer::Failed(Fault::host("the brokers do not say where the topics end").because(error));
            }
        }
    };
    if !report(bounds) {
        return;
    }
    while let Ok(question) = asked.recv() {
        let answer = clients.progress(&question).unwrap_or_else(|error| Answer::Unanswered(error.to_string()));
        if !report(answer) {
            return;
        }
    }
}

/// What asks: it joins no group and reads nothing.
struct Clients {
    /// Sees what the source may read, and knows its group.
    source: BaseConsumer<Context>,
    /// Sees the records of open transactions too.
    all: BaseConsumer<Context>,
    group: String,
}

impl Clients {
    fn new(client: &ClientConfig) -> Result<Self, KafkaError> {
        let mut all = config::onlooker(client.clone());
        all.set("isolation.level", "read_uncommitted");
        Ok(Self {
            source: config::onlooker(client.clone()).create_with_context(Context::default())?,
            all: all.create_with_context(Context::default())?,
            group: client.get("group.id").unwrap_or_default().to_owned(),
        })
    }

    fn bounds(&self, topics: &[String], first: First) -> Result<BTreeMap<TopicPartition, Bounds>, KafkaError> {
        let counts = probe::partitions(&self.all, topics, QUESTION_TIMEOUT)?;
        let partitions: Vec<TopicPartition> = counts
            .iter()
            .flat_map(|(topic, count)| (0..*count).map(|partition| TopicPartition::new(topic.as_str(), partition)))
            .collect();
        let ends = offsets_at(&self.all, &partitions, Position::End)?;
        let firsts = match first {
            First::Earliest => offsets_at(&self.all, &partitions, Position::Beginning)?,
            First::Latest => ends.clone(),
            First::At(time) => offsets_at(&self.all, &partitions, Position::Offset(time))?,
        };
        let committed = self.committed(&partitions)?;
        let bounds = |partition: TopicPartition| {
            let end = ends.get(&partition).copied()?;
            // No record of that time or later: the end.
            let begin = committed.get(&partition).or(firsts.get(&partition)).copied().unwrap_or(end);
            Some((partition, Bounds { begin, end }))
        };
        Ok(partitions.into_iter().filter_map(bounds).collect())
    }

    fn progress(&self, question: &Question) -> Result<Answer, KafkaError> {
        let partitions = &question.partitions;
        let committed = self.committed(partitions)?;
        let lows = offsets_at(&self.source, partitions, Position::Beginning)?;
        let readable = offsets_at(&self.source, partitions, Position::End)?;
        let progress = |partition: &TopicPartition| {
            let (low, readable) = (*lows.get(partition)?, *readable.get(partition)?);
            Some((partition.clone(), Progress { committed: committed.get(partition).copied(), low, readable }))
        };
        let found = partitions.iter().filter_map(progress).collect();
        let holders = if question.holders { Some(holders::ask(&self.source, &self.group)?) } else { None };
        Ok(Answer::Progress(found, holders))
    }

    fn committed(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Offset>, KafkaError> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        listed(&self.source.committed_offsets(offsets::list(partitions), QUESTION_TIMEOUT)?)
    }
}

/// The first offset, the end, or the first record of a time or later, of every partition that has such a place: one question to
/// each leader.
fn offsets_at(
    consumer: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    place: Position,
) -> Result<BTreeMap<TopicPartition, Offset>, KafkaError> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(&partition.topic, partition.partition, place)?;
    }
    listed(&consumer.offsets_for_times(list, QUESTION_TIMEOUT)?)
}

/// The offsets in a list; partitions without one are left out.
fn listed(list: &TopicPartitionList) -> Result<BTreeMap<TopicPartition, Offset>, KafkaError> {
    let mut offsets = BTreeMap::new();
    for element in list.elements() {
        element.error()?;
        if let Position::Offset(offset) = element.offset() {
            offsets.insert(TopicPartition::new(element.topic(), element.partition()), offset);
        }
    }
    Ok(offsets)
}
