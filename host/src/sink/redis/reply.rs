//! What a server's refusal of one command means for its row.

use redis::{ServerError, Value};

use crate::model::{CallError, Failure, Fault};
use crate::sink::TOO_LARGE;

/// What the server says of itself and not of the command: it takes no writes for now.
const UNAVAILABLE: &[&str] = &["BUSY", "NOREPLICAS", "OOM", "TRYAGAIN", "UNKILLABLE"];

/// The same, by servers that may have been replaced by others.
const STALE: &[&str] = &[
    "CLUSTERDOWN",
    "DENIED",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOAUTH",
    "NOMASTERLINK",
    "READONLY",
    "REDIRECT",
    "WRONGPASS",
];

/// What a node of a cluster says of a key that another one has. The only master of a cluster says so too once it is none any
/// more.
const MOVED: &[&str] = &["ASK", "MOVED"];

/// What the server says of the command alone.
const REJECTED: &[&str] = &["CROSSSLOT", "ERR", "NOPERM", "WRONGTYPE"];

/// How the words begin of a proxy that did not reach the server behind it (Envoy, Codis, Predixy; twemproxy repeats the
/// system's words, behind the code of all errors without one), or of a service beyond its quota.
const BEHIND: &[&str] = &[
    "backend conn",
    "broken pipe",
    "connection refused",
    "connection reset",
    "connection timed out",
    "handle response, backend conn",
    "host is down",
    "max daily request limit",
    "max number of clients",
    "max requests limit",
    "network is unreachable",
    "no route to host",
    "no server ava",
    "no upstream host",
    "operation timed out",
    "proxy is closed",
    "router is not online",
    "server connection",
    "server response timeout",
    "upstream failure",
    "upstream protocol error",
    "upstream timeout",
];

/// How the words begin that say of the login or the server that it may not, or cannot, run the command with any key.
const NO_COMMAND: &[&str] = &["operation not permitted", "unknown command"];
/// The same, behind the name of a user.
const NO_RIGHT: &str = "no permissions to run";

/// What it says to a client that is one too many.
const TOO_MANY: &str = "max number of clients";
/// What it says to a key or value beyond its limit before it hangs up.
const BULK: &str = "invalid bulk length";

/// What an error means for its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The row never will be written.
    Reject,
    /// The server, or the one behind a proxy, takes no writes for now.
    Unavailable,
    /// Nobody knows this answer: it may be about the row or about the server.
    Unknown,
    /// The server belongs to a cluster.
    Moved,
}

pub(super) fn classify(error: &ServerError) -> Class {
    let code = error.code();
    let words = match code {
        "ERR" => error.details().unwrap_or_default().to_ascii_lowercase(),
        _ => words(error).to_ascii_lowercase(),
    };
    let begins = |phrases: &[&str]| phrases.iter().any(|phrase| words.starts_with(phrase));
    match code {
        code if MOVED.contains(&code) => Class::Moved,
        code if UNAVAILABLE.contains(&code) || STALE.contains(&code) => Class::Unavailable,
        _ if begins(BEHIND) || begins(NO_COMMAND) => Class::Unavailable,
        "NOPERM" if words.contains(NO_RIGHT) => Class::Unavailable,
        code if REJECTED.contains(&code) => Class::Reject,
        _ => Class::Unknown,
    }
}

/// Whether another connection may lead to a server that takes writes.
pub(super) fn is_stale(error: &ServerError) -> bool {
    STALE.contains(&error.code()) || MOVED.contains(&error.code())
}

/// Whether it says that the login or the server may not, or cannot, run the command with any key.
pub(super) fn may_not(error: &ServerError) -> bool {
    let words = error.details().unwrap_or_default().to_ascii_lowercase();
    error.code() == "ERR" && NO_COMMAND.iter().any(|phrase| words.starts_with(phrase))
}

/// The fault of a server that does not hold all keys.
pub(super) fn cluster(place: &str) -> Fault {
    Fault::config(format!("`{place}` belongs to a cluster, which this sink does not follow"))
        .hint("name a server that holds all keys, or a proxy in front of the cluster")
}

/// The words of a server that takes no more clients.
pub(super) fn too_many_clients(answer: &Value) -> Option<&str> {
    match answer {
        Value::ServerError(error) => error.details().filter(|words| words.starts_with(TOO_MANY)),
        _ => None,
    }
}

/// The error as the server wrote it.
pub(super) fn words(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default()).trim_end().to_owned()
}

