//! Kafka as a destination: every row is a record, and counts only once the brokers have it in all replicas (S103, S104).
//!
//! | What goes wrong | Answer for its rows |
//! |---|---|
//! | A header's name is not UTF-8 | reject |
//! | `INVALID_RECORD`, such as a row without a key for a compacted topic; `INVALID_TIMESTAMP`, `POLICY_VIOLATION`, `UNSUPPORTED_FOR_MESSAGE_FORMAT` | reject; which rows of a batch it is, is found by sending parts of it |
//! | `MESSAGE_TOO_LARGE`, `RECORD_LIST_TOO_LARGE`: the row alone is larger than the topic takes, or than `message.max.bytes` or `queue.buffering.max.kbytes` | reject |
//! | The same: only rows together are larger | sent again at once in smaller batches |
//! | Another row of the batch was refused (`_INVALID_DIFFERENT_RECORD`); taken out of the queue with a call that was given up (`_PURGE_QUEUE`, `_PURGE_INFLIGHT`) | sent again at once, no attempt counted |
//! | Not acknowledged within `message.timeout.ms`; the connection lost, not made, or its login or token refused (`SASL_AUTHENTICATION_FAILED`, `DELEGATION_TOKEN_EXPIRED`) | unavailable: waits |
//! | No leader, another one, or replicas being moved; too few replicas in sync (`NOT_ENOUGH_REPLICAS`); a broker's disk (`KAFKA_STORAGE_ERROR`); a quota; no memory here | unavailable: waits |
//! | The numbering of an idempotent producer is broken (`OUT_OF_ORDER_SEQUENCE_NUMBER`, `UNKNOWN_PRODUCER_ID`) | unavailable: waits, and goes on with a new producer |
//! | An internal error of a broker, a checksum that does not match, any other code | unknown: asked again in halves |
//! | The topic is gone, or we may not write to it; a codec or version that the brokers do not know | Tidegate commits what is settled and stops |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Description, Sink};
use crate::model::{Answer, Batch, CallError, Fault};
use crate::telemetry::Counter;

mod answer;
mod code;
mod config;
mod producer;
mod report;
mod topic;

use answer::Outcome;
use producer::Producer;
use report::Reports;

/// How long a start waits for the topic's metadata.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it waits for the topic's properties, which a broker without administration never tells.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it is looked for the rows that a topic refuses; with the time of one writing less than a call may take (S77).
const ISOLATION_LIMIT: Duration = Duration::from_secs(4);
/// How long closing waits for the last reports of calls that were given up.
const CLOSE_LIMIT: Duration = Duration::from_secs(8);
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
    /// Whether a compacted topic is refused.
    keeps_all: bool,
    reports: Reports,
    state: Mutex<State>,
}

struct State {
    /// Replaced when it cannot be used any longer.
    producer: Option<Arc<Producer>>,
    /// Producers so far.
    count: u32,
    /// The largest batch of several rows, in bytes.
    batch_size: u64,
}

impl State {
    /// Lets the next call make a producer with batches of the present size; this one sends what it has.
    fn retire_for_size(&mut self) {
        if let Some(producer) = &self.producer {
            producer.retire(false);
        }
    }
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
        let state = Mutex::new(State { producer: None, count: 0, batch_size: config::batch_size(&config) });
        let (if_missing, reports) = (IfMissing::Refuse, Reports::default());
        Ok(Self { options, config, if_missing, keeps_all: false, reports, state })
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

    /// Refuses a topic that is compacted, where a record deletes older ones of its key.
    #[must_use]
    pub fn keeping_every_record(mut self) -> Self {
        self.keeps_all = true;
        self
    }

    /// Counts rows that are acknowledged after their call was given up.
    #[must_use]
    pub fn counting_late(mut self, late: Arc<Counter>) -> Self {
        self.reports.counting_late(late);
        self
    }

