//! PostgreSQL tables as a destination: every row becomes a row of its table (S105–S109).
//!
//! A row's value is a JSON object whose fields are the table's columns. The server itself converts each value to its
//! column's
//! type, as in a literal: a string becomes a timestamp or a `bytea`, a number a `numeric` digit for digit, an object or
//! array
//! a `json` or `jsonb`, an array of scalars a PostgreSQL array. Columns that the object does not name get their
//! defaults. Times
//! without a zone are taken for UTC. With `key` a row replaces the fields that it names in the row of the same key.
//!
//! All rows of a call are written in one transaction. When the server refuses one of them, the others still land
//! exactly once.
//! Several rows of the same key in one call count as written when the last of them is; with `upsert.guard` a row also
//! when one
//! of a higher offset stands there already.
//!
//! | What goes wrong | Answer for its rows |
//! |---|---|
//! | The value is null, not UTF-8, no JSON object, has no field, or has a name twice | reject |
//! | No table is named, or the name of the table or of a field is no identifier | reject |
//! | The table is missing, or lacks a column that a field names, or fills it by itself | reject |
//! | `key` is configured and the table has no unique index over exactly it; a key column is missing or null | reject |
//! | A row with `key` lacks a column that a new row has to have, and no row of its key is there (23502) | reject |
//! | A tombstone is to be deleted and the record's key does not give the key columns | reject |
//! | An object or array for a column whose type takes none | reject |
//! | A field is named like the column of `upsert.guard`, or that column is missing or no `bigint` | reject |
//! | The server refuses the row: its value, a constraint, row-level security, a trigger, a limit (SQLSTATE 22, 23, 42, 54, P0 and all that are not below) | reject |
//! | It refuses the statement whatever the rows are: a column's privilege, a view, a publication without replica identity (42, 55, 0A) | reject for the rows of this table |
//! | The user may not write to the configured table (42501) | unavailable: the privilege was taken away, and is for the operator to give back. For another table, which the row chose, reject |
//! | The row fails in a way that the server did not expect, such as with a damaged index, or with a text that an extension's type cannot read (XX, HV) | retry where other rows of the call were written, else unknown |
//! | The row or its table is locked (55P03, 55006) | unavailable; the call's other rows are written |
//! | The table's disk is full or a file of it cannot be read; the server behind a foreign table cannot be reached (53100, 58, 08, HV00N, HV00L, HV00M, HV001) | unavailable; the rows of other tables are written |
//! | Serialization failure or deadlock, six times in a row (40001, 40P01) | the call is unavailable |
//! | Statement timeout, transaction timeout, cancelled (57014, 25P04), a pooler's `query_timeout` | the call timed out: smaller ones follow |
//! | Out of memory or temporary space, any other end of the transaction (53200, 53400, 40, 72, 3B, 25P01, 25P02), an answer that is not understood | unknown: asked again in parts |
//! | The connection breaks while the transaction is being committed, without `key` | unknown: written again, perhaps twice |
//! | The same with `key` | the call is unavailable |
//! | Not to be reached, login refused, shutting down, out of connections, read-only as after a failover, database gone, prepared statement lost (28, 53, 57, F0, 25006, 25P03, 26000, 3D000, 42P05), out of transaction numbers (54000 of that kind) | the call is unavailable, and every connection is made anew |
//! | Any other error with which the server or a pooler ends the connection (severity FATAL, such as PgBouncer's 08P01), or that comes before the first row was sent | the call is unavailable, and every connection is made anew |
//! | No connection of the pool becomes free for 10 seconds | the call is unavailable |
//!
//! Which row or table is the cause the sink finds out with savepoints, in the same transaction that writes the others.
//! A lock is waited
//! for no longer than 5 seconds, or as long as `lock_timeout` of the role or of the address says, and from the first
//! one that was
//! waited for in vain no longer than 100 ms each. The setting is the transaction's own, so that it works behind a
//! connection pooler.
//!
//! With `key` the sink is idempotent. Without it, a crash between write and commit writes rows twice, and so may an
//! unknown outcome.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::suspects::Suspects;
use super::tls::Tls;
use super::{Description, OnTombstone, Query, Sink};
use crate::blocking::compute;
use crate::model::{Answer, Batch, CallError, Fault, TopicPartition};
use crate::secret::Secret;

mod connect;
mod dsn;
mod isolate;
mod lookup;
mod name;
mod plan;
mod pool;
mod query;
mod rows;
mod session;
mod sql;
mod sqlstate;
mod start;
mod table;
mod write;

use dsn::Address;
use pool::{Health, Pools, User};
use table::Known;
use write::{First, Writer};

