//! What an error of the server means, by its SQLSTATE, and how it is told.

use std::borrow::Cow;

use sqlx::Error;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::model::FailureKind;

/// Most bytes of the server's words in a reason; they may quote a whole value.
const WORDS_BYTES: usize = 500;

/// What an error means as long as no COMMIT was sent: nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Some rows or a table may be the cause, which writing the rows in parts shows. A row that fails alone is this.
    Rows(FailureKind),
    /// Another transaction was in the way: the same may succeed at once.
    Contention,
    /// The server cannot be reached or writes nothing for now, whatever the rows are.
    Unavailable,
    /// The statement ran out of time or was cancelled, which fewer rows may not be.
    Timeout,
    /// Neither whether a row nor whether the server is the cause is known.
    Unknown,
}

/// The server's error, if it is one.
pub(super) fn server(error: &Error) -> Option<&PgDatabaseError> {
    error.as_database_error().and_then(|error| error.try_downcast_ref())
}

/// Classifies by SQLSTATE, and by the kind of failure where there is none.
pub(super) fn classify(error: &Error) -> Class {
    match error {
        Error::Io(_) | Error::Tls(_) | Error::PoolTimedOut | Error::WorkerCrashed => Class::Unavailable,
        _ => server(error).map_or(Class::Unknown, |error| {
            classify_parts(error.code(), is_fatal(error), error.routine().unwrap_or_default(), error.message())
        }),
    }
}

/// The server, or a pooler in front of it, ends the connection with this error.
fn is_fatal(error: &PgDatabaseError) -> bool {
    matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)
}

fn classify_parts(code: &str, fatal: bool, routine: &str, message: &str) -> Class {
    if fatal {
        // Poolers have one code, 08P01, for all that they say themselves.
        return match (code, pooler_says(message)) {
            ("25P04", _) | (_, Some(Pooler::Slow)) => Class::Timeout,
            _ => Class::Unavailable,
        };
    }
    // Out of transaction numbers, until a VACUUM frees some: the code of a limit that a row exceeds.
    if code == "54000" && ["GetNewTransactionId", "GetNewMultiXactId"].contains(&routine) {
        return Class::Unavailable;
    }
    classify_code(code)
}

/// What a connection pooler, rather than the server, says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooler {
    /// It gives no transaction to its clients.
    StatementMode,
    /// It does not pass on a parameter of the session.
    Parameter,
    /// It does not know the user or its password.
    Login,
    /// It does not know the database.
    Database,
    /// It takes no more clients.
    Full,
    /// The statement took longer than it lets one take.
    Slow,
}

/// What the error says when a pooler that ends the connection said it.
pub(super) fn pooler(error: &Error) -> Option<Pooler> {
    server(error).filter(|error| is_fatal(error)).and_then(|error| pooler_says(error.message()))
}

/// PgBouncer says everything with one code, of which the server makes no use on a connection that was idle.
pub(super) fn is_poolers(error: &Error) -> bool {
    server(error).is_some_and(|error| is_fatal(error) && error.code() == "08P01")
}

fn pooler_says(message: &str) -> Option<Pooler> {
    const WORDS: [(&str, Pooler); 13] = [
        ("statement pooling mode", Pooler::StatementMode),
        ("unsupported startup parameter", Pooler::Parameter),
        ("unsupported options startup parameter", Pooler::Parameter),
        ("no such user", Pooler::Login),
        ("authentication failed", Pooler::Login),
        ("role \"", Pooler::Login),
        ("no such database", Pooler::Database),
        ("\" does not exist", Pooler::Database),
        ("no more connections allowed", Pooler::Full),
        ("client connections exceeded", Pooler::Full),
        ("query timeout", Pooler::Slow),
        ("query_timeout", Pooler::Slow),
        ("idle transaction timeout", Pooler::Slow),
    ];
    WORDS.iter().find(|(words, _)| message.contains(words)).map(|(_, pooler)| *pooler)
}