    async fn probe(&self) -> Result<usize, CallError> {
        let producer = self.producer().map_err(CallError::Fatal)?;
        let brokers = config::brokers(&self.config).to_owned();
        tokio::task::spawn_blocking(move || producer.probe(&brokers, CONNECT_TIMEOUT))
            .await
            .map_err(|error| CallError::Unknown(Fault::host("the Kafka cluster was not asked").because(error)))?
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole after every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The producer in use; a new one when the last could not go on. Needs a runtime around it.
    fn producer(&self) -> Result<Arc<Producer>, Fault> {
        let mut state = self.state();
        if let Some(producer) = &state.producer {
            if producer.is_usable() {
                return Ok(Arc::clone(producer));
            }
            // What waits in one that met a fatal error is never sent.
            producer.retire(!producer.is_retired());
        }
        state.count = state.count.wrapping_add(1);
        let (topic, number, batch_size) = (&self.options.topic, state.count, state.batch_size);
        let producer = Arc::new(Producer::new(&self.config, topic, number, batch_size, &self.reports)?);
        state.producer = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// Makes batches smaller than those of this producer: as small as the topic says by now, or half as large. One that is too
    /// large is refused as a whole, so that its rows go again.
    async fn shrink_batches(&self, than: &Producer) {
        let found = config::describe(&self.config, &self.options.topic, DESCRIBE_TIMEOUT).await;
        let limit = found.and_then(|topic| topic.batch_size()).filter(|limit| *limit < than.batch_size());
        let mut state = self.state();
        // Several calls may have found out at the same time.
        if state.batch_size >= than.batch_size() {
            state.batch_size = limit.unwrap_or(than.batch_size() / 2).max(1);
            tracing::info!(
                topic = self.options.topic,
                bytes = state.batch_size,
                "the topic takes smaller batches only"
            );
            state.retire_for_size();
        }
    }

    /// What the topic is like, and what follows from it. `replicas` is what its best replicated partition has.
    async fn describe(&self, replicas: usize) -> Result<(), CallError> {
        let topic = &self.options.topic;
        let Some(found) = config::describe(&self.config, topic, DESCRIBE_TIMEOUT).await else { return Ok(()) };
        if self.keeps_all && found.is_compacted() {
            let fault = Fault::config(format!(
                "topic `{topic}` is compacted: it takes no record without a key, and a record deletes older ones of its key"
            ));
            return Err(CallError::Fatal(fault.hint(format!("set `cleanup.policy=delete` for `{topic}`"))));
        }
        found.takes_rows(topic).map_err(CallError::Fatal)?;
        for note in found.notes(config::own_limit(&self.options), replicas) {
            tracing::warn!("topic `{topic}`: {note}");
        }
        if let Some(batch_size) = found.batch_size() {
            // Of a larger one the broker would refuse the rows that fit together with one that does not.
            let mut state = self.state();
            if batch_size < state.batch_size {
                state.batch_size = batch_size;
                state.retire_for_size();
            }
        }
        self.producer().map_err(CallError::Fatal)?;
        Ok(())
    }

    /// Writes every row. Rows that are too large together are sent again in smaller batches, rows of which some is refused in
    /// parts, until each has its outcome.
    async fn write(&self, batch: &Batch) -> Result<Outcome, CallError> {
        let mut outcome = Outcome::default();
        let until = tokio::time::Instant::now() + ISOLATION_LIMIT;
        let mut parts: Vec<Vec<u32>> = vec![(0..u32::try_from(batch.len()).unwrap_or(u32::MAX)).collect()];
        // The first part is the last of the list, so that rows are sent in order.
        while let Some(rows) = parts.pop() {
            if tokio::time::Instant::now() >= until {
                outcome.leave(&rows);
                continue;
            }
            let producer = self.producer().map_err(CallError::Unavailable)?;
            let Some(written) = Arc::clone(&producer).write(batch, &rows).await else {
                let fault = producer::cannot_write(&self.options.topic);
                return Err(CallError::Unknown(fault.because("the producer ended before it had reported")));
            };
            let open = outcome.add(written, batch, producer.batch_size());
            if !open.together.is_empty() {
                self.shrink_batches(&producer).await;
                parts.push(open.together);
            }
            let (first, second) = open.suspects.split_at(open.suspects.len() / 2);
            parts.extend([second, first].into_iter().filter(|part| !part.is_empty()).map(<[u32]>::to_vec));
        }
        Ok(outcome)
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
        let replicas = probed?;
        self.describe(replicas).await
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        // S78: a sink that was never connected writes nothing.
        if self.state().producer.is_none() {
            return Err(CallError::Fatal(Fault::host(format!("`{}` is not connected", self.options.topic))));
        }
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        // S76a: what an earlier call of the same partition left under way would land behind newer rows.
        self.reports.given_up_settled(Some(&batch.source)).await;
        let answer = self.write(batch).await?.answer(&self.options.topic);
        if let Err(answer::Stop::Missing(code)) = answer {
            // A broker that has just started may not know all topics yet.
            return match self.probe().await {
                Ok(_) => Err(CallError::Unavailable(producer::cannot_write(&self.options.topic).because(code))),
                Err(error) => Err(error),
            };
        }
        answer.map_err(Into::into)
    }

    async fn close(&self) -> Result<(), Fault> {
        if let Some(producer) = self.state().producer.take() {
            producer.retire(true);
        }
        let settled = tokio::time::timeout(CLOSE_LIMIT, self.reports.given_up_settled(None)).await;
        settled.map_err(|_| {
            let limit = CLOSE_LIMIT.as_secs();
            Fault::destination(format!("topic `{}` has not acknowledged within {limit} s", self.options.topic))
                .because("whether rows of calls that were given up were written is unknown")
        })
    }
}
