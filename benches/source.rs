//! How fast the source hands over records: 2,000,000 of 200 bytes from 4 partitions of a real broker on this machine.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

#[path = "../tests/support/broker.rs"]
mod broker;

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidegate::pipeline::options::WindowOptions;
use tidegate::source::kafka::{Brokers, KafkaReader, KafkaSource, Options};
use tidegate::source::{Event, Read, Reader, Source};

const PARTITIONS: i32 = 4;
const RECORDS: usize = 500_000;
const TOPIC: &str = "bench";

#[tokio::main]
async fn main() {
    let mut broker = broker::Broker::start();
    broker.create_topic(TOPIC, PARTITIONS, &[]).await;
    write(&broker.bootstrap());
    for round in 1..=3 {
        let options = Options {
            brokers: Brokers::One(broker.bootstrap()),
            source_topic: TOPIC.into(),
            group: format!("bench-{round}"),
            ..Options::default()
        };
        let mut source = KafkaSource::start(&options, &WindowOptions::default()).unwrap();
        let Event::Assigned(readers) = source.next().await else { panic!("no assignment came") };
        let started = Instant::now();
        let all: Vec<_> = readers.into_iter().map(|reader| tokio::spawn(drain(reader))).collect();
        let mut windows = 0;
        for one in all {
            windows += one.await.unwrap();
        }
        report(started.elapsed(), windows);
        source.close().await;
    }
    broker.stop();
}

async fn drain(mut reader: KafkaReader) -> usize {
    let (mut records, mut windows) = (0, 0);
    while records < RECORDS {
        if let Read::Records(window) = reader.read().await.unwrap() {
            records += window.len();
            windows += 1;
        }
    }
    windows
}

fn report(took: Duration, windows: usize) {
    let records = RECORDS * usize::try_from(PARTITIONS).unwrap();
    let rate = u128::try_from(records).unwrap() * 1000 / took.as_millis().max(1);
    println!("{records} records in {} ms: {rate} records/s, {} records a window", took.as_millis(), records / windows);
}

fn write(brokers: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .unwrap();
    let value = [b'x'; 200];
    for n in 0..RECORDS {
        for partition in 0..PARTITIONS {
            let key = n.to_be_bytes();
            let mut record = BaseRecord::to(TOPIC).partition(partition).key(&key[..]).payload(&value[..]);
            while let Err((error, back)) = producer.send(record) {
                assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
                producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
    }
    producer.flush(Duration::from_secs(120)).unwrap();
}
