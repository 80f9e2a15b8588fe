//! Kafka as a destination: every row is a record, and counts only once the brokers have it in all replicas (S103, S104).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Description, Sink, Style};
use crate::model::{Answer, Batch, CallError, Fault};

mod config;
mod producer;
mod report;

use producer::Producer;

/// The longest that one call may take; librdkafka gives a record up before that, so that the outcome is known.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a start waits for the topic's metadata.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One topic to write to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The topic.
    pub topic: String,
    /// `host:port`, several separated by commas; empty for the source's brokers and their properties (S103).
    #[serde(default)]
    pub brokers: String,
    /// Passed to librdkafka as they are.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// The source's cluster: where a sink without brokers of its own writes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// The source's properties; only those that concern the connection are taken over.
    pub properties: BTreeMap<String, String>,
}

/// Writes rows to one topic: key and value byte for byte, headers and the record's own timestamp with them.
///
/// The timestamp is kept, as Kafka's own mirroring and stream tools keep it, because a topic's consumers read it as the
/// time at which something happened; a row without one gets the time of writing. Equal keys go to the partition where a
/// Java producer would put them.
pub struct KafkaSink {
    options: Options,
    config: rdkafka::ClientConfig,
    create_topic: bool,
    /// The topic's limit for a batch of records, in bytes, as far as the cluster tells it.
    limit: OnceLock<u64>,
    /// Replaced when librdkafka says that it cannot be used any longer.
    producer: Mutex<Option<Arc<Producer>>>,
}

impl KafkaSink {
    /// A sink that is not connected yet.
    ///
    /// # Errors
    /// When an option cannot be used.
    pub fn new(options: Options, inherited: &Inherited) -> Result<Self, Fault> {
        let config = config::producer(&options, inherited)?;
        Ok(Self { options, config, create_topic: false, limit: OnceLock::new(), producer: Mutex::new(None) })
    }

    /// Creates the topic on connecting when it does not exist, with the cluster's default partitions and replicas.
    #[must_use]
    pub fn creating_the_topic(mut self) -> Self {
        self.create_topic = true;
        self
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Producer>>> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The producer in use; a new one when the last could not go on.
    fn producer(&self) -> Result<Arc<Producer>, Fault> {
        let mut slot = self.slot();
        if let Some(producer) = slot.as_ref().filter(|producer| producer.is_usable()) {
            return Ok(Arc::clone(producer));
        }
        let limit = self.limit.get().copied();
        let config = limit.map_or_else(|| self.config.clone(), |limit| config::within(&self.config, limit));
        let producer = Arc::new(Producer::new(&config, &self.options.topic, limit.is_some())?);
        *slot = Some(Arc::clone(&producer));
        Ok(producer)
    }
}

#[async_trait]
impl Sink for KafkaSink {
    fn description(&self) -> Description {
        // Not idempotent: producing again appends again, whatever the producer itself does about its own repetitions.
        Description { style: Style::Direct, idempotent: false, max_rows: 0, max_bytes: 0, deadline: DEADLINE }
    }

    async fn connect(&self) -> Result<(), CallError> {
        if self.create_topic {
            config::create(&self.config, &self.options.topic, CONNECT_TIMEOUT).await?;
        }
        let producer = self.producer().map_err(CallError::Fatal)?;
        let brokers = config::brokers(&self.config).to_owned();
        tokio::task::spawn_blocking(move || producer.probe(&brokers, CONNECT_TIMEOUT))
            .await
            .map_err(|error| CallError::Retry(Fault::host("the Kafka cluster was not asked").because(error)))??;
        if let Some(limit) = config::limit(&self.config, &self.options.topic, CONNECT_TIMEOUT).await {
            // Batches of that size: of a larger one the broker would refuse the rows that fit together with one that does not.
            let _ = self.limit.set(limit);
            self.close().await.map_err(CallError::Retry)?;
            self.producer().map_err(CallError::Fatal)?;
        }
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        // S78: a sink that was never connected writes nothing.
        if self.slot().is_none() {
            return Err(CallError::Fatal(Fault::host(format!("`{}` is not connected", self.options.topic))));
        }
        let producer = self.producer().map_err(CallError::Retry)?;
        producer.deliver(batch).await
    }

    async fn close(&self) -> Result<(), Fault> {
        let producer = self.slot().take();
        // Ending the producer joins its thread.
        tokio::task::spawn_blocking(move || drop(producer))
            .await
            .map_err(|error| Fault::host("the Kafka producer did not end cleanly").because(error))
    }
}
