//! What the polling thread does about partitions that go to an offset (S34).

use tokio::sync::oneshot;

use super::super::lane::Standing;
use super::super::rewind::{self, Rewind};
use super::Poller;
use crate::clock;
use crate::model::{Offset, TopicPartition};

impl Poller {
    /// Carries out the rewinds that are due.
    pub(super) fn rewind(&mut self) {
        let now = clock::instant();
        let mut due = Vec::new();
        for rewind in std::mem::take(&mut self.rewinds) {
            match self.lanes.get(&rewind.partition) {
                Some(lane) if lane.shared.standing() == Standing::Held => {
                    let list = if rewind.due > now { &mut self.rewinds } else { &mut due };
                    list.push(rewind);
                }
                _ => rewind.let_go(),
            }
        }
        self.rewinds.extend(rewind::attempt(&self.consumer, due, &mut self.lanes));
    }

    /// Goes to an offset before anything is read, on nobody's order.
    pub(super) fn go_to(&mut self, partition: TopicPartition, to: Offset) {
        let (done, _) = oneshot::channel();
        self.rewinds.push(Rewind::new(partition, to, 0, done));
    }

    /// A later rewind counts alone.
    pub(super) fn supersede(&mut self, partition: &TopicPartition) {
        let (old, kept) = std::mem::take(&mut self.rewinds).into_iter().partition(|one| one.partition == *partition);
        self.rewinds = kept;
        let old: Vec<Rewind> = old;
        old.into_iter().for_each(Rewind::let_go);
    }
}
