//! From rows to statements: as few as possible, in an order that keeps each key's rows in theirs.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::rows::{Row, Work};
use super::sql;
use super::table::{Sameness, Table};
use super::{Encoding, Options};
use crate::model::{Failure, Offset};

/// The type of the guard's column: that of offsets, so that none is too large for it.
pub(super) const GUARD_TYPE: &str = "bigint";

/// A table that was asked for, or why its rows are refused.
pub(super) type Found = Result<Arc<Table>, String>;

/// One statement for rows of one table with the same columns.
pub(super) struct Statement<'r> {
    pub(super) sql: String,
    /// The rows lack a column that a new row has to have, so they can only be laid over rows that are there.
    pub(super) partial: bool,
    /// The table as it stands in a statement.
    pub(super) table: &'r str,
    /// The columns that the rows have.
    pub(super) columns: Vec<sql::Column<'r>>,
    pub(super) items: Vec<Item<'r>>,
}

/// One row of a statement.
pub(super) struct Item<'r> {
    /// Its place in the batch.
    pub(super) index: u32,
    /// An object with the statement's columns.
    pub(super) document: Cow<'r, str>,
    /// Where there is a guard: how new it is among the rows of its key.
    version: Option<Offset>,
    /// Rows with the same text here are the same to the table; only the newest of them is written, without a guard the
    /// last.
    pub(super) key: Option<String>,
}

/// The rows as statements, and those that no statement could write.
pub(super) fn plan<'r>(
    rows: &'r [Row<'_>],
    tables: &'r HashMap<String, Found>,
    options: &'r Options,
) -> (Vec<Statement<'r>>, Vec<Failure>) {
    let guard = Some(options.upsert.guard.as_str()).filter(|guard| !guard.is_empty());
    let mut plan = Plan {
        key: &options.key,
        guard,
        encodings: &options.encodings,
        statements: Vec::new(),
        open: HashMap::new(),
        last: HashMap::new(),
    };
    let mut refused = Vec::new();
    for row in rows {
        let fitted = match tables.get(&row.table) {
            Some(Ok(table)) => plan.fit(row, table),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err("its table was not looked up".to_owned()),
        };
        if let Err(reason) = fitted {
            refused.push(Failure::reject(row.index, reason));
        }
    }
    (plan.statements, refused)
}

#[derive(PartialEq, Eq, Hash)]
struct Group<'r> {
    table: &'r str,
    deletes: bool,
    columns: Vec<&'r str>,
}

struct Plan<'r> {
    key: &'r [String],
    guard: Option<&'r str>,
    encodings: &'r BTreeMap<String, Encoding>,
    statements: Vec<Statement<'r>>,
    /// Statements that may still take rows.
    open: HashMap<Group<'r>, usize>,
    /// The last statement that has a row of that key.
    last: HashMap<(&'r str, String), usize>,
}

impl<'r> Plan<'r> {
    fn fit(&mut self, row: &'r Row<'_>, table: &'r Table) -> Result<(), String> {
        let name = row.table.as_str();
        if !self.key.is_empty() && !table.has_key {
            return Err(format!("table `{}` has no unique index over exactly {}", plain(name), listed(self.key)));
        }
        if let Some(guard) = self.guard {
            let is_fit = table.column(guard).is_some_and(|column| column.type_name == GUARD_TYPE);
            if !is_fit {
                return Err(format!("table `{}` has no column `{guard}` of type `{GUARD_TYPE}`", plain(name)));
            }
        }
        let (mut group, mut document, values) = match &row.work {
            Work::Write(document, fields) => {
                for (field, value) in fields {
                    let column = table
                        .column(field)
                        .ok_or_else(|| format!("table `{}` has no column `{field}`", plain(name)))?;
                    column.takes(value).map_err(|why| format!("column `{field}` of table `{}` {why}", plain(name)))?;
                }
                let mut columns: Vec<&str> = fields.iter().map(|(field, _)| field.as_ref()).collect();
                columns.sort_unstable();
                let value = |column: &String| fields.iter().find(|(field, _)| field == column).map(|(_, value)| *value);
                let values: Vec<&RawValue> = self.key.iter().filter_map(value).collect();
                (Group { table: name, deletes: false, columns }, Cow::Borrowed(*document), values)
            }
            Work::Delete(values) => {
                let columns = self.key.iter().map(String::as_str).collect();
                let values: Vec<&RawValue> = values.iter().map(AsRef::as_ref).collect();
                (Group { table: name, deletes: true, columns }, Cow::Owned(object(self.key, &values)), values)
            }
        };
        if let Some(guard) = self.guard {
            group.columns.push(guard);
            let rest = document.trim_start().trim_start_matches('{');
            document = Cow::Owned(format!("{{\"{guard}\":{},{rest}", row.version));
        }
        let known = identity(table, self.key, &values);
        let place = self.place(group, known.as_ref(), table)?;
        let key = (!self.key.is_empty()).then(|| match &known {
            Some(known) => known.clone(),
            None => values.iter().map(|value| value.get()).collect::<Vec<_>>().join(","),
        });
        if let Some(known) = known {
            self.last.insert((name, known), place);
        }
        if let Some(statement) = self.statements.get_mut(place) {
            let version = self.guard.map(|_| row.version);
            statement.items.push(Item { index: row.index, document, version, key });
        }
        Ok(())
    }

