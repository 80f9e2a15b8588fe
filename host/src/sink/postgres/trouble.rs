//! What an error of the server means for the rows, and how it is told.

use std::borrow::Cow;

use sqlx::Error;
use sqlx::postgres::PgDatabaseError;

/// Most bytes of the server's words in a reason; they may quote a whole value.
const WORDS_BYTES: usize = 500;

/// What an error means as long as no COMMIT was sent: nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server cannot be reached, has no room or writes nothing for now.
    Away,
    /// Somebody else's transaction was in the way.
    Contended,
    /// The same rows will be refused again.
    Permanent,
    /// Anything else.
    Unclear,
}

/// The server's error, if it is one.
pub(super) fn server(error: &Error) -> Option<&PgDatabaseError> {
    error.as_database_error().and_then(|error| error.try_downcast_ref())
}

/// Judges by SQLSTATE, and by the kind of failure where there is none.
pub(super) fn judge(error: &Error) -> Trouble {
    match error {
        Error::Io(_) | Error::Tls(_) | Error::PoolTimedOut | Error::WorkerCrashed => Trouble::Away,
        _ => server(error).map_or(Trouble::Unclear, |error| judge_code(error.code())),
    }
}

fn judge_code(code: &str) -> Trouble {
    match code {
        "40001" | "40P01" | "55P03" => Trouble::Contended,
        "57P01" | "57P02" | "57P03" | "57P05" | "25006" | "3D000" => Trouble::Away,
        // Cancelled or timed out, and errors that the server itself did not expect.
        "57014" => Trouble::Unclear,
        _ => match code.get(..2) {
            Some("08" | "53" | "58" | "28") => Trouble::Away,
            Some("40" | "55" | "XX") => Trouble::Unclear,
            // What triggers raise has codes of their own choice.
            _ => Trouble::Permanent,
        },
    }
}

/// Whether the error has nothing to do with single rows: a statement that cannot even begin.
pub(super) fn concerns_all_rows(error: &Error) -> bool {
    server(error).is_some_and(|error| {
        matches!(error.code(), "42501" | "42P01" | "42P10" | "42703" | "3F000") && error.r#where().is_none()
    })
}

/// Whether a single value may be to blame, which trying the columns one by one shows.
pub(super) fn may_be_a_value(error: &Error) -> bool {
    server(error).is_some_and(|error| !matches!(error.code().get(..2), Some("P0" | "42")) && error.code() != "23505")
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

    #[test]
    fn codes_are_judged_by_class() {
        for (code, trouble) in [
            ("22P02", Trouble::Permanent),
            ("23505", Trouble::Permanent),
            ("21000", Trouble::Permanent),
            ("42703", Trouble::Permanent),
            ("P0001", Trouble::Permanent),
            ("TG001", Trouble::Permanent),
            ("54000", Trouble::Permanent),
            ("0A000", Trouble::Permanent),
            ("08006", Trouble::Away),
            ("53100", Trouble::Away),
            ("53300", Trouble::Away),
            ("57P01", Trouble::Away),
            ("28P01", Trouble::Away),
            ("25006", Trouble::Away),
            ("3D000", Trouble::Away),
            ("40001", Trouble::Contended),
            ("40P01", Trouble::Contended),
            ("55P03", Trouble::Contended),
            ("57014", Trouble::Unclear),
            ("XX000", Trouble::Unclear),
        ] {
            assert_eq!(judge_code(code), trouble, "{code}");
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
