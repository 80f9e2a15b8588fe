//! Finds the rows or the table that the server refuses, by savepoints, and writes the rest.

use std::collections::HashMap;

use serde_json::value::RawValue;
use sqlx::Error;

use super::name::quoted;
use super::plan::{Item, Statement, parameter, plain};
use super::session::Session;
use super::sqlstate::{self, Class};
use super::write::{Broken, Writer};
use crate::model::{CallError, Failure, FailureKind};
use crate::sink::json;

/// Rows of one call whose columns are tried one by one to find out which of them the server refuses.
const SEARCHED_ROWS: u32 = 500;
/// Parts of one call that may fail because something is locked or unavailable before the rest of what fails so is not
/// divided
/// any more. Each may wait for [`SHORT_LOCKS`].
const UNAVAILABLE_PARTS: u32 = 50;
/// Rows of one call that may fail alone with an error that the server did not expect, as long as none is written.
const UNEXPECTED_ROWS: usize = 20;
/// From the first lock on that was waited for in vain, others are waited for this long.
const SHORT_LOCKS: &str = "SELECT pg_catalog.set_config('lock_timeout', '100ms', true)
    WHERE pg_catalog.current_setting('lock_timeout')::pg_catalog.interval > '100ms'";
/// Back to before the part, as if it had not been.
const BACK: &str = "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part";

/// What is known of a call so far.
#[derive(Default)]
struct Found<'s> {
    failures: Vec<Failure>,
    /// Keys of a table with a row that comes again: the later ones of the same key wait for it (S76a), and how.
    held: HashMap<(&'s str, &'s str), FailureKind>,
    /// Some part is written, so what fails alone is not the server's trouble.
    written: bool,
    /// Why rows failed alone that the server refused in a way that it did not expect.
    unexpected: Vec<Error>,
}

impl<'s> Found<'s> {
    fn failed(&mut self, table: &'s str, item: &'s Item<'_>, kind: FailureKind, reason: String) {
        let behind = match kind {
            FailureKind::Reject => None,
            FailureKind::Retry => Some(FailureKind::NotTried),
            kind => Some(kind),
        };
        if let (Some(behind), Some(key)) = (behind, &item.key) {
            self.held.insert((table, key), behind);
        }
        self.failures.push(Failure::new(item.index, kind, reason));
    }

