//! What every test here needs: the shared broker, a source on it, and a look into topics.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::metadata::MetadataPartition;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset as Position, TopicPartitionList};
use tidegate::memory::Budget;
use tidegate::model::{Batch, Fault, TopicPartition};
use tidegate::source::kafka::{Brokers, KafkaReader, KafkaSource, Limits, Options};
use tidegate::source::{Event, Read, Reader, Source};

use crate::support::broker::Broker;

/// The longest that anything here may take; far more than it ever does.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The configuration's defaults.
pub const LIMITS: Limits = Limits { records: 1024, bytes: 16 << 20, memory: Budget::of_mebibytes(128), partitions: 4 };

/// One broker for all tests of this process.
pub fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(Broker::start)
}

/// A name that no other test uses.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A topic of its own for a test.
pub async fn topic(stem: &str, partitions: i32) -> String {
    let name = unique(stem);
    // Kept for ever: some tests write records that are years old.
    broker().create_topic(&name, partitions, &[("retention.ms", "-1")]).await;
    name
}

/// Options with a group's times as short as the broker allows.
pub fn options(topic: &str, group: &str) -> Options {
    let properties = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")];
    Options {
        brokers: Brokers::One(broker().bootstrap()),
        source_topic: topic.into(),
        group: group.into(),
        properties: properties.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        ..Options::default()
    }
}

pub fn start(options: &Options) -> KafkaSource {
    KafkaSource::start(options, LIMITS).unwrap()
}

/// Waits for partitions, in order of their numbers, until there are as many as named.
pub async fn assigned(source: &mut KafkaSource, count: usize) -> Vec<KafkaReader> {
    let mut readers = Vec::new();
    while readers.len() < count {
        match tokio::time::timeout(PATIENCE, source.next()).await.expect("no assignment came") {
            Event::Assigned(more) => readers.extend(more),
            Event::Failed(fault) => panic!("{fault}"),
            // Of partitions that are given at the same time.
            Event::Gap { .. } => {}
            _ => panic!("an assignment was expected"),
        }
    }
    readers.sort_by_key(|reader| reader.partition().clone());
    readers
}

/// Reads windows until there are `count` records, and joins them.
pub async fn read(reader: &mut KafkaReader, count: usize) -> Batch {
    let mut all = Batch::new(reader.partition().clone());
    while all.len() < count {
        let Ok(read) = tokio::time::timeout(PATIENCE, reader.read()).await else {
            panic!("{} of {count} records came; the log ends at {:?}", all.len(), reader.log_end());
        };
        match read.unwrap() {
            Read::Records(window) => (0..window.len()).for_each(|row| all.push_row(&window, row)),
            Read::Position(_) => {}
        }
    }
    all
}

/// Ends a source as the pipeline does: readers first.
pub async fn finish(mut source: KafkaSource, readers: Vec<KafkaReader>) {
    drop(readers);
    tokio::time::timeout(PATIENCE, source.close(PATIENCE)).await.expect("the source did not close");
}

/// One record to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp: Option<i64>,
}

impl Row {
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }
}

/// Writes rows to one partition, in order, and waits until the broker has them.
pub fn produce(topic: &str, partition: i32, rows: impl IntoIterator<Item = Row>) {
    produce_on(&broker().bootstrap(), topic, partition, rows);
}

/// The same on a broker of one's own.
pub fn produce_on(bootstrap: &str, topic: &str, partition: i32, rows: impl IntoIterator<Item = Row>) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("message.max.bytes", "100000000")
        .set("queue.buffering.max.messages", "2000000")
        .set("linger.ms", "5")
        .create()
        .unwrap();
    for row in rows {
        let mut record = BaseRecord::to(topic).partition(partition);
        record.key = row.key.as_deref();
        record.payload = row.value.as_deref();
        record.timestamp = row.timestamp;
        if !row.headers.is_empty() {
            record.headers = Some(row.headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
                headers.insert(Header { key: name, value: value.as_ref() })
            }));
        }
        let record: BaseRecord<'_, [u8], [u8]> = record;
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// The end of a partition's log on a broker of one's own.
pub fn end_on(bootstrap: &str, topic: &str, partition: i32) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap().1
}

/// Sets properties of a topic; those that are not named get their defaults.
pub async fn alter(topic: &str, properties: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker().bootstrap()).create().unwrap();
    let mut wanted = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in properties {
        wanted = wanted.set(name, value);
    }
    for result in admin.alter_configs([&wanted], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
}

/// Reads what it is assigned, and joins nothing.
pub fn looker() -> BaseConsumer {
    looker_on(&broker().bootstrap())
}

fn looker_on(bootstrap: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "looks-only");
    config.set("enable.auto.commit", "false").create().unwrap()
}

/// Everything that a topic holds now: partition, offset, record.
pub fn contents(topic: &str) -> Vec<(i32, i64, Row)> {
    contents_on(&broker().bootstrap(), topic)
}

