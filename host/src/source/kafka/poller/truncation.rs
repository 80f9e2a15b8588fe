//! What the polling thread does about logs that were cut, and about records that are not there (S52).

use std::sync::Arc;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::super::lane::{Lane, Standing};
use super::super::leader_epoch;
use super::super::offsets::Extent;
use super::super::reader::KafkaReader;
use super::super::truncation::{Course, Truncation};
use super::Poller;
use crate::model::{Fault, Offset, TopicPartition};
use crate::source::Event;

impl Poller {
    /// The library has gone back to where the log was cut: what workers have of the partition is no longer in the log.
    /// They drop it, and then the partition begins again at the cut.
    pub(super) fn truncate(&mut self, partition: &TopicPartition, truncation: Truncation) {
        let Some(lane) = self.lanes.get_mut(partition) else { return };
        lane.moving = true;
        lane.shared.stand(Standing::Gone);
        let Truncation { to, wanted } = truncation;
        let records = u64::try_from(wanted - to.max(lane.shared.committed())).unwrap_or(0);
        tracing::error!(
            %partition, cut = to, read = wanted, records,
            "the log was cut and written again, as after an unclean leader election; going on at the cut"
        );
        if records > 0 {
            self.outbox.push_back(Event::Gap { partition: partition.clone(), records });
        }
        // Offsets from the cut on mean other records now.
        self.gone.remove(partition);
        self.truncated.insert(partition.clone(), truncation);
        self.outbox.push_back(Event::Lost(vec![partition.clone()]));
    }

    /// Takes up again at the cut what no worker serves any more and is still ours.
    pub(super) fn begin_again(&mut self, partition: &TopicPartition) {
        let Some(Truncation { to, .. }) = self.truncated.remove(partition) else { return };
        let end = self.end_of(partition);
        let extent = Extent {
            partition: partition.clone(),
            start: to,
            end: end.unwrap_or(to),
            fresh: false,
            gap: None,
            leader_epoch: leader_epoch::UNKNOWN,
        };
        match self.lane(&extent, end) {
            Ok((mut lane, reader)) => {
                lane.moving = true;
                self.lanes.insert(partition.clone(), lane);
                self.go_to(partition.clone(), to);
                self.outbox.extend(reader.map(|reader| Event::Assigned(vec![reader])));
            }
            Err(error) => self.fail(Fault::host(format!("`{partition}` cannot be read on")).because(error)),
        }
    }

    /// A partition's lane, and its reader unless the source is being closed. Made before the assignment, so that
    /// nothing is ever fetched into the main queue, where it could not be held back.
    pub(super) fn lane(&self, extent: &Extent, end: Option<Offset>) -> Result<(Lane, Option<KafkaReader>), KafkaError> {
        let partition = &extent.partition;
        let Some(queue) = self.consumer.split_partition_queue(&partition.topic, partition.partition) else {
            return Err(KafkaError::Global(RDKafkaErrorCode::UnknownPartition));
        };
        let on_gap = self.settings.on_offset_gap;
        let course = Course { start: extent.start, leader_epoch: extent.leader_epoch, end, on_gap };
        let (memory, ready) = (Arc::clone(&self.memory), Arc::clone(&self.ready));
        let (lane, handed) = Lane::new(queue, partition.clone(), course, self.settings.limits, memory, ready);
        let reader = self.sender.upgrade().map(|sender| {
            let asked = (Arc::downgrade(&self.consumer), Arc::clone(&self.settings.witness));
            let orders = (sender, Arc::clone(&self.bell));
            KafkaReader::new((partition.clone(), extent.start), end, handed, Arc::clone(&lane.shared), orders, asked)
        });
        Ok((lane, reader))
    }
}
