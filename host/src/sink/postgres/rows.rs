//! Rows as they are asked to be written, as far as that is known without the database.

use std::collections::BTreeMap;

use serde_json::value::{RawValue, to_raw_value};

use super::Options;
use super::name::{self, RULE, is_identifier};
use crate::model::{Batch, Failure, Offset};
use crate::sink::json::{self, Fields};

/// One row of a call.
pub(super) struct Row<'b> {
    /// Its place in the batch.
    pub(super) index: u32,
    /// Its table as it stands in a statement.
    pub(super) table: String,
    /// How new it is among the rows of its key; see [`Batch::version`].
    pub(super) version: Offset,
    pub(super) work: Work<'b>,
}

/// What is to be done.
pub(super) enum Work<'b> {
    /// Write this document with these fields.
    Write(&'b str, Fields<'b>),
    /// Delete what has these values in the key columns, which come in the configured order.
    Delete(Vec<Box<RawValue>>),
}

/// Reads the rows of a call. `option` is the key under which the table for all rows is configured.
pub(super) fn read<'b>(batch: &'b Batch, options: &Options, option: &str) -> (Vec<Row<'b>>, Vec<Failure>) {
    let mut tables = BTreeMap::new();
    let (mut rows, mut refused) = (Vec::with_capacity(batch.len()), Vec::new());
    for (index, place) in (0..batch.len()).zip(0_u32..) {
        match row(batch, index, options, option, &mut tables) {
            Ok(Some((table, work))) => rows.push(Row { index: place, table, version: batch.version(index), work }),
            Ok(None) => {}
            Err(reason) => refused.push(Failure::reject(place, reason)),
        }
    }
    (rows, refused)
}

fn row<'b>(
    batch: &'b Batch,
    index: usize,
    options: &Options,
    option: &str,
    tables: &mut BTreeMap<&'b [u8], Result<String, String>>,
) -> Result<Option<(String, Work<'b>)>, String> {
    let record = batch.row(index);
    let document = match json::row(record.value, options.on_tombstone)? {
        json::Row::Write(document) => Some(document),
        json::Row::Delete => None,
        json::Row::Skip => return Ok(None),
    };
    // Taken as bytes: a name that is not UTF-8 must not fall back to the default.
    let target = if batch.targets.is_empty() { None } else { batch.targets.get(index) };
    let target = target.filter(|target| !target.is_empty()).unwrap_or_default();
    let table = tables.entry(target).or_insert_with(|| table(target, options, option)).clone()?;
    let work = match document {
        Some(document) => Work::Write(document, fields(document, options)?),
        None => Work::Delete(key(record.key, options)?),
    };
    Ok(Some((table, work)))
}

fn table(target: &[u8], options: &Options, option: &str) -> Result<String, String> {
    let name = match str::from_utf8(target) {
        Ok("") if options.table.is_empty() => return Err(format!("it names no table, and `{option}` is not set")),
        Ok("") => options.table.as_str(),
        Ok(name) => name,
        Err(_) => return Err("its table's name is not UTF-8".into()),
    };
    name::table(name, options.qualified_tables)
}

fn fields<'b>(document: &'b str, options: &Options) -> Result<Fields<'b>, String> {
    let fields = json::object(document)?;
    if fields.is_empty() {
        return Err("the value has no field, so there is no column to write".into());
    }
    if let Some((name, _)) = fields.iter().find(|(name, _)| !is_identifier(name)) {
        return Err(format!("`{}` cannot be a column's name: {RULE}", name.escape_debug()));
    }
    if fields.iter().any(|(name, _)| *name == options.upsert.guard) {
        return Err(format!("`{}` is the column of the guard, which Tidegate fills itself", options.upsert.guard));
    }
    for column in &options.key {
        match fields.iter().find(|(name, _)| name == column) {
            None => return Err(format!("the key column `{column}` is missing")),
            Some((_, value)) if value.get() == "null" => return Err(format!("the key column `{column}` is null")),
            Some(_) => {}
        }
    }
    Ok(fields)
}

