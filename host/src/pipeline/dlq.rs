//! The dead letter: what is kept of a payload or record that was given up on. Its JSON and headers are a public contract.

use std::borrow::Cow;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::options::DlqFormat;
use crate::model::{Batch, FailureKind, Fault, Headers, Offset, TopicPartition};
use payload::{Encoding, record_text};

pub mod kafka;
pub mod open;
pub mod payload;
pub mod size;

pub use open::{Content, Omitted, Opened, open};
pub use payload::payload_json;
pub use size::Extent;

/// The `sink_type` of a dead-lettered source record (S92).
pub const COLLECT: &str = "collect";

/// The headers of a letter (S92).
mod names {
    pub const TOPIC: &str = "tidegate-source-topic";
    pub const PARTITION: &str = "tidegate-source-partition";
    pub const OFFSET: &str = "tidegate-source-offset";
    pub const TIMESTAMP: &str = "tidegate-source-timestamp";
    pub const KEY: &str = "tidegate-source-key";
    pub const SINK: &str = "tidegate-sink";
    pub const ERROR: &str = "tidegate-error";
    pub const KIND: &str = "tidegate-error-kind";
    pub const ATTEMPTS: &str = "tidegate-attempts";
    pub const FAILED_AT: &str = "tidegate-failed-at";
    pub const FIRST_FAILED_AT: &str = "tidegate-first-failed-at";
    pub const REPLAYS: &str = "tidegate-replays";
    pub const VERSION: &str = "tidegate-version";
    /// `json` or `raw`: what the value is.
    pub const FORMAT: &str = "tidegate-letter";
    /// `text`, `base64` or `null`: how a source record's value stands in its payload.
    pub const ENCODING: &str = "tidegate-payload-encoding";
    /// Before the names of the record's own headers.
    pub const SOURCE_HEADER: &str = "tidegate-source-header.";
    /// The same where the name is no text: what follows is base64.
    pub const SOURCE_HEADER_B64: &str = "tidegate-source-header-b64.";
    /// Why there are no payloads.
    pub const PAYLOAD_OMITTED: &str = "tidegate-payload-omitted";
    /// Why the record's key is not whole.
    pub const KEY_OMITTED: &str = "tidegate-key-omitted";
    /// Why not all of the record's headers are there.
    pub const HEADERS_OMITTED: &str = "tidegate-headers-omitted";
    /// What these three say.
    pub const SIZE: &str = "size";
}

/// One payload or record that was given up on, with everything that its dead letter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The sink's kind, or [`COLLECT`] for a source record.
    pub sink_type: String,
    /// The sink's name, or the collector's.
    pub sink_name: String,
    /// Why, in words; never a secret.
    pub error: String,
    /// Whether it might have succeeded later.
    pub kind: FailureKind,
    /// Calls made (S91).
    pub attempt_count: u32,
    /// When it was given up, in milliseconds since the Unix epoch.
    pub failed_at: i64,
    /// When it was given up for the first time, where it has been replayed since.
    pub first_failed_at: Option<i64>,
    /// How often it has been replayed (S96).
    pub replays: u32,
    /// Where the record comes from.
    pub source: TopicPartition,
    /// The record's offset.
    pub offset: Offset,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's timestamp in milliseconds since the Unix epoch, -1 when unknown.
    pub timestamp: i64,
    /// The record's headers, in order.
    pub headers: Headers,
    /// The payloads, each complete with its routing fields (S90).
    pub payloads: Vec<String>,
    /// The format to write it in where it cannot be the configured one, because only the payloads or only the record is
    /// known.
    pub form: Option<DlqFormat>,
}

impl Letter {
    /// A letter about a source record, as it came. For one about a payload the caller replaces the sink, the error and the payloads.
    pub fn of_record(window: &Batch, row: usize) -> Self {
        let record = window.row(row);
        Self {
            sink_type: COLLECT.into(),
            sink_name: String::new(),
            error: String::new(),
            kind: FailureKind::Reject,
            attempt_count: 1,
            failed_at: 0,
            first_failed_at: None,
            replays: 0,
            source: window.source.clone(),
            offset: record.offset,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            timestamp: record.timestamp,
            headers: window.headers(row).map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect(),
            payloads: vec![record_text(record.value)],
            form: None,
        }
    }

    /// The letter's value: exactly the seven fields of S89.
    pub fn json(&self) -> String {
        self.json_of(Extent::Whole)
    }

