//! What a server's refusal of one command means for its row.

use redis::ServerError;

use crate::model::{CallError, Failure, Fault};
use crate::sink::TOO_LARGE;

/// What the server says of itself and not of the command: it takes no writes for now.
const AWAY: &[&str] = &[
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOAUTH",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "UNKILLABLE",
    "WRONGPASS",
];

/// What it says to a client that is one too many, under the code of all errors without one.
const TOO_MANY: &str = "max number of clients";
/// What it says to a key or value beyond its limit before it hangs up.
const BULK: &str = "invalid bulk length";

/// The row's failure.
///
/// # Errors
/// When the server belongs to a cluster.
pub(super) fn failure(row: u32, error: &ServerError, place: &str) -> Result<Failure, CallError> {
    let detail = error.details().unwrap_or_default();
    let words = format!("{} {detail}", error.code());
    let words = words.trim_end();
    Ok(match error.code() {
        "MOVED" | "ASK" => {
            let fault = Fault::config(format!("`{place}` belongs to a cluster, which this sink does not follow"))
                .because(words)
                .hint("name a server that holds all keys, or a proxy in front of the cluster");
            return Err(CallError::Fatal(fault));
        }
        code if AWAY.contains(&code) => Failure::unavailable(row, words),
        _ if detail.contains(TOO_MANY) => Failure::unavailable(row, words),
        _ if detail.contains(BULK) => Failure::reject(
            row,
            format!("{TOO_LARGE}: the key or the value is beyond the server's `proto-max-bulk-len`"),
        ),
        _ => Failure::reject(row, words),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use redis::Value;

    use super::*;
    use crate::model::FailureKind;

    fn answered(line: &str) -> Result<Failure, CallError> {
        let Ok(Value::ServerError(error)) = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) else {
            unreachable!("`{line}` is an error reply")
        };
        failure(3, &error, "h:1/0")
    }

    /// S115: what the server says of itself holds rows back, what it says of a command refuses the row.
    #[test]
    fn refusals_of_the_server_and_of_the_row_differ_s115() {
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF Redis is configured to save RDB snapshots",
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "CLUSTERDOWN The cluster is down",
            "MASTERDOWN Link with MASTER is down",
            "NOREPLICAS Not enough good replicas to write.",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "NOAUTH Authentication required.",
            "ERR max number of clients reached",
        ] {
            assert_eq!(answered(line).unwrap().kind, FailureKind::Unavailable, "{line}");
        }
        for line in ["NOPERM No permissions to access a key", "ERR invalid expire time in 'set' command", "ODD x"] {
            let failure = answered(line).unwrap();
            assert_eq!((failure.kind, failure.reason.as_str(), failure.index), (FailureKind::Reject, line, 3));
        }
        let failure = answered("ERR Protocol error: invalid bulk length").unwrap();
        assert!(failure.kind == FailureKind::Reject && failure.reason.starts_with(TOO_LARGE));
        for line in ["MOVED 866 127.0.0.1:7001", "ASK 866 127.0.0.1:7001"] {
            let Err(CallError::Fatal(fault)) = answered(line) else { unreachable!("{line}") };
            assert!(fault.message.contains("cluster") && fault.hint.is_some());
        }
    }
}
