//! A connection in use, which goes back to the pool only when nothing was left open on it.
//!
//! Behind a connection pooler every transaction may have another session of the server, which other clients used before
//! and changed. So nothing here lives longer than a transaction: statements are unnamed, each runs inside of a
//! transaction, and each transaction begins with the settings that it depends on.

use std::sync::Arc;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Error, PgConnection, SqlSafeStr};

use super::pool::Health;
use super::sqlstate::{self, Class};

/// Begins a transaction whose meaning does not depend on what the session went through before: whose rights it has, where
/// it looks for tables, and how values are read. What the role, the database or the address say holds again; only
/// temporary tables come last, so that a forgotten one takes no row that is meant for a table of its name.
///
/// It waits for a lock no longer than 5 seconds, unless the role or the address says how long. That has to be shorter than
/// a call (S77): a statement that waits longer than its call would hold its connection to the server, and every repetition
/// would add one.
pub(super) const BEGIN: &str = r#"BEGIN;
    SET LOCAL SESSION AUTHORIZATION DEFAULT;
    SET LOCAL role TO DEFAULT;
    SET LOCAL search_path TO DEFAULT;
    SET LOCAL statement_timeout TO DEFAULT;
    SET LOCAL lock_timeout TO DEFAULT;
    SET LOCAL "TimeZone" TO 'UTC';
    SET LOCAL "DateStyle" TO 'ISO, MDY';
    SET LOCAL "IntervalStyle" TO DEFAULT;
    SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ',
        NULLIF(pg_catalog.current_setting('search_path'), ''), 'pg_temp'), true);
    SELECT pg_catalog.set_config('lock_timeout', '5s', true)
    WHERE pg_catalog.current_setting('lock_timeout') = '0'"#;
/// Lets the server look after its client while a statement of this transaction waits, so that a call that was given up does
/// not keep its locks. Servers before version 14 cannot, nor can all machines that a server runs on.
pub(super) const LOOK_AFTER: &str = "SELECT pg_catalog.set_config('client_connection_check_interval', '2s', true)
    WHERE pg_catalog.current_setting('server_version_num')::int >= 140000";

/// A connection in use. When a call is given up half-way, or fails with its transaction open, it is closed, and the server
/// rolls back.
pub(super) struct Session {
    connection: PoolConnection<Postgres>,
    open: bool,
    health: Arc<Health>,
}

impl Session {
    /// Takes over a connection that was just acquired.
    pub(super) fn new(connection: PoolConnection<Postgres>, health: Arc<Health>) -> Self {
        Self { connection, open: false, health }
    }

    /// Begins a transaction.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        let look_after = if self.health.server_looks_after() { LOOK_AFTER } else { "" };
        self.run(AssertSqlSafe(format!("{BEGIN}; {look_after}"))).await
    }

    /// Runs statements that have no parameters and are known to end what is open.
    pub(super) async fn close(&mut self, sql: impl SqlSafeStr) -> Result<(), Error> {
        self.run(sql).await?;
        self.open = false;
        Ok(())
    }

    /// Runs statements that have no parameters, inside of what is open.
    pub(super) async fn run(&mut self, sql: impl SqlSafeStr) -> Result<(), Error> {
        let ran = sqlx::raw_sql(sql).execute(self.opened()).await.map(drop);
        self.seen(ran)
    }

    /// Runs a statement with one text inside of what is open.
    pub(super) async fn execute(&mut self, sql: &str, text: &str) -> Result<(), Error> {
        let query = sqlx::query(AssertSqlSafe(sql)).bind(text).persistent(false);
        let ran = query.execute(self.opened()).await.map(drop);
        self.seen(ran)
    }

    /// Runs what has to be a single statement, inside of what is open.
    pub(super) async fn one(&mut self, sql: String) -> Result<(), Error> {
        let ran = sqlx::query(AssertSqlSafe(sql)).persistent(false).execute(self.opened()).await.map(drop);
        self.seen(ran)
    }

    /// Asks for rows inside of what is open.
    pub(super) async fn fetch(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, Error> {
        let rows = query.persistent(false).fetch_all(self.opened()).await;
        self.seen(rows)
    }

    /// The connection, for what leaves something open.
    pub(super) fn opened(&mut self) -> &mut PgConnection {
        self.open = true;
        &mut self.connection
    }

    /// Takes note of an answer that says that this connection leads to no server that writes.
    fn seen<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        if answer.as_ref().is_err_and(|error| sqlstate::classify(error) == Class::Unavailable) {
            self.health.renew();
        }
        answer
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.open {
            self.connection.close_on_drop();
        }
    }
}
