//! What tells documents apart: an `_id` that the host makes, or the fields of the configured key.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document};
use sha2::{Digest as _, Sha256};

use super::{document, extended};
use crate::model::{Record, TopicPartition};

/// From here on in both directions a double is no `i64` any more.
const I64_END: f64 = 9_223_372_036_854_775_808.0;

/// The `_id` of a row that brings none: its record's second, then eight bytes of a hash. The same row has the same `_id`
/// whenever it is written, so the server itself keeps it from being there twice.
///
/// The hash covers the timestamp because a topic that was deleted and made anew has the same offsets again. It covers the
/// value because a row's ordinal is not always the same on a replay: the payloads of a window's hook are numbered from the
/// window's length on, and windows are cut differently each time (S62). Without it such a payload could meet another one's
/// `_id` and be taken for written. The price: a collector that yields something else on a replay has both inserted.
pub(super) fn made(source: &TopicPartition, row: &Record<'_>) -> ObjectId {
    let mut hash = Sha256::new();
    hash.update((source.topic.len() as u64).to_be_bytes());
    hash.update(source.topic.as_bytes());
    hash.update(source.partition.to_be_bytes());
    hash.update(row.offset.to_be_bytes());
    hash.update(row.ordinal.to_be_bytes());
    hash.update(row.timestamp.to_be_bytes());
    hash.update(row.value.unwrap_or_default());
    let hash = hash.finalize();
    let seconds = u32::try_from(row.timestamp.max(0) / 1000).unwrap_or(u32::MAX);
    let mut id = [0; 12];
    id[..4].copy_from_slice(&seconds.to_be_bytes());
    id[4..].copy_from_slice(&hash[..8]);
    ObjectId::from_bytes(id)
}

/// The key's fields as they stand in a document.
///
/// # Errors
/// Which field is missing or cannot be a key's, in words.
pub(super) fn of(key: &[String], document: &Document) -> Result<Document, String> {
    let mut filter = Document::new();
    for field in key {
        match document.get(field) {
            None | Some(Bson::Null) => return Err(format!("field `{field}` of the key is missing or null")),
            Some(Bson::Document(_) | Bson::Array(_)) => {
                return Err(format!("field `{field}` of the key is an object or an array"));
            }
            Some(value) if !extended::is_key(value) => {
                return Err(format!("field `{field}` of the key is of a type by which documents are not told apart"));
            }
            Some(value) => filter.insert(field, value.clone()),
        };
    }
    Ok(filter)
}

