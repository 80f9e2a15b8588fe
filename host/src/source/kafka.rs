//! Kafka as a source: one consumer on a thread of its own, which alone polls, pauses, seeks and assigns. Orders come to it
//! over a channel, and what librdkafka reports leaves it over another (S45a).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::BaseConsumer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{Event, Source};
use crate::memory::{Account, Budget};
use crate::model::{Fault, TopicPartition};

mod commit;
mod config;
mod context;
mod ends;
mod headers;
mod holders;
mod inquiry;
mod join_errors;
mod lane;
mod leader_epoch;
mod listing;
mod offsets;
mod poller;
mod probe;
mod reader;
mod ready;
mod resolver;
mod rewind;
mod scan;
mod truncation;
mod witness;

pub use config::First;
pub use probe::{probe, probe_for};
pub use reader::KafkaReader;
pub use scan::{Begin, committed, scan};

use context::{Bell, Context};
use poller::{Command, Poller};
use witness::Witness;

/// Orders that may wait for the polling thread; who sends one more waits.
const COMMANDS: usize = 256;
/// Changes of the assignment that may wait for [`Source::next`]. librdkafka reports the next one only after the last was
/// answered, so that a handful is all there ever is.
const EVENTS: usize = 16;
/// How long a stop waits for the group to be left before the consumer is abandoned to the end of the process.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// One broker list, as one string or as many.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Brokers {
    /// `host:port`, several separated by commas.
    One(String),
    /// One `host:port` each.
    Many(Vec<String>),
}

impl Brokers {
    /// As librdkafka wants them: separated by commas.
    pub fn joined(&self) -> String {
        match self {
            Self::One(brokers) => brokers.clone(),
            Self::Many(brokers) => brokers.join(","),
        }
    }
}

impl Default for Brokers {
    fn default() -> Self {
        Self::One("localhost:9092".into())
    }
}

/// The cluster and topics that records come from.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "KafkaSource")]
pub struct Options {
    /// `host:port`, or a list of them.
    pub brokers: Brokers,
    /// The topic to consume; or use `source_topics`.
    pub source_topic: String,
    /// The topics to consume, when there are several.
    pub source_topics: Vec<String>,
    /// The consumer group, under which offsets are committed.
    pub group: String,
    /// This host's name in the group, another one for each host. A restart within `session.timeout.ms` then gets its
    /// partitions back and moves nobody else's. Empty: the host leaves the group whenever it ends, and its partitions move
    /// at once.
    pub instance_id: String,
    /// Passed to librdkafka as they are: TLS, SASL, fetch sizes.
    pub properties: BTreeMap<String, String>,
    /// Seconds that a revoked partition may take to settle, flush and commit; at most a fifth of
    /// `max.poll.interval.ms` (S46).
    pub revoke_budget_seconds: f64,
    /// Seconds that `run` repeats at its start what may pass by itself: a topic that does not exist yet or has no leaders yet,
    /// brokers and destinations that refuse the connection (S124a). `check --connect` repeats nothing.
    pub start_timeout_seconds: f64,
    /// What happens when records between the committed offset and the first one that the broker still has are gone, or
    /// when the log was cut below the committed offset (S52).
    pub on_offset_gap: OnOffsetGap,
}

/// What happens when records that were never read are gone from the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnOffsetGap {
    /// Tidegate stops and says which offsets are missing.
    #[default]
    Stop,
    /// Reading goes on at the first record that there is, or where the log was cut; the lost records are logged and
    /// counted.
    Continue,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            brokers: Brokers::default(),
            source_topic: String::new(),
            source_topics: Vec::new(),
            group: String::new(),
            instance_id: String::new(),
            properties: BTreeMap::new(),
            revoke_budget_seconds: 10.0,
            start_timeout_seconds: 10.0,
            on_offset_gap: OnOffsetGap::default(),
        }
    }
}

impl Options {
    /// Every topic to consume, in the order given.
    pub fn topics(&self) -> Vec<String> {
        let one = Some(self.source_topic.clone()).filter(|topic| !topic.is_empty());
        one.into_iter().chain(self.source_topics.iter().cloned()).collect()
    }
}

