//! Kafka as a destination.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// One topic to write to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The topic.
    pub topic: String,
    /// `host:port`, several separated by commas; empty for the source's brokers and their properties (S103).
    #[serde(default)]
    pub brokers: String,
    /// Passed to librdkafka as they are.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}
