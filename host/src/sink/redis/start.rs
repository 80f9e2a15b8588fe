//! What the server tells at the start about the commands that rows become (S124a).
//!
//! The commands themselves are asked, on keys that nobody has, so that nothing is written: who may write may ask so,
//! while few users may run `ACL`.

use redis::{Pipeline, Value};

use super::reply::{self, Class};
use crate::clock;
use crate::model::{CallError, Fault};

/// So many keys are asked for. They fall on different slots of a cluster, and the one server that is asked would have
/// to hold all of them.
const PROBES: usize = 8;

/// The commands, none of which changes anything: `SET` with `XX` writes keys only that are there.
pub(super) fn probes(key_prefix: &str, deletes: bool) -> Pipeline {
    let mut pipeline = Pipeline::new();
    let now = clock::unix_millis();
    for number in 0..PROBES {
        let key = format!("{key_prefix}tidegate-probe-{now}-{number}");
        if deletes {
            pipeline.cmd("DEL").arg(&key);
        }
        pipeline.cmd("SET").arg(&key).arg("1").arg("XX");
    }
    pipeline
}

/// What the answers to [`probes`] say.
///
/// # Errors
/// When no row can be written.
pub(super) fn judge(answers: &[Value], key_prefix: &str, place: &str) -> Result<(), CallError> {
    let refused = answers.iter().find_map(|answer| match answer {
        Value::ServerError(error) => Some(error),
        _ => None,
    });
    let Some(error) = refused else { return Ok(()) };
    let words = reply::words(error);
    match reply::classify(error) {
        Class::Moved => Err(CallError::Fatal(reply::cluster(place).because(words))),
        Class::Unavailable if error.code() == "NOPERM" || reply::may_not(error) => {
            let fault = Fault::config(format!("the user of `{place}` may not write: every row would be refused"));
            Err(CallError::Fatal(fault.because(words).hint("allow the user `SET`, and `DEL` where tombstones delete")))
        }
        Class::Unavailable => {
            let fault = Fault::destination(format!("`{place}` takes no writes")).because(words);
            Err(CallError::Unavailable(fault.hint("see that the server is a master, and has room to write")))
        }
        // Which keys rows will have, nobody knows yet.
        Class::Reject | Class::Unknown => {
            tracing::warn!("`{place}` refuses keys such as `{key_prefix}…`, and rows that have such a key: {words}");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing that is asked could change a key.
    #[test]
    fn s124a_the_start_asks_and_writes_nothing() {
        let packed = String::from_utf8(probes("app:", true).get_packed_pipeline()).unwrap_or_default();
        assert_eq!(packed.matches("$2\r\nXX\r\n").count(), PROBES);
        assert_eq!(packed.matches("SET").count(), PROBES);
        assert_eq!(packed.matches("$3\r\nDEL\r\n").count(), PROBES);
        assert_eq!(packed.matches("app:tidegate-probe-").count(), 2 * PROBES);
        let packed = String::from_utf8(probes("app:", false).get_packed_pipeline()).unwrap_or_default();
        assert!(!packed.contains("DEL"));
    }
}
