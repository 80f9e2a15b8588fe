//! MongoDB Extended JSON, version 2 in both its forms, and what version 1 writes otherwise.
//!
//! The conversion is that of the `bson` crate. What it does not know is put into version 2 before.

use std::borrow::Cow;

use bson::Bson;
use serde::de::{Error, MapAccess};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};

use super::document::Value;
use crate::sink::json::{self, Name};

/// The names by which an object is one value and no document. The first name of an object decides, since no document's
/// own name begins with `$`.
const WRAPPERS: [&str; 20] = [
    "$binary",
    "$code",
    "$date",
    "$dbPointer",
    "$maxKey",
    "$minKey",
    "$numberDecimal",
    "$numberDouble",
    "$numberInt",
    "$numberLong",
    "$oid",
    "$options",
    "$regex",
    "$regularExpression",
    "$scope",
    "$symbol",
    "$timestamp",
    "$type",
    "$undefined",
    "$uuid",
];

/// The names that a reference to another document has, which is a document itself.
const REFERENCE: [&str; 3] = ["$ref", "$id", "$db"];

/// Whether an object that begins with this name stands for one value.
pub(super) fn is_wrapper(first: &str) -> bool {
    WRAPPERS.contains(&first)
}

/// Whether an object that begins with this name is a reference to another document.
pub(super) fn begins_reference(first: &str) -> bool {
    first == REFERENCE[0]
}

/// Whether the name may stand in a reference.
pub(super) fn is_of_reference(name: &str) -> bool {
    REFERENCE.contains(&name)
}

/// Reads an object that stands for one value, of which the first name has been read. `inside` reads the documents in
/// it.
pub(super) fn value<'v, A: MapAccess<'v>>(
    first: Cow<'v, str>,
    mut map: A,
    inside: Value<'_>,
) -> Result<Bson, A::Error> {
    let wrong = |name: &str| {
        A::Error::custom(format_args!(
            "field `{}` has `{name}`, and is not what Extended JSON writes with it",
            inside.field()
        ))
    };
    let (mut fields, mut scope) = (Map::new(), None);
    let mut next = Some(first.clone());
    while let Some(name) = next {
        if fields.contains_key(&*name) || (scope.is_some() && name == "$scope") {
            return Err(A::Error::custom(format_args!("the value has `{name}` twice in one object")));
        }
        if name == "$scope" {
            scope = Some(map.next_value_seed(inside)?);
        } else {
            let raw = map.next_value::<&RawValue>()?;
            json::once(raw.get()).map_err(A::Error::custom)?;
            fields.insert(name.into_owned(), serde_json::from_str(raw.get()).map_err(|_| wrong(&first))?);
        }
        next = map.next_key_seed(Name)?;
    }
    let read = Bson::try_from(in_version_two(fields)).map_err(|_| wrong(&first))?;
    match (read, scope) {
        // What is not known at all is left as a document.
        (Bson::Document(_), _) => Err(wrong(&first)),
        (read, None) => Ok(read),
        (Bson::JavaScriptCode(code), Some(Bson::Document(scope))) => {
            Ok(Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope { code, scope }))
        }
        (_, Some(_)) => Err(wrong(&first)),
    }
}

/// What version 1 writes otherwise, as version 2 has it. Anything else stays as it is.
fn in_version_two(mut fields: Map<String, Json>) -> Map<String, Json> {
    let wrapped = |name: &str, body: Json| Map::from_iter([(name.to_owned(), body)]);
    match fields.keys().map(String::as_str).collect::<Vec<_>>()[..] {
        ["$binary", "$type"] | ["$type", "$binary"] => {
            let kind = match &fields["$type"] {
                Json::Number(number) => number.as_u64().map(|number| format!("{number:02x}").into()),
                kind => Some(kind.clone()),
            };
            match kind {
                Some(kind) => wrapped("$binary", json!({ "base64": fields["$binary"], "subType": kind })),
                None => fields,
            }
        }
        ["$regex"] => wrapped("$regularExpression", json!({ "pattern": fields["$regex"], "options": "" })),
        ["$regex", "$options"] | ["$options", "$regex"] => {
            wrapped("$regularExpression", json!({ "pattern": fields["$regex"], "options": fields["$options"] }))
        }
        ["$date"] => {
            // The zone without a colon, `+0000`, as `mongoexport` wrote it once.
            if let Some(Json::String(date)) = fields.get_mut("$date")
                && let Some(zone) = date.len().checked_sub(5)
                && date.is_ascii()
                && date.contains('T')
                && date[zone..].starts_with(['+', '-'])
            {
                date.insert(zone + 3, ':');
            }
            fields
        }
        _ => fields,
    }
}

