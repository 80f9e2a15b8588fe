//! A topic: of the source's broker behind a proxy, of a broker of its own, or of three.

use std::time::Instant;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::Destination;
use crate::help::{Onlooker, PATIENCE, broker, unique};
use crate::outages::matrix::Outage;
use crate::outages::process::Process;
use crate::outages::rows::Written;
use crate::support::broker::Broker;
use crate::support::certificates::Certificates;
use crate::support::cluster::{BROKERS, Cluster};
use crate::support::proxy::Proxy;

const USER: &str = "tidegate";
const PASSWORD: &str = "secret";

enum Server {
    Shared(Proxy),
    Own(Box<Broker>),
    Three(Cluster),
}

pub struct Topic {
    server: Server,
    name: String,
    /// Of three brokers: the one that was killed.
    killed: Option<usize>,
}

impl Topic {
    pub fn start(outage: Outage, source: &str, runtime: &Runtime) -> Self {
        let name = unique(&format!("{source}-results"));
        let server = match outage {
            Outage::Killed => Server::Own(Box::new(Broker::start())),
            Outage::LoginRevoked => Server::Own(Box::new(Broker::secured(USER, PASSWORD))),
            Outage::FailedOver | Outage::ReadOnly => Server::Three(Cluster::start()),
            _ => Server::Shared(broker().proxy()),
        };
        runtime.block_on(async {
            match &server {
                Server::Shared(_) => broker().create_topic(&name, 1, &[]).await,
                Server::Own(own) => own.create_topic(&name, 1, &[]).await,
                Server::Three(cluster) => cluster.create_topic(&name, 1).await,
            }
        });
        Self { server, name, killed: None }
    }

    /// Where the test itself looks.
    fn bootstrap(&self) -> String {
        match &self.server {
            Server::Shared(_) => broker().bootstrap(),
            Server::Own(own) => own.bootstrap(),
            Server::Three(cluster) => cluster.bootstrap(),
        }
    }

    /// How many replicas the topic wants to be in sync. It has three.
    fn wants_in_sync(&self, replicas: &str) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap();
        let wanted = AlterConfig::new(ResourceSpecifier::Topic(&self.name)).set("min.insync.replicas", replicas);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for result in runtime.block_on(admin.alter_configs([&wanted], &AdminOptions::new())).unwrap() {
            result.unwrap();
        }
    }

    fn leader(&self) -> Option<usize> {
        let leader = Onlooker::on(&self.bootstrap(), "looks-only").leader(&self.name, 0)?;
        usize::try_from(leader - 1).ok()
    }
}

impl Destination for Topic {
    fn sinks(&self) -> Value {
        let mut sink = json!({ "topic": self.name });
        match &self.server {
            Server::Shared(proxy) => sink["brokers"] = proxy.address().into(),
            Server::Three(cluster) => sink["brokers"] = cluster.bootstrap().into(),
            Server::Own(own) if own.is_secured() => {
                sink["brokers"] = own.secure_bootstrap().into();
                sink["properties"] = json!({
                    "security.protocol": "SASL_SSL", "ssl.ca.location": Certificates::shared().authority(),
                    "sasl.mechanism": "PLAIN", "sasl.username": USER, "sasl.password": PASSWORD,
                });
            }
            Server::Own(own) => sink["brokers"] = own.bootstrap().into(),
        }
        json!({ "kafka": { "results": sink } })
    }

    fn proxy(&self) -> Option<&Proxy> {
        match &self.server {
            Server::Shared(proxy) => Some(proxy),
            _ => None,
        }
    }

    fn begin(&mut self, outage: Outage, _: &Process) {
        let leader = self.leader();
        match (&mut self.server, outage) {
            (Server::Own(own), Outage::Killed) => own.kill(),
            (Server::Own(own), Outage::LoginRevoked) => {
                own.kill();
                own.knows(USER, "another");
                own.restart();
            }
            (Server::Three(cluster), Outage::FailedOver) => {
                let leader = leader.unwrap();
                cluster.kill(leader);
                self.killed = Some(leader);
            }
            (Server::Three(cluster), Outage::ReadOnly) => {
                cluster.kill((leader.unwrap() + 1) % BROKERS);
                self.wants_in_sync("3");
            }
            (_, other) => panic!("{other:?} is the proxy's"),
        }
    }

    fn end(&mut self, outage: Outage, _: &Process) {
        match (&mut self.server, outage) {
            (Server::Own(own), Outage::Killed) => own.restart(),
            (Server::Own(own), Outage::LoginRevoked) => {
                own.kill();
                own.knows(USER, PASSWORD);
                own.restart();
            }
            (Server::Three(_), Outage::ReadOnly) => self.wants_in_sync("2"),
            _ => {}
        }
    }

    fn is_taken_over(&self) -> bool {
        self.leader().is_some_and(|leader| self.killed != Some(leader))
    }

    fn written(&self) -> Vec<Written> {
        vec![Written::Rows(read(&self.bootstrap(), &self.name))]
    }
}

/// The ids that stand in the topic. A broker that is dead is reported between the records of those that live.
fn read(bootstrap: &str, topic: &str) -> Vec<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "looks-only")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let started = Instant::now();
    let end = loop {
        match consumer.fetch_watermarks(topic, 0, PATIENCE) {
            Ok((_, end)) => break end,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
    };
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut ids = Vec::new();
    while i64::try_from(ids.len()).unwrap() < end {
        match consumer.poll(PATIENCE) {
            Some(Ok(record)) => {
                let row: Value = serde_json::from_slice(record.payload().unwrap()).unwrap();
                ids.push(row["id"].as_i64().unwrap());
            }
            Some(Err(_)) if started.elapsed() < PATIENCE => {}
            other => panic!("{} of {end} records came, and then {other:?}", ids.len()),
        }
    }
    ids
}
