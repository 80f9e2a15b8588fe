//! Statements of plugins, on connections of their own to the sink's database (S66, S109).
//!
//! A query (`SELECT`, `INSERT` and the like) has parameters, written `$1` and so on, which the server itself converts
//! to the
//! types that it expects: of a JSON array, null is NULL, a string its text, and anything else its JSON text. A
//! definition
//! (`CREATE TABLE` and the like) has none. Each runs in a transaction of its own. What would outlive it, such as `SET` or
//! `LISTEN`, is refused, and undone before the transaction ends where a function or a `DO` block did it.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Error, Row as _};

use super::PostgresSink;
use super::pool::User;
use super::session::Session;
use super::sqlstate;
use crate::sink::Query;

/// Longest that one statement may take, the wait for a connection included.
const QUERY_TIME: Duration = Duration::from_secs(5);
/// Most rows that one statement may return.
const QUERY_ROWS: usize = 10_000;
/// Most bytes that these rows may have as JSON.
const QUERY_BYTES: usize = 16 << 20;
/// Most bytes of a statement with its parameters.
const STATEMENT_BYTES: usize = 16 << 20;

/// Words that a query may begin with.
const QUERIES: [&str; 8] = ["SELECT", "WITH", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE"];
/// Words that a definition may begin with.
const DEFINITIONS: [&str; 13] = [
    "CREATE", "ALTER", "DROP", "TRUNCATE", "COMMENT", "GRANT", "REVOKE", "ANALYZE", "REFRESH", "REINDEX", "DO", "CALL",
    "LOCK",
];

/// Ends the transaction with nothing left of it in the session, like `DISCARD ALL`, which no transaction may have: behind a
/// connection pooler, another client may have the session from the next transaction on. What is deferred to the end comes
/// first, since it may be code of the plugin's choice.
const FINISH: &str = "SET CONSTRAINTS ALL IMMEDIATE; CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL;
    UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); DEALLOCATE ALL; DISCARD TEMP; DISCARD SEQUENCES; COMMIT";

#[async_trait]
impl Query for PostgresSink {
    async fn query(&self, statement: &str, parameters: &str) -> Result<String, String> {
        let Some(pools) = self.pools() else {
            return Err(format!("`postgres/{}` is not connected yet: ask in `on-ready` or later", self.name));
        };
        let statement = Statement::read(statement, parameters)?;
        let run = async {
            let mut session = self.session(&pools, User::Plugin).await.map_err(|error| error.to_string())?;
            statement.run(&mut session).await.map_err(|failed| match failed {
                Failed::Server(error) => sqlstate::words(&error, self.address().user()),
                Failed::Limit(words) => words,
            })
        };
        tokio::time::timeout(QUERY_TIME, run).await.unwrap_or_else(|_| {
            Err(format!("the statement took longer than {} s, which is the limit", QUERY_TIME.as_secs()))
        })
    }
}

enum Failed {
    Server(Error),
    Limit(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

struct Statement<'s> {
    text: &'s str,
    /// As literals; `None` for a definition.
    parameters: Option<Vec<String>>,
}

impl<'s> Statement<'s> {
    fn read(text: &'s str, parameters: &str) -> Result<Self, String> {
        if text.len() + parameters.len() > STATEMENT_BYTES {
            return Err(format!("the statement is longer than {STATEMENT_BYTES} bytes, which is the limit"));
        }
        let text = text.trim_end_matches(|letter: char| letter == ';' || letter.is_whitespace());
        let parameters: Vec<Value> =
            serde_json::from_str(parameters).map_err(|error| format!("the parameters are no JSON array: {error}"))?;
        let word = first_word(text).to_ascii_uppercase();
        if QUERIES.contains(&word.as_str()) {
            let parameters = parameters.iter().map(literal).collect::<Result<_, _>>()?;
            return Ok(Self { text, parameters: Some(parameters) });
        }
        if !DEFINITIONS.contains(&word.as_str()) {
            return Err(format!(
                "`{}` is no query (one of {}) and no definition (one of {})",
                word.escape_debug(),
                QUERIES.join(", "),
                DEFINITIONS.join(", ")
            ));
        }
        if !parameters.is_empty() {
            return Err(format!("`{word}` takes no parameters"));
        }
        Ok(Self { text, parameters: None })
    }

