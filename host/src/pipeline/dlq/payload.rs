//! A payload's text in a dead letter, and back (S90): what comes out is byte for byte what went in.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::model::{Batch, Payload, SinkKind};

/// A payload as it stands in a dead letter: one JSON object with all routing fields. Its value stands as it is under `data`
/// where it is one JSON document, as a string under `data_text` where it is other text, in base64 under `data_b64` where it
/// is none; `"data":null` is no value at all (S90). A row that names no place of its own goes to `default`.
pub fn payload_json(kind: SinkKind, sink: &str, default: Option<&str>, batch: &Batch, row: usize) -> String {
    let payload = batch.row(row);
    let mut fields = Map::new();
    fields.insert("sink".into(), sink.into());
    let target = payload.target.or(default);
    if target.is_some() || place(kind) != PLACE {
        fields.insert(place(kind).into(), target.map_or(Value::Null, Value::from));
    }
    if payload.key.is_some() || matches!(kind, SinkKind::Kafka | SinkKind::Redis | SinkKind::Plugin) {
        insert_bytes(&mut fields, "key", "key_b64", payload.key);
    }
    if payload.ttl.is_some() || kind == SinkKind::Redis {
        fields.insert("ttl".into(), payload.ttl.map_or(Value::Null, Value::from));
    }
    let headers: Vec<Value> = batch
        .headers(row)
        .map(|(name, value)| {
            let mut header = Map::new();
            insert_bytes(&mut header, "name", "name_b64", Some(name));
            insert_bytes(&mut header, "value", "value_b64", value);
            Value::Object(header)
        })
        .collect();
    if !headers.is_empty() {
        fields.insert("headers".into(), headers.into());
    }
    let document = payload.value.and_then(document);
    if document.is_none() {
        match payload.value {
            None => fields.insert("data".into(), Value::Null),
            Some(value) => match std::str::from_utf8(value) {
                Ok(text) => fields.insert("data_text".into(), text.into()),
                Err(_) => fields.insert("data_b64".into(), BASE64.encode(value).into()),
            },
        };
    }
    let mut text = Value::Object(fields).to_string();
    if let Some(document) = document {
        // As it stands: its numbers, spaces and repeated names untouched.
        text.pop();
        text.push_str(",\"data\":");
        text.push_str(document);
        text.push('}');
    }
    text
}

/// What the place inside a sink of that kind is called.
fn place(kind: SinkKind) -> &'static str {
    match kind {
        SinkKind::Postgres => "table",
        SinkKind::Mongo => "collection",
        SinkKind::Filesystem => "path",
        SinkKind::Kafka | SinkKind::Http | SinkKind::Redis | SinkKind::Plugin => PLACE,
    }
}

/// The place inside a sink whose kind has no word for it.
const PLACE: &str = "target";

/// The value where it is one JSON document with nothing around it. `null` stands for no value, so that the document of that
/// name counts as text.
fn document(value: &[u8]) -> Option<&str> {
    let raw = serde_json::from_slice::<&RawValue>(value).ok()?.get();
    (raw.len() == value.len() && raw != "null").then_some(raw)
}

/// Bytes as text where they are UTF-8, as base64 under another name where they are not (S90).
fn insert_bytes(fields: &mut Map<String, Value>, name: &str, name_b64: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => fields.insert(name.into(), Value::Null),
        Some(Ok(text)) => fields.insert(name.into(), text.into()),
        Some(Err(bytes)) => fields.insert(name_b64.into(), BASE64.encode(bytes).into()),
    };
}

type Fields<'t> = BTreeMap<Cow<'t, str>, &'t RawValue>;

/// Reads a payload that [`payload_json`] wrote, or somebody by hand. Its sink is the letter's.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_payload(kind: SinkKind, text: &str) -> Result<Payload, String> {
    let fields: Fields<'_> =
        serde_json::from_str(text).map_err(|error| format!("a payload is no JSON object: {error}"))?;
    let value = match (fields.get("data"), fields.get("data_text"), fields.get("data_b64")) {
        (Some(data), None, None) if data.get() == "null" => None,
        (Some(data), None, None) => Some(data.get().as_bytes().to_vec()),
        (None, Some(_), None) | (None, None, Some(_)) => bytes(&fields, "data_text", "data_b64")?,
        _ => return Err("a payload has not exactly one of `data`, `data_text` and `data_b64`".into()),
    };
    let headers: Vec<Fields<'_>> = field(&fields, "headers")?.unwrap_or_default();
    let headers = headers
        .iter()
        .map(|header| {
            let name = bytes(header, "name", "name_b64")?.ok_or("a header has no `name`")?;
            Ok((name, bytes(header, "value", "value_b64")?))
        })
        .collect::<Result<_, String>>()?;
    Ok(Payload {
        key: bytes(&fields, "key", "key_b64")?,
        value,
        target: field(&fields, place(kind))?,
        ttl: field(&fields, "ttl")?,
        headers,
        ..Payload::default()
    })
}

/// A field that may be absent or null.
fn field<'t, T: Deserialize<'t>>(fields: &Fields<'t>, name: &str) -> Result<Option<T>, String> {
    let Some(raw) = fields.get(name) else { return Ok(None) };
    serde_json::from_str(raw.get()).map_err(|error| format!("`{name}` of a payload cannot be read: {error}"))
}

/// What [`insert_bytes`] wrote.
fn bytes(fields: &Fields<'_>, name: &str, name_b64: &str) -> Result<Option<Vec<u8>>, String> {
    match field::<String>(fields, name_b64)? {
        Some(text) => {
            BASE64.decode(text).map(Some).map_err(|error| format!("`{name_b64}` of a payload is no base64: {error}"))
        }
        None => Ok(field::<String>(fields, name)?.map(String::into_bytes)),
    }
}

/// How a record's value stands in its dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Text,
    Base64,
    Null,
}

impl Encoding {
    const ALL: [Self; 3] = [Self::Text, Self::Base64, Self::Null];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Base64 => "base64",
            Self::Null => "null",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.name() == name)
    }

    pub(super) fn of(value: Option<&[u8]>) -> Self {
        match value {
            None => Self::Null,
            Some(value) if std::str::from_utf8(value).is_ok() => Self::Text,
            Some(_) => Self::Base64,
        }
    }
}

/// A record's value as the text of a dead letter (S92).
pub(super) fn record_text(value: Option<&[u8]>) -> String {
    match value.map(|value| std::str::from_utf8(value).map_err(|_| value)) {
        None => "null".into(),
        Some(Ok(text)) => text.to_owned(),
        Some(Err(value)) => json!({ "value_b64": BASE64.encode(value) }).to_string(),
    }
}

/// The value that [`record_text`] wrote.
pub(super) fn record_value(text: &str, encoding: Encoding) -> Result<Option<Vec<u8>>, String> {
    match encoding {
        Encoding::Text => Ok(Some(text.as_bytes().to_vec())),
        Encoding::Null => Ok(None),
        Encoding::Base64 => {
            let fields: Fields<'_> =
                serde_json::from_str(text).map_err(|error| format!("its record is no JSON object: {error}"))?;
            match fields.get("value_b64") {
                Some(_) => bytes(&fields, "", "value_b64"),
                None => Err("its record has no `value_b64`".into()),
            }
        }
    }
}