/// The failures of a call. `written`: others of its rows were written. `is_to_blame`: whether a row with an answer that
/// nobody knows is the cause of it.
///
/// # Errors
/// When the server holds the keys of some rows only, and when neither a row nor the server is known to be the cause.
pub(super) fn failures(
    refused: &[(u32, ServerError)],
    written: bool,
    is_to_blame: impl Fn(u32) -> bool,
    place: &str,
) -> Result<Vec<Failure>, CallError> {
    let unavailable = refused.iter().any(|(_, error)| classify(error) == Class::Unavailable);
    refused
        .iter()
        .map(|(row, error)| {
            let words = words(error);
            Ok(match classify(error) {
                Class::Moved if written => return Err(CallError::Fatal(cluster(place).because(words))),
                // The start found all keys here: another server has become the master.
                Class::Moved => Failure::unavailable(*row, words),
                Class::Unavailable => Failure::unavailable(*row, words),
                Class::Reject if words.contains(BULK) => Failure::reject(
                    *row,
                    format!("{TOO_LARGE}: the key or the value is beyond the server's `proto-max-bulk-len`"),
                ),
                Class::Reject => Failure::reject(*row, words),
                Class::Unknown if is_to_blame(*row) => Failure::retry(*row, words),
                Class::Unknown if unavailable => Failure::unavailable(*row, words),
                Class::Unknown => {
                    return Err(CallError::Unknown(
                        Fault::destination(format!("`{place}` refused all rows")).because(words),
                    ));
                }
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::model::FailureKind;

    fn said(line: &str) -> ServerError {
        let Ok(Value::ServerError(error)) = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) else {
            unreachable!("`{line}` is an error reply")
        };
        error
    }

    fn answered(line: &str, written: bool) -> Result<Failure, CallError> {
        failures(&[(3, said(line))], written, |_| written, "h:1/0").map(|mut failures| failures.remove(0))
    }

    /// S79a, S115: what the server, or a proxy, says of itself keeps rows waiting, what it says of a command refuses
    /// the row.
    #[test]
    fn s79a_refusals_of_the_server_and_of_the_row_differ_s115() {
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF Redis is configured to save RDB snapshots",
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down",
            "NOMASTERLINK Can't SYNC while not connected with my master",
            "NOREPLICAS Not enough good replicas to write.",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "UNKILLABLE Sorry the script already executed write commands",
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair",
            "DENIED Redis is running in protected mode",
            "REDIRECT 127.0.0.1:7001",
            "ERR backend conn reset",
            "ERR handle response, backend conn reset",
            "ERR server connection close",
            "ERR no server available",
            "upstream timeout",
            "ERR max number of clients reached",
            "ERR max requests limit exceeded. Limit: 500000",
            "ERR operation not permitted",
            "ERR unknown command 'SET'",
            "ERR Connection refused",
            "ERR Connection reset by peer",
            "ERR Connection timed out",
            "ERR Host is down",
            "upstream failure",
            "no upstream host",
            "NOPERM this user has no permissions to run the 'set' command or its subcommand",
            "NOPERM User writer has no permissions to run the 'set' command",
        ] {
            for written in [false, true] {
                assert_eq!(answered(line, written).unwrap().kind, FailureKind::Unavailable, "{line}");
            }
        }
        for line in [
            "NOPERM No permissions to access a key",
            "NOPERM this user has no permissions to access one of the keys used as arguments",
            "ERR invalid expire time in 'set' command",
            "ERR syntax error",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "CROSSSLOT Keys in request don't hash to the same slot",
        ] {
            for written in [false, true] {
                let failure = answered(line, written).unwrap();
                assert_eq!((failure.kind, failure.reason.as_str(), failure.index), (FailureKind::Reject, line, 3));
            }
        }
        let failure = answered("ERR Protocol error: invalid bulk length", false).unwrap();
        assert!(failure.kind == FailureKind::Reject && failure.reason.starts_with(TOO_LARGE));
        for line in ["MOVED 866 127.0.0.1:7001", "ASK 866 127.0.0.1:7001"] {
            let Err(CallError::Fatal(fault)) = answered(line, true) else { unreachable!("{line}") };
            assert!(fault.message.contains("cluster") && fault.hint.is_some());
            assert_eq!(answered(line, false).unwrap().kind, FailureKind::Unavailable, "{line}");
        }
    }

    /// S79b: an answer that nobody knows is the row's own only where others were written.
    #[test]
    fn s79b_an_unknown_answer_is_the_rows_own_among_written_ones() {
        for line in [
            "ODD x",
            "EXECABORT Transaction discarded",
            "NOSCRIPT No matching script",
            "NOPROTO unsupported protocol version",
            "UNBLOCKED force unblock from blocking operation",
            "IOERR error or timeout reading from target instance",
            "invalid request",
            "backend server error",
        ] {
            assert_eq!(answered(line, true).unwrap(), Failure::retry(3, line));
            assert!(matches!(answered(line, false), Err(CallError::Unknown(fault)) if fault.causes == [line]));
            let both = [(1, said("LOADING x")), (3, said(line))];
            let kinds: Vec<_> =
                failures(&both, false, |_| false, "h:1/0").unwrap().into_iter().map(|failure| failure.kind).collect();
            assert_eq!(kinds, [FailureKind::Unavailable; 2], "{line}");
        }
    }

    /// R1: what a server says that may have been replaced asks for a new connection.
    #[test]
    fn only_a_server_that_may_have_been_replaced_is_connected_to_anew() {
        for line in [
            "READONLY x",
            "MISCONF x",
            "LOADING x",
            "MASTERDOWN x",
            "NOAUTH x",
            "MOVED 1 x:1",
            "ASK 1 x:1",
            "REDIRECT x:1",
        ] {
            assert!(is_stale(&said(line)), "{line}");
        }
        for line in ["OOM x", "BUSY x", "ERR x", "NOPERM x"] {
            assert!(!is_stale(&said(line)), "{line}");
        }
    }
}
