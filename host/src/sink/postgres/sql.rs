//! The statements that write rows, which come as one JSON text.

use std::fmt::Write as _;

use super::Encoding;
use super::name::quoted;

/// A column that rows have.
#[derive(Clone, Copy)]
pub(super) struct Column<'r> {
    pub(super) name: &'r str,
    /// Its type as it stands in a statement.
    pub(super) type_name: &'r str,
    pub(super) encoding: Option<Encoding>,
}

impl Column<'_> {
    fn quoted(&self) -> String {
        quoted(self.name)
    }

    /// The column as it is read from the rows.
    pub(super) fn declared(&self) -> String {
        let read_as = if self.encoding.is_some() { "text" } else { self.type_name };
        format!("{} {read_as}", self.quoted())
    }

    /// The value that is written, of what was read.
    pub(super) fn value(&self) -> String {
        let read = self.quoted();
        let since_1970 = |unit: &str| format!("(timestamptz 'epoch' + {read}::int8 * interval '1 {unit}')");
        let value = match self.encoding {
            None => return read,
            Some(Encoding::Base64) => format!("pg_catalog.decode({read}, 'base64')"),
            Some(Encoding::EpochDays) => format!("(date 'epoch' + {read}::int4)"),
            Some(Encoding::EpochMillis) => since_1970("millisecond"),
            Some(Encoding::EpochMicros) => since_1970("microsecond"),
            Some(Encoding::Json) => read,
        };
        format!("{value}::{}", self.type_name)
    }
}

/// The rows come as JSON and not as JSONB, which leaves numbers and documents as they were written. Their columns are named
/// with their types, so that only those are looked at.
fn recordset(columns: &[Column<'_>]) -> String {
    let declared: Vec<String> = columns.iter().map(Column::declared).collect();
    let rows = format!("json_to_recordset($1::text::json) AS x({})", declared.join(", "));
    if columns.iter().all(|column| column.encoding.is_none()) {
        return rows;
    }
    let values: Vec<String> =
        columns.iter().map(|column| format!("{} AS {}", column.value(), column.quoted())).collect();
    format!("(SELECT {} FROM {rows}) AS x", values.join(", "))
}

/// Inserts rows; with a key, they replace what stands under theirs.
pub(super) fn insert(table: &str, columns: &[Column<'_>], key: &[String], guard: Option<&str>) -> String {
    let names: Vec<String> = columns.iter().map(Column::quoted).collect();
    let names = names.join(", ");
    let mut sql = format!("INSERT INTO {table} AS old ({names}) SELECT {names} FROM {}", recordset(columns));
    if !key.is_empty() {
        sql.push_str(&on_conflict(columns, key));
    }
    if let Some(guard) = guard {
        let _ = write!(sql, " WHERE {}", is_not_newer(guard, "EXCLUDED"));
    }
    sql
}

/// The row that stands there is not newer than the one to be written. Rows from before there was a guard are not.
fn is_not_newer(guard: &str, written: &str) -> String {
    let guard = quoted(guard);
    format!("(old.{guard} IS NULL OR old.{guard} <= {written}.{guard})")
}

/// Deletes what stands under the keys.
pub(super) fn delete(table: &str, columns: &[Column<'_>], guard: Option<&str>) -> String {
    let same = columns.iter().map(|column| match guard {
        Some(guard) if guard == column.name => is_not_newer(guard, "x"),
        _ => format!("old.{0} = x.{0}", column.quoted()),
    });
    let same: Vec<String> = same.collect();
    format!("DELETE FROM {table} AS old USING {} WHERE {}", recordset(columns), same.join(" AND "))
}

fn on_conflict(columns: &[Column<'_>], key: &[String]) -> String {
    let keys: Vec<String> = key.iter().map(|column| quoted(column)).collect();
    let others = others(columns, key).map(|column| format!("{column} = EXCLUDED.{column}")).collect::<Vec<_>>();
    let what = if others.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", others.join(", ")) };
    format!(" ON CONFLICT ({}) DO {what}", keys.join(", "))
}

/// The columns that are not the key's, quoted.
fn others<'c>(columns: &'c [Column<'c>], key: &'c [String]) -> impl Iterator<Item = String> + 'c {
    columns.iter().filter(|column| !key.iter().any(|key| key == column.name)).map(Column::quoted)
}

/// Lays rows over those of their keys, and inserts those that find none. The server looks at what must not be null before it
/// looks for a conflict, so that `INSERT ... ON CONFLICT` alone refuses rows that lack such a column, whether there is
/// something to lay them over or not. Rows of which several are the same to the table are inserted as well, which is refused:
/// which of them comes last is only known to who writes them one by one.
pub(super) fn upsert_partial(table: &str, columns: &[Column<'_>], key: &[String], guard: Option<&str>) -> String {
    let names: Vec<String> = columns.iter().map(Column::quoted).collect();
    let names = names.join(", ");
    let same: Vec<String> = key.iter().map(|column| format!("old.{0} = x.{0}", quoted(column))).collect();
    let same = same.join(" AND ");
    let keys: Vec<String> = key.iter().map(|column| format!("old.{}", quoted(column))).collect();
    let changes: Vec<String> = others(columns, key).map(|column| format!("{column} = x.{column}")).collect();
    let newer = guard.map(|guard| format!(" AND {}", is_not_newer(guard, "x"))).unwrap_or_default();
    let mut sql = format!("WITH x AS (SELECT {names} FROM {})", recordset(columns));
    if !changes.is_empty() {
        let _ = write!(sql, ", laid AS (UPDATE {table} AS old SET {} FROM x WHERE {same}{newer})", changes.join(", "));
    }
    let _ = write!(
        sql,
        ", found AS (SELECT x.*, pg_catalog.count(*) OVER (PARTITION BY {}) > 1 AS repeated \
        FROM x JOIN {table} AS old ON {same}) \
        INSERT INTO {table} AS old ({names}) \
        SELECT {names} FROM x WHERE NOT EXISTS (SELECT FROM {table} AS old WHERE {same}) \
        UNION ALL SELECT {names} FROM found WHERE repeated{}",
        keys.join(", "),
        on_conflict(columns, key)
    );
    if let Some(guard) = guard {
        let _ = write!(sql, " WHERE {}", is_not_newer(guard, "EXCLUDED"));
    }
    sql
}
