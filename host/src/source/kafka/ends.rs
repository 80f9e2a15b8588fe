//! Where the topics ended when the source began, and how far the group has come since: asked of the brokers on a thread
//! of its own, for a source that has an end. Records of transactions that are open count too, though they cannot be
//! read yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
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
    /// At first, and again as long as some partitions have no leader who could tell: what there is to do.
    Bounds { found: BTreeMap<TopicPartition, Bounds>, unknown: BTreeSet<TopicPartition> },
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
    let (mut known, mut unknown) = (false, BTreeSet::new());
    loop {
        if !known || !unknown.is_empty() {
            let answer = match clients.bounds(topics, first, &unknown) {
                Ok((found, left)) => {
                    (known, unknown) = (true, left.clone());
                    Answer::Bounds { found, unknown: left }
                }
                Err(error) if known || started.elapsed() < PATIENCE => Answer::Unanswered(error.to_string()),
                Err(error) => Answer::Failed(Fault::host("the brokers do not say where the topics end").because(error)),
            };
            if !report(answer) {
                return;
            }
        }
        let question = if known && unknown.is_empty() {
            asked.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            asked.recv_timeout(WAIT)
        };
        let answer = match question {
            Ok(question) => clients.progress(&question),
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if !report(answer.unwrap_or_else(|error| Answer::Unanswered(error.to_string()))) {
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

    /// The bounds of these partitions, of all if none is named, and those of which nobody can tell now.
    fn bounds(
        &self,
        topics: &[String],
        first: First,
        of: &BTreeSet<TopicPartition>,
    ) -> Result<(BTreeMap<TopicPartition, Bounds>, BTreeSet<TopicPartition>), KafkaError> {
        let names = topics.iter().map(String::as_str).collect();
        let wanted = |partition: &TopicPartition| of.is_empty() || of.contains(partition);
        let (led, mut unknown) = led(&self.all, &names, wanted)?;
        let ends = offsets_at(&self.all, &led, Position::End)?;
        let firsts = match first {
            First::Earliest => offsets_at(&self.all, &led, Position::Beginning)?,
            First::Latest => ends.clone(),
            First::At(time) => offsets_at(&self.all, &led, Position::Offset(time))?,
        };
        let partitions: Vec<TopicPartition> = led.into_iter().flatten().collect();
        let committed = self.committed(&partitions)?;
        let mut found = BTreeMap::new();
        for partition in partitions {
            let answers = (ends.get(&partition).copied().flatten(), firsts.get(&partition), committed.get(&partition));
            let (Some(end), Some(first), Some(committed)) = answers else {
                unknown.insert(partition);
                continue;
            };
            // No record of that time or later: the end.
            let begin = committed.or(*first).unwrap_or(end);
            found.insert(partition, Bounds { begin, end });
        }
        Ok((found, unknown))
    }

    fn progress(&self, question: &Question) -> Result<Answer, KafkaError> {
        let names = question.partitions.iter().map(|partition| &*partition.topic).collect();
        // By the client that is asked next: what it knew of leaders may be out of date.
        let (led, _) = led(&self.source, &names, |partition| question.partitions.contains(partition))?;
        let committed = self.committed(&question.partitions)?;
        let lows = offsets_at(&self.source, &led, Position::Beginning)?;
        let readable = offsets_at(&self.source, &led, Position::End)?;
        let progress = |partition: &TopicPartition| {
            let (low, readable) = (lows.get(partition).copied()??, readable.get(partition).copied()??);
            let committed = committed.get(partition).copied()?;
            Some((partition.clone(), Progress { committed, low, readable }))
        };
        let found = question.partitions.iter().filter_map(progress).collect();
        let holders = if question.holders { Some(holders::ask(&self.source, &self.group)?) } else { None };
        Ok(Answer::Progress(found, holders))
    }

    fn committed(&self, partitions: &[TopicPartition]) -> Result<Offsets, KafkaError> {
        if partitions.is_empty() {
            return Ok(Offsets::new());
        }
        Ok(listed(&self.source.committed_offsets(offsets::list(partitions), QUESTION_TIMEOUT)?))
    }
}

/// The wanted partitions of these topics, those of one leader together, and those without a leader.
fn led(
    consumer: &BaseConsumer<Context>,
    topics: &BTreeSet<&str>,
    wanted: impl Fn(&TopicPartition) -> bool,
) -> Result<(Vec<Vec<TopicPartition>>, BTreeSet<TopicPartition>), KafkaError> {
    let (mut led, mut leaderless) = (BTreeMap::<i32, Vec<TopicPartition>>::new(), BTreeSet::new());
    for (topic, found) in probe::leaders(consumer, topics, QUESTION_TIMEOUT)? {
        let topic: Arc<str> = topic.into();
        for (number, leader) in found.leaders {
            let partition = TopicPartition::new(Arc::clone(&topic), number);
            match leader {
                _ if !wanted(&partition) => {}
                Ok(leader) => led.entry(leader).or_default().push(partition),
                Err(_) => drop(leaderless.insert(partition)),
            }
        }
    }
    Ok((led.into_values().collect(), leaderless))
}

/// What was answered of each partition; `None` where there is no such offset.
type Offsets = BTreeMap<TopicPartition, Option<Offset>>;

/// The first offset, the end, or the first record of a time or later: one question to each leader. A leader that does
/// not answer leaves its partitions out.
fn offsets_at(
    consumer: &BaseConsumer<Context>,
    led: &[Vec<TopicPartition>],
    place: Position,
) -> Result<Offsets, KafkaError> {
    let (mut found, mut failed) = (Offsets::new(), None);
    for partitions in led {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&partition.topic, partition.partition).set_offset(place)?;
        }
        match consumer.offsets_for_times(list, QUESTION_TIMEOUT) {
            Ok(list) => found.extend(listed(&list)),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// The offsets in a list; partitions with an error are left out.
fn listed(list: &TopicPartitionList) -> Offsets {
    let mut found = Offsets::new();
    for element in list.elements().iter().filter(|element| element.error().is_ok()) {
        let offset = match element.offset() {
            Position::Offset(offset) => Some(offset),
            _ => None,
        };
        found.insert(TopicPartition::new(element.topic(), element.partition()), offset);
    }
    found
}
