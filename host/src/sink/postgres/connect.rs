//! Reaching the server (S124).

use std::time::Duration;

use sqlx::{Connection as _, Error, PgConnection};

use super::PostgresSink;
use super::session::LOOK_AFTER;
use super::sqlstate::{self, Class, Pooler};
use crate::model::{CallError, Fault};

/// How long a start waits for the server.
const REACH: Duration = Duration::from_secs(9);

impl PostgresSink {
    /// Reaches the server, and sees that it can be written to as the sink does: in transactions.
    pub(super) async fn probe(&self) -> Result<(), CallError> {
        self.read_address_again(None).await.map_err(CallError::Unavailable)?;
        let address = self.address();
        let reached = tokio::time::timeout(REACH, async {
            let mut connection = PgConnection::connect_with(&address.connect).await?;
            sqlx::raw_sql("BEGIN").execute(&mut connection).await?;
            let looks_after = match sqlx::raw_sql(LOOK_AFTER).execute(&mut connection).await {
                Ok(_) => true,
                Err(error) if sqlstate::classify(&error) == Class::Unavailable => return Err(error),
                Err(_) => false,
            };
            sqlx::raw_sql("ROLLBACK").execute(&mut connection).await?;
            self.health.set_server_looks_after(looks_after);
            Ok(connection)
        });
        let connection = match reached.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(self.unreached(&error)),
            Err(_) => {
                let (seconds, shown) = (REACH.as_secs(), &address.shown);
                let message = format!("`postgres/{}` did not answer within {seconds} s at `{shown}`", self.name);
                return Err(CallError::Unavailable(Fault::destination(message).hint(self.look_at("dsn"))));
            }
        };
        let _ = connection.close().await;
        Ok(())
    }

    pub(super) fn look_at(&self, option: &str) -> String {
        format!("see that the server runs, and look at `{}`", self.option(option))
    }

    pub(super) fn unreached(&self, error: &Error) -> CallError {
        let fault = self.writer().fault("cannot be used", error);
        let code = sqlstate::server(error).map(|error| error.code().to_owned()).unwrap_or_default();
        let (dsn, database) = (self.option("dsn"), "create the database, or correct its name in");
        let login = format!("correct user and password in `{dsn}`, or let them log in (`pg_hba.conf`)");
        let hint = match (error, sqlstate::pooler(error), code.as_str()) {
            (Error::Tls(_) | Error::Configuration(_), ..) => {
                format!("look at `{}` and at the server's certificate", self.option("tls"))
            }
            (_, Some(Pooler::StatementMode), _) => {
                let hint = "rows are written in transactions: set `pool_mode = transaction` or `session` for this \
                    database or user in the pooler, or name the server itself in the address";
                let message = format!("`{dsn}` leads to a connection pooler in statement mode");
                let why = sqlstate::words(error, self.address().user());
                return CallError::Fatal(Fault::config(message).because(why).hint(hint));
            }
            (_, Some(Pooler::Parameter), _) => format!(
                "take the parameter out of `{dsn}` and set it for the role (`ALTER ROLE ... SET`), or let the pooler pass \
                 over it (`ignore_startup_parameters`)"
            ),
            (_, Some(Pooler::Login), _) => {
                format!("correct user and password in `{dsn}`, or add the user to the pooler")
            }
            (_, Some(Pooler::Database), _) => format!("{database} `{dsn}`, or add it to the pooler"),
            (_, _, "3D000") => format!("{database} `{dsn}`"),
            (_, Some(Pooler::Full), _) | (_, _, "53300") => {
                format!("let the server take more connections, or lower `{}`", self.option("max_connections"))
            }
            (_, _, code) if code.starts_with("28") => login,
            _ => self.look_at("dsn"),
        };
        CallError::Unavailable(fault.hint(hint))
    }
}