/// Most rows wished for in one call.
const CALL_ROWS: usize = 5_000;
/// Most bytes wished for in one call.
const CALL_BYTES: usize = 16 << 20;
/// How long the connections may take to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// One database to write to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PostgresSink")]
pub struct Options {
    /// Where the database is: `postgresql://user:password@host:5432/database`.
    pub dsn: String,
    /// The table for payloads that name none.
    #[serde(default)]
    pub table: String,
    /// Columns that tell rows apart. With them a row replaces the one of the same key, so that writing it twice is as
    /// writing it once; they need a unique index. Left out, every row is inserted.
    #[serde(default)]
    pub key: Vec<String>,
    /// How a row replaces the one of the same key.
    #[serde(default)]
    pub upsert: Upsert,
    /// How the values of a column come that are not as its type reads them, by the column's name: `base64` (for a `bytea`),
    /// `epoch_days` (`date`), `epoch_millis`, `epoch_micros` (`timestamptz`, `timestamp`), `json` (a string of JSON text, for
    /// `json` and `jsonb`).
    #[serde(default)]
    pub encodings: BTreeMap<String, Encoding>,
    /// Whether a table may be named together with its schema, `schema.table` (S106).
    #[serde(default)]
    pub qualified_tables: bool,
    /// Connections kept open (S108).
    #[serde(default = "min_connections")]
    pub min_connections: u32,
    /// Most connections that rows are written on (S108). Statements of plugins have up to 4 of their own.
    #[serde(default = "max_connections")]
    pub max_connections: u32,
    /// What happens to a record whose value is null; `delete` needs `key`.
    #[serde(default)]
    pub on_tombstone: OnTombstone,
    /// TLS beyond what the DSN says.
    #[serde(default)]
    pub tls: Tls,
}

/// How a row replaces the one of the same key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Upsert {
    /// A column of type `bigint` in which the sink keeps the offset of the record that a row was made of: a row never
    /// replaces
    /// one of a higher offset, whoever writes it. Needs `key`, and all records of a key in one partition.
    pub guard: String,
}

/// How the values of a column come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "PostgresEncoding")]
pub enum Encoding {
    /// A string in base64, for a `bytea`.
    Base64,
    /// Days since 1970, for a `date`.
    EpochDays,
    /// Milliseconds since 1970, for a `timestamptz`, or a `timestamp` in UTC.
    EpochMillis,
    /// Microseconds since 1970, for the same.
    EpochMicros,
    /// A string that holds JSON text, for a `json` or `jsonb`; what is no string is taken as it is.
    Json,
}

fn min_connections() -> u32 {
    2
}

fn max_connections() -> u32 {
    10
}

/// Writes rows to the tables of one database; see the module's text.
pub struct PostgresSink {
    name: String,
    options: Options,
    address: Mutex<Arc<Address>>,
    /// What the DSN is read from where files hold a part of it.
    secret: Option<Secret>,
    /// `None` until connected.
    pools: Mutex<Option<Arc<Pools>>>,
    health: Arc<Health>,
    known: Known,
    suspects: Suspects,
}

impl fmt::Debug for PostgresSink {
    /// Without the DSN and what was read from it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSink").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PostgresSink {
    /// The sink `sinks.postgres.<name>`, not yet connected.
    ///
    /// # Errors
    /// When an option cannot be right, or a file of `tls` cannot be read.
    pub fn new(name: &str, options: &Options) -> Result<Self, Fault> {
        let place = format!("sinks.postgres.{name}");
        if !options.table.is_empty() {
            name::table(&options.table, options.qualified_tables)
                .map_err(|why| Fault::config(format!("`{place}.table` is no table")).because(why))?;
        }
        for (number, column) in options.key.iter().enumerate() {
            if !name::is_identifier(column) {
                let shown = column.escape_debug();
                return Err(Fault::config(format!("`{place}.key` names `{shown}`, which cannot be a column"))
                    .hint(format!("a column's name is {}", name::RULE)));
            }
            if options.key.iter().take(number).any(|earlier| earlier == column) {
                return Err(Fault::config(format!("`{place}.key` names `{column}` twice")));
            }
        }
        guard_is_usable(&place, options)?;
        for column in options.encodings.keys() {
            if !name::is_identifier(column) || *column == options.upsert.guard {
                let shown = column.escape_debug();
                return Err(Fault::config(format!("`{place}.encodings` names `{shown}`, which no row can give"))
                    .hint(format!("name a column that rows have; its name is {}", name::RULE)));
            }
        }
        let address = Address::new(&place, options)?;
        let (name, options) = (name.to_owned(), options.clone());
        Ok(Self {
            name,
            options,
            address: Mutex::new(Arc::new(address)),
            secret: None,
            pools: Mutex::default(),
            health: Arc::default(),
            known: Known::default(),
            suspects: Suspects::default(),
        })
    }

