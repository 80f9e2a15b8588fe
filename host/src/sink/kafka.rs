//! Kafka as a destination: every row is a record, and counts only once the brokers have it in all replicas (S103, S104).
//!
//! | What goes wrong | Answer for its rows |
//! |---|---|
//! | A header's name is not UTF-8 | reject |
//! | Larger than the topic takes; refused as invalid or by the topic's policy | reject |
//! | Not acknowledged in time; too few replicas; the connection lost | retry |
//! | The topic is gone, or we may not write to it | Tidegate commits what is settled and stops |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Description, Sink};
use crate::model::{Answer, Batch, CallError, Fault};

mod config;
mod producer;
mod report;

use producer::Producer;

/// How long a start waits for the topic's metadata.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it waits for the topic's limits, which a broker without administration never tells.
const LIMIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often, and how far apart, a topic that was just created is asked for.
const CREATE_PROBES: u32 = 50;
const CREATE_WAIT: Duration = Duration::from_millis(100);

/// One topic to write to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "KafkaSink")]
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
/// time at which something happened; a row without one gets the time of writing. The topic's retention counts from it:
/// where records older than that are written, set the topic's `message.timestamp.type` to `LogAppendTime`. Equal keys go to the partition where a
/// Java producer would put them.
pub struct KafkaSink {
    options: Options,
    config: rdkafka::ClientConfig,
    if_missing: IfMissing,
    /// The topic's limit for a batch of records, in bytes, as far as the cluster tells it.
    limit: OnceLock<u64>,
    /// Replaced when librdkafka says that it cannot be used any longer.
    producer: Mutex<Option<Arc<Producer>>>,
}

/// What connecting does about a topic that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfMissing {
    Refuse,
    Create,
    Ask,
}

impl KafkaSink {
    /// A sink that is not connected yet.
    ///
    /// # Errors
    /// When an option cannot be used.
    pub fn new(options: Options, inherited: &Inherited) -> Result<Self, Fault> {
        let config = config::producer(&options, inherited)?;
        Ok(Self { options, config, if_missing: IfMissing::Refuse, limit: OnceLock::new(), producer: Mutex::new(None) })
    }

    /// Creates the topic on connecting when it does not exist, with the cluster's default partitions and replicas.
    #[must_use]
    pub fn creating_the_topic(mut self) -> Self {
        self.if_missing = IfMissing::Create;
        self
    }

    /// Connecting is a question only: a topic that does not exist yet is sound when it could be created (S94a).
    #[must_use]
    pub fn only_asking(mut self) -> Self {
        self.if_missing = IfMissing::Ask;
        self
    }

    async fn probe(&self) -> Result<(), CallError> {
        let producer = self.producer().map_err(CallError::Fatal)?;
        let brokers = config::brokers(&self.config).to_owned();
        tokio::task::spawn_blocking(move || producer.probe(&brokers, CONNECT_TIMEOUT))
            .await
            .map_err(|error| CallError::Unknown(Fault::host("the Kafka cluster was not asked").because(error)))?
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
        Description::direct(false)
    }

    async fn connect(&self) -> Result<(), CallError> {
        let mut probed = self.probe().await;
        if self.if_missing != IfMissing::Refuse && matches!(probed, Err(CallError::Fatal(_))) {
            let only_ask = self.if_missing == IfMissing::Ask;
            config::create(&self.config, &self.options.topic, only_ask, CONNECT_TIMEOUT).await?;
            if only_ask {
                return Ok(());
            }
            // The broker that is asked may not know it yet.
            for _ in 0..CREATE_PROBES {
                probed = self.probe().await;
                if probed.is_ok() {
                    break;
                }
                tokio::time::sleep(CREATE_WAIT).await;
            }
        }
        probed?;
        if let Some(limit) = config::limit(&self.config, &self.options.topic, LIMIT_TIMEOUT).await {
            // Batches of that size: of a larger one the broker would refuse the rows that fit together with one that does not.
            let _ = self.limit.set(limit);
            self.close().await.map_err(CallError::Unknown)?;
            self.producer().map_err(CallError::Fatal)?;
        }
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        // S78: a sink that was never connected writes nothing.
        if self.slot().is_none() {
            return Err(CallError::Fatal(Fault::host(format!("`{}` is not connected", self.options.topic))));
        }
        let producer = self.producer().map_err(CallError::Unknown)?;
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