    fn all_failed(&mut self, table: &'s str, items: &'s [Item<'_>], kind: FailureKind, reason: &str) {
        for item in items {
            self.failed(table, item, kind, reason.to_owned());
        }
    }

    /// How the row waits for an earlier one of its key, if it has to.
    fn held(&self, table: &str, item: &Item<'_>) -> Option<FailureKind> {
        self.held.get(&(table, item.key.as_deref()?)).copied()
    }
}

impl Writer<'_> {
    /// Writes the statements in ever smaller parts, in one transaction. `is_to_blame`: whether a row that the server
    /// refuses in a
    /// way that it did not expect is the cause, where others are written or not.
    pub(super) async fn parts(
        &self,
        session: &mut Session,
        statements: &[Statement<'_>],
        locked: bool,
        is_to_blame: &(dyn Fn(u32, bool) -> bool + Sync),
    ) -> Result<Result<Vec<Failure>, CallError>, Broken> {
        // From here on every constraint speaks up at its statement, so that its rows can be told.
        session.begin().await.map_err(Broken::beginning)?;
        session.run("SET CONSTRAINTS ALL IMMEDIATE").await.map_err(Broken::open)?;
        if locked {
            session.run(SHORT_LOCKS).await.map_err(Broken::open)?;
        }
        let mut found = Found::default();
        let (mut patient, mut searches, mut unavailable) = (!locked, SEARCHED_ROWS, UNAVAILABLE_PARTS);
        for statement in statements {
            // The next part is at the end.
            let mut parts = vec![statement.items.as_slice()];
            let mut explained = false;
            while let Some(items) = parts.pop() {
                if items.iter().any(|item| found.held(statement.table, item).is_some()) {
                    match items {
                        [item] => {
                            let kind = found.held(statement.table, item).unwrap_or(FailureKind::NotTried);
                            let reason =
                                format!("an earlier row of its key in table `{}` waits", plain(statement.table));
                            found.failures.push(Failure::new(item.index, kind, reason));
                        }
                        items => parts.extend(halves(items)),
                    }
                    continue;
                }
                let Some((error, kind)) = attempt(session, &statement.sql, items).await? else {
                    found.written = true;
                    continue;
                };
                if kind == FailureKind::Unavailable {
                    unavailable = unavailable.saturating_sub(1);
                    if std::mem::take(&mut patient) {
                        session.run(SHORT_LOCKS).await.map_err(Broken::open)?;
                    }
                }
                if !explained && sqlstate::may_concern_all_rows(&error) {
                    explained = true;
                    // The server looks at the statement as before running it: table, privileges, locks.
                    let sql = format!("EXPLAIN {}", statement.sql);
                    if let Some((error, kind)) = attempt(session, &sql, &[]).await? {
                        let kind = self.of_table(statement.table, &error, kind);
                        found.all_failed(statement.table, items, kind, &self.of(statement, &error));
                        found.unexpected.extend((kind == FailureKind::Retry).then_some(error));
                        continue;
                    }
                }
                if let [item] = items {
                    let reason = self.reason(session, statement, item, &error, &mut searches).await?;
                    found.failed(statement.table, item, kind, reason);
                    found.unexpected.extend((kind == FailureKind::Retry).then_some(error));
                    if !found.written && found.unexpected.len() >= UNEXPECTED_ROWS {
                        return Ok(Err(self.unexpected(session, &found).await));
                    }
                } else if kind == FailureKind::Unavailable && unavailable == 0 {
                    found.all_failed(statement.table, items, kind, &self.of(statement, &error));
                } else {
                    parts.extend(halves(items));
                }
            }
        }
        let mut retried = found.failures.iter().filter(|failure| failure.kind == FailureKind::Retry);
        if !retried.all(|failure| is_to_blame(failure.index, found.written)) {
            return Ok(Err(self.unexpected(session, &found).await));
        }
        session.close("COMMIT").await.map_err(Broken::committing)?;
        Ok(Ok(found.failures))
    }

    /// Every row so far failed, some in a way that the server did not expect: whether they or the server are the cause
    /// is not to
    /// be told.
    async fn unexpected(&self, session: &mut Session, found: &Found<'_>) -> CallError {
        let _ = session.close("ROLLBACK").await;
        let told = found.unexpected.first().map(|error| sqlstate::words(error, self.address.user()));
        CallError::Unknown(self.told("could not write", told.unwrap_or_default()))
    }

    /// The error, with the table.
    fn of(&self, statement: &Statement<'_>, error: &Error) -> String {
        format!("table `{}`: {}", plain(statement.table), sqlstate::words(error, self.address.user()))
    }

    /// What all rows of a table are whose statement the server does not even begin. A privilege on the configured table
    /// is the
    /// operator's to give back; another table was chosen by the rows.
    fn of_table(&self, table: &str, error: &Error, kind: FailureKind) -> FailureKind {
        if sqlstate::is_missing_privilege(error) && table == self.table { FailureKind::Unavailable } else { kind }
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
        let column = match sqlstate::columns(error) {
            Some(columns) => Some(columns),
            None if *searches > 0 && sqlstate::may_be_a_value(error) => {
                *searches -= 1;
                search(session, statement, item).await?
            }
            None => None,
        };
        let mut reason = match column {
            Some(column) => format!("column `{column}` of {}", self.of(statement, error)),
            None => self.of(statement, error),
        };
        if statement.partial && sqlstate::is_null_refused(error) {
            reason.push_str(", and no row of its key is there to be updated");
        }
        Ok(reason)
    }
}

/// The two halves of a part, the first of them at the end.
fn halves<'s, 'r>(items: &'s [Item<'r>]) -> [&'s [Item<'r>]; 2] {
    let (first, second) = items.split_at(items.len() / 2);
    [second, first]
}

/// Runs a statement for these rows. When the server refuses it and rows may be the cause, it is as if it had not been,
/// and a row
/// that fails alone is of this kind.
async fn attempt(session: &mut Session, sql: &str, items: &[Item<'_>]) -> Result<Option<(Error, FailureKind)>, Broken> {
    session.run("SAVEPOINT part").await.map_err(Broken::open)?;
    let Err(error) = session.execute(sql, &parameter(items)).await else {
        session.run("RELEASE SAVEPOINT part").await.map_err(Broken::open)?;
        return Ok(None);
    };
    let Class::Rows(kind) = sqlstate::classify(&error) else { return Err(Broken::open(error)) };
    session.run(BACK).await.map_err(Broken::open)?;
    Ok(Some((error, kind)))
}

/// The first column whose value the server cannot read.
async fn search(session: &mut Session, statement: &Statement<'_>, item: &Item<'_>) -> Result<Option<String>, Broken> {
    let Ok(fields) = json::object(&item.document) else { return Ok(None) };
    let values: HashMap<&str, &RawValue> = fields.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
    session.run("SAVEPOINT part").await.map_err(Broken::open)?;
    for column in &statement.columns {
        let Some(value) = values.get(column.name) else { continue };
        let sql = format!(
            "SELECT {} IS NULL FROM json_to_record($1::text::json) AS x({})",
            column.value(),
            column.declared()
        );
        let text = format!("{{{}:{}}}", quoted(column.name), value.get());
        let Err(error) = session.execute(&sql, &text).await else { continue };
        if !matches!(sqlstate::classify(&error), Class::Rows(_)) {
            return Err(Broken::open(error));
        }
        session.run(BACK).await.map_err(Broken::open)?;
        return Ok(Some(column.name.to_owned()));
    }
    session.run("RELEASE SAVEPOINT part").await.map_err(Broken::open)?;
    Ok(None)
}