/// What a tombstone's key says of the key columns: an object has them all; for a single column a JSON scalar is its value, and
/// what is no JSON is its text.
fn key(key: Option<&[u8]>, options: &Options) -> Result<Vec<Box<RawValue>>, String> {
    let key = key.ok_or("the record has no key that would say what to delete")?;
    let text = str::from_utf8(key).map_err(|_| "the record's key is not UTF-8")?;
    let known: Option<&RawValue> = serde_json::from_str(text).ok();
    if known.is_some_and(|known| known.get().starts_with('{')) {
        let fields = json::object(text).map_err(|why| why.replace("the value", "the record's key"))?;
        return options.key.iter().map(|column| key_field(&fields, column)).collect();
    }
    if options.key.len() != 1 {
        let columns = options.key.join("`, `");
        return Err(format!("the record's key is no JSON object with the key columns `{columns}`"));
    }
    match known {
        Some(null) if null.get() == "null" => Err("the record's key is null".into()),
        Some(scalar) if !scalar.get().starts_with('[') => Ok(vec![scalar.to_owned()]),
        _ => to_raw_value(text).map(|text| vec![text]).map_err(|error| error.to_string()),
    }
}

fn key_field(fields: &Fields<'_>, column: &str) -> Result<Box<RawValue>, String> {
    match fields.iter().find(|(name, _)| name == column) {
        Some((_, value)) if value.get() == "null" => Err(format!("`{column}` is null in the record's key")),
        Some((_, value)) => Ok((*value).to_owned()),
        None => Err(format!("the record's key has no `{column}`")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::model::TopicPartition;
    use crate::sink::OnTombstone;
    use crate::sink::postgres::Upsert;

    fn options(key: &[&str]) -> Options {
        let key = key.iter().map(|column| (*column).to_owned()).collect();
        let upsert = Upsert { guard: "guard".into() };
        Options { table: "t".into(), key, upsert, on_tombstone: OnTombstone::Delete, ..Options::default() }
    }

    fn deleted(record_key: Option<&str>, columns: &[&str]) -> Result<Vec<String>, String> {
        let mut batch = Batch::new(TopicPartition::new("orders", 0));
        batch.push(1, -1, record_key.map(str::as_bytes), None);
        let (mut rows, mut refused) = read(&batch, &options(columns), "option");
        match (rows.pop(), refused.pop()) {
            (Some(Row { work: Work::Delete(values), .. }), None) => {
                Ok(values.iter().map(|value| value.get().to_owned()).collect())
            }
            (None, Some(failure)) => Err(failure.reason),
            _ => panic!("neither deleted nor refused"),
        }
    }

    #[test]
    fn a_tombstones_key_gives_the_key_columns() {
        for (key, value) in [
            ("7", "7"),
            ("007", "\"007\""),
            ("abc", "\"abc\""),
            ("\"abc\"", "\"abc\""),
            ("true", "true"),
            ("[1]", "\"[1]\""),
            ("", "\"\""),
            ("{\"id\":7,\"more\":1}", "7"),
            ("{broken", "\"{broken\""),
        ] {
            assert_eq!(deleted(Some(key), &["id"]).unwrap(), [value], "{key}");
        }
        assert_eq!(deleted(Some("{\"b\":\"x\",\"a\":1}"), &["a", "b"]).unwrap(), ["1", "\"x\""]);
        for (key, columns) in [
            (None, &["id"][..]),
            (Some("null"), &["id"]),
            (Some("{\"id\":null}"), &["id"]),
            (Some("{\"di\":1}"), &["id"]),
            (Some("{\"id\":1,\"id\":2}"), &["id"]),
            (Some("7"), &["a", "b"]),
        ] {
            assert!(deleted(key, columns).is_err(), "{key:?}");
        }
    }

    #[test]
    fn s107_what_has_no_column_is_refused_without_asking() {
        let refused = |value: &str| {
            let mut batch = Batch::new(TopicPartition::new("orders", 0));
            batch.push(1, -1, None, Some(value.as_bytes()));
            let (rows, refused) = read(&batch, &options(&["id"]), "option");
            assert!(rows.is_empty());
            refused[0].reason.clone()
        };
        assert_eq!(refused("{}"), "the value has no field, so there is no column to write");
        assert_eq!(refused("[]"), "the value is no JSON object");
        assert!(refused(r#"{"id":1,"a\n":1}"#).starts_with(r"`a\n` cannot be a column's name"));
        assert_eq!(refused(r#"{"a":1}"#), "the key column `id` is missing");
        assert_eq!(refused(r#"{"id":null}"#), "the key column `id` is null");
        assert!(refused(r#"{"id":1,"guard":5}"#).contains("column of the guard"));
    }
}
