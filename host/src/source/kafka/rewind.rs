//! Going back to an offset (S34, S34a).

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList, TopicPartitionListElem};
use tokio::sync::oneshot;

use super::context::Context;
use super::lane::Lane;
use super::truncation::SEEK_TIMEOUT;
use super::{leader_epoch, offsets};
use crate::clock::{self, Instant};
use crate::model::{Fault, Offset, TopicPartition};

/// How long a seek is repeated before the rewind fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first and the longest wait between two tries.
const WAITS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// A rewind on its way.
pub(super) struct Rewind {
    pub partition: TopicPartition,
    to: Offset,
    epoch: u64,
    done: oneshot::Sender<Result<(), Fault>>,
    since: Instant,
    pub due: Instant,
    wait: Duration,
}

impl Rewind {
    pub(super) fn new(
        partition: TopicPartition,
        to: Offset,
        epoch: u64,
        done: oneshot::Sender<Result<(), Fault>>,
    ) -> Self {
        let now = clock::instant();
        Self { partition, to, epoch, done, since: now, due: now, wait: WAITS.0 }
    }

    /// There is nothing to rewind any more: nothing will be delivered, so the promise holds.
    pub(super) fn let_go(self) {
        let _ = self.done.send(Ok(()));
    }

    /// It holds: what comes next is read from there on.
    fn complete(self, lane: &mut Lane) {
        lane.window.restart(self.to, self.epoch);
        lane.moving = false;
        lane.shared.soil();
        let _ = self.done.send(Ok(()));
    }

    /// It is due again later, or has failed. A seek right after an assignment fails with `Erroneous state` until the
    /// library has caught up with itself.
    fn failed(mut self, error: &KafkaError) -> Option<Self> {
        if self.since.elapsed() < PATIENCE {
            tracing::debug!(partition = %self.partition, to = self.to, "rewind is tried again: {error}");
            self.due = clock::instant() + self.wait;
            self.wait = (self.wait * 2).min(WAITS.1);
            return Some(self);
        }
        // Nothing is read until a later rewind holds: going on from here would skip records.
        let fault = Fault::host(format!("the source could not go back to `{}`", self.partition.at(self.to)));
        let _ = self.done.send(Err(fault.because(error)));
        None
    }
}

/// Stops fetching, seeks, and fetches again, of all these partitions together. Returns what is due again later.
pub(super) fn attempt(
    consumer: &BaseConsumer<Context>,
    due: Vec<Rewind>,
    lanes: &mut BTreeMap<TopicPartition, Lane>,
) -> Vec<Rewind> {
    if due.is_empty() {
        return Vec::new();
    }
    let sought = seek(consumer, &due, lanes);
    let (mut later, mut fetched, mut held) = (Vec::new(), Vec::new(), Vec::new());
    let outcomes: Vec<Result<(), KafkaError>> = match &sought {
        // The call succeeds whatever became of the partitions in its list, which keeps its order.
        Ok(list) => list.elements().iter().map(TopicPartitionListElem::error).collect(),
        Err(error) => due.iter().map(|_| Err(error.clone())).collect(),
    };
    for (rewind, outcome) in due.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => {
                let paused = lanes.get(&rewind.partition).is_some_and(|lane| lane.paused);
                fetched.extend((!paused).then(|| rewind.partition.clone()));
                held.push(rewind);
            }
            Err(error) => later.extend(rewind.failed(&error)),
        }
    }
    let resumed = if fetched.is_empty() { Ok(()) } else { consumer.resume(&offsets::list(&fetched)) };
    for rewind in held {
        match (&resumed, lanes.get_mut(&rewind.partition)) {
            (Ok(()), Some(lane)) => rewind.complete(lane),
            (Ok(()), None) => rewind.let_go(),
            (Err(error), _) => later.extend(rewind.failed(error)),
        }
    }
    later
}

fn seek(
    consumer: &BaseConsumer<Context>,
    due: &[Rewind],
    lanes: &BTreeMap<TopicPartition, Lane>,
) -> Result<TopicPartitionList, KafkaError> {
    let mut places = TopicPartitionList::with_capacity(due.len());
    for Rewind { partition, to, .. } in due {
        places.add_partition(&partition.topic, partition.partition).set_offset(Position::Offset(*to))?;
    }
    // With the epoch the library asks whether the log was cut meanwhile.
    let epoch = |rewind: &Rewind| {
        let lane = lanes.get(&rewind.partition);
        lane.map_or(leader_epoch::UNKNOWN, |lane| lane.shared.leader_epochs.below(rewind.to))
    };
    leader_epoch::list(&mut places, due.iter().map(epoch));
    consumer.pause(&places)?;
    consumer.seek_partitions(places, SEEK_TIMEOUT)
}
