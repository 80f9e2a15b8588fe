//! What the polling thread does about partitions given and taken (S45–S52).

use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset as Position, TopicPartitionList};

use super::super::config::First;
use super::super::context::Rebalance;
use super::super::lane::Standing;
use super::super::leader_epoch;
use super::super::offsets::{self, Extent};
use super::super::resolver::Answer;
use super::{Closing, Poller};
use crate::clock;
use crate::model::{Fault, TopicPartition};
use crate::source::Event;

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
            for partition in &release.partitions {
                self.begin_again(partition);
            }
            let _ = release.done.send(());
        }
    }

    /// Answers the revocation once no worker serves any of its partitions.
    fn unassign(&mut self) {
        let Some(closing) = self.closing.take_if(|closing| closing.left.is_empty()) else { return };
        self.changed = Some(clock::instant());
        for partition in &closing.partitions {
            self.assigned.remove(partition);
        }
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
        while self.closing.is_none() {
            let Some(change) = self.consumer.context().take_rebalance() else { return };
            match change {
                Rebalance::Assign(partitions) => self.accept(partitions),
                Rebalance::Revoke { partitions, lost } => self.revoke(partitions, lost),
            }
        }
    }

    /// Answers an assignment at once, with nothing: until then the library would deliver nothing of what we have. Each new
    /// partition is added when its start is known.
    fn accept(&mut self, partitions: Vec<TopicPartition>) {
        self.changed = Some(clock::instant());
        if let Err(error) = self.consumer.incremental_assign(&TopicPartitionList::new()) {
            return self.fail(Fault::host("assigned partitions could not be taken").because(error));
        }
        self.openings.add(partitions);
        self.openings.ask();
    }

    fn revoke(&mut self, mut partitions: Vec<TopicPartition>, lost: bool) {
        self.openings.remove(&partitions);
        // Those without a start were never added, and cannot be taken off.
        partitions.retain(|partition| self.assigned.contains(partition));
        let standing = if lost { Standing::Gone } else { Standing::Revoked };
        self.truncated.retain(|partition, _| !partitions.contains(partition));
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

    /// Takes what was found out about starts, and makes them part of the assignment (S51).
    fn open(&mut self) {
        while let Some(answer) = self.openings.resolver().answer() {
            match answer {
                Answer::Asked => self.openings.asked(),
                Answer::Starts(found) => {
                    if let Err(fault) = self.openings.take(found) {
                        self.fail(fault);
                    }
                }
                Answer::Missing(topics) => self.topics_gone(&topics),
                Answer::Missed(partition, fault) => self.missed(&partition, fault),
                Answer::Failed(fault) => self.fail(fault),
            }
        }
        if self.failed {
            return;
        }
        self.openings.ask();
        self.openings.complain();
        // An assignment makes the library forget that the claim is lost, and its revocation is to say so (S48).
        if self.closing.is_some() || self.consumer.assignment_lost() {
            return;
        }
        let (ready, early) =
            self.openings.take_ready().into_iter().partition(|extent| self.knows_end_of(&extent.partition));
        self.openings.put_back(early);
        let ready: Vec<Extent> = ready;
        if !ready.is_empty()
            && let Err(error) = self.assign(ready)
        {
            self.fail(Fault::host("assigned partitions could not be taken").because(error));
        }
    }

    fn assign(&mut self, extents: Vec<Extent>) -> Result<(), KafkaError> {
        self.unjoined = None;
        self.changed = Some(clock::instant());
        let mut list = TopicPartitionList::with_capacity(extents.len());
        let (mut lanes, mut readers, mut checked) = (Vec::new(), Vec::new(), Vec::new());
        let mut pins = TopicPartitionList::new();
        for extent in extents {
            let (partition, start) = (extent.partition.clone(), extent.start);
            if let Some(gap) = extent.gap {
                self.passed_over(&partition, gap);
            }
            if extent.fresh && self.settings.first == First::Latest {
                pins.add_partition(&partition.topic, partition.partition).set_offset(Position::Offset(start))?;
            }
            let end = self.end_of(&partition);
            list.add_partition(&partition.topic, partition.partition).set_offset(Position::Offset(start))?;
            let (mut lane, reader) = self.lane(&extent, end)?;
            readers.extend(reader);
            if extent.leader_epoch != leader_epoch::UNKNOWN {
                lane.moving = true;
                checked.push(partition.clone());
            }
            lanes.push((partition, lane));
        }
        // The library takes an assignment as it is. With a seek to the same place it asks the broker whether the log
        // was cut below it; nothing is fetched before.
        if !checked.is_empty() {
            self.consumer.pause(&offsets::list(&checked))?;
        }
        self.consumer.incremental_assign(&list)?;
        self.assigned.extend(lanes.iter().map(|(partition, _)| partition.clone()));
        // What "latest" is has been decided now. Decided again after a restart it would pass over what came in between.
        if pins.count() > 0
            && let Err(error) = self.consumer.commit(&pins, CommitMode::Async)
        {
            tracing::warn!("the starts of new partitions are not kept: {error}");
        }
        self.lanes.extend(lanes);
        for partition in checked {
            if let Some(start) = self.lanes.get(&partition).map(|lane| lane.window.wanted()) {
                self.go_to(partition, start);
            }
        }
        if !readers.is_empty() {
            self.outbox.push_back(Event::Assigned(readers));
        }
        Ok(())
    }
}