/// Whether a field of a key may have this value: one that the server compares by what it is, and not as a pattern or
/// together with numbers of another type that look different.
pub(super) fn is_key(value: &Bson) -> bool {
    matches!(
        value,
        Bson::String(_)
            | Bson::Boolean(_)
            | Bson::Int32(_)
            | Bson::Int64(_)
            | Bson::Double(_)
            | Bson::ObjectId(_)
            | Bson::DateTime(_)
            | Bson::Binary(_)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use bson::oid::ObjectId;
    use bson::spec::BinarySubtype;
    use bson::{Binary, DateTime, Regex, Timestamp, cstr, doc};

    use super::super::document::from_json;
    use super::*;

    fn read(value: &str) -> Result<Bson, String> {
        from_json(&format!(r#"{{"v":{value}}}"#), true).map(|mut document| document.remove("v").unwrap())
    }

    /// M1: every type of Extended JSON, canonical, relaxed and of version 1, is stored as what it means.
    #[test]
    fn s110_extended_json_is_stored_as_what_it_means() {
        let binary = |subtype| Bson::Binary(Binary { subtype, bytes: b"hello".to_vec() });
        let moment = Bson::DateTime(DateTime::from_millis(1_700_000_000_123));
        let regex =
            Bson::RegularExpression(Regex { pattern: cstr!("^a.b$").to_owned(), options: cstr!("i").to_owned() });
        for (text, wanted) in [
            (
                r#"{"$oid":"6553f1008d131e84448976ed"}"#,
                Bson::ObjectId(ObjectId::parse_str("6553f1008d131e84448976ed").unwrap()),
            ),
            (r#"{"$date":"2023-11-14T22:13:20.123Z"}"#, moment.clone()),
            (r#"{"$date":"2023-11-14T23:13:20.123+01:00"}"#, moment.clone()),
            (r#"{"$date":"2023-11-14T22:13:20.123+0000"}"#, moment.clone()),
            (r#"{"$date":{"$numberLong":"1700000000123"}}"#, moment.clone()),
            (r#"{"$date":1700000000123}"#, moment),
            (r#"{"$date":{"$numberLong":"-1"}}"#, Bson::DateTime(DateTime::from_millis(-1))),
            (r#"{"$numberInt":"7"}"#, Bson::Int32(7)),
            (r#"{"$numberLong":"7"}"#, Bson::Int64(7)),
            (r#"{"$numberLong":"-9223372036854775808"}"#, Bson::Int64(i64::MIN)),
            (r#"{"$numberDouble":"7"}"#, Bson::Double(7.0)),
            (r#"{"$numberDouble":"-Infinity"}"#, Bson::Double(f64::NEG_INFINITY)),
            (
                r#"{"$numberDecimal":"12345678901234567890.10"}"#,
                Bson::Decimal128("12345678901234567890.10".parse().unwrap()),
            ),
            (r#"{"$binary":{"base64":"aGVsbG8=","subType":"00"}}"#, binary(BinarySubtype::Generic)),
            (r#"{"$binary":"aGVsbG8=","$type":"05"}"#, binary(BinarySubtype::Md5)),
            (r#"{"$type":"00","$binary":"aGVsbG8="}"#, binary(BinarySubtype::Generic)),
            (r#"{"$binary":"aGVsbG8=","$type":5}"#, binary(BinarySubtype::Md5)),
            (
                r#"{"$uuid":"73ffd264-44b3-4c69-90e8-e7d1dfc035d4"}"#,
                Bson::Binary(Binary {
                    subtype: BinarySubtype::Uuid,
                    bytes: hex::decode("73ffd26444b34c6990e8e7d1dfc035d4").unwrap(),
                }),
            ),
            (r#"{"$regularExpression":{"pattern":"^a.b$","options":"i"}}"#, regex.clone()),
            (r#"{"$regex":"^a.b$","$options":"i"}"#, regex),
            (r#"{"$timestamp":{"t":4294967295,"i":1}}"#, Bson::Timestamp(Timestamp { time: u32::MAX, increment: 1 })),
            (r#"{"$minKey":1}"#, Bson::MinKey),
            (r#"{"$maxKey":1}"#, Bson::MaxKey),
            (r#"{"$symbol":"s"}"#, Bson::Symbol("s".into())),
            (r#"{"$undefined":true}"#, Bson::Undefined),
            (r#"{"$code":"f()"}"#, Bson::JavaScriptCode("f()".into())),
            (
                r#"{"$scope":{"n":{"$numberLong":"1"},"m":1},"$code":"f()"}"#,
                Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope {
                    code: "f()".into(),
                    scope: doc! { "n": 1_i64, "m": 1_i32 },
                }),
            ),
            (
                r#"{"$ref":"users","$id":{"$oid":"6553f1008d131e84448976ed"},"$db":"app"}"#,
                Bson::Document(doc! {
                    "$ref": "users", "$id": ObjectId::parse_str("6553f1008d131e84448976ed").unwrap(), "$db": "app",
                }),
            ),
            (
                r#"[{"$numberLong":"1"},{"a":{"$numberInt":"2"}}]"#,
                Bson::Array(vec![Bson::Int64(1), doc! { "a": 2_i32 }.into()]),
            ),
        ] {
            assert_eq!(read(text), Ok(wanted), "{text}");
            // Turned off, nothing of it is taken.
            assert!(from_json(&format!(r#"{{"v":{text}}}"#), false).unwrap_err().contains("begins with `$`"), "{text}");
        }
        assert!(matches!(read(r#"{"$numberDouble":"NaN"}"#), Ok(Bson::Double(number)) if number.is_nan()));
    }

    /// What is not Extended JSON is refused, and its field is named and not what it holds.
    #[test]
    fn s110_what_is_no_extended_json_is_refused() {
        for text in [
            r#"{"$oid":"s3cret"}"#,
            r#"{"$oid":7}"#,
            r#"{"$oid":"6553f1008d131e84448976ed","more":"s3cret"}"#,
            r#"{"$date":"s3cret"}"#,
            r#"{"$date":"2023-11-14"}"#,
            r#"{"$date":"é+000"}"#,
            r#"{"$date":1.5}"#,
            r#"{"$date":null}"#,
            r#"{"$numberLong":7}"#,
            r#"{"$numberLong":"9223372036854775808"}"#,
            r#"{"$numberInt":"2147483648"}"#,
            r#"{"$numberDecimal":"s3cret"}"#,
            r#"{"$binary":{"base64":"s3cret!","subType":"00"}}"#,
            r#"{"$binary":{"base64":"aGVsbG8=","subType":"0000"}}"#,
            r#"{"$binary":"aGVsbG8="}"#,
            r#"{"$binary":"aGVsbG8=","$type":-1}"#,
            r#"{"$uuid":"s3cret"}"#,
            r#"{"$timestamp":{"t":-1,"i":1}}"#,
            r#"{"$timestamp":{"t":4294967296,"i":1}}"#,
            r#"{"$minKey":2}"#,
            r#"{"$undefined":false}"#,
            r#"{"$options":"i"}"#,
            r#"{"$type":"00"}"#,
            r#"{"$scope":{}}"#,
            r#"{"$code":"f()","$scope":1}"#,
            r#"{"$symbol":"s","$scope":{}}"#,
            r#"{"$regularExpression":{"pattern":"a\u0000","options":""}}"#,
        ] {
            let reason = read(text).unwrap_err();
            assert!(reason.contains("field `v`") && !reason.contains("s3cret"), "{text}: {reason}");
        }
        for (text, words) in [
            (r#"{"$oid":"6553f1008d131e84448976ed","$oid":"6553f1008d131e84448976ed"}"#, "`$oid` twice"),
            (r#"{"$date":{"$numberLong":"1","$numberLong":"2"}}"#, "`$numberLong` twice"),
            (r#"{"$code":"","$scope":{"a":1,"a":2}}"#, "`a` twice"),
            (r#"{"$code":"","$scope":{"$set":1}}"#, "\"$set\" begins"),
            (r#"{"$set":{"a":1}}"#, "\"$set\" begins"),
            (r#"{"a":1,"$oid":"6553f1008d131e84448976ed"}"#, "\"$oid\" begins"),
            (r#"{"a":1,"$ref":"x"}"#, "\"$ref\" begins"),
            (r#"{"$ref":"x","$set":"y"}"#, "\"$set\" begins"),
        ] {
            let reason = read(text).unwrap_err();
            assert!(reason.contains(words), "{text}: {reason}");
        }
        assert_eq!(
            from_json(r#"{"$oid":"6553f1008d131e84448976ed"}"#, true).unwrap_err(),
            "the value is no JSON object"
        );
    }

    /// Code in code in code is read once, and not deeper than a document may be.
    #[test]
    fn s110_extended_json_has_a_depth() {
        let nested =
            |levels: usize| format!("{}1{}", r#"{"$code":"","$scope":{"a":"#.repeat(levels), "}}".repeat(levels));
        assert!(read(&nested(40)).is_ok());
        assert!(read(&nested(5_000)).unwrap_err().contains("100 levels"));
        let within = |levels: usize| format!(r#"{{"$date":{}1{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(read(&within(100_000)).is_err());
    }
}
