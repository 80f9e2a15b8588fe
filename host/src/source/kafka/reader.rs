//! The worker's side of one partition.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use rdkafka::consumer::BaseConsumer;
use tokio::sync::{mpsc, oneshot};

use super::commit;
use super::context::{Bell, Context};
use super::lane::{Handed, Shared, Standing};
use super::offsets;
use super::poller::Command;
use super::witness::Witness;
use crate::model::{Fault, Offset, TopicPartition};
use crate::source::{CommitError, Read, Reader};

/// Reads one assigned partition.
pub struct KafkaReader {
    partition: TopicPartition,
    start: Offset,
    epoch: u64,
    /// What was last committed, so that a commit never goes back (S16).
    committed: Offset,
    /// The next offset to read, and where reading stops.
    position: Offset,
    end: Option<Offset>,
    windows: mpsc::Receiver<Handed>,
    /// The worker has had a window; it asks for another one when it is done with it.
    in_hand: bool,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    bell: Arc<Bell>,
    /// Weak: a consumer that is closed must not be kept alive, let alone be ended, by a worker.
    consumer: Weak<BaseConsumer<Context>>,
    witness: Arc<Witness>,
}

impl KafkaReader {
    pub(super) fn new(
        (partition, start): (TopicPartition, Offset),
        end: Option<Offset>,
        windows: mpsc::Receiver<Handed>,
        shared: Arc<Shared>,
        (commands, bell): (mpsc::Sender<Command>, Arc<Bell>),
        (consumer, witness): (Weak<BaseConsumer<Context>>, Arc<Witness>),
    ) -> Self {
        Self {
            partition,
            start,
            epoch: 0,
            committed: start,
            position: start,
            end,
            windows,
            in_hand: false,
            shared,
            commands,
            bell,
            consumer,
            witness,
        }
    }

    /// Sends an order and waits until it is carried out. `None` when the partition or the thread is gone.
    async fn order(
        &mut self,
        make: impl FnOnce(&mut u64, oneshot::Sender<Result<(), Fault>>) -> Command + Send,
    ) -> Option<Result<(), Fault>> {
        let (done, result) = oneshot::channel();
        // The permit comes first: an order that is given up while it waits has changed nothing.
        let permit = self.commands.reserve().await.ok()?;
        permit.send(make(&mut self.epoch, done));
        self.bell.ring();
        result.await.ok()
    }
}

#[async_trait]
impl Reader for KafkaReader {
    fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    fn start(&self) -> Offset {
        self.start
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        if std::mem::take(&mut self.in_hand) {
            // The partition may have been held back because of it.
            self.shared.touch();
        }
        loop {
            let handed = self.windows.recv().await;
            self.shared.touch();
            if self.shared.standing() != Standing::Held {
                // Nothing more is delivered of a partition that is being taken away; the worker is stopped from outside.
                return std::future::pending().await;
            }
            match handed {
                Some(handed) if handed.epoch == self.epoch => {
                    match &handed.read {
                        Ok(Read::Records(batch)) => {
                            self.position = batch.offsets.last().map_or(self.position, |last| last + 1);
                        }
                        Ok(Read::Position(position)) => self.position = *position,
                        Err(_) => {}
                    }
                    self.in_hand = true;
                    return handed.read;
                }
                Some(_) => {}
                None => return Err(Fault::host("the thread that polls Kafka has ended")),
            }
        }
    }

    async fn rewind(&mut self, to: Offset) -> Result<(), Fault> {
        let partition = self.partition.clone();
        self.position = to;
        self.in_hand = false;
        self.order(|epoch, done| {
            *epoch += 1;
            Command::Rewind { partition, to, epoch: *epoch, done }
        })
        .await
        .unwrap_or(Ok(()))
    }

    async fn first_from(&mut self, from: Offset) -> Result<Option<Offset>, Fault> {
        self.witness.first_from(&self.partition, from).await
    }

    async fn set_paused(&mut self, paused: bool) -> Result<(), Fault> {
        let partition = self.partition.clone();
        self.order(|_, done| Command::Pause { partition, paused, done }).await.unwrap_or(Ok(()))
    }

    async fn commit(&mut self, offset: Offset) -> Result<(), CommitError> {
        if offset == self.committed {
            return Ok(());
        }
        if offset < self.committed {
            return Err(CommitError::Fatal(
                Fault::host(format!("`{}` was to be committed", self.partition.at(offset)))
                    .because(format!("offset {} is committed already", self.committed)),
            ));
        }
        let leader_epoch = self.shared.leader_epochs.below(offset);
        commit::commit(&self.partition, (offset, leader_epoch), &self.shared, &self.consumer).await?;
        self.shared.leader_epochs.forget_below(offset);
        self.committed = offset;
        self.shared.committed_at(offset);
        Ok(())
    }

    fn log_end(&self) -> Option<Offset> {
        let consumer = self.consumer.upgrade()?;
        offsets::last_watermarks(&consumer, &self.partition).map(|(_, high)| high).filter(|high| *high >= 0)
    }

    fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.position >= end)
    }
}
