//! The dead letter: what is kept of a payload or record that was given up on. Its JSON and headers are a public contract.

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::model::{Batch, FailureKind, Fault, Offset, SinkKind, TopicPartition};

pub mod kafka;

/// The `sink_type` of a dead-lettered source record (S92).
pub const COLLECT: &str = "collect";

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
    /// The payloads, each complete with its routing fields (S90).
    pub payloads: Vec<String>,
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
            source: window.source.clone(),
            offset: record.offset,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            timestamp: record.timestamp,
            payloads: vec![record_text(record.value)],
        }
    }

    /// The letter's value: exactly the seven fields of S89.
    pub fn json(&self) -> String {
        // Whole milliseconds, so the division is exact to the microsecond for any date to come.
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of this millennium fit 53 bits")]
        let timestamp = self.failed_at as f64 / 1000.0;
        json!({
            "original_payloads": self.payloads,
            "sink_name": self.sink_name,
            "sink_type": self.sink_type,
            "error": self.error,
            "timestamp": timestamp,
            "partition": self.source.partition,
            "attempt_count": self.attempt_count,
        })
        .to_string()
    }

    /// Further facts, for the letter's headers (S92).
    pub fn headers(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut headers = vec![
            ("tidegate-source-topic", self.source.topic.as_bytes().to_vec()),
            ("tidegate-source-partition", self.source.partition.to_string().into_bytes()),
            ("tidegate-source-offset", self.offset.to_string().into_bytes()),
            ("tidegate-source-timestamp", self.timestamp.to_string().into_bytes()),
            ("tidegate-sink", format!("{}/{}", self.sink_type, self.sink_name).into_bytes()),
            ("tidegate-error", self.error.clone().into_bytes()),
            ("tidegate-error-kind", self.kind.name().into()),
            ("tidegate-attempts", self.attempt_count.to_string().into_bytes()),
            ("tidegate-failed-at", self.failed_at.to_string().into_bytes()),
            ("tidegate-replays", b"0".to_vec()),
            ("tidegate-version", env!("CARGO_PKG_VERSION").into()),
        ];
        if let Some(key) = &self.key {
            headers.push(("tidegate-source-key", key.clone()));
        }
        headers
    }
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

/// A payload as it stands in a dead letter: one JSON object with all routing fields, its data as the JSON that it is (S90).
/// A row that names no place of its own goes to `default`.
pub fn payload_json(kind: SinkKind, sink: &str, default: Option<&str>, batch: &Batch, row: usize) -> String {
    let payload = batch.row(row);
    let mut fields = Map::new();
    fields.insert("sink".into(), sink.into());
    let target = match kind {
        SinkKind::Postgres => Some("table"),
        SinkKind::Mongo => Some("collection"),
        SinkKind::Filesystem => Some("path"),
        SinkKind::Kafka | SinkKind::Http | SinkKind::Redis | SinkKind::Plugin => None,
    };
    if let Some(name) = target {
        fields.insert(name.into(), payload.target.or(default).map_or(Value::Null, Value::from));
    }
    if matches!(kind, SinkKind::Kafka | SinkKind::Redis | SinkKind::Plugin) {
        insert_bytes(&mut fields, "key", "key_b64", payload.key);
    }
    if kind == SinkKind::Redis {
        fields.insert("ttl".into(), payload.ttl.map_or(Value::Null, Value::from));
    }
    let headers: Vec<Value> = batch
        .headers(row)
        .map(|(name, value)| {
            let mut header = Map::new();
            header.insert("name".into(), String::from_utf8_lossy(name).into());
            insert_bytes(&mut header, "value", "value_b64", value);
            Value::Object(header)
        })
        .collect();
    if !headers.is_empty() {
        fields.insert("headers".into(), headers.into());
    }
    let mut text = Value::Object(fields).to_string();
    // The data is JSON already, nearly always: it goes in as it stands, its numbers and spaces untouched.
    let data = match payload.value {
        None => "null".to_owned(),
        Some(value) => match serde_json::from_slice::<&RawValue>(value) {
            Ok(json) => json.get().to_owned(),
            Err(_) => {
                let mut data = Map::new();
                insert_bytes(&mut data, "text", "value_b64", Some(value));
                Value::Object(data).to_string()
            }
        },
    };
    text.pop();
    text.push_str(",\"data\":");
    text.push_str(&data);
    text.push('}');
    text
}

/// A record's value as the text of a dead letter (S92).
fn record_text(value: Option<&[u8]>) -> String {
    match value {
        None => "null".into(),
        Some(value) => match std::str::from_utf8(value) {
            Ok(text) => text.to_owned(),
            Err(_) => json!({ "value_b64": BASE64.encode(value) }).to_string(),
        },
    }
}

/// Bytes as text where they are UTF-8, as base64 under another name where they are not (S90).
fn insert_bytes(fields: &mut Map<String, Value>, name: &str, name_b64: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => fields.insert(name.into(), Value::Null),
        Some(Ok(text)) => fields.insert(name.into(), text.into()),
        Some(Err(bytes)) => fields.insert(name_b64.into(), BASE64.encode(bytes).into()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(key: Option<&[u8]>, value: Option<&[u8]>) -> Batch {
        let mut batch = Batch::new(TopicPartition::new("orders", 3));
        batch.push(1042, 1_700_000_000_123, key, value);
        batch
    }

    /// S89, S91: exactly the seven fields, with the seconds as a fraction and the calls that were made.
    #[test]
    fn s89_a_letter_has_the_seven_fields_and_no_other() {
        let mut letter = Letter::of_record(&batch(Some(b"k"), Some(b"{\"a\":1}")), 0);
        letter.sink_name = "search".into();
        letter.error = "no `pattern`".into();
        letter.failed_at = 1_700_000_001_500;
        letter.attempt_count = 4;
        assert_eq!(
            letter.json(),
            r#"{"original_payloads":["{\"a\":1}"],"sink_name":"search","sink_type":"collect","error":"no `pattern`","timestamp":1700000001.5,"partition":3,"attempt_count":4}"#
        );
    }

    /// S90, E8: a payload keeps its data and routing fields; a key that is no text is base64.
    #[test]
    fn s90_a_payload_is_complete_and_bytes_are_base64() {
        let kafka = batch(Some(b"\xff\x00"), Some(b"{\"n\":1.0,\"big\":12345678901234567890123}"));
        assert_eq!(
            payload_json(SinkKind::Kafka, "results", None, &kafka, 0),
            r#"{"sink":"results","key_b64":"/wA=","data":{"n":1.0,"big":12345678901234567890123}}"#
        );
        let mut file = batch(None, Some(b"not json"));
        file.targets.push(Some(b"a.jsonl"));
        assert_eq!(
            payload_json(SinkKind::Filesystem, "log", Some("b"), &file, 0),
            r#"{"sink":"log","path":"a.jsonl","data":{"text":"not json"}}"#
        );
    }

    /// S92: a value that is no text is base64, a tombstone is null.
    #[test]
    fn s92_a_source_record_is_kept_whatever_its_bytes() {
        assert_eq!(Letter::of_record(&batch(None, Some(b"\xff")), 0).payloads, [r#"{"value_b64":"/w=="}"#]);
        assert_eq!(Letter::of_record(&batch(None, None), 0).payloads, ["null"]);
    }
}
