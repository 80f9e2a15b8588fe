//! A row's value as the JSON document that every native sink but Kafka's wants.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::OnTombstone;

/// What is to be done with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row<'v> {
    /// Write this document.
    Write(&'v str),
    /// Delete what stands under its key.
    Delete,
    /// Nothing.
    Skip,
}

/// Reads a row's value, which has to be exactly one JSON document in UTF-8, or null where tombstones are taken.
///
/// # Errors
/// Why the row is refused, in words.
pub(super) fn row(value: Option<&[u8]>, on_tombstone: OnTombstone) -> Result<Row<'_>, String> {
    let Some(value) = value else {
        return match on_tombstone {
            OnTombstone::Reject => Err("the value is null where a JSON document is needed".into()),
            OnTombstone::Skip => Ok(Row::Skip),
            OnTombstone::Delete => Ok(Row::Delete),
        };
    };
    // As text first: serde_json passes over the inside of strings that nobody asks for without looking at its encoding.
    let text = str::from_utf8(value)
        .map_err(|error| format!("the value is not UTF-8 from byte {} on", error.valid_up_to()))?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!("the value is not valid JSON: {error}"))?;
    Ok(Row::Write(text))
}

/// An object's fields in order, each value as it was written.
pub(super) type Fields<'v> = Vec<(Cow<'v, str>, &'v RawValue)>;

/// Reads a document that has to be an object in which, at every depth, no name stands twice: which of the two values is
/// meant nobody could tell.
///
/// # Errors
/// Why the row is refused, in words.
pub(super) fn object(document: &str) -> Result<Fields<'_>, String> {
    if !document.trim_start().starts_with('{') {
        return Err("the value is no JSON object".into());
    }
    once(document)?;
    let mut reader = serde_json::Deserializer::from_str(document);
    reader.deserialize_map(InOrder).map_err(|error| without_place(&error))
}

/// Refuses a document in which, at some depth, an object has a name twice.
///
/// # Errors
/// The name, in words.
pub(super) fn once(document: &str) -> Result<(), String> {
    let mut reader = serde_json::Deserializer::from_str(document);
    Once.deserialize(&mut reader).map_err(|error| without_place(&error))
}

/// The message alone: line and column of a single line help nobody.
pub(super) fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

struct InOrder;

impl<'v> Visitor<'v> for InOrder {
    type Value = Fields<'v>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'v>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(8));
        while let Some(name) = map.next_key_seed(Name)? {
            fields.push((name, map.next_value::<&RawValue>()?));
        }
        Ok(fields)
    }
}

/// Reads a name without copying it where it holds no escape.
pub(super) struct Name;

impl<'v> DeserializeSeed<'v> for Name {
    type Value = Cow<'v, str>;

    fn deserialize<D: Deserializer<'v>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'v> Visitor<'v> for Name {
    type Value = Cow<'v, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, text: &'v str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Goes through a document and refuses an object that has a name twice.
#[derive(Clone, Copy)]
struct Once;

impl<'v> DeserializeSeed<'v> for Once {
    type Value = ();

    fn deserialize<D: Deserializer<'v>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'v> Visitor<'v> for Once {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'v>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    /// Numbers come here too, as serde_json hands over those of any length.
    fn visit_map<A: MapAccess<'v>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key_seed(Name)? {
            if seen.contains(&name) {
                return Err(A::Error::custom(format_args!("the value has `{name}` twice in one object")));
            }
            seen.insert(name);
            map.next_value_seed(Self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_value_is_one_document_or_a_tombstone() {
        assert_eq!(row(Some(b" {\"a\":1} "), OnTombstone::Reject), Ok(Row::Write(" {\"a\":1} ")));
        assert_eq!(row(None, OnTombstone::Delete), Ok(Row::Delete));
        assert_eq!(row(None, OnTombstone::Skip), Ok(Row::Skip));
        for refused in [None, Some(&b""[..]), Some(b"{} {}"), Some(b"{\"a\":NaN}"), Some(b"\"\xff\""), Some(b"x")] {
            assert!(row(refused, OnTombstone::Reject).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn an_object_keeps_its_order_and_its_numbers() {
        let fields = object(r#" {"b":1e400,"\u0061":12345678901234567890123,"c":{"x":[{}]}}"#).unwrap();
        let shown: Vec<_> = fields.iter().map(|(name, value)| (name.as_ref(), value.get())).collect();
        assert_eq!(shown, [("b", "1e400"), ("a", "12345678901234567890123"), ("c", r#"{"x":[{}]}"#)]);
        assert_eq!(object("{}").unwrap().len(), 0);
        assert_eq!(object("[1]").unwrap_err(), "the value is no JSON object");
    }

    #[test]
    fn a_name_that_stands_twice_is_refused_at_any_depth() {
        assert_eq!(object(r#"{"a":1,"a":2}"#).unwrap_err(), "the value has `a` twice in one object");
        assert_eq!(object(r#"{"x":[{"a":1,"\u0061":2}]}"#).unwrap_err(), "the value has `a` twice in one object");
        assert!(object(r#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }
}
