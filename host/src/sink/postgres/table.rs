//! What the catalog says of a table: which columns it has, and what fits into each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::value::RawValue;
use sqlx::{Error, Row as _};

use super::session::Session;

/// Tables whose columns are remembered; beyond it all are forgotten.
const KNOWN_TABLES: usize = 1000;

/// The table or view, and whether a unique index is over exactly the key, which only a real table is asked for. Views find the index
/// of the table behind them by themselves.
const RELATION: &str = "
SELECT c.oid::int8, c.relkind IN ('v', 'f') OR EXISTS (
    SELECT FROM pg_catalog.pg_index i
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
        AND i.indpred IS NULL AND i.indexprs IS NULL
        AND $2 = (
            SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attname::text COLLATE \"C\")
            FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])))
FROM pg_catalog.pg_class c
WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('r', 'p', 'v', 'f')";

/// Name, type, what fits, what fits into its elements, how it tells values apart, and whether the server fills it itself.
/// Domains count as what they are made of.
const COLUMNS: &str = "
WITH RECURSIVE made AS (
    SELECT a.attnum, a.atttypid AS oid, false AS element FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT made.attnum, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END,
        made.element OR t.typtype <> 'd'
    FROM made JOIN pg_catalog.pg_type t ON t.oid = made.oid
    WHERE t.typtype = 'd' OR t.typcategory = 'A' AND t.typelem <> 0
), holds AS (
    SELECT made.attnum, made.element, CASE
        WHEN t.oid IN ('pg_catalog.json'::regtype, 'pg_catalog.jsonb'::regtype) THEN 'json'
        WHEN t.typtype = 'c' OR t.oid = 'pg_catalog.record'::regtype THEN 'composite'
        WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN 'array'
        ELSE 'scalar' END AS kind
    FROM made JOIN pg_catalog.pg_type t ON t.oid = made.oid WHERE t.typtype <> 'd'
)
SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
    (SELECT kind FROM holds WHERE holds.attnum = a.attnum AND NOT element),
    (SELECT kind FROM holds WHERE holds.attnum = a.attnum AND element AND kind <> 'array' LIMIT 1),
    CASE
        WHEN a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) THEN 'integer'
        WHEN a.atttypid = 'uuid'::regtype THEN 'uuid'
        WHEN a.atttypid IN ('text'::regtype, 'varchar'::regtype) AND a.atttypmod = -1
            AND (SELECT l.collisdeterministic FROM pg_catalog.pg_collation l WHERE l.oid = a.attcollation) THEN 'text'
        ELSE '' END,
    a.attgenerated <> '' OR a.attidentity = 'a',
    (a.attnotnull OR t.typnotnull) AND NOT a.atthasdef AND a.attidentity = '' AND t.typdefault IS NULL
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = $1::int8::oid AND a.attnum > 0 AND NOT a.attisdropped";

/// What the catalog says of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    columns: HashMap<String, Column>,
    /// A unique index is over exactly the configured key.
    pub(super) has_key: bool,
}

/// What the catalog says of a column.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// Its type as it stands in a statement.
    pub(super) type_name: String,
    holds: Holds,
    /// What fits into the elements of an array.
    elements: Holds,
    pub(super) sameness: Sameness,
    /// The server fills it and takes no value.
    pub(super) generated: bool,
    /// It must not be null and has no default.
    required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Scalar,
    Json,
    Array,
    Composite,
}

impl Holds {
    fn of(kind: Option<&str>) -> Self {
        match kind {
            Some("json") => Self::Json,
            Some("array") => Self::Array,
            Some("composite") => Self::Composite,
            _ => Self::Scalar,
        }
    }
}

/// How a column tells values apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sameness {
    /// Whole numbers.
    Integer,
    /// Text, byte for byte.
    Text,
    /// UUIDs.
    Uuid,
    /// In a way that only the server knows.
    Unknown,
}

impl Table {
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.get(name)
    }

    /// Whether a new row with only these columns lacks one that it has to have.
    pub(super) fn lacks_a_column(&self, given: &[&str]) -> bool {
        self.columns.iter().any(|(name, column)| column.required && !given.contains(&name.as_str()))
    }
}

impl Column {
    /// Whether the value has a shape that the column takes (S107): the server would store a document's text in a column of text.
    ///
    /// # Errors
    /// Why not, in words that follow the column's name.
    pub(super) fn takes(&self, value: &RawValue) -> Result<(), String> {
        if self.generated {
            return Err("is filled by the server itself".into());
        }
        let fits = match value.get().as_bytes().first() {
            Some(b'{') => matches!(self.holds, Holds::Json | Holds::Composite),
            Some(b'[') => match self.holds {
                Holds::Json => true,
                Holds::Array => elements(value).is_some_and(|elements| self.take_elements(&elements)),
                Holds::Scalar | Holds::Composite => false,
            },
            _ => true,
        };
        if fits { Ok(()) } else { Err(format!("is of type `{}`, which takes no such nested value", self.type_name)) }
    }

    fn take_elements(&self, values: &[&RawValue]) -> bool {
        values.iter().all(|value| match value.get().as_bytes().first() {
            Some(b'{') => matches!(self.elements, Holds::Json | Holds::Composite),
            // A further dimension, unless the elements are documents.
            Some(b'[') if self.elements != Holds::Json => {
                elements(value).is_some_and(|inner| self.take_elements(&inner))
            }
            _ => true,
        })
    }
}

fn elements(array: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(array.get()).ok()
}

/// Asks the catalog, in a transaction that was begun for it. `None`: there is no such table.
pub(super) async fn look_up(session: &mut Session, table: &str, key: &[String]) -> Result<Option<Table>, Error> {
    let found = ask(session, table, key).await;
    let ended = session.close("ROLLBACK").await;
    found.and_then(|found| ended.map(|()| found))
}

async fn ask(session: &mut Session, table: &str, key: &[String]) -> Result<Option<Table>, Error> {
    let mut sorted = key.to_vec();
    sorted.sort_unstable();
    let found = session.fetch(sqlx::query(RELATION).bind(table).bind(sorted)).await?;
    let Some(relation) = found.first() else { return Ok(None) };
    let (oid, has_key) = (relation.try_get::<i64, _>(0)?, relation.try_get(1)?);
    let mut columns = HashMap::new();
    for row in session.fetch(sqlx::query(COLUMNS).bind(oid)).await? {
        let sameness = match row.try_get::<&str, _>(4)? {
            "integer" => Sameness::Integer,
            "text" => Sameness::Text,
            "uuid" => Sameness::Uuid,
            _ => Sameness::Unknown,
        };
        let column = Column {
            type_name: row.try_get(1)?,
            holds: Holds::of(row.try_get(2)?),
            elements: Holds::of(row.try_get(3)?),
            sameness,
            generated: row.try_get(5)?,
            required: row.try_get(6)?,
        };
        columns.insert(row.try_get(0)?, column);
    }
    Ok(Some(Table { columns, has_key }))
}

/// Tables that were looked up before, by their names as they stand in statements.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<String, Arc<Table>>>);

impl Known {
    pub(super) fn get(&self, table: &str) -> Option<Arc<Table>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }

    /// Remembers what was found, or forgets what is no longer there.
    pub(super) fn set(&self, table: &str, found: Option<&Arc<Table>>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Some(found) => {
                if known.len() >= KNOWN_TABLES {
                    known.clear();
                }
                known.insert(table.to_owned(), Arc::clone(found));
            }
            None => drop(known.remove(table)),
        }
    }
}
