//! Going back to an offset (S34, S34a).

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::sync::oneshot;

use super::context::Context;
use super::lane::Lane;
use super::{offsets, truncation};
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

/// What became of a try.
pub(super) enum Tried {
    /// It holds, or has failed; the worker knows.
    Over,
    /// It is due again later.
    Again(Rewind),
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

    /// Stops fetching, seeks, and fetches again. A seek right after an assignment fails with `Erroneous state` until the
    /// library has caught up with itself, so it is repeated.
    pub(super) fn attempt(mut self, consumer: &BaseConsumer<Context>, lane: &mut Lane) -> Tried {
        // With the epoch the library asks whether the log was cut meanwhile.
        let place = (self.to, lane.shared.leader_epochs.below(self.to));
        match seek(consumer, &self.partition, place, lane.paused) {
            Ok(()) => {
                lane.window.restart(self.to, self.epoch);
                lane.moving = false;
                lane.shared.soil();
                let _ = self.done.send(Ok(()));
                Tried::Over
            }
            Err(error) if self.since.elapsed() < PATIENCE => {
                tracing::debug!(partition = %self.partition, to = self.to, "rewind is tried again: {error}");
                self.due = clock::instant() + self.wait;
                self.wait = (self.wait * 2).min(WAITS.1);
                Tried::Again(self)
            }
            Err(error) => {
                // Nothing is read until a later rewind holds: going on from here would skip records.
                let fault = Fault::host(format!("the source could not go back to `{}`", self.partition.at(self.to)));
                let _ = self.done.send(Err(fault.because(error)));
                Tried::Over
            }
        }
    }
}

fn seek(
    consumer: &BaseConsumer<Context>,
    partition: &TopicPartition,
    to: (Offset, i32),
    stay_paused: bool,
) -> Result<(), KafkaError> {
    let place = offsets::list(std::slice::from_ref(partition));
    consumer.pause(&place)?;
    truncation::seek(consumer, partition, to)?;
    if !stay_paused {
        consumer.resume(&place)?;
    }
    Ok(())
}
