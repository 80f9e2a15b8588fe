//! JSON to BSON.

use mongodb::bson::{Bson, Document, RawDocumentBuf};
use serde_json::value::RawValue;

use crate::sink::{TOO_LARGE, json};

/// How many levels a document may have, as the server has it.
const MAX_DEPTH: usize = 100;
/// What the server takes at most, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// Reads an object; its `_id` comes first, where the server puts it too.
///
/// # Errors
/// Why the row is refused, in words.
pub(super) fn from_json(text: &str) -> Result<Document, String> {
    let mut document = object(text, 1)?;
    if let Some(id) = document.remove("_id") {
        let rest = std::mem::take(&mut document);
        document.insert("_id", id);
        document.extend(rest);
    }
    Ok(document)
}

/// The document's bytes, as many as the server takes.
pub(super) fn raw(document: &Document) -> Result<RawDocumentBuf, String> {
    let raw =
        RawDocumentBuf::try_from(document).map_err(|error| format!("the value cannot be written as BSON: {error}"))?;
    match raw.as_bytes().len() {
        bytes if bytes > MAX_BYTES => {
            Err(format!("{TOO_LARGE}: a document of {bytes} bytes, where MongoDB takes {MAX_BYTES}"))
        }
        _ => Ok(raw),
    }
}

/// Whether the server reads the name as one and not as an operator or a path.
pub(super) fn name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a field has an empty name".into());
    }
    if name.starts_with('$') || name.contains(['.', '\0']) {
        return Err(format!(
            "field {name:?} begins with `$` or holds `.` or a NUL character, which MongoDB reads as more than a name"
        ));
    }
    Ok(())
}

fn object(text: &str, depth: usize) -> Result<Document, String> {
    if depth > MAX_DEPTH {
        return Err(format!("the value has more than {MAX_DEPTH} levels"));
    }
    let mut document = Document::new();
    for (field, value) in json::object(text)? {
        name(&field)?;
        let value = bson(value.get(), depth).map_err(|reason| reason.of(&field))?;
        document.insert(field.into_owned(), value);
    }
    Ok(document)
}

/// Why a value is refused: said by itself, or still to be said with the name of its field.
enum Reason {
    Said(String),
    Nameless(&'static str),
}

impl Reason {
    fn of(self, field: &str) -> String {
        match self {
            Self::Said(reason) => reason,
            Self::Nameless(what) => format!("field `{field}` {what}"),
        }
    }
}

fn bson(text: &str, depth: usize) -> Result<Bson, Reason> {
    match text.as_bytes().first() {
        Some(b'{') => object(text, depth + 1).map(Bson::Document).map_err(Reason::Said),
        Some(b'[') => {
            if depth + 1 > MAX_DEPTH {
                return Err(Reason::Said(format!("the value has more than {MAX_DEPTH} levels")));
            }
            let items: Vec<&RawValue> =
                serde_json::from_str(text).map_err(|_| Reason::Nameless("is not valid JSON"))?;
            items.into_iter().map(|item| bson(item.get(), depth + 1)).collect::<Result<Vec<_>, _>>().map(Bson::Array)
        }
        Some(b'"') => serde_json::from_str(text).map(Bson::String).map_err(|_| Reason::Nameless("is no text")),
        Some(b't') => Ok(Bson::Boolean(true)),
        Some(b'f') => Ok(Bson::Boolean(false)),
        Some(b'n') => Ok(Bson::Null),
        _ => number(text).map_err(Reason::Nameless),
    }
}

fn number(text: &str) -> Result<Bson, &'static str> {
    if text.contains(['.', 'e', 'E']) {
        return match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Bson::Double(number)),
            _ => Err("is a number past what a double holds; send it as a string"),
        };
    }
    match text.parse::<i64>() {
        Ok(number) => Ok(i32::try_from(number).map_or(Bson::Int64(number), Bson::Int32)),
        Err(_) => Err("is a whole number past 64 bits; send it as a string"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use mongodb::bson::doc;

    use super::*;

    #[test]
    fn every_type_has_its_own() {
        let text = r#" {"n":1,"l":2147483648,"m":-9223372036854775808,"d":1.0,"e":1e3,"s":"a\u0000\ud83d\ude00","t":true,
            "f":false,"z":null,"o":{"b":{},"a":[]},"a":[1,[2.5,"x"],{"y":null}],"_id":"first"} "#;
        let read = from_json(text).unwrap();
        let wanted = doc! {
            "_id": "first", "n": 1_i32, "l": 2_147_483_648_i64, "m": i64::MIN, "d": 1.0, "e": 1000.0, "s": "a\0😀", "t": true,
            "f": false, "z": null, "o": { "b": {}, "a": [] }, "a": [1_i32, [2.5, "x"], { "y": null }],
        };
        // As bytes: documents are equal whatever their order.
        assert_eq!(raw(&read).unwrap().as_bytes(), raw(&wanted).unwrap().as_bytes());
    }

    #[test]
    fn what_bson_cannot_hold_is_refused_with_its_field() {
        for (text, words) in [
            (r#"{"big":9223372036854775808}"#, "`big` is a whole number past 64 bits"),
            (r#"{"o":{"list":[1,12345678901234567890123]}}"#, "`list` is a whole number past 64 bits"),
            (r#"{"far":1e400}"#, "`far` is a number past what a double holds"),
            (r#"{"half":"\ud800"}"#, "hex escape"),
            (r#"{"a":1,"a":2}"#, "`a` twice"),
            (r#"{"$set":{"a":1}}"#, "\"$set\" begins"),
            (r#"{"a":{"$serde_json::private::Number":"1"}}"#, "begins with `$`"),
            (r#"{"x":[{"a.b":1}]}"#, "\"a.b\""),
            (r#"{"a\u0000b":1}"#, "\"a\\0b\""),
            (r#"{"":1}"#, "empty name"),
            ("[1]", "no JSON object"),
            ("1", "no JSON object"),
        ] {
            let reason = from_json(text).unwrap_err();
            assert!(reason.contains(words), "{text}: {reason}");
        }
    }

    #[test]
    fn depth_and_size_have_a_limit() {
        let nested = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        assert!(from_json(&nested(MAX_DEPTH)).is_ok());
        assert!(from_json(&nested(MAX_DEPTH + 1)).unwrap_err().contains("100 levels"));
        let lists = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(from_json(&lists(MAX_DEPTH - 1)).is_ok());
        assert!(from_json(&lists(MAX_DEPTH)).unwrap_err().contains("100 levels"));
        // Length, type, name with its end, length of the string and its end, end: 4 + 1 + 2 + 4 + 1 + 1.
        let fits = doc! { "a": "x".repeat(MAX_BYTES - 13) };
        assert_eq!(raw(&fits).unwrap().as_bytes().len(), MAX_BYTES);
        assert!(raw(&doc! { "a": "x".repeat(MAX_BYTES - 12) }).unwrap_err().starts_with(TOO_LARGE));
    }
}
