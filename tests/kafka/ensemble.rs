//! Several hosts in one process: pipelines on the shared broker, as `run` puts them together, over sinks that do as a test
//! tells them. What happens to whom is written down in one list, so that tests can speak of the order of facts instead of
//! times.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tidegate::clock::RealClock;
use tidegate::collect::{Collect, Collected};
use tidegate::model::{Answer, Batch, CallError, Fault, SinkKind, TopicPartition};
use tidegate::pipeline::dlq::{DeadLetters, Letter};
use tidegate::pipeline::options::CheckpointOptions;
use tidegate::pipeline::shared::Settings;
use tidegate::pipeline::{NamedSink, Parts, run};
use tidegate::sink::{Description, Sink, Style};
use tidegate::source::kafka::{Brokers, KafkaReader, KafkaSource, Limits, Options};
use tidegate::source::{Event, Reader, Source};
use tidegate::telemetry::Counters;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::help::{Onlooker, PATIENCE, broker, unique};
use crate::support::broker::Broker;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// The source gave a partition; its one offset is the start.
    Assigned,
    Revoked,
    Lost,
    /// A call began.
    Collect,
    Deliver,
    Add,
    Flush,
    Discard,
    Close,
    /// A call of that kind held: these offsets stand in the destination.
    Delivered,
    Flushed,
    /// A call was answered with backpressure.
    Refused,
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub host: usize,
    /// The sink's name; empty for source and collector.
    pub sink: &'static str,
    pub what: What,
    pub partition: i32,
    pub offsets: Vec<i64>,
}

/// What is being asked of a sink or a collector.
pub struct Call<'a> {
    pub host: usize,
    pub sink: &'static str,
    pub what: What,
    pub partition: i32,
    /// Such calls before this one, of this host, sink and partition.
    pub earlier: usize,
    pub offsets: &'a [i64],
}

/// What a call does.
pub enum Act {
    Take,
    Backpressure(Duration),
    /// Takes so long, then takes the rows.
    Slow(Duration),
    Hang,
    Fail(CallError),
}

