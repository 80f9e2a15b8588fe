//! JSON to BSON.

use std::borrow::Cow;
use std::fmt;

use mongodb::bson::{Bson, Document, RawDocumentBuf};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::extended;
use crate::sink::TOO_LARGE;
use crate::sink::json::{Name, without_place};

/// How many levels a document may have, as the server has it.
const MAX_DEPTH: usize = 100;
/// What the server takes at most, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// Reads an object; its `_id` comes first, where the server puts it too. No name may stand twice in one object, at any depth:
/// which of the two values is meant nobody could tell. `extended`: what Extended JSON writes for a value is read as that
/// value.
///
/// # Errors
/// Why the row is refused, in words.
pub(super) fn from_json(text: &str, extended: bool) -> Result<Document, String> {
    if !text.trim_start().starts_with('{') {
        return Err("the value is no JSON object".into());
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut document = match (Value { field: "", depth: 0, text, extended }).deserialize(&mut reader) {
        Ok(Bson::Document(document)) => document,
        Ok(_) => return Err("the value is no JSON object".into()),
        Err(error) => return Err(without_place(&error)),
    };
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

/// Reads any value in one pass over the text. `field` is the name that a refusal says.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    field: &'a str,
    /// Levels above the value.
    depth: usize,
    /// The whole text.
    text: &'a str,
    /// Whether an object may stand for another value.
    extended: bool,
}

impl<'a> Value<'a> {
    /// The name that a refusal says.
    pub(super) fn field(self) -> &'a str {
        self.field
    }

    /// One level deeper.
    fn inside<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("the value has more than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn refused<E: Error>(self, what: &str) -> E {
        E::custom(format_args!("field `{}` {what}", self.field))
    }

    /// serde_json gives a number that does not fit 64 bits as an object whose only name is the library's own text. A name that stands in the document is
    /// not taken for it, whatever it says.
    fn is_number(self, borrowed: Option<&str>) -> bool {
        borrowed.is_some_and(|name| !self.text.as_bytes().as_ptr_range().contains(&name.as_ptr()))
    }
}