fn classify_code(code: &str) -> Class {
    match code {
        "40001" | "40P01" => Class::Contention,
        "57014" | "25P04" => Class::Timeout,
        // A lock that was not granted in time, an object in use, and a tablespace without room are of one row or one
        // table.
        "55P03" | "55006" | "53100" => Class::Rows(FailureKind::Unavailable),
        // A foreign server that cannot be reached or has no memory.
        "HV00N" | "HV00L" | "HV00M" | "HV001" => Class::Rows(FailureKind::Unavailable),
        // Read-only, as after a failover; ended because it was idle; no such database. A statement that is not prepared,
        // or was before, says that the session is not the one that it was: our own have no names.
        "25006" | "25P03" | "3D000" | "26000" | "42P05" => Class::Unavailable,
        // Fewer rows need less memory and temporary space; a single one may need too much.
        "53200" | "53400" => Class::Unknown,
        // The transaction is not in the state that it has to be in here.
        "25P01" | "25P02" => Class::Unknown,
        "40002" => Class::Rows(FailureKind::Reject),
        _ => match code.get(..2) {
            Some("28" | "53" | "57" | "F0") => Class::Unavailable,
            // Over a connection that goes on, `08` is about a server behind a foreign table; `58` about a file of a table or
            // of an extension.
            Some("08" | "58") => Class::Rows(FailureKind::Unavailable),
            Some("3B" | "40" | "72") => Class::Unknown,
            // What the server did not expect: extensions say so of a value, the server of a damaged index.
            Some("HV" | "XX") => Class::Rows(FailureKind::Retry),
            // What triggers raise has codes of their own choice.
            _ => Class::Rows(FailureKind::Reject),
        },
    }
}

/// Whether the transaction may have been committed when its COMMIT ended with this error.
pub(super) fn leaves_outcome_unknown(error: &Error) -> bool {
    server(error).is_none_or(|error| {
        is_fatal(error)
            || matches!(error.code(), "40003" | "57P01" | "57P02" | "57P03" | "57P05")
            || error.code().starts_with("08")
    })
}

/// Whether the error may be about the statement as it stands, whatever its rows are.
pub(super) fn may_concern_all_rows(error: &Error) -> bool {
    server(error).is_some_and(|error| !matches!(error.code().get(..2), Some("22" | "23")))
}

/// Whether the user has no right to do this. Row-level security says so of a single row.
pub(super) fn is_missing_privilege(error: &Error) -> bool {
    server(error).is_some_and(|error| error.code() == "42501")
}

/// Whether the row lacks what must not be null.
pub(super) fn is_null_refused(error: &Error) -> bool {
    server(error).is_some_and(|error| error.code() == "23502")
}

/// Whether a single value may be to blame, which trying the columns one by one shows.
pub(super) fn may_be_a_value(error: &Error) -> bool {
    server(error).is_some_and(|error| {
        classify_code(error.code()) != Class::Rows(FailureKind::Unavailable)
            && !matches!(error.code().get(..2), Some("P0" | "42"))
            && error.code() != "23505"
    })
}

/// What the server itself advises.
pub(super) fn hint(error: &Error) -> Option<String> {
    server(error)?.hint().map(|hint| shortened(hint).into_owned())
}

/// The error in words, without the user's name and with its code.
pub(super) fn words(error: &Error, user: &str) -> String {
    let Some(server) = server(error) else {
        return match error {
            Error::Io(error) => error.to_string(),
            Error::Tls(error) => format!("TLS: {error}"),
            other => other.to_string(),
        };
    };
    let message = server.message();
    let quoted = format!("\"{user}\"");
    let message = if user.is_empty() { Cow::Borrowed(message) } else { message.replace(&quoted, "\"…\"").into() };
    format!("{} ({})", shortened(&message), server.code())
}

