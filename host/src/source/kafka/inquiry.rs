//! Finds out where partitions start: one question about the topics, one about the group's offsets, and then to each leader one
//! for the first and one for the last offsets of all its partitions (S51). Leaders do not wait for each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionListElem};

use super::OnOffsetGap;
use super::config::First;
use super::context::Context;
use super::leader_epoch;
use super::listing::{Answer, Listed, Listing, Spec};
use super::offsets::{self, Extent, Marks, QUESTION_TIMEOUT, Starts, Unresolved};
use super::probe::{self, Led};
use crate::model::{Fault, Offset, TopicPartition};

/// Most partitions in one request: the library looks each of them up in the whole list.
const PARTITIONS_PER_REQUEST: usize = 1000;
/// Requests about the same partitions: first, last, and time.
const SPECS: usize = 3;

/// A committed offset, and the leader epoch below it.
type Committed = (Offset, i32);

/// How starts are chosen.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub topics: Vec<String>,
    pub first: First,
    pub on_gap: OnOffsetGap,
    pub read_committed: bool,
}

/// What was found out about one partition, and in which round it was asked.
pub(super) struct Found {
    pub round: u64,
    pub partition: TopicPartition,
    pub start: Result<Extent, Unresolved>,
}

/// Partitions of one leader that are being asked about.
struct Group {
    round: u64,
    partitions: Vec<TopicPartition>,
    committed: HashMap<TopicPartition, Option<Committed>>,
    listed: [Option<HashMap<TopicPartition, Listed>>; SPECS],
    failed: Option<RDKafkaErrorCode>,
    /// Answers that are still to come.
    left: usize,
}

/// Asks, and keeps what it asks.
pub(super) struct Inquiry {
    rules: Rules,
    listing: Listing,
    /// Whether the group's offsets count.
    of_group: bool,
    /// How many partitions each topic had at the start, where that matters to where they begin.
    known: Option<BTreeMap<String, i32>>,
    groups: HashMap<usize, Group>,
    next: usize,
}

impl Inquiry {
    pub(super) fn new(consumer: Arc<BaseConsumer<Context>>, rules: Rules) -> Result<Self, Fault> {
        let listing = Listing::new(consumer, rules.read_committed)
            .ok_or_else(|| Fault::host("the Kafka client has no room for a queue"))?;
        Ok(Self { rules, listing, of_group: true, known: None, groups: HashMap::new(), next: 0 })
    }

    /// From now on every partition starts as if the group had committed nothing.
    pub(super) fn forget_the_group(&mut self) {
        self.of_group = false;
    }

    pub(super) fn consumer(&self) -> &BaseConsumer<Context> {
        self.listing.consumer()
    }

    /// Whether no answer is to come.
    pub(super) fn is_idle(&self) -> bool {
        self.groups.is_empty()
    }

    /// Asks about partitions, and returns those that need not be waited for.
    pub(super) fn ask(&mut self, round: u64, partitions: Vec<TopicPartition>) -> Vec<Found> {
        match self.try_ask(round, &partitions) {
            Ok(found) => found,
            Err(error) => {
                let why = |partition| Found { round, partition, start: Err(offsets::unresolved(&error)) };
                partitions.into_iter().map(why).collect()
            }
        }
    }

    fn try_ask(&mut self, round: u64, partitions: &[TopicPartition]) -> Result<Vec<Found>, KafkaError> {
        let mut found = Vec::new();
        let mut fails = |partition: &TopicPartition, why: Unresolved| {
            found.push(Found { round, partition: partition.clone(), start: Err(why) });
        };
        let mut leaders: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
        let topics = self.topics(partitions)?;
        for partition in partitions {
            let leader = topics.get(&*partition.topic).map(|topic| topic.leader(partition.partition));
            match leader.unwrap_or(Err(RDKafkaErrorCode::UnknownTopicOrPartition)) {
                Ok(leader) => leaders.entry(leader).or_default().push(partition.clone()),
                Err(code) => fails(partition, offsets::unresolved_code(code)),
            }
        }
        let led: Vec<TopicPartition> = leaders.values().flatten().cloned().collect();
        let mut committed = self.committed(&led)?;
        for one in leaders.into_values() {
            for part in one.chunks(PARTITIONS_PER_REQUEST) {
                let (mut sound, mut theirs) = (Vec::with_capacity(part.len()), HashMap::new());
                for partition in part {
                    match committed.remove(partition) {
                        Some(Err(error)) => fails(partition, offsets::unresolved(&error)),
                        Some(Ok(offset)) => {
                            theirs.insert(partition.clone(), offset);
                            sound.push(partition.clone());
                        }
                        None => fails(partition, Unresolved::Later("the group's offset was not answered".into())),
                    }
                }
                if !sound.is_empty() {
                    self.list(round, sound, theirs)?;
                }
            }
        }
        Ok(found)
    }

