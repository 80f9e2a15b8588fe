//! Kafka as a source.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

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
pub struct Options {
    /// `host:port`, or a list of them.
    pub brokers: Brokers,
    /// The topic to consume; or use `source_topics`.
    pub source_topic: String,
    /// The topics to consume, when there are several.
    pub source_topics: Vec<String>,
    /// The consumer group, under which offsets are committed.
    pub group: String,
    /// Passed to librdkafka as they are: TLS, SASL, fetch sizes.
    pub properties: BTreeMap<String, String>,
    /// Seconds that a revoked partition may take to settle, flush and commit; at most a fifth of
    /// `max.poll.interval.ms` (S46).
    pub revoke_budget_seconds: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            brokers: Brokers::default(),
            source_topic: String::new(),
            source_topics: Vec::new(),
            group: String::new(),
            properties: BTreeMap::new(),
            revoke_budget_seconds: 10.0,
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
