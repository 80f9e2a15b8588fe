//! What the polling thread does about partitions given and taken (S45–S52).

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};

use super::super::config::First;
use super::super::context::Rebalance;
use super::super::lane::{Lane, Standing};
use super::super::offsets::{self, Extent, Starts, Unresolved};
use super::super::probe;
use super::super::reader::KafkaReader;
use super::{Closing, Opening, Poller};
use crate::clock;
use crate::model::{Fault, TopicPartition};
use crate::source::Event;

/// The wait before start offsets are asked for again, and how long that goes on.
const RESOLVE_WAIT: Duration = Duration::from_millis(500);
const RESOLVE_PATIENCE: Duration = Duration::from_secs(120);
/// How long giving a partition away waits for a commit that is on its way (S12).
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);

impl Poller {
    pub(super) fn release(&mut self) {
        for release in std::mem::take(&mut self.releases) {
            let busy = release.since.elapsed() < COMMIT_PATIENCE
                && release.partitions.iter().any(|partition| {
                    self.lanes.get(partition).is_some_and(|lane| lane.shared.committing.try_lock().is_err())
                });
            if busy {
                self.releases.push(release);
                continue;
            }
            let mut stopped = Vec::new();
            for partition in &release.partitions {
                if let Some(lane) = self.lanes.remove(partition) {
                    lane.shared.stand(Standing::Gone);
                    if lane.paused || lane.moving {
                        stopped.push(partition.clone());
                    }
                }
                if let Some(closing) = &mut self.closing {
                    closing.left.remove(partition);
                }
            }
            // The library keeps a pause beyond the assignment: a partition that came back would stay silent (S39).
            if !stopped.is_empty()
                && let Err(error) = self.consumer.resume(&offsets::list(&stopped))
            {
                tracing::debug!("fetching of what is given away cannot be switched: {error}");
            }
            self.unassign();
            let _ = release.done.send(());
        }
    }

    /// Answers the revocation once no worker serves any of its partitions.
    fn unassign(&mut self) {
        let Some(closing) = self.closing.take_if(|closing| closing.left.is_empty()) else { return };
        self.changed = Some(clock::instant());
        if let Err(error) = self.consumer.incremental_unassign(&offsets::list(&closing.partitions)) {
            self.fail(Fault::host("revoked partitions could not be given away").because(error));
        }
    }

    /// Takes up the next change of the assignment when the last one is answered.
    pub(super) fn rebalance(&mut self) {
        self.open();
        if let Some(closing) = &mut self.closing
            && !closing.lost
            && self.consumer.assignment_lost()
        {
            // Time ran out while workers were finishing: the claim to write and commit is gone with it (S48, S49).
            closing.lost = true;
            for partition in &closing.left {
                if let Some(lane) = self.lanes.get(partition) {
                    lane.shared.stand(Standing::Gone);
                }
            }
            self.outbox.push_back(Event::Lost(closing.left.iter().cloned().collect()));
        }
        while self.opening.is_none() && self.closing.is_none() {
            let Some(change) = self.consumer.context().take_rebalance() else { return };
            match change {
                Rebalance::Assign(partitions) => {
                    let now = clock::instant();
                    self.opening = Some(Opening { partitions, since: now, due: now });
                    self.open();
                }
                Rebalance::Revoke { partitions, lost } => self.revoke(partitions, lost),
            }
        }
    }

    fn revoke(&mut self, partitions: Vec<TopicPartition>, lost: bool) {
        let standing = if lost { Standing::Gone } else { Standing::Revoked };
        let served: Vec<TopicPartition> =
            partitions.iter().filter(|partition| self.lanes.contains_key(partition)).cloned().collect();
        for partition in &served {
            if let Some(lane) = self.lanes.get(partition) {
                lane.shared.stand(standing);
            }
        }
        self.closing = Some(Closing { partitions, left: served.iter().cloned().collect(), lost });
        if served.is_empty() {
            self.unassign();
        } else {
            self.outbox.push_back(if lost { Event::Lost(served) } else { Event::Revoked(served) });
        }
    }

