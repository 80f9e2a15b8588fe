//! Writes a call's statements in one transaction, and finds the rows to blame when the server refuses it (S108).

use std::collections::HashMap;
use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::{AssertSqlSafe, Error};

use super::name::quoted;
use super::plan::{Item, Statement, parameter, plain};
use super::session::Session;
use super::trouble::{self, Trouble};
use crate::model::{CallError, Failure, Fault};
use crate::sink::json;

/// How often a transaction is tried that others are in the way of.
const CONTENDED_TRIES: u32 = 6;
/// The wait before the second try; each further one waits twice as long.
const CONTENDED_WAIT: Duration = Duration::from_millis(20);
/// Rows of one call whose columns are tried one by one to find out which of them the server refuses.
const SEARCHED_ROWS: u32 = 500;

/// Why a transaction did not come to its end.
struct Broken {
    error: Error,
    /// COMMIT was sent: what the server does not deny may have happened.
    committing: bool,
}

impl Broken {
    fn open(error: Error) -> Self {
        Self { error, committing: false }
    }
}

/// What became of a first try.
pub(super) enum First {
    /// All is written.
    Written,
    /// Nothing is, and somebody is to blame.
    Refused,
    /// It is answered: nothing more can be done now.
    Answered(Result<Vec<Failure>, CallError>),
}

/// Who writes, for the words of faults.
pub(super) struct Writer<'a> {
    pub(super) name: &'a str,
    pub(super) shown: &'a str,
    pub(super) user: &'a str,
    pub(super) idempotent: bool,
}