    fn place(&self) -> String {
        format!("sinks.postgres.{}", self.name)
    }

    fn option(&self, option: &str) -> String {
        format!("{}.{option}", self.place())
    }

    fn writer(&self) -> Writer<'_> {
        let idempotent = !self.options.key.is_empty();
        let table = name::table(&self.options.table, self.options.qualified_tables).unwrap_or_default();
        Writer { name: &self.name, address: self.address(), table, idempotent }
    }
}

fn guard_is_usable(place: &str, options: &Options) -> Result<(), Fault> {
    let guard = &options.upsert.guard;
    if guard.is_empty() {
        return Ok(());
    }
    let option = format!("{place}.upsert.guard");
    if !name::is_identifier(guard) {
        let shown = guard.escape_debug();
        return Err(Fault::config(format!("`{option}` is `{shown}`, which cannot be a column"))
            .hint(format!("a column's name is {}", name::RULE)));
    }
    if options.key.is_empty() {
        return Err(Fault::config(format!("`{option}` guards nothing: without `key` no row replaces another"))
            .hint(format!("name the columns of `{place}.key`, or leave the guard out")));
    }
    if options.key.contains(guard) {
        return Err(Fault::config(format!("`{option}` names `{guard}`, which is a column of the key"))
            .hint("give the guard a column of its own, of type `bigint`"));
    }
    Ok(())
}

#[async_trait]
impl Sink for PostgresSink {
    fn description(&self) -> Description {
        let idempotent = !self.options.key.is_empty();
        Description { max_rows: CALL_ROWS, max_bytes: CALL_BYTES, ..Description::direct(idempotent) }
    }

    fn target(&self, _: &TopicPartition) -> Option<String> {
        Some(self.options.table.clone()).filter(|table| !table.is_empty())
    }

    fn query(self: Arc<Self>) -> Option<Arc<dyn Query>> {
        Some(self)
    }

    async fn connect(&self) -> Result<(), CallError> {
        self.probe().await?;
        let pools = Arc::new(self.new_pools());
        if !self.options.table.is_empty() {
            self.table_is_fit(&pools).await?;
        }
        *self.pools.lock().unwrap_or_else(PoisonError::into_inner) = Some(pools);
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        let Some(pools) = self.pools() else {
            return Err(CallError::Fatal(Fault::host(format!(
                "`postgres/{}` was asked to deliver before it was connected",
                self.name
            ))));
        };
        let bytes = batch.size_bytes();
        let (rows, mut failures) = compute(bytes, || rows::read(batch, &self.options, &self.option("table")));
        if rows.is_empty() {
            return Ok(failures);
        }
        let mut session = self.session(&pools, User::Rows).await?;
        let writer = self.writer();
        let mut tables = self.tables(&mut session, &rows, false).await?;
        let is_to_blame = |row: u32, written| self.suspects.is_to_blame(batch, row as usize, written);
        let mut anew = false;
        loop {
            let (statements, refused) = compute(bytes, || plan::plan(&rows, &tables, &self.options));
            // What is remembered of a table may be over: a new column is no reason to refuse a row.
            if !refused.is_empty() && !anew {
                anew = true;
                let current = self.tables(&mut session, &rows, true).await?;
                if current != tables {
                    tables = current;
                    continue;
                }
            }
            if statements.is_empty() {
                failures.extend(refused);
                failures.sort_by_key(|failure| failure.index);
                return Ok(failures);
            }
            let unwritten = match writer.all_at_once(&mut session, &statements).await {
                First::Written => Vec::new(),
                First::Answered(answer) => answer?,
                First::Refused { locked } => {
                    if !anew {
                        anew = true;
                        let current = self.tables(&mut session, &rows, true).await?;
                        if current != tables {
                            tables = current;
                            continue;
                        }
                    }
                    writer.isolating(&mut session, &statements, locked, &is_to_blame).await?
                }
            };
            failures.extend(refused);
            failures.extend(unwritten);
            failures.sort_by_key(|failure| failure.index);
            return Ok(failures);
        }
    }

    async fn discard(&self, source: &TopicPartition) {
        self.suspects.forget(source);
    }

    async fn close(&self) -> Result<(), Fault> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pools) = pools {
            tokio::time::timeout(CLOSE_TIMEOUT, pools.close()).await.map_err(|_| {
                let seconds = CLOSE_TIMEOUT.as_secs();
                Fault::destination(format!("`postgres/{}` did not close within {seconds} s", self.name))
            })?;
        }
        Ok(())
    }
}