pub type Script = Arc<dyn Fn(&Call<'_>) -> Act + Send + Sync>;

/// Whatever is asked is done.
pub fn willing() -> Script {
    Arc::new(|_| Act::Take)
}

/// The list of what happened, shared by all hosts of a test.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Fact>>>);

impl Log {
    fn note(&self, host: usize, sink: &'static str, what: What, partition: i32, offsets: &[i64]) {
        self.lines().push(Fact { host, sink, what, partition, offsets: offsets.to_vec() });
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Fact>> {
        self.0.lock().unwrap()
    }

    pub fn facts(&self) -> Vec<Fact> {
        self.lines().clone()
    }

    pub fn count(&self, holds: impl Fn(&Fact) -> bool) -> usize {
        self.lines().iter().filter(|fact| holds(fact)).count()
    }

    /// What a sink wrote of a partition, by whichever host, in the order in which it was written.
    pub fn written(&self, sink: &str, partition: i32) -> Vec<i64> {
        let written = |fact: &&Fact| {
            matches!(fact.what, What::Delivered | What::Flushed) && fact.sink == sink && fact.partition == partition
        };
        self.lines().iter().filter(written).flat_map(|fact| fact.offsets.clone()).collect()
    }

    /// Waits until the list holds something.
    pub async fn until(&self, what: &str, holds: impl Fn(&[Fact]) -> bool) {
        let started = Instant::now();
        while !holds(&self.lines()) {
            assert!(started.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}: {}", self.tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The partitions that a host holds now.
    pub fn held(&self, host: usize) -> BTreeSet<i32> {
        held(&self.lines(), host)
    }

    pub fn tail(&self) -> String {
        let facts = self.facts();
        let shown = facts.iter().skip(facts.len().saturating_sub(40)).map(|fact| {
            let ends = (fact.offsets.first(), fact.offsets.last());
            format!("\n  host {} {} {:?} [{}] {ends:?}", fact.host, fact.sink, fact.what, fact.partition)
        });
        shown.collect()
    }
}

/// The partitions that a host holds after these facts.
pub fn held(facts: &[Fact], host: usize) -> BTreeSet<i32> {
    let mut held = BTreeSet::new();
    for fact in facts.iter().filter(|fact| fact.host == host) {
        match fact.what {
            What::Assigned => drop(held.insert(fact.partition)),
            What::Revoked | What::Lost => drop(held.remove(&fact.partition)),
            _ => {}
        }
    }
    held
}

/// Offsets without a repetition and without a gap.
pub fn all(count: i64) -> Vec<i64> {
    (0..count).collect()
}

/// Asks the script, having written the call down, and does as it says.
async fn ask(
    log: &Log,
    script: &Script,
    counts: &Mutex<BTreeMap<(What, i32), usize>>,
    call: Call<'_>,
) -> Result<(), CallError> {
    let Call { host, sink, what, partition, offsets, .. } = call;
    let earlier = {
        let mut counts = counts.lock().unwrap();
        let count = counts.entry((what, partition)).or_default();
        *count += 1;
        *count - 1
    };
    log.note(host, sink, what, partition, offsets);
    match script(&Call { earlier, ..call }) {
        Act::Take => Ok(()),
        Act::Backpressure(wait) => {
            log.note(host, sink, What::Refused, partition, offsets);
            Err(CallError::Backpressure(wait))
        }
        Act::Slow(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Act::Hang => std::future::pending().await,
        Act::Fail(error) => Err(error),
    }
}

struct Scripted {
    host: usize,
    name: &'static str,
    style: Style,
    script: Script,
    log: Log,
    counts: Mutex<BTreeMap<(What, i32), usize>>,
    buffers: Mutex<BTreeMap<i32, Vec<i64>>>,
}

impl Scripted {
    async fn ask(&self, what: What, partition: i32, offsets: &[i64]) -> Result<(), CallError> {
        let call = Call { host: self.host, sink: self.name, what, partition, earlier: 0, offsets };
        ask(&self.log, &self.script, &self.counts, call).await
    }

    fn take_buffer(&self, partition: i32) -> Vec<i64> {
        self.buffers.lock().unwrap().remove(&partition).unwrap_or_default()
    }
}

#[async_trait]
impl Sink for Scripted {
    fn description(&self) -> Description {
        Description { style: self.style, ..Description::direct(false) }
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        let partition = batch.source.partition;
        self.ask(What::Deliver, partition, &batch.offsets).await?;
        self.log.note(self.host, self.name, What::Delivered, partition, &batch.offsets);
        Ok(Vec::new())
    }

    async fn add(&self, batch: &Arc<Batch>) -> Answer {
        let partition = batch.source.partition;
        self.ask(What::Add, partition, &batch.offsets).await?;
        self.buffers.lock().unwrap().entry(partition).or_default().extend_from_slice(&batch.offsets);
        Ok(Vec::new())
    }

    async fn flush(&self, source: &TopicPartition) -> Answer {
        // The buffer is empty afterwards, whatever is returned.
        let rows = self.take_buffer(source.partition);
        self.ask(What::Flush, source.partition, &rows).await?;
        self.log.note(self.host, self.name, What::Flushed, source.partition, &rows);
        Ok(Vec::new())
    }

    async fn discard(&self, source: &TopicPartition) {
        let rows = self.take_buffer(source.partition);
        let _ = self.ask(What::Discard, source.partition, &rows).await;
    }

    async fn close(&self) -> Result<(), Fault> {
        self.ask(What::Close, -1, &[]).await.map_err(CallError::into_fault)
    }
}

struct Collector {
    host: usize,
    script: Script,
    log: Log,
    counts: Mutex<BTreeMap<(What, i32), usize>>,
}

#[async_trait]
impl Collect for Collector {
    async fn collect(&self, batch: &Arc<Batch>) -> Result<Collected, CallError> {
        let partition = batch.source.partition;
        let (host, offsets) = (self.host, &batch.offsets);
        let call = Call { host, sink: "", what: What::Collect, partition, earlier: 0, offsets };
        ask(&self.log, &self.script, &self.counts, call).await?;
        Ok(Collected::Passthrough)
    }
}

/// Keeps dead letters instead of writing them.
#[derive(Default)]
pub struct Letters(Mutex<Vec<Letter>>);

#[async_trait]
impl DeadLetters for Letters {
    async fn send(&self, letters: &[Letter]) -> Result<(), Fault> {
        self.0.lock().unwrap().extend_from_slice(letters);
        Ok(())
    }

    async fn connect(&self) -> Result<(), Fault> {
        Ok(())
    }

    async fn close(&self) {}
}

/// The Kafka source, with what it says written down.
struct Watched {
    source: KafkaSource,
    host: usize,
    log: Log,
}

#[async_trait]
impl Source for Watched {
    type Reader = KafkaReader;

    async fn next(&mut self) -> Event<KafkaReader> {
        let event = self.source.next().await;
        match &event {
            Event::Assigned(readers) => {
                for reader in readers {
                    self.log.note(self.host, "", What::Assigned, reader.partition().partition, &[reader.start()]);
                }
            }
            Event::Revoked(taken) => self.note(What::Revoked, taken),
            Event::Lost(taken) => self.note(What::Lost, taken),
            _ => {}
        }
        event
    }

    async fn release(&mut self, partitions: Vec<TopicPartition>) {
        self.source.release(partitions).await;
    }

    async fn close(&mut self, patience: Duration) {
        self.source.close(patience).await;
    }
}

impl Watched {
    fn note(&self, what: What, taken: &[TopicPartition]) {
        for partition in taken {
            self.log.note(self.host, "", what, partition.partition, &[]);
        }
    }
}

/// What a host is made of.
pub struct Plan {
    pub options: Options,
    pub settings: Settings,
    pub window: usize,
    pub sinks: Vec<(&'static str, Style, Script)>,
    /// A sink of ours, which nothing is written down about.
    pub native: Option<(SinkKind, Arc<dyn Sink>)>,
    /// A connected queue; without one dead letters are kept instead of written.
    pub dlq: Option<Arc<dyn DeadLetters>>,
    pub collector: Script,
}

/// Hosts of one group on one topic.
pub struct Ensemble {
    pub topic: String,
    pub group: String,
    pub log: Log,
    pub onlooker: Onlooker,
    bootstrap: String,
    producer: ThreadedProducer<DefaultProducerContext>,
    hosts: usize,
}

/// One running host.
pub struct Host {
    pub number: usize,
    pub counters: Arc<Counters>,
    letters: Arc<Letters>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), Fault>>,
}

impl Ensemble {
    /// A group on a new topic with so many records in each partition.
    pub async fn new(stem: &str, partitions: i32, records: usize) -> Self {
        let topic = super::help::topic(stem, partitions).await;
        let ensemble = Self::over(topic);
        for partition in 0..partitions {
            ensemble.produce(partition, records);
        }
        ensemble
    }

    /// The same on a topic that there is.
    pub fn over(topic: String) -> Self {
        Self::at(topic, broker().bootstrap())
    }

    /// A group on an empty topic of a broker of one's own.
    pub async fn on(own: &Broker, topic: &str, partitions: i32) -> Self {
        own.create_topic(topic, partitions, &[]).await;
        Self::at(topic.to_owned(), own.bootstrap())
    }

    fn at(topic: String, bootstrap: String) -> Self {
        let group = unique("ensemble");
        let onlooker = Onlooker::on(&bootstrap, &group);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &bootstrap).set("enable.idempotence", "true").set("linger.ms", "1");
        let producer = config.create().unwrap();
        Self { topic, group, log: Log::default(), onlooker, bootstrap, producer, hosts: 0 }
    }

    /// Writes so many more records to a partition, and waits until the broker has them.
    pub fn produce(&self, partition: i32, records: usize) {
        // One producer for all: each one's first record waits for a number from the broker.
        for n in 0..records {
            let value = format!("{{\"n\": {n}}}");
            let record: BaseRecord<'_, (), String> = BaseRecord::to(&self.topic).partition(partition).payload(&value);
            self.producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    /// What hosts are made of unless a test says otherwise: one buffering sink that takes everything, flushed often.
    pub fn plan(&self) -> Plan {
        // Long enough for a busy machine: whoever is to be lost here is given a shorter one.
        let properties = [("session.timeout.ms", "10000"), ("heartbeat.interval.ms", "300")];
        Plan {
            options: Options {
                brokers: Brokers::One(self.bootstrap.clone()),
                source_topic: self.topic.clone(),
                group: self.group.clone(),
                properties: properties.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
                ..Options::default()
            },
            settings: Settings {
                checkpoint: CheckpointOptions { interval_seconds: 0.2, ..CheckpointOptions::default() },
                revoke_budget: Duration::from_secs(10),
                is_replay: false,
                ..Settings::default()
            },
            window: 50,
            sinks: vec![("rows", Style::Buffering, willing())],
            native: None,
            dlq: None,
            collector: willing(),
        }
    }

    /// Starts a host.
    pub fn start(&mut self, plan: Plan) -> Host {
        let number = self.hosts;
        self.hosts += 1;
        let Plan { options, settings, window, sinks, native, dlq, collector } = plan;
        let log = &self.log;
        let mut named: Vec<NamedSink> = Vec::new();
        for (name, style, script) in sinks {
            let (log, counts, buffers) = (log.clone(), Mutex::default(), Mutex::default());
            let sink = Scripted { host: number, name, style, script, log, counts, buffers };
            named.push(NamedSink::new(SinkKind::Kafka, name, Arc::new(sink)));
        }
        named.extend(native.map(|(kind, sink)| NamedSink::new(kind, "native", sink)));
        let (counters, letters) = (Arc::new(Counters::default()), Arc::new(Letters::default()));
        let limits = Limits { records: window, bytes: 1 << 20, ..crate::help::LIMITS };
        let source = KafkaSource::start(&options, limits).unwrap();
        let parts = Parts {
            sinks: named,
            collector: Arc::new(Collector {
                host: number,
                script: collector,
                log: log.clone(),
                counts: Mutex::default(),
            }),
            collector_name: "scripted".into(),
            dlq: dlq.unwrap_or_else(|| letters.clone()),
            settings,
            counters: counters.clone(),
            memory: source.memory(),
        };
        let source = Watched { source, host: number, log: log.clone() };
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // Whoever lets go of a host ends it.
            let _ = stopped.await;
        };
        let running = tokio::spawn(run(parts, source, RealClock::start(), stopped));
        Host { number, counters, letters, stop: Some(stop), running }
    }

    /// What the group has committed for a partition, 0 when nothing.
    pub fn committed(&self, partition: i32) -> i64 {
        self.onlooker.committed(&self.topic, partition).unwrap_or(0)
    }

    /// Waits until these partitions are committed to an offset.
    pub async fn until_committed(&self, partitions: Range<i32>, offset: i64) {
        let started = Instant::now();
        for partition in partitions {
            while self.committed(partition) != offset {
                let (committed, tail) = (self.committed(partition), self.log.tail());
                assert!(
                    started.elapsed() < PATIENCE,
                    "[{partition}] is committed to {committed}, not {offset}: {tail}"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Host {
    /// Ends it in order, as SIGTERM does, and returns how it ended.
    pub async fn stop(mut self) -> Result<(), Fault> {
        drop(self.stop.take());
        self.ended().await
    }

    /// Waits until it ends by itself, or as ordered.
    pub async fn ended(&mut self) -> Result<(), Fault> {
        tokio::time::timeout(PATIENCE, &mut self.running).await.expect("the host does not end").unwrap()
    }

    pub fn is_running(&self) -> bool {
        !self.running.is_finished()
    }

    /// S37: backpressure is neither an attempt nor a failure.
    pub fn assert_nothing_was_given_up(&self) {
        assert_eq!(self.letters.0.lock().unwrap().as_slice(), []);
        for (name, sink) in self.counters.sinks() {
            let counts = [sink.retried.get(), sink.dead_lettered.get(), sink.skipped.get(), sink.reordered.get()];
            assert_eq!(counts, [0; 4], "{name}");
        }
        assert_eq!((self.counters.dead_letters(), self.counters.breaches.get()), (0, 0));
    }
}
