//! The topics: filled before, and counted behind.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::support::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(600);
const ANSWER: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
/// What an id begins with, and how many digits follow.
pub const ID_PREFIX: &str = "r-";
pub const ID_DIGITS: usize = 10;

/// A search request of 200 bytes with one matching line, which every guest here can read.
pub fn request(number: u64) -> String {
    format!(
        r#"{{"request_id":"{ID_PREFIX}{number:010}","pattern":"timeout","text":"GET /health 200 in 3 ms\nread timeout after 3000 ms\nretrying, attempt 2 of 5, with a pause of 250 ms\norder accepted, 14 items, total 203.50"}}"#
    )
}

/// A topic with so many records. Number n lies on partition n modulo the number of partitions, at the offset of the quotient.
pub async fn fill(broker: &Broker, partitions: i32, records: u64) -> String {
    let topic = format!("backlog-on-{partitions}");
    // However long it takes to read it as often as there are cases.
    broker.create_topic(&topic, partitions, &[("retention.ms", "-1")]).await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .unwrap();
    for number in 0..records {
        let value = request(number);
        let partition = i32::try_from(number % u64::try_from(partitions).unwrap()).unwrap();
        let key = number.to_string();
        let mut record = BaseRecord::to(&topic).partition(partition).key(&key).payload(&value);
        while let Err((error, refused)) = producer.send(record) {
            assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
            producer.poll(Duration::from_millis(10));
            record = refused;
        }
    }
    producer.flush(PATIENCE).unwrap();
    assert_eq!(self::records(broker, &topic), records, "not everything was written");
    topic
}

/// How many records a topic holds; none when it is not there.
pub fn records(broker: &Broker, topic: &str) -> u64 {
    if topic.is_empty() {
        return 0;
    }
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).set("log_level", "0").create().unwrap();
    let metadata = answered(|| consumer.fetch_metadata(Some(topic), ANSWER));
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    let held = partitions.map(|partition| {
        let (low, high) = answered(|| consumer.fetch_watermarks(topic, partition.id(), ANSWER));
        u64::try_from(high - low).unwrap()
    });
    held.sum()
}

/// Asks a broker that is busy with the records until it answers.
fn answered<T>(ask: impl Fn() -> KafkaResult<T>) -> T {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(PAUSE);
    }
}