    fn json_of(&self, extent: Extent) -> String {
        // Whole milliseconds, so the division is exact to the microsecond for any date to come.
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of this millennium fit 53 bits")]
        let timestamp = self.failed_at as f64 / 1000.0;
        json!({
            "original_payloads": if extent.has_payload() { self.payloads.as_slice() } else { &[] },
            "sink_name": extent.name(&self.sink_name),
            "sink_type": self.sink_type,
            "error": extent.error(&self.error),
            "timestamp": timestamp,
            "partition": self.source.partition,
            "attempt_count": self.attempt_count,
        })
        .to_string()
    }

    /// The record that the letter is written as, in that format.
    fn record(&self, format: DlqFormat, extent: Extent) -> LetterRecord<'_> {
        let key = self.key.as_deref().and_then(|key| extent.key(key));
        let value = match format {
            DlqFormat::Raw if extent.has_payload() => self.value.as_deref().map(Cow::Borrowed),
            DlqFormat::Raw => None,
            DlqFormat::Json => Some(Cow::Owned(self.json_of(extent).into_bytes())),
        };
        LetterRecord { key, value, headers: self.facts(format, extent) }
    }

    /// Further facts, for the headers of a letter in that format (S92), with what is needed beside the value to have the record as
    /// it came.
    fn facts(&self, format: DlqFormat, extent: Extent) -> Headers {
        let first = self.first_failed_at.unwrap_or(self.failed_at);
        let in_json = format == DlqFormat::Json && self.sink_type == COLLECT;
        let mut facts = Headers::new();
        let mut add = |name: &str, value: &[u8]| facts.push((name.as_bytes().to_vec(), Some(value.to_vec())));
        add(names::TOPIC, self.source.topic.as_bytes());
        add(names::PARTITION, self.source.partition.to_string().as_bytes());
        add(names::OFFSET, self.offset.to_string().as_bytes());
        add(names::TIMESTAMP, self.timestamp.to_string().as_bytes());
        add(names::KIND, self.kind.name().as_bytes());
        add(names::REPLAYS, self.replays.to_string().as_bytes());
        add(names::FORMAT, if format == DlqFormat::Raw { b"raw" } else { b"json" });
        // In a letter of coordinates they stand in the value alone, where there is one.
        if extent != Extent::Coordinates || format == DlqFormat::Raw {
            add(names::SINK, format!("{}/{}", self.sink_type, extent.name(&self.sink_name)).as_bytes());
            add(names::ERROR, extent.error(&self.error).as_bytes());
            add(names::ATTEMPTS, self.attempt_count.to_string().as_bytes());
            add(names::FAILED_AT, self.failed_at.to_string().as_bytes());
        }
        if extent != Extent::Coordinates {
            add(names::FIRST_FAILED_AT, first.to_string().as_bytes());
            add(names::VERSION, env!("CARGO_PKG_VERSION").as_bytes());
        }
        if !extent.has_payload() {
            add(names::PAYLOAD_OMITTED, names::SIZE.as_bytes());
        }
        if let Some(key) = &self.key {
            if extent.has_payload() {
                add(names::KEY, key);
            } else if extent.key(key).is_none_or(|kept| kept.len() < key.len()) {
                add(names::KEY_OMITTED, names::SIZE.as_bytes());
            }
        }
        if in_json && extent.has_payload() {
            add(names::ENCODING, Encoding::of(self.value.as_deref()).name().as_bytes());
        }
        if in_json || format == DlqFormat::Raw {
            let kept = extent.headers(self);
            if kept < self.headers.len() {
                add(names::HEADERS_OMITTED, names::SIZE.as_bytes());
            }
            for (name, value) in self.headers.iter().take(kept) {
                // Kafka wants names that are UTF-8, though not every producer cares.
                let name = match std::str::from_utf8(name) {
                    Ok(name) => format!("{}{name}", names::SOURCE_HEADER),
                    Err(_) => format!("{}{}", names::SOURCE_HEADER_B64, BASE64.encode(name)),
                };
                facts.push((name.into_bytes(), value.clone()));
            }
        }
        facts
    }
}

/// A letter as it is written.
struct LetterRecord<'l> {
    key: Option<&'l [u8]>,
    value: Option<Cow<'l, [u8]>>,
    headers: Headers,
}

/// Where dead letters go.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Writes the letters and returns once every one of them is acknowledged (S93). After an error some may have been
    /// written; all are given again.
    async fn send(&self, letters: &[Letter]) -> Result<(), Fault>;

    /// Proves that the queue can be written to.
    async fn connect(&self) -> Result<(), Fault>;

    /// Ends the connection.
    async fn close(&self);
}

#[cfg(test)]
#[path = "dlq/tests.rs"]
mod tests;
