//! A dead letter as it is read back: by `dlq list`, `show` and `replay` (S96).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::payload::{Encoding, parse_payload, record_text, record_value};
use super::{COLLECT, Letter, names};
use crate::model::{Batch, FailureKind, Headers, Payload, SinkKind, TopicPartition};
use crate::pipeline::options::DlqFormat;

/// A letter, and what sending it through again starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// All that it says. The record's value is known only where the record itself is kept.
    pub letter: Letter,
    /// What is sent through again.
    pub content: Content,
    /// What the letter had to leave out.
    pub omitted: Omitted,
}

/// What is left out of a letter because it was larger than its topic takes (S94a).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    /// The payloads, or the record's value.
    pub payload: bool,
    /// The record's key, or its end.
    pub key: bool,
    /// Some of the record's headers.
    pub headers: bool,
}

impl Omitted {
    /// In words, as a list.
    pub fn names(self) -> Vec<&'static str> {
        let all = [(self.payload, "payload"), (self.key, "key"), (self.headers, "headers")];
        all.into_iter().filter_map(|(omitted, name)| omitted.then_some(name)).collect()
    }
}

/// What a letter keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Payloads for the sink that failed.
    Payloads(SinkKind, Vec<Payload>),
    /// The record as it came.
    Record,
    /// Neither: with them the letter was larger than its topic takes (S94a).
    Omitted,
}

impl Opened {
    /// The sink that failed; `None` for a record that no collector took.
    pub fn sink(&self) -> Option<(SinkKind, &str)> {
        SinkKind::from_name(&self.letter.sink_type).map(|kind| (kind, self.letter.sink_name.as_str()))
    }
}

/// The seven fields of S89.
#[derive(Deserialize)]
struct Fields {
    original_payloads: Vec<String>,
    sink_name: String,
    sink_type: String,
    error: String,
    timestamp: f64,
    attempt_count: u32,
}

/// Reads row `row` of a batch of the dead letter topic's records.
///
/// # Errors
/// Why it is no letter of ours, in words. It never panics, whatever somebody wrote there.
pub fn open(batch: &Batch, row: usize) -> Result<Opened, String> {
    let record = batch.row(row);
    let facts = Facts { batch, row };
    let source = TopicPartition::new(facts.text(names::TOPIC)?, facts.number(names::PARTITION)?);
    let offset = facts.number(names::OFFSET)?;
    let format = match facts.find(names::FORMAT) {
        Some(b"raw") => DlqFormat::Raw,
        _ => DlqFormat::Json,
    };
    let fields = match format {
        DlqFormat::Raw => facts.fields()?,
        DlqFormat::Json => {
            let value = record.value.ok_or("it has no value")?;
            serde_json::from_slice::<Fields>(value)
                .map_err(|error| format!("its value has not the seven fields: {error}"))?
        }
    };
    let kind = SinkKind::from_name(&fields.sink_type);
    if kind.is_none() && fields.sink_type != COLLECT {
        return Err(format!("`{}` is no kind of sink", fields.sink_type));
    }
    let omitted = Omitted {
        payload: facts.header(names::PAYLOAD_OMITTED).is_some(),
        key: facts.header(names::KEY_OMITTED).is_some(),
        headers: facts.header(names::HEADERS_OMITTED).is_some(),
    };
    #[allow(clippy::cast_possible_truncation, reason = "a cast from a float ends at the bounds")]
    let written_at = (fields.timestamp * 1000.0).round() as i64;
    let mut letter = Letter {
        sink_type: fields.sink_type,
        sink_name: fields.sink_name,
        error: fields.error,
        kind: kind_named(facts.find(names::KIND)),
        attempt_count: fields.attempt_count,
        failed_at: facts.number(names::FAILED_AT).unwrap_or(written_at),
        first_failed_at: facts.number(names::FIRST_FAILED_AT).ok(),
        replays: facts.number(names::REPLAYS).unwrap_or(0),
        source,
        offset,
        // Where the letter could not have its record's key, this says what that was (a topic that takes no record without one).
        key: facts.header(names::KEY).unwrap_or(record.key).map(<[u8]>::to_vec),
        value: None,
        timestamp: facts.number(names::TIMESTAMP).unwrap_or(-1),
        headers: facts.source_headers()?,
        payloads: fields.original_payloads,
        form: None,
    };
    let content = match (format, kind) {
        _ if omitted.payload => Content::Omitted,
        (DlqFormat::Raw, _) => {
            letter.value = record.value.map(<[u8]>::to_vec);
            letter.payloads = vec![record_text(record.value)];
            Content::Record
        }
        (DlqFormat::Json, Some(kind)) => {
            letter.form = Some(DlqFormat::Json);
            let payloads =
                letter.payloads.iter().map(|text| parse_payload(kind, text)).collect::<Result<Vec<_>, _>>()?;
            if payloads.is_empty() {
                return Err("it has no payload".into());
            }
            Content::Payloads(kind, payloads)
        }
        (DlqFormat::Json, None) => {
            let [text] = letter.payloads.as_slice() else { return Err("it has not exactly one payload".into()) };
            let encoding = Encoding::from_name(&facts.text(names::ENCODING)?)
                .ok_or_else(|| format!("header `{}` says nothing known", names::ENCODING))?;
            letter.value = record_value(text, encoding)?;
            // Whoever wrote it may have put text into base64: a further letter says how the record stands in it anew.
            letter.payloads = vec![record_text(letter.value.as_deref())];
            Content::Record
        }
    };
    Ok(Opened { letter, content, omitted })
}

