//! Reaching the server, and proving that what is configured is there (S124).

use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Connection as _, Error, PgConnection};

use super::plan::{GUARD_TYPE, listed};
use super::{ACQUIRE_TIMEOUT, PostgresSink, name, sqlstate, table};
use crate::model::{CallError, Fault};

/// How long a start waits for the server.
const REACH: Duration = Duration::from_secs(9);

/// Lets the server look after its client while a statement waits, so that a call that was given up does not keep its
/// locks.
/// Servers before version 14 cannot.
pub(super) const LOOK_AFTER: &str = "SELECT set_config('client_connection_check_interval', '2s', false)
    WHERE current_setting('server_version_num')::int >= 140000";

impl PostgresSink {
    /// A pool that opens its connections when they are needed.
    pub(super) fn lazy_pool(&self) -> PgPool {
        PgPoolOptions::new()
            .min_connections(self.options.min_connections)
            .max_connections(self.options.max_connections.max(1))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // Not every machine that a server runs on can do it.
                    let _ = sqlx::query(LOOK_AFTER).execute(connection).await;
                    Ok(())
                })
            })
            .connect_lazy_with(self.address.connect.clone())
    }

    /// Reaches the server.
    pub(super) async fn probe(&self) -> Result<(), CallError> {
        let shown = &self.address.shown;
        let reached = tokio::time::timeout(REACH, async {
            let mut connection = PgConnection::connect_with(&self.address.connect).await?;
            sqlx::query("SELECT 1").execute(&mut connection).await?;
            Ok(connection)
        });
        let connection = match reached.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(self.unreached(&error)),
            Err(_) => {
                let seconds = REACH.as_secs();
                let message = format!("`postgres/{}` did not answer within {seconds} s at `{shown}`", self.name);
                return Err(CallError::Unavailable(Fault::destination(message).hint(self.look_at("dsn"))));
            }
        };
        let _ = connection.close().await;
        Ok(())
    }

    /// Whether the configured table is there, with the key's columns and their index.
    pub(super) async fn table_is_there(&self, pool: &PgPool) -> Result<(), CallError> {
        let (shown, configured) = (&self.address.shown, &self.options.table);
        let key = &self.options.key;
        let quoted = name::table(configured, self.options.qualified_tables).map_err(|why| {
            CallError::Fatal(Fault::config(format!("`{}` is no table", self.option("table"))).because(why))
        })?;
        let mut session = self.session(pool).await?;
        let found = table::look_up(&mut session, &quoted, key).await;
        let found = found.map_err(|error| self.unreached(&error))?;
        let Some(table) = found else {
            let message = format!("`{}` names `{configured}`, which is no table of `{shown}`", self.option("table"));
            let hint = "create the table, or correct its name; its case counts, and a schema that is not on the search path has to be named with `qualified_tables`";
            return Err(CallError::Fatal(Fault::config(message).hint(hint)));
        };
        for column in key {
            if table.column(column).is_none() {
                let message =
                    format!("`{}` names `{column}`, which is no column of `{configured}`", self.option("key"));
                return Err(CallError::Fatal(Fault::config(message).hint("correct the name; its case counts")));
            }
        }
        let guard = &self.options.upsert.guard;
        if !guard.is_empty() && table.column(guard).is_none_or(|column| column.type_name != GUARD_TYPE) {
            let message = format!(
                "`{}`: table `{configured}` has no column `{guard}` of type `{GUARD_TYPE}`",
                self.option("upsert.guard")
            );
            let hint = format!("add it: ALTER TABLE {quoted} ADD COLUMN {} {GUARD_TYPE}", name::quoted(guard));
            return Err(CallError::Fatal(Fault::config(message).hint(hint)));
        }
        if !key.is_empty() && !table.has_key {
            let message = format!(
                "`{}`: table `{configured}` has no unique index over exactly {}",
                self.option("key"),
                listed(key)
            );
            let columns: Vec<String> = key.iter().map(|column| name::quoted(column)).collect();
            let hint = format!("create it: CREATE UNIQUE INDEX ON {quoted} ({})", columns.join(", "));
            return Err(CallError::Fatal(Fault::config(message).hint(hint)));
        }
        Ok(())
    }

    fn look_at(&self, option: &str) -> String {
        format!("see that the server runs, and look at `{}`", self.option(option))
    }

    fn unreached(&self, error: &Error) -> CallError {
        let fault = self.writer().fault("cannot be used", error);
        let code = sqlstate::server(error).map(|error| error.code().to_owned()).unwrap_or_default();
        let hint = match (error, code.as_str()) {
            (Error::Tls(_) | Error::Configuration(_), _) => {
                format!("look at `{}` and at the server's certificate", self.option("tls"))
            }
            (_, "3D000") => format!("create the database, or correct its name in `{}`", self.option("dsn")),
            (_, "53300") => {
                format!("let the server take more connections, or lower `{}`", self.option("max_connections"))
            }
            (_, code) if code.starts_with("28") => {
                format!("correct user and password in `{}`, or let them log in (`pg_hba.conf`)", self.option("dsn"))
            }
            _ => self.look_at("dsn"),
        };
        CallError::Unavailable(fault.hint(hint))
    }
}
