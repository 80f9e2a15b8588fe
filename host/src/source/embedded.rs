//! librdkafka's in-process broker, for `demo` and first steps.
//!
//! It speaks Kafka on a port of this machine and keeps everything in memory: at most 5 MiB or 100,000 records a partition,
//! older ones vanish. Joining a group takes it some five seconds, it has no administration, and it proves nothing about
//! transactions: its read-committed returns aborted records. It ends with the value that stands for it.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::model::Fault;

/// Copies of each partition: with one broker there is one.
const REPLICAS: i32 = 1;

/// A running in-process broker.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts it on a free port of the loopback interface.
    ///
    /// # Errors
    /// When librdkafka cannot start it.
    pub fn start() -> Result<Self, Fault> {
        let cluster = MockCluster::new(1)
            .map_err(|error| Fault::host("the in-process Kafka broker cannot be started").because(error))?;
        Ok(Self { cluster })
    }

    /// Creates a topic; a topic that is written to first would get four partitions by itself.
    ///
    /// # Errors
    /// When librdkafka refuses the name or the number.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), Fault> {
        self.cluster
            .create_topic(topic, partitions, REPLICAS)
            .map_err(|error| Fault::host(format!("topic `{topic}` cannot be created in process")).because(error))
    }

    /// `host:port`, for clients to connect to.
    pub fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::*;
    use crate::source::kafka::{Brokers, Options, probe};

    #[tokio::test]
    async fn an_embedded_topic_is_found_by_the_probe() {
        let broker = EmbeddedBroker::start().unwrap();
        broker.create_topic("orders", 3).unwrap();
        let options =
            Options { brokers: Brokers::One(broker.brokers()), source_topic: "orders".into(), ..Options::default() };
        assert_eq!(probe(&options, Duration::from_secs(10)).await.unwrap(), [("orders".to_owned(), 3)]);
    }
}