    /// These partitions' topics.
    fn topics(&mut self, partitions: &[TopicPartition]) -> Result<BTreeMap<String, Led>, KafkaError> {
        let all = self.rules.first == First::Latest && self.known.is_none();
        let names: BTreeSet<&str> = if all {
            self.rules.topics.iter().map(String::as_str).collect()
        } else {
            partitions.iter().map(|partition| &*partition.topic).collect()
        };
        let topics = probe::leaders(self.listing.consumer(), &names, QUESTION_TIMEOUT)?;
        if all {
            let count = |led: &Led| i32::try_from(led.leaders.len()).unwrap_or(i32::MAX);
            self.known = Some(topics.iter().map(|(topic, led)| (topic.clone(), count(led))).collect());
        }
        Ok(topics)
    }

    /// What the group has committed.
    fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Result<Option<Committed>, KafkaError>>, KafkaError> {
        if partitions.is_empty() || !self.of_group {
            return Ok(partitions.iter().map(|partition| (partition.clone(), Ok(None))).collect());
        }
        let answered = self.listing.consumer().committed_offsets(offsets::list(partitions), QUESTION_TIMEOUT)?;
        let of = |(element, epoch): (TopicPartitionListElem<'_>, i32)| {
            let committed = match element.offset() {
                Position::Offset(offset) => Some((offset, epoch)),
                _ => None,
            };
            (TopicPartition::new(element.topic(), element.partition()), element.error().map(|()| committed))
        };
        Ok(answered.elements().into_iter().zip(leader_epoch::listed(&answered)).map(of).collect())
    }

    fn list(
        &mut self,
        round: u64,
        partitions: Vec<TopicPartition>,
        committed: HashMap<TopicPartition, Option<Committed>>,
    ) -> Result<(), KafkaError> {
        let number = self.next;
        self.next += 1;
        let mut specs = vec![Spec::Earliest, Spec::Latest];
        if let First::At(time) = self.rules.first {
            specs.push(Spec::At(time));
        }
        for (place, spec) in specs.iter().enumerate() {
            self.listing.ask(number * SPECS + place, &partitions, *spec, QUESTION_TIMEOUT)?;
        }
        let left = specs.len();
        self.groups
            .insert(number, Group { round, partitions, committed, listed: Default::default(), failed: None, left });
        Ok(())
    }

    /// Waits so long for an answer, and returns what is found out with it.
    pub(super) fn wait(&mut self, wait: Duration) -> Vec<Found> {
        let Some(Answer { id, listed }) = self.listing.answer(wait) else { return Vec::new() };
        let (number, place) = (id / SPECS, id % SPECS);
        let Some(group) = self.groups.get_mut(&number) else { return Vec::new() };
        group.left = group.left.saturating_sub(1);
        match listed {
            Ok(listed) => group.listed[place] = Some(listed.into_iter().collect()),
            Err(code) => group.failed = Some(code),
        }
        if group.left > 0 {
            return Vec::new();
        }
        let Some(group) = self.groups.remove(&number) else { return Vec::new() };
        let starts = Starts { first: self.rules.first, known: self.known.as_ref(), on_gap: self.rules.on_gap };
        let round = group.round;
        let each = |partition: &TopicPartition| Found {
            round,
            partition: partition.clone(),
            start: group.start(partition, &starts),
        };
        group.partitions.iter().map(each).collect()
    }
}

impl Group {
    fn start(&self, partition: &TopicPartition, starts: &Starts<'_>) -> Result<Extent, Unresolved> {
        if let Some(code) = self.failed {
            return Err(offsets::unresolved_code(code));
        }
        let [low, high, timed] = &self.listed;
        let of = |listed: &Option<HashMap<TopicPartition, Listed>>| {
            let answer = listed.as_ref().and_then(|listed| listed.get(partition).copied());
            answer.unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut)).map_err(offsets::unresolved_code)
        };
        let none = || Unresolved::Later("the leader did not say where the log begins and ends".into());
        let (low, high) = (of(low)?.ok_or_else(none)?, of(high)?.ok_or_else(none)?);
        let timed = if matches!(starts.first, First::At(_)) { of(timed)? } else { None };
        let committed = self.committed.get(partition).copied().flatten();
        starts.extent(partition, committed, Marks { low, high, timed }).map_err(Unresolved::Never)
    }
}