/// The same on a broker of one's own.
pub fn contents_on(bootstrap: &str, topic: &str) -> Vec<(i32, i64, Row)> {
    let consumer = looker_on(bootstrap);
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let (mut list, mut left) = (TopicPartitionList::new(), BTreeMap::new());
    for partition in metadata.topics()[0].partitions() {
        list.add_partition_offset(topic, partition.id(), Position::Beginning).unwrap();
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE).unwrap();
        left.insert(partition.id(), high - low);
    }
    consumer.assign(&list).unwrap();
    let mut rows = Vec::new();
    while left.values().any(|left| *left > 0) {
        let record = consumer.poll(PATIENCE).expect("the topic is not readable").unwrap();
        *left.get_mut(&record.partition()).unwrap() -= 1;
        let headers = record.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        let row = Row {
            key: record.key().map(<[u8]>::to_vec),
            value: record.payload().map(<[u8]>::to_vec),
            headers,
            timestamp: record.timestamp().to_millis(),
        };
        rows.push((record.partition(), record.offset(), row));
    }
    rows.sort_by_key(|(partition, offset, _)| (*partition, *offset));
    rows
}

/// Looks on at a group and at topics without joining.
pub struct Onlooker(BaseConsumer);

impl Onlooker {
    pub fn new(group: &str) -> Self {
        Self::on(&broker().bootstrap(), group)
    }

    /// The same on a broker of one's own.
    pub fn on(bootstrap: &str, group: &str) -> Self {
        let mut config = ClientConfig::new();
        Self(config.set("bootstrap.servers", bootstrap).set("group.id", group).create().unwrap())
    }

    /// What the group has committed for a partition.
    pub fn committed(&self, topic: &str, partition: i32) -> Option<i64> {
        let started = std::time::Instant::now();
        loop {
            match self.ask_committed(topic, partition) {
                Ok(offset) => return offset,
                // A group that is just being made has no coordinator yet.
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The same, asked once.
    pub fn ask_committed(&self, topic: &str, partition: i32) -> KafkaResult<Option<i64>> {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let found = self.0.committed_offsets(list, PATIENCE)?;
        Ok(match found.elements()[0].offset() {
            Position::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    /// What the brokers say of a topic's partitions; none when it is not there. A broker that is gone may have been asked first.
    fn partitions_of<T>(&self, topic: &str, each: impl Fn(&MetadataPartition) -> T) -> Vec<T> {
        let started = std::time::Instant::now();
        loop {
            match self.0.fetch_metadata(Some(topic), Duration::from_secs(10)) {
                Ok(metadata) => {
                    let found = metadata.topics().iter().find(|found| found.name() == topic);
                    return found.map_or_else(Vec::new, |found| found.partitions().iter().map(each).collect());
                }
                Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
            }
        }
    }

    /// What they say of one partition, as leader, replicas and replicas in sync.
    fn partition(&self, topic: &str, partition: i32) -> (i32, Vec<i32>, Vec<i32>) {
        let all = self.partitions_of(topic, |found| {
            (found.id(), (found.leader(), found.replicas().to_vec(), found.isr().to_vec()))
        });
        all.into_iter().find(|(id, _)| *id == partition).unwrap().1
    }

    /// How many partitions a topic has, none when it is not there.
    pub fn partitions(&self, topic: &str) -> usize {
        self.partitions_of(topic, |_| ()).len()
    }

    /// How many partitions of a topic have a leader.
    pub fn led(&self, topic: &str) -> usize {
        self.partitions_of(topic, MetadataPartition::leader).into_iter().filter(|leader| *leader >= 0).count()
    }

    /// The broker that leads a partition, if one does.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        Some(self.partition(topic, partition).0).filter(|leader| *leader >= 0)
    }

    /// The brokers that have a copy of a partition.
    pub fn replicas(&self, topic: &str, partition: i32) -> Vec<i32> {
        self.partition(topic, partition).1
    }

    /// Those of them that have everything.
    pub fn in_sync(&self, topic: &str, partition: i32) -> Vec<i32> {
        self.partition(topic, partition).2
    }

    /// The end of a partition's log.
    pub fn end(&self, topic: &str, partition: i32) -> i64 {
        self.0.fetch_watermarks(topic, partition, PATIENCE).unwrap().1
    }
}

/// What a group has committed for a partition.
pub fn committed(topic: &str, partition: i32, group: &str) -> Option<i64> {
    Onlooker::new(group).committed(topic, partition)
}

/// The fault that a source reports.
pub async fn failure(source: &mut KafkaSource) -> Fault {
    loop {
        if let Event::Failed(fault) = tokio::time::timeout(PATIENCE, source.next()).await.expect("no fault came") {
            return fault;
        }
    }
}

pub fn place(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

/// Deletes the records of a partition below an offset, as retention would.
pub async fn delete_below(topic: &str, partition: i32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", broker().bootstrap()).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Position::Offset(offset)).unwrap();
    admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
}

/// Writes transactions of so many records each to partition 0, committed or aborted.
pub fn transactions(topic: &str, sizes: &[(usize, bool)]) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", broker().bootstrap())
        .set("transactional.id", unique("writer"))
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    for (size, commit) in sizes {
        producer.begin_transaction().unwrap();
        for _ in 0..*size {
            let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0).payload(b"in a transaction");
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        if *commit {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.abort_transaction(PATIENCE).unwrap();
        }
    }
}