/// How large a window may become (S59).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most records.
    pub records: usize,
    /// Most bytes of keys, values and headers; a single larger record still makes a window of its own.
    pub bytes: usize,
    /// What records may take in memory, over all partitions (S15).
    pub memory: Budget,
    /// How many partitions the topics have: what is fetched ahead is divided by it.
    pub partitions: usize,
}

/// Which part of the topics is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Where partitions start for which the group has committed nothing; left out, as the configuration says (S51).
    pub first: Option<First>,
    /// Ends once the group has committed everything that the topics' partitions held at the start, instead of waiting
    /// for more.
    pub until_end: bool,
}

/// A member of the consumer group.
pub struct KafkaSource {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Event<KafkaReader>>,
    bell: Arc<Bell>,
    memory: Arc<Account>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl KafkaSource {
    /// Joins the group and starts the polling thread. Reaches no broker: [`probe`] does, before.
    ///
    /// # Errors
    /// When an option cannot be used.
    pub fn start(options: &Options, limits: Limits) -> Result<Self, Fault> {
        Self::over(options, limits, Span::default())
    }

    /// The same for a part of the topics.
    ///
    /// # Errors
    /// When an option cannot be used.
    pub fn over(options: &Options, limits: Limits, span: Span) -> Result<Self, Fault> {
        let config::Consumer { client, first } = config::consumer(options, limits.memory.prefetch(limits.partitions))?;
        let bell = Arc::new(Bell::default());
        let mut consumer: BaseConsumer<Context> = client
            .create_with_context(Context::default())
            .map_err(|error| Fault::config("the Kafka consumer cannot be created").because(error))?;
        consumer.set_nonempty_callback({
            let bell = Arc::clone(&bell);
            move || bell.ring()
        });
        let memory = Account::new(limits.memory.record_bytes);
        memory.on_relief({
            let bell = Arc::clone(&bell);
            move || bell.ring()
        });
        let (commands, orders) = mpsc::channel(COMMANDS);
        let (reports, events) = mpsc::channel(EVENTS);
        let settings = poller::Settings {
            topics: options.topics(),
            limits: Limits { records: limits.records.max(1), bytes: limits.bytes.max(1), ..limits },
            first: span.first.unwrap_or(first),
            until_end: span.until_end,
            on_offset_gap: options.on_offset_gap,
            read_committed: config::reads_committed(&client),
            witness: Arc::new(Witness::new(client.clone())),
            client,
        };
        let shared = (Arc::clone(&memory), Arc::clone(&bell));
        let poller = Poller::new(Arc::new(consumer), settings, shared, (commands.downgrade(), orders), reports)?;
        let thread = std::thread::Builder::new()
            .name("kafka-poll".into())
            .spawn(move || poller.run())
            .map_err(|error| Fault::host("the thread that polls Kafka cannot be started").because(error))?;
        Ok(Self { commands, events, bell, memory, thread: Some(thread) })
    }

    /// What records take in memory.
    pub fn memory(&self) -> Arc<Account> {
        Arc::clone(&self.memory)
    }

    async fn order(&self, command: Command) {
        // A thread that is gone holds nothing that the order could be about.
        let _ = self.commands.send(command).await;
        self.bell.ring();
    }
}

#[async_trait]
impl Source for KafkaSource {
    type Reader = KafkaReader;

    async fn next(&mut self) -> Event<KafkaReader> {
        match self.events.recv().await {
            Some(event) => event,
            None => Event::Failed(Fault::host("the thread that polls Kafka has ended")),
        }
    }

    async fn release(&mut self, partitions: Vec<TopicPartition>) {
        let (done, released) = oneshot::channel();
        self.order(Command::Release { partitions, done }).await;
        let _ = released.await;
    }

    async fn close(&mut self, patience: Duration) {
        let Some(thread) = self.thread.take() else { return };
        self.order(Command::Close).await;
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(patience, joined).await.is_err() {
            tracing::warn!("the Kafka consumer did not close in time and is left to the end of the process");
        }
    }
}