    async fn run(&self, session: &mut Session) -> Result<String, Failed> {
        let milliseconds = QUERY_TIME.as_millis();
        session.begin().await?;
        // Another client's statement of that name may be there, and floats are told digit for digit.
        session
            .run(AssertSqlSafe(format!(
                "DEALLOCATE ALL; SET LOCAL statement_timeout = {milliseconds}; SET LOCAL extra_float_digits = 3"
            )))
            .await?;
        let Some(parameters) = &self.parameters else {
            // Unlike what has several statements in one text, a statement that is prepared is a single one.
            session.one(self.text.to_owned()).await?;
            session.close(FINISH).await?;
            return Ok("[]".into());
        };
        let text = self.text;
        session.run("SAVEPOINT wrapped").await?;
        let wrapped =
            format!("PREPARE tidegate_query AS WITH q AS (\n{text}\n) SELECT pg_catalog.row_to_json(q)::text FROM q");
        let has_rows = match session.one(wrapped).await {
            Ok(()) => true,
            // A statement that returns nothing cannot be wrapped. Another one's error comes again, and unwrapped.
            Err(error) if sqlstate::server(&error).is_some() => {
                session.run("ROLLBACK TO SAVEPOINT wrapped").await?;
                session.one(format!("PREPARE tidegate_query AS {text}")).await?;
                false
            }
            Err(error) => return Err(error.into()),
        };
        let arguments = if parameters.is_empty() { String::new() } else { format!("({})", parameters.join(", ")) };
        let answer = rows(session, format!("EXECUTE tidegate_query{arguments}"), has_rows).await?;
        session.close(FINISH).await?;
        Ok(answer)
    }
}

/// The rows as a JSON array; without `has_rows` there must be none.
async fn rows(session: &mut Session, sql: String, has_rows: bool) -> Result<String, Failed> {
    let mut rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch(session.opened());
    let (mut answer, mut count) = (String::from("["), 0_usize);
    while let Some(row) = rows.try_next().await? {
        if !has_rows {
            return Err(Failed::Limit("the rows of a `WITH` that changes data cannot be returned: end it in the change itself, or change without `RETURNING`".into()));
        }
        let row: &str = row.try_get(0)?;
        count += 1;
        if count > QUERY_ROWS {
            return Err(Failed::Limit(format!(
                "the statement returns more than {QUERY_ROWS} rows, which is the limit"
            )));
        }
        if answer.len() + row.len() + 2 > QUERY_BYTES {
            return Err(Failed::Limit(format!("the rows are longer than {QUERY_BYTES} bytes, which is the limit")));
        }
        if count > 1 {
            answer.push(',');
        }
        answer.push_str(row);
    }
    answer.push(']');
    Ok(answer)
}

/// A value as a literal that means the same whatever the server's settings are.
fn literal(value: &Value) -> Result<String, String> {
    let text = match value {
        Value::Null => return Ok("NULL".into()),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.contains('\0') {
        return Err("a parameter has a NUL character, which PostgreSQL does not take".into());
    }
    Ok(format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")))
}

/// The first word behind blanks and comments.
fn first_word(statement: &str) -> &str {
    let mut rest = statement.trim_start();
    loop {
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, rest)| rest)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            behind_comment(comment)
        } else if let Some(inner) = rest.strip_prefix('(') {
            inner
        } else {
            break;
        }
        .trim_start();
    }
    let end = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

/// What stands behind a comment whose `/*` was read. To the server comments nest.
fn behind_comment(mut rest: &str) -> &str {
    let mut open = 1_u32;
    while open > 0 {
        let Some(mark) = rest.find(['/', '*']) else { return "" };
        rest = rest.get(mark..).unwrap_or_default();
        let (length, opened) = match rest.get(..2) {
            Some("/*") => (2, open.saturating_add(1)),
            Some("*/") => (2, open - 1),
            _ => (1, open),
        };
        (rest, open) = (rest.get(length..).unwrap_or_default(), opened);
    }
    rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_first_word_tells_queries_from_definitions() {
        assert_eq!(first_word("  -- why\n /* and */ (select 1)"), "select");
        assert_eq!(first_word("COPY t FROM '/etc/passwd'"), "COPY");
        assert_eq!(first_word("-- nothing"), "");
        assert_eq!(first_word("/* /* */ CREATE */ SET ROLE x"), "SET");
        assert_eq!(first_word("/**/*/ /*€/*/**/*/ CREATE */ /*/ */ LISTEN c"), "");
        assert_eq!(first_word("/*€/*/**/*/ CREATE */ /*/ */ LISTEN c"), "LISTEN");
        assert_eq!(first_word("/* /* */ SELECT 1"), "");
        for refused in ["COMMIT", "rollback", "SET ROLE x", "LISTEN c", "COPY t TO STDOUT", "PREPARE q AS SELECT 1", ""]
        {
            assert!(Statement::read(refused, "[]").is_err(), "{refused}");
        }
        assert!(Statement::read("CREATE TABLE t (n int)", "[1]").is_err());
        assert_eq!(Statement::read("SELECT 1 ; ", "[]").unwrap_or_else(|why| panic!("{why}")).text, "SELECT 1");
    }

    #[test]
    fn literals_cannot_be_left() {
        let of = |json: &str| literal(&serde_json::from_str(json).unwrap());
        assert_eq!(of("null").unwrap(), "NULL");
        assert_eq!(of(r#""it's \\ one""#).unwrap(), r"E'it''s \\ one'");
        assert_eq!(of("12345678901234567890.5").unwrap(), "E'12345678901234567890.5'");
        assert_eq!(of(r#"{"a":[1]}"#).unwrap(), r#"E'{"a":[1]}'"#);
        assert!(of(r#""\u0000""#).is_err());
    }
}