    /// Finds the start offsets of new partitions and makes them part of the assignment (S51).
    fn open(&mut self) {
        let Some(opening) = self.opening.as_mut().filter(|opening| clock::instant() >= opening.due) else { return };
        let settings = &self.settings;
        if settings.first == First::Latest && self.known.is_none() {
            self.known = probe::partitions(&self.consumer, &settings.topics, offsets::QUESTION_TIMEOUT).ok();
        }
        let starts = Starts { first: settings.first, known: self.known.as_ref(), on_gap: settings.on_offset_gap };
        let resolved = match (settings.first, &self.known) {
            (First::Latest, None) => Err(Unresolved::Later("the brokers do not say what the topics hold".into())),
            _ => offsets::resolve(&self.consumer, &opening.partitions, &starts),
        };
        match resolved {
            Ok(starts) => {
                self.opening = None;
                if let Err(error) = self.assign(starts) {
                    self.fail(Fault::host("assigned partitions could not be taken").because(error));
                }
            }
            Err(Unresolved::Later(why)) if opening.since.elapsed() < RESOLVE_PATIENCE => {
                tracing::warn!("start offsets are asked for again: {why}");
                opening.due = clock::instant() + RESOLVE_WAIT;
            }
            Err(Unresolved::Later(why)) => {
                opening.due = clock::instant() + RESOLVE_PATIENCE;
                self.fail(Fault::host("the brokers do not say where partitions start").because(why));
            }
            Err(Unresolved::Never(fault)) => {
                opening.due = clock::instant() + RESOLVE_PATIENCE;
                self.fail(fault);
            }
        }
    }

    fn assign(&mut self, extents: Vec<Extent>) -> Result<(), KafkaError> {
        let limits = self.settings.limits;
        self.changed = Some(clock::instant());
        let mut list = TopicPartitionList::with_capacity(extents.len());
        let (mut lanes, mut readers, mut pins) = (Vec::new(), Vec::new(), TopicPartitionList::new());
        for extent in extents {
            let Extent { partition, start, end, fresh, gap } = &extent;
            let (partition, start) = (partition.clone(), *start);
            if let Some(gap) = gap {
                self.passed_over(&partition, *gap);
            }
            if *fresh && self.settings.first == First::Latest {
                pins.add_partition_offset(&partition.topic, partition.partition, Position::Offset(start))?;
            }
            let end = Some(*end).filter(|_| self.settings.until_end);
            list.add_partition_offset(&partition.topic, partition.partition, Position::Offset(start))?;
            // Before the assignment: then nothing is ever fetched into the main queue, where it could not be held back.
            let Some(queue) = self.consumer.split_partition_queue(&partition.topic, partition.partition) else {
                return Err(KafkaError::Global(RDKafkaErrorCode::UnknownPartition));
            };
            let (lane, handed) = Lane::new(
                queue,
                partition.clone(),
                (start, end),
                limits,
                Arc::clone(&self.memory),
                Arc::clone(&self.bell),
            );
            if let Some(sender) = self.sender.upgrade() {
                let shared = Arc::clone(&lane.shared);
                let consumer = Arc::downgrade(&self.consumer);
                let orders = (sender, Arc::clone(&self.bell));
                let witness = Arc::clone(&self.settings.witness);
                readers.push(KafkaReader::new(extent, end, handed, shared, orders, (consumer, witness)));
            }
            lanes.push((partition, lane));
        }
        self.consumer.incremental_assign(&list)?;
        // What "latest" is has been decided now. Decided again after a restart it would pass over what came in between.
        if pins.count() > 0
            && let Err(error) = self.consumer.commit(&pins, CommitMode::Async)
        {
            tracing::warn!("the starts of new partitions are not kept: {error}");
        }
        self.lanes.extend(lanes);
        if !readers.is_empty() {
            self.outbox.push_back(Event::Assigned(readers));
        }
        Ok(())
    }
}