impl<'v> DeserializeSeed<'v> for Value<'_> {
    type Value = Bson;

    fn deserialize<D: Deserializer<'v>>(self, deserializer: D) -> Result<Bson, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'v> Visitor<'v> for Value<'_> {
    type Value = Bson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Bson, E> {
        Ok(Bson::Boolean(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Bson, E> {
        Ok(whole(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Bson, E> {
        i64::try_from(number).map(whole).map_err(|_| self.refused(TOO_WHOLE))
    }

    fn visit_str<E>(self, text: &str) -> Result<Bson, E> {
        Ok(Bson::String(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Bson, E> {
        Ok(Bson::Null)
    }

    fn visit_seq<A: SeqAccess<'v>>(self, mut items: A) -> Result<Bson, A::Error> {
        let inside = self.inside()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inside)? {
            array.push(item);
        }
        Ok(Bson::Array(array))
    }

    fn visit_map<A: MapAccess<'v>>(self, mut map: A) -> Result<Bson, A::Error> {
        let mut document = Document::new();
        let Some(mut name) = map.next_key_seed(Name)? else { return self.inside().map(|_| Bson::Document(document)) };
        let borrowed = if let Cow::Borrowed(name) = name { Some(name) } else { None };
        if self.is_number(borrowed) {
            return number(&map.next_value::<String>()?).map_err(|what| self.refused(what));
        }
        let inside = self.inside()?;
        if self.extended && extended::is_wrapper(&name) {
            return extended::value(name, map, inside);
        }
        let is_reference = self.extended && extended::begins_reference(&name);
        loop {
            if document.contains_key(&*name) {
                return Err(A::Error::custom(format_args!("the value has `{name}` twice in one object")));
            }
            if !(is_reference && extended::is_of_reference(&name)) {
                self::name(&name).map_err(A::Error::custom)?;
            }
            let value = map.next_value_seed(Value { field: &name, ..inside })?;
            document.insert(name, value);
            name = match map.next_key_seed(Name)? {
                Some(next) => next,
                None => return Ok(Bson::Document(document)),
            };
        }
    }
}

/// Why a whole number is refused.
const TOO_WHOLE: &str = "is a whole number past 64 bits; send it as a string";

fn whole(number: i64) -> Bson {
    i32::try_from(number).map_or(Bson::Int64(number), Bson::Int32)
}

fn number(text: &str) -> Result<Bson, &'static str> {
    if text.contains(['.', 'e', 'E']) {
        return match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Bson::Double(number)),
            _ => Err("is a number past what a double holds; send it as a string"),
        };
    }
    match text.parse::<i64>() {
        Ok(number) => Ok(whole(number)),
        Err(_) => Err(TOO_WHOLE),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use mongodb::bson::doc;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::sink::json;

    /// The rules once more, one level at a time and with each level's text read again: slow, and too simple to be wrong.
    fn by_level(text: &str, field: &str, depth: usize) -> Result<Bson, String> {
        let too_deep = || format!("the value has more than {MAX_DEPTH} levels");
        match text.trim_start().as_bytes()[0] {
            b'{' if depth > MAX_DEPTH => Err(too_deep()),
            b'{' => {
                let mut document = Document::new();
                for (field, value) in json::object(text)? {
                    name(&field)?;
                    let value = by_level(value.get(), &field, depth + 1)?;
                    document.insert(field, value);
                }
                Ok(Bson::Document(document))
            }
            b'[' if depth > MAX_DEPTH => Err(too_deep()),
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).unwrap();
                items
                    .iter()
                    .map(|item| by_level(item.get(), field, depth + 1))
                    .collect::<Result<_, _>>()
                    .map(Bson::Array)
            }
            b'"' => serde_json::from_str(text).map(Bson::String).map_err(|error| error.to_string()),
            b't' | b'f' => Ok(Bson::Boolean(text == "true")),
            b'n' => Ok(Bson::Null),
            _ => number(text).map_err(|what| format!("field `{field}` {what}")),
        }
    }

    fn scalar() -> impl Strategy<Value = String> {
        const ODD: &[&str] = &[
            "0",
            "-0",
            "1",
            "2147483648",
            "9223372036854775808",
            "1e400",
            "1.5",
            "1E3",
            "-2.5e-3",
            "true",
            "false",
            "null",
            r#""\ud83d\ude00""#,
            r#""\ud800""#,
            r#""$serde_json::private::Number""#,
            r#""\u0000""#,
        ];
        prop_oneof![
            proptest::sample::select(ODD).prop_map(str::to_owned),
            "[a-z ]{0,4}".prop_map(|text| format!("\"{text}\""))
        ]
    }

    fn any_value() -> impl Strategy<Value = String> {
        const NAMES: &[&str] =
            &["a", "b", "\\u0061", "_id", "c d", "$x", "a.b", "", "$serde_json::private::Number", "\\u0000"];
        let field = prop_oneof![9 => proptest::sample::select(&NAMES[..4]), 1 => proptest::sample::select(NAMES)];
        scalar().prop_recursive(6, 48, 4, move |inner| {
            let fields = proptest::collection::vec((field.clone(), inner.clone()), 0..4);
            prop_oneof![
                fields.prop_map(|fields| {
                    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
                    format!("{{ {} }}", fields.join(" , "))
                }),
                proptest::collection::vec(inner, 0..4).prop_map(|items| format!("[ {} ]", items.join(","))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// S110: one pass gives the document of the level-by-level rules, byte by byte, and refuses what they refuse.
        #[test]
        fn s110_one_pass_keeps_the_rules(value in any_value()) {
            let text = format!("{{\"first\":{value},\"last\":1}}");
            for extended in [false, true] {
                match (from_json(&text, extended), by_level(&text, "", 1)) {
                    (Ok(read), Ok(Bson::Document(wanted))) => {
                        prop_assert_eq!(raw(&read).unwrap().into_bytes(), raw(&wanted).unwrap().into_bytes());
                    }
                    (read, wanted) => {
                        prop_assert!(read.is_err() && wanted.is_err(), "{}: {:?}, {:?}", text, read, wanted);
                    }
                }
            }
        }
    }

    /// S110: a large value at the deepest level, which a parser that reads each level's text again reads a hundred times.
    #[test]
    fn s110_a_large_value_at_the_deepest_level() {
        let large = format!("\"{}\\u00e9\"", "x".repeat(4 << 20));
        let nested = |levels: usize| format!("{}{large}{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        let bottom = |mut document: Document| {
            let mut levels = 1;
            loop {
                match document.remove("a") {
                    Some(Bson::Document(inner)) => (document, levels) = (inner, levels + 1),
                    Some(Bson::String(text)) => return (levels, text.len()),
                    other => panic!("{other:?}"),
                }
            }
        };
        let (deep, flat) = (nested(MAX_DEPTH), nested(1));
        assert_eq!(bottom(from_json(&deep, true).unwrap()), (MAX_DEPTH, (4 << 20) + 2));
        assert_eq!(bottom(from_json(&flat, true).unwrap()), (1, (4 << 20) + 2));
    }

    #[test]
    fn every_type_has_its_own() {
        let text = r#" {"n":1,"l":2147483648,"m":-9223372036854775808,"d":1.0,"e":1e3,"s":"a\u0000\ud83d\ude00","t":true,
            "f":false,"z":null,"o":{"b":{},"a":[]},"a":[1,[2.5,"x"],{"y":null}],"_id":"first"} "#;
        let read = from_json(text, true).unwrap();
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
            let reason = from_json(text, true).unwrap_err();
            assert!(reason.contains(words), "{text}: {reason}");
        }
    }

    #[test]
    fn depth_and_size_have_a_limit() {
        let nested = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        assert!(from_json(&nested(MAX_DEPTH), true).is_ok());
        assert!(from_json(&nested(MAX_DEPTH + 1), true).unwrap_err().contains("100 levels"));
        let lists = |levels: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(from_json(&lists(MAX_DEPTH - 1), true).is_ok());
        assert!(from_json(&lists(MAX_DEPTH), true).unwrap_err().contains("100 levels"));
        // Length, type, name with its end, length of the string and its end, end: 4 + 1 + 2 + 4 + 1 + 1.
        let fits = doc! { "a": "x".repeat(MAX_BYTES - 13) };
        assert_eq!(raw(&fits).unwrap().as_bytes().len(), MAX_BYTES);
        assert!(raw(&doc! { "a": "x".repeat(MAX_BYTES - 12) }).unwrap_err().starts_with(TOO_LARGE));
    }
}