impl Writer<'_> {
    /// Writes all statements in one transaction.
    pub(super) async fn all_at_once(&self, session: &mut Session, statements: &[Statement<'_>]) -> First {
        let mut tries = 0;
        loop {
            let Err(broken) = whole(session, statements).await else { return First::Written };
            if trouble::judge(&broken.error) == Trouble::Permanent {
                if session.close("ROLLBACK").await.is_ok() {
                    return First::Refused;
                }
                return First::Answered(Err(self.away(&broken.error)));
            }
            if let Some(answer) = self.answer(session, broken, statements, &mut tries).await {
                return First::Answered(answer);
            }
        }
    }

    /// Writes what can be written, and names what cannot: good rows land exactly once, in one transaction.
    pub(super) async fn isolating(
        &self,
        session: &mut Session,
        statements: &[Statement<'_>],
    ) -> Result<Vec<Failure>, CallError> {
        let mut tries = 0;
        loop {
            let broken = match self.halves(session, statements).await {
                Ok(refused) => return Ok(refused),
                Err(broken) => broken,
            };
            if trouble::judge(&broken.error) == Trouble::Permanent {
                // Only a COMMIT can be refused here, although every constraint had been looked at.
                let _ = session.close("ROLLBACK").await;
                return Err(CallError::Reject(self.fault("refused the rows", &broken.error)));
            }
            if let Some(answer) = self.answer(session, broken, statements, &mut tries).await {
                return answer;
            }
        }
    }

    /// What a failure means that is not the rows' own; `None`: try again.
    async fn answer(
        &self,
        session: &mut Session,
        broken: Broken,
        statements: &[Statement<'_>],
        tries: &mut u32,
    ) -> Option<Result<Vec<Failure>, CallError>> {
        let Broken { error, committing } = broken;
        let retry = |reason: String| {
            let items = statements.iter().flat_map(|statement| &statement.items);
            Ok(items.map(|item| Failure::retry(item.index, reason.clone())).collect())
        };
        match trouble::judge(&error) {
            Trouble::Contended => {
                *tries += 1;
                if *tries < CONTENDED_TRIES && session.close("ROLLBACK").await.is_ok() {
                    tokio::time::sleep(CONTENDED_WAIT * 2_u32.pow(*tries - 1)).await;
                    return None;
                }
                Some(retry(format!("other transactions were in the way: {}", trouble::words(&error, self.user))))
            }
            _ if committing && self.idempotent => Some(Err(self.away(&error))),
            _ if committing => {
                Some(retry(format!("whether it was written is unknown: {}", trouble::words(&error, self.user))))
            }
            Trouble::Away => Some(Err(self.away(&error))),
            Trouble::Unclear | Trouble::Permanent => {
                Some(Err(CallError::Unknown(self.fault("could not write", &error))))
            }
        }
    }

    /// The destination is away, and nothing was written.
    pub(super) fn away(&self, error: &Error) -> CallError {
        CallError::Unavailable(self.fault("cannot be written to", error))
    }

    /// A fault of the destination.
    pub(super) fn fault(&self, what: &str, error: &Error) -> Fault {
        Fault::destination(format!("`postgres/{}` {what} at `{}`", self.name, self.shown))
            .because(trouble::words(error, self.user))
    }

    async fn halves(&self, session: &mut Session, statements: &[Statement<'_>]) -> Result<Vec<Failure>, Broken> {
        // From here on every constraint speaks up at its statement, so that its rows can be told.
        session.run("BEGIN; SET CONSTRAINTS ALL IMMEDIATE").await.map_err(Broken::open)?;
        let mut refused = Vec::new();
        let mut searches = SEARCHED_ROWS;
        for statement in statements {
            // The next part is at the end.
            let mut parts = vec![statement.items.as_slice()];
            while let Some(items) = parts.pop() {
                session.run("SAVEPOINT part").await.map_err(Broken::open)?;
                let Err(error) = session.execute(&statement.sql, &parameter(items)).await else {
                    session.run("RELEASE SAVEPOINT part").await.map_err(Broken::open)?;
                    continue;
                };
                if trouble::judge(&error) != Trouble::Permanent {
                    return Err(Broken::open(error));
                }
                session.run(BACK).await.map_err(Broken::open)?;
                if let [item] = items {
                    let reason = self.reason(session, statement, item, &error, &mut searches).await?;
                    refused.push(Failure::reject(item.index, reason));
                } else if trouble::concerns_all_rows(&error) {
                    let words = trouble::words(&error, self.user);
                    let reason = format!("table `{}`: {words}", plain(statement.table));
                    refused.extend(items.iter().map(|item| Failure::reject(item.index, reason.clone())));
                } else {
                    let (first, second) = items.split_at(items.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        session.close("COMMIT").await.map_err(|error| Broken { error, committing: true })?;
        Ok(refused)
    }

    /// Why the server refuses the row, with the column that it is about: as the server says, or as trying them shows.
    async fn reason(
        &self,
        session: &mut Session,
        statement: &Statement<'_>,
        item: &Item<'_>,
        error: &Error,
        searches: &mut u32,
    ) -> Result<String, Broken> {
        let words = trouble::words(error, self.user);
        let column = match trouble::columns(error) {
            Some(columns) => Some(columns),
            None if *searches > 0 && trouble::may_be_a_value(error) => {
                *searches -= 1;
                search(session, statement, item).await?
            }
            None => None,
        };
        Ok(match column {
            Some(column) => format!("column `{column}` of table `{}`: {words}", plain(statement.table)),
            None => format!("table `{}`: {words}", plain(statement.table)),
        })
    }
}

/// Back to before the part, as if it had not been.
const BACK: &str = "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part";

async fn whole(session: &mut Session, statements: &[Statement<'_>]) -> Result<(), Broken> {
    session.run("BEGIN").await.map_err(Broken::open)?;
    for statement in statements {
        session.execute(&statement.sql, &parameter(&statement.items)).await.map_err(Broken::open)?;
    }
    session.close("COMMIT").await.map_err(|error| Broken { error, committing: true })
}

/// The first column whose value the server cannot read.
async fn search(session: &mut Session, statement: &Statement<'_>, item: &Item<'_>) -> Result<Option<String>, Broken> {
    let Ok(fields) = json::object(&item.document) else { return Ok(None) };
    let values: HashMap<&str, &RawValue> = fields.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
    session.run("SAVEPOINT part").await.map_err(Broken::open)?;
    for &(column, type_name) in &statement.columns {
        let Some(value) = values.get(column) else { continue };
        let name = quoted(column);
        let sql = format!("SELECT {name} IS NULL FROM json_to_record($1::text::json) AS x({name} {type_name})");
        let text = format!("{{{name}:{}}}", value.get());
        let tried = sqlx::query(AssertSqlSafe(sql)).bind(text).execute(session.opened()).await;
        let Err(error) = tried else { continue };
        if trouble::judge(&error) != Trouble::Permanent {
            return Err(Broken::open(error));
        }
        session.run(BACK).await.map_err(Broken::open)?;
        return Ok(Some(column.to_owned()));
    }
    session.run("RELEASE SAVEPOINT part").await.map_err(Broken::open)?;
    Ok(None)
}