    /// The statement that a row goes to: the open one of its kind, unless a later one has a row of the same key. A row
    /// whose
    /// key could be anybody's comes after all before it, and before all after it.
    fn place(&mut self, group: Group<'r>, known: Option<&String>, table: &'r Table) -> Result<usize, String> {
        if !self.key.is_empty() {
            match known {
                Some(known) => {
                    let last = self.last.get(&(group.table, known.clone())).copied();
                    if self.open.get(&group).is_some_and(|&open| last.is_some_and(|last| last > open)) {
                        self.open.remove(&group);
                    }
                }
                None => self.close_others(&group),
            }
        }
        if let Some(&open) = self.open.get(&group) {
            return Ok(open);
        }
        let encodings = self.encodings;
        let column = |&name: &&'r str| {
            let known = table.column(name)?;
            Some(sql::Column { name, type_name: &known.type_name, encoding: encodings.get(name).copied() })
        };
        let columns = group.columns.iter().map(column).collect::<Option<Vec<_>>>();
        let columns =
            columns.ok_or_else(|| format!("table `{}` lacks one of {}", plain(group.table), listed(self.key)))?;
        let partial = !group.deletes && !self.key.is_empty() && table.lacks_a_column(&group.columns);
        let sql = match (group.deletes, partial) {
            (true, _) => sql::delete(group.table, &columns, self.guard),
            (false, true) => sql::upsert_partial(group.table, &columns, self.key, self.guard),
            (false, false) => sql::insert(group.table, &columns, self.key, self.guard),
        };
        self.statements.push(Statement { sql, partial, table: group.table, columns, items: Vec::new() });
        let place = self.statements.len() - 1;
        self.open.insert(group, place);
        Ok(place)
    }

    /// Leaves only the table's latest statement open, and that only for rows of this kind.
    fn close_others(&mut self, group: &Group<'r>) {
        let latest = self.open.iter().filter(|(other, _)| other.table == group.table).map(|(_, &place)| place).max();
        self.open.retain(|other, place| other.table != group.table || other == group && Some(*place) == latest);
    }
}

/// A text that is the same for keys that are the same to the table, where that can be told from here.
fn identity(table: &Table, key: &[String], values: &[&RawValue]) -> Option<String> {
    let mut joined = String::new();
    for (column, value) in key.iter().zip(values) {
        let text = value.get();
        let text = if text.starts_with('"') { serde_json::from_str(text).ok()? } else { text.to_owned() };
        let canonical = match table.column(column)?.sameness {
            Sameness::Integer => {
                let digits = text.strip_prefix('-').unwrap_or(&text);
                text == "0" || !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit())
            }
            Sameness::Text => true,
            Sameness::Uuid => {
                text.len() == 36
                    && text.bytes().enumerate().all(|(at, byte)| match at {
                        8 | 13 | 18 | 23 => byte == b'-',
                        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
                    })
            }
            Sameness::Unknown => false,
        };
        if !canonical || text.is_empty() && key.len() > 1 {
            return None;
        }
        let _ = write!(joined, "{}:{text},", text.len());
    }
    Some(joined)
}

fn object(names: &[String], values: &[&RawValue]) -> String {
    let fields: Vec<String> =
        names.iter().zip(values).map(|(name, value)| format!("\"{name}\":{}", value.get())).collect();
    format!("{{{}}}", fields.join(","))
}

/// The rows of a part of a statement as its parameter: only the newest of those that are the same to the table. Rows
/// that are
/// as new as each other come in their order, and without a guard all are.
pub(super) fn parameter(items: &[Item<'_>]) -> String {
    let mut newest: HashMap<&str, usize> = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        if let Some(key) = &item.key {
            let newest = newest.entry(key).or_insert(place);
            if items.get(*newest).is_none_or(|other| other.version <= item.version) {
                *newest = place;
            }
        }
    }
    let kept: Vec<&str> = items
        .iter()
        .enumerate()
        .filter(|(place, item)| item.key.as_ref().is_none_or(|key| newest.get(key.as_str()) == Some(place)))
        .map(|(_, item)| &*item.document)
        .collect();
    let mut text = String::with_capacity(kept.iter().map(|document| document.len() + 1).sum::<usize>() + 2);
    text.push('[');
    for (number, document) in kept.iter().enumerate() {
        if number > 0 {
            text.push(',');
        }
        text.push_str(document);
    }
    text.push(']');
    text
}

/// A table's name without its quotes.
pub(super) fn plain(table: &str) -> String {
    table.replace('"', "")
}

/// Columns in a sentence.
pub(super) fn listed(columns: &[String]) -> String {
    columns.iter().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", ")
}
