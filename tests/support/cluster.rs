//! Three real Apache Kafka brokers that replicate everything to one another, each a child of the test process.
#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::broker::{HEAP, create_topic, format_data, start};
use super::child::{Server, free_port, services_dir};

/// How many brokers there are, and how often everything is stored.
pub const BROKERS: usize = 3;
/// How many of the replicas have to have a record before it is acknowledged.
const IN_SYNC: &str = "2";
/// How long a broker may take to have caught up after its start.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// What differs from a single broker. A later line counts.
const OWN: &str = "default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
";

/// Three brokers, which are the controllers' quorum too. One of them may be down, and nothing is lost or stands still.
pub struct Cluster {
    nodes: Vec<Node>,
}

struct Node {
    server: Mutex<Server>,
    port: u16,
}

impl Cluster {
    /// Formats three data directories, starts a broker on each and waits until all answer.
    ///
    /// # Panics
    /// As [`super::broker::Broker::start`].
    pub fn start() -> Self {
        let ports: Vec<(u16, u16)> = (0..BROKERS).map(|_| (free_port(), free_port())).collect();
        let voters: Vec<String> =
            ports.iter().zip(1..).map(|((_, port), id)| format!("{id}@127.0.0.1:{port}")).collect();
        let shared = fs::read_to_string(services_dir().join("kafka/server.properties")).unwrap();
        let node = |(index, (port, controller)): (usize, &(u16, u16))| {
            let server = Server::new("cluster");
            let properties = format!(
                "node.id={}\ncontroller.quorum.voters={}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}\n{shared}\n{OWN}",
                index + 1,
                voters.join(","),
                server.dir().join("data").display(),
            );
            fs::write(server.dir().join("server.properties"), properties).unwrap();
            Node { server: Mutex::new(server), port: *port }
        };
        let cluster = Self { nodes: ports.iter().enumerate().map(node).collect() };
        std::thread::scope(|scope| {
            for (index, node) in cluster.nodes.iter().enumerate() {
                let cluster = &cluster;
                scope.spawn(move || {
                    format_data(node.server.lock().unwrap().dir());
                    cluster.restart(index);
                });
            }
        });
        cluster
    }

    /// Ends a broker as a crash would.
    pub fn kill(&self, broker: usize) {
        self.nodes[broker].server.lock().unwrap().kill();
    }

    /// Starts a broker again on its data and ports, and waits until it answers.
    pub fn restart(&self, broker: usize) {
        let node = &self.nodes[broker];
        start(&mut node.server.lock().unwrap(), &format!("127.0.0.1:{}", node.port), HEAP);
    }

    /// Waits until every replica of these topics and of the groups' offsets has caught up, so that the next broker may be lost.
    ///
    /// # Errors
    /// When that takes too long, with the last answer.
    pub fn is_in_sync(&self, topics: &[&str]) -> Result<(), String> {
        let client: BaseConsumer = self.client().create().unwrap();
        let started = Instant::now();
        loop {
            let lacking = match client.fetch_metadata(None, Duration::from_secs(5)) {
                Err(error) => error.to_string(),
                Ok(found) => {
                    let watched = |name: &str| name == "__consumer_offsets" || topics.contains(&name);
                    let behind = found
                        .topics()
                        .iter()
                        .filter(|topic| watched(topic.name()))
                        .find(|topic| topic.partitions().iter().any(|partition| partition.isr().len() < BROKERS));
                    match behind {
                        None => return Ok(()),
                        Some(topic) => format!("`{}` lacks replicas", topic.name()),
                    }
                }
            };
            if started.elapsed() > CATCH_UP_PATIENCE {
                return Err(format!("the brokers are not in sync in {CATCH_UP_PATIENCE:?}: {lacking}"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Where clients connect: all three.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        addresses.join(",")
    }

    /// A client's configuration, with nothing but where to connect.
    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.bootstrap()).set("log_level", "0");
        client
    }

    /// Creates a topic of which every broker has a copy, and waits until it is known.
    pub async fn create_topic(&self, name: &str, partitions: i32) {
        let replicas = i32::try_from(BROKERS).unwrap();
        create_topic(&self.bootstrap(), name, partitions, replicas, &[("min.insync.replicas", IN_SYNC)]).await;
    }

    /// What the brokers wrote, each with its number.
    pub fn logs(&self) -> Vec<(String, String)> {
        let log = |(index, node): (usize, &Node)| {
            let log = node.server.lock().unwrap_or_else(std::sync::PoisonError::into_inner).log();
            (format!("broker-{index}.log"), fs::read_to_string(log).unwrap_or_default())
        };
        self.nodes.iter().enumerate().map(log).collect()
    }
}