/// The key's fields as a tombstone's key says them.
///
/// # Errors
/// Why it does not say them, in words.
pub(super) fn deleted(key: &[String], record: Option<&[u8]>, extended: bool) -> Result<Document, String> {
    let Some(record) = record else {
        return Err("value and key are null, so nothing says what to delete".into());
    };
    let text = str::from_utf8(record).map_err(|_| "the record's key is not UTF-8".to_owned())?;
    if text.trim_start().starts_with('{')
        && let Ok(document) = document::from_json(text, extended)
    {
        return of(key, &document);
    }
    let [field] = key else {
        return Err(format!("the record's key is no JSON object with the fields `{}`", key.join("`, `")));
    };
    // In an object it is read as every other document's field.
    let scalar = Some(text.trim()).filter(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
    let wrapped = scalar.and_then(|scalar| document::from_json(&format!(r#"{{"v":{scalar}}}"#), extended).ok());
    let value = wrapped.and_then(|mut document| document.remove("v"));
    let mut document = Document::new();
    document.insert(field, value.unwrap_or_else(|| Bson::String(text.to_owned())));
    of(key, &document)
}

/// Equal for keys that the server takes for equal, which compares numbers by their value.
pub(super) fn canonical(filter: &Document) -> String {
    let values = filter.iter().map(|(field, value)| match value {
        Bson::Int32(number) => (field, Bson::Int64(i64::from(*number))),
        #[allow(clippy::cast_possible_truncation, reason = "whole and within the bounds of an i64")]
        Bson::Double(number) if number.fract() == 0.0 && (-I64_END..I64_END).contains(number) => {
            (field, Bson::Int64(*number as i64))
        }
        other => (field, other.clone()),
    });
    format!("{:?}", values.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use mongodb::bson::doc;

    use super::*;

    fn id(topic: &str, partition: i32, offset: i64, ordinal: u32, timestamp: i64, value: &[u8]) -> ObjectId {
        let row = Record { offset, ordinal, timestamp, key: None, value: Some(value), target: None, ttl: None };
        made(&TopicPartition::new(topic, partition), &row)
    }

    /// S110: the same row has the same `_id`, each other row another.
    #[test]
    fn an_id_is_its_rows_own_s110() {
        let first = id("orders", 3, 1042, 0, 1_700_000_000_123, b"{}");
        assert_eq!(first, id("orders", 3, 1042, 0, 1_700_000_000_123, b"{}"));
        assert_eq!(first.to_hex(), "6553f1008d131e84448976ed", "stands in databases: it never changes");
        let others = [
            id("order", 3, 1042, 0, 1_700_000_000_123, b"{}"),
            id("orders", 4, 1042, 0, 1_700_000_000_123, b"{}"),
            id("orders", 3, 1043, 0, 1_700_000_000_123, b"{}"),
            id("orders", 3, 1042, 1, 1_700_000_000_123, b"{}"),
            // The topic was made anew within the same second.
            id("orders", 3, 1042, 0, 1_700_000_000_124, b"{}"),
            // Another window gave this number to another payload.
            id("orders", 3, 1042, 0, 1_700_000_000_123, b"{ }"),
        ];
        assert!(others.iter().all(|other| *other != first && other.to_hex()[..8] == first.to_hex()[..8]));
        assert_eq!(id("t", 0, 0, 0, -1, b"").to_hex()[..8], *"00000000");
    }

    #[test]
    fn a_key_is_all_of_its_scalars() {
        let key = ["a".to_owned(), "b".to_owned()];
        assert_eq!(of(&key, &doc! { "b": "x", "c": 1, "a": 2.5 }).unwrap(), doc! { "a": 2.5, "b": "x" });
        for (document, words) in [
            (doc! { "a": 1 }, "`b` of the key is missing"),
            (doc! { "a": 1, "b": null }, "`b` of the key is missing or null"),
            (doc! { "a": [1], "b": 1 }, "`a` of the key is an object or an array"),
            (doc! { "a": 1, "b": { "x": 1 } }, "`b` of the key is an object"),
        ] {
            assert!(of(&key, &document).unwrap_err().contains(words));
        }
    }

    #[test]
    fn a_tombstones_key_is_an_object_a_scalar_or_text() {
        let one = ["a".to_owned()];
        let both = ["a".to_owned(), "b".to_owned()];
        let of_one = |text: &[u8]| deleted(&one, Some(text), true).unwrap();
        assert_eq!(of_one(br#"{"a":7,"x":1}"#), doc! { "a": 7 });
        assert_eq!(of_one(b"7"), doc! { "a": 7 });
        assert_eq!(of_one(b"\"7\""), doc! { "a": "7" });
        assert_eq!(of_one(b"order-7"), doc! { "a": "order-7" });
        assert_eq!(of_one(b"{order"), doc! { "a": "{order" });
        let id = bson::oid::ObjectId::parse_str("6553f1008d131e84448976ed").unwrap();
        assert_eq!(of_one(br#"{"$oid":"6553f1008d131e84448976ed"}"#), doc! { "a": id });
        assert_eq!(of_one(br#"{"a":{"$oid":"6553f1008d131e84448976ed"}}"#), doc! { "a": id });
        assert_eq!(of_one(br#"1,"$x":2"#), doc! { "a": r#"1,"$x":2"# });
        assert_eq!(deleted(&both, Some(br#"{"b":"y","a":7}"#), true).unwrap(), doc! { "a": 7, "b": "y" });
        for (key, text) in [
            (&one[..], None),
            (&one, Some(&b"\xff"[..])),
            (&one, Some(b"null")),
            (&one, Some(b"[1]")),
            (&both, Some(b"7")),
            // As a filter it would find, and delete, whatever fits the pattern.
            (&one, Some(br#"{"$regularExpression":{"pattern":".","options":""}}"#)),
            (&one, Some(br#"{"a":{"$regex":"."}}"#)),
            (&one, Some(br#"{"$numberDecimal":"1"}"#)),
            (&one, Some(br#"{"$undefined":true}"#)),
        ] {
            assert!(deleted(key, text, true).is_err(), "{text:?}");
        }
    }

    #[test]
    fn keys_that_the_server_takes_for_equal_are_one() {
        let one = canonical(&doc! { "a": 1_i32 });
        assert_eq!(one, canonical(&doc! { "a": 1_i64 }));
        assert_eq!(one, canonical(&doc! { "a": 1.0 }));
        assert_eq!(canonical(&doc! { "a": -0.0 }), canonical(&doc! { "a": 0 }));
        for other in [doc! { "a": 1.5 }, doc! { "a": "1" }, doc! { "a": true }, doc! { "b": 1 }, doc! { "a": 1e300 }] {
            assert_ne!(one, canonical(&other));
        }
    }
}