/// What is said to have been the matter; of those that are told apart no longer, the nearest.
fn kind_named(name: Option<&[u8]>) -> FailureKind {
    let kinds = [FailureKind::Retry, FailureKind::Unavailable, FailureKind::Reject];
    let named = kinds.into_iter().find(|kind| name == Some(kind.name().as_bytes()));
    named.unwrap_or(FailureKind::Reject)
}

/// One record's headers.
struct Facts<'b> {
    batch: &'b Batch,
    row: usize,
}

impl<'b> Facts<'b> {
    /// The value of the header, which may be null; `None` when there is no such header.
    fn header(&self, name: &str) -> Option<Option<&'b [u8]>> {
        self.batch.headers(self.row).find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    fn find(&self, name: &str) -> Option<&'b [u8]> {
        self.header(name).flatten()
    }

    fn text(&self, name: &str) -> Result<String, String> {
        let bytes = self.find(name).ok_or_else(|| format!("it has no header `{name}`"))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("header `{name}` is no text"))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, String> {
        self.text(name)?.parse().map_err(|_| format!("header `{name}` is no number"))
    }

    /// What the value of a letter in JSON says, from the headers of one without.
    fn fields(&self) -> Result<Fields, String> {
        let sink = self.text(names::SINK)?;
        let (kind, name) = sink.split_once('/').ok_or_else(|| format!("header `{}` names no sink", names::SINK))?;
        Ok(Fields {
            original_payloads: Vec::new(),
            sink_name: name.to_owned(),
            sink_type: kind.to_owned(),
            error: self.find(names::ERROR).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default(),
            timestamp: 0.0,
            attempt_count: self.number(names::ATTEMPTS).unwrap_or(1),
        })
    }

    /// The record's own headers.
    fn source_headers(&self) -> Result<Headers, String> {
        let mut headers = Vec::new();
        for (name, value) in self.batch.headers(self.row) {
            let name = match name.strip_prefix(names::SOURCE_HEADER_B64.as_bytes()) {
                Some(encoded) => {
                    BASE64.decode(encoded).map_err(|error| format!("a source header's name is no base64: {error}"))?
                }
                None => match name.strip_prefix(names::SOURCE_HEADER.as_bytes()) {
                    Some(name) => name.to_vec(),
                    None => continue,
                },
            };
            headers.push((name, value.map(<[u8]>::to_vec)));
        }
        Ok(headers)
    }
}
