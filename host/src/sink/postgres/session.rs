//! A connection in use, which goes back to the pool only when nothing was left open on it.

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Error, PgConnection, SqlSafeStr};

/// A connection in use. When a call is given up half-way, or fails with its transaction open, it is closed, and the server
/// rolls back.
pub(super) struct Session {
    connection: PoolConnection<Postgres>,
    open: bool,
}

impl Session {
    /// Takes over a connection that was just acquired.
    pub(super) fn new(connection: PoolConnection<Postgres>) -> Self {
        Self { connection, open: false }
    }

    /// The connection, for what leaves something open.
    pub(super) fn opened(&mut self) -> &mut PgConnection {
        self.open = true;
        &mut self.connection
    }

    /// Runs statements that have no parameters and are known to leave the connection as they found it.
    pub(super) async fn close(&mut self, sql: impl SqlSafeStr) -> Result<(), Error> {
        self.run(sql).await?;
        self.open = false;
        Ok(())
    }

    /// Runs statements that have no parameters, inside of what is open.
    pub(super) async fn run(&mut self, sql: impl SqlSafeStr) -> Result<(), Error> {
        sqlx::raw_sql(sql).execute(self.opened()).await.map(drop)
    }

    /// Runs a statement with one text inside of what is open.
    pub(super) async fn execute(&mut self, sql: &str, text: &str) -> Result<(), Error> {
        sqlx::query(AssertSqlSafe(sql)).bind(text).execute(self.opened()).await.map(drop)
    }

    /// Asks for rows outside of any transaction.
    pub(super) async fn fetch(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, Error> {
        let rows = query.fetch_all(self.opened()).await?;
        self.open = false;
        Ok(rows)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.open {
            self.connection.close_on_drop();
        }
    }
}
