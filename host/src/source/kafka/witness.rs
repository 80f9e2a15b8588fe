//! What the log holds, asked apart from the consumer that reads it: proof for what a rewind did not bring back (S34a).

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message};

use super::context::Context;
use super::{config, offsets};
use crate::clock;
use crate::model::{Fault, Offset, TopicPartition};

/// How long the brokers may take to send one record or say that there is none.
const PATIENCE: Duration = Duration::from_secs(10);
/// One wait for it.
const POLL: Duration = Duration::from_millis(100);

/// Reads single records with a consumer of its own, which lives as long as the question.
#[derive(Debug)]
pub(super) struct Witness(ClientConfig);

impl Witness {
    pub(super) fn new(client: ClientConfig) -> Self {
        Self(config::onlooker(client))
    }

    /// The first record at or above `from` that the log has now.
    ///
    /// # Errors
    /// When the brokers do not say within [`PATIENCE`].
    pub(super) async fn first_from(
        self: &Arc<Self>,
        partition: &TopicPartition,
        from: Offset,
    ) -> Result<Option<Offset>, Fault> {
        let (own, place) = (Arc::clone(self), partition.clone());
        let unproved =
            || Fault::host(format!("whether `{}` is still there could not be found out", partition.at(from)));
        match tokio::task::spawn_blocking(move || own.ask(&place, from)).await {
            Ok(Ok(Some(found))) => Ok(found),
            Ok(Ok(None)) => Err(unproved().because(format!("no answer within {} s", PATIENCE.as_secs()))),
            Ok(Err(error)) => Err(unproved().because(error)),
            Err(error) => Err(unproved().because(error)),
        }
    }

    /// `None`: no answer came.
    fn ask(&self, partition: &TopicPartition, from: Offset) -> Result<Option<Option<Offset>>, KafkaError> {
        let consumer: BaseConsumer<Context> = self.0.create_with_context(Context::default())?;
        consumer.assign(&offsets::at(partition, from)?)?;
        let started = clock::instant();
        while started.elapsed() < PATIENCE {
            match consumer.poll(POLL) {
                Some(Ok(record)) => return Ok(Some(Some(record.offset()))),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Some(None)),
                Some(Err(error)) => tracing::debug!(%partition, "Kafka consumer: {error}"),
                None => {}
            }
        }
        Ok(None)
    }
}