/// The words up to a bound, cut between characters.
fn shortened(words: &str) -> Cow<'_, str> {
    if words.len() <= WORDS_BYTES {
        return words.into();
    }
    format!("{}…", &words[..words.floor_char_boundary(WORDS_BYTES)]).into()
}

/// The columns that the error itself names: one that must not be null, or those of a key that is there or missing.
pub(super) fn columns(error: &Error) -> Option<String> {
    let server = server(error)?;
    if let Some(column) = server.column() {
        return Some(column.to_owned());
    }
    let detail = server.detail().filter(|_| server.code().starts_with("23"))?;
    let (_, key) = detail.split_once('(')?;
    let (columns, _) = key.split_once(")=(")?;
    Some(columns.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S79a, S79b: every class of SQLSTATE, and the single codes that differ from theirs.
    #[test]
    fn s79a_codes_are_classified() {
        let fatal = |code, message| classify_parts(code, true, "", message);
        for message in [
            "server conn crashed?",
            "query_wait_timeout",
            "pgbouncer cannot connect to server",
            "server login has been failing, try again later (server_login_retry)",
            "no more connections allowed (max_client_conn)",
            "client_idle_timeout",
            "pooler is shutting down",
            "admin forced disconnect",
            "SASL authentication failed",
            "transaction blocks not allowed in statement pooling mode",
        ] {
            assert_eq!(fatal("08P01", message), Class::Unavailable, "{message}");
        }
        for (code, message) in
            [("08P01", "query timeout"), ("08P01", "query_timeout"), ("25P04", "transaction timeout")]
        {
            assert_eq!(fatal(code, message), Class::Timeout, "{message}");
        }
        for code in ["XX000", "58000", "22023", "42501", "3D000", "28000"] {
            assert_eq!(fatal(code, "the session is over"), Class::Unavailable, "{code}");
        }
        assert_eq!(classify_parts("54000", false, "GetNewTransactionId", ""), Class::Unavailable);
        assert_eq!(classify_parts("54000", false, "index_form_tuple", ""), Class::Rows(FailureKind::Reject));

        let classes: [(Class, &[&str]); 7] = [
            (
                Class::Rows(FailureKind::Reject),
                &[
                    "01000", "02000", "03000", "09000", "0A000", "0B000", "0F000", "0L000", "0P000", "0Z000", "10608",
                    "20000", "21000", "22P02", "22003", "23502", "23505", "23514", "24000", "25001", "25P05", "27000",
                    "2B000", "2D000", "2F002", "34000", "38000", "39000", "3F000", "40002", "42501", "42703", "42P01",
                    "42P10", "44000", "54000", "54001", "55000", "55P02", "55P04", "P0001", "P0004", "TG001",
                ],
            ),
            (Class::Rows(FailureKind::Retry), &["XX000", "XX001", "XX002", "HV000", "HV004"]),
            (
                Class::Rows(FailureKind::Unavailable),
                &["08001", "08006", "08P01", "53100", "55006", "55P03", "58000", "58030", "58P01", "HV00N", "HV001"],
            ),
            (Class::Contention, &["40001", "40P01"]),
            (
                Class::Unavailable,
                &[
                    "25006", "25P03", "26000", "28000", "28P01", "3D000", "42P05", "53000", "53300", "57000", "57P01",
                    "57P02", "57P03", "57P04", "57P05", "F0000", "F0001",
                ],
            ),
            (Class::Timeout, &["57014", "25P04"]),
            (Class::Unknown, &["25P01", "25P02", "3B001", "40000", "40003", "53200", "53400", "72000"]),
        ];
        for (class, codes) in classes {
            for code in codes {
                assert_eq!(classify_code(code), class, "{code}");
            }
        }
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let long = "ü".repeat(400);
        let cut = shortened(&long);
        assert!(cut.len() <= WORDS_BYTES + '…'.len_utf8() && cut.ends_with("ü…"));
    }
}
