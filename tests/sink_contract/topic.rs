//! A Kafka topic on a real broker.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde_json::{Value, json};
use tidegate::sink::Sink;
use tidegate::sink::kafka::{Inherited, KafkaSink};

use super::cases::{Destination, Row, SECRET};
use super::servers::unique;
use crate::support::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(60);

/// One topic. The broker is shared until a case takes it away, which then starts one of its own.
pub struct Topic {
    name: String,
    own: Option<Broker>,
}

fn shared() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(Broker::start)
}

impl Topic {
    pub async fn new() -> Self {
        let topic = Self { name: unique("rows"), own: None };
        topic.create().await;
        topic
    }

    fn broker(&self) -> &Broker {
        self.own.as_ref().unwrap_or_else(|| shared())
    }

    async fn create(&self) {
        self.broker().create_topic(&self.name, 1, &[("retention.ms", "-1")]).await;
    }

    fn sink_at(&self, brokers: &str, more: Value) -> Arc<dyn Sink> {
        let mut properties = json!({ "message.timeout.ms": "3000" });
        properties.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let options = json!({ "topic": self.name, "brokers": brokers, "properties": properties });
        Arc::new(KafkaSink::new(serde_json::from_value(options).unwrap(), &Inherited::default()).unwrap())
    }
}

#[async_trait]
impl Destination for Topic {
    async fn sink(&self) -> Arc<dyn Sink> {
        self.sink_at(&self.broker().bootstrap(), json!({}))
    }

    async fn nowhere(&self) -> Option<Arc<dyn Sink>> {
        let credentials = json!({
            "security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": SECRET,
        });
        Some(self.sink_at("127.0.0.1:1", credentials))
    }

    /// Kafka takes any bytes; only a header's name has to be text.
    fn spoil(&self, row: &mut Row) -> bool {
        row.header = Some(b"\xff".to_vec());
        true
    }

    async fn read(&self) -> Vec<Value> {
        let (name, brokers) = (self.name.clone(), self.broker().bootstrap());
        tokio::task::spawn_blocking(move || contents(&brokers, &name)).await.unwrap()
    }

    async fn alone(&mut self) {
        self.own = Some(Broker::start());
        self.create().await;
    }

    async fn take_away(&mut self) {
        self.own.as_mut().unwrap().kill();
    }

    async fn bring_back(&mut self) {
        self.own.as_mut().unwrap().restart();
    }
}

fn contents(brokers: &str, topic: &str) -> Vec<Value> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "looks-only")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let (low, high) = consumer.fetch_watermarks(topic, 0, PATIENCE).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    (low..high)
        .map(|_| {
            let record = consumer.poll(PATIENCE).expect("the topic is not readable").unwrap();
            serde_json::from_slice(record.payload().unwrap()).unwrap()
        })
        .collect()
}
