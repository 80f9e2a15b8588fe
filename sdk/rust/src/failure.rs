use std::fmt::Display;
use std::time::Duration;

use crate::{Failure, FailureKind, Fault};

/// Why a collector yields nothing for a record.
#[derive(Clone, Debug)]
pub enum Failed {
    /// It never will: the record goes to the dead letter queue.
    Reject(String),
    /// It may later: the record and those after it are asked for again.
    Retry(String),
    /// The whole call failed, whatever this record was.
    Call(Fault),
}

impl Failed {
    /// The record never yields anything; `reason` stands in its dead letter.
    pub fn reject(reason: impl Display) -> Self {
        Self::Reject(reason.to_string())
    }

    /// The record may yield something later.
    pub fn retry(reason: impl Display) -> Self {
        Self::Retry(reason.to_string())
    }
}

impl Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reject(reason) | Self::Retry(reason) => f.write_str(reason),
            Self::Call(fault) => write!(f, "{fault:?}"),
        }
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Call(fault)
    }
}

impl From<serde_json::Error> for Failed {
    fn from(error: serde_json::Error) -> Self {
        Self::reject(error)
    }
}

impl Fault {
    /// The destination takes no more for now; the host comes again after `pause`. Not an error, never counted as an
    /// attempt. A pause beyond what the contract can say becomes the longest one.
    pub fn wait(pause: Duration) -> Self {
        Self::Backpressure(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX))
    }

    /// The destination cannot be used for now, whatever the rows are: not reachable, out of space, overloaded, locked.
    /// The host waits and asks again, without end; no attempt is counted, and no row goes to the dead letter queue
    /// because of it.
    pub fn unavailable(reason: impl Display) -> Self {
        Self::Unavailable(reason.to_string())
    }

    /// At least one row of the call is refused for good, and which one is not known: the host asks again in halves
    /// until it is.
    pub fn reject(reason: impl Display) -> Self {
        Self::Reject(reason.to_string())
    }

    /// No call can succeed: the host commits what is settled and stops.
    pub fn fatal(reason: impl Display) -> Self {
        Self::Fatal(reason.to_string())
    }
}

impl Failure {
    /// Row `index` may be written later.
    pub fn retry(index: usize, reason: impl Display) -> Self {
        Self::new(index, FailureKind::Retry, reason)
    }

    /// Row `index` can never be written.
    pub fn reject(index: usize, reason: impl Display) -> Self {
        Self::new(index, FailureKind::Reject, reason)
    }

    fn new(index: usize, kind: FailureKind, reason: impl Display) -> Self {
        // A batch has at most as many rows as an u32 counts; the host refuses an index that names no row.
        Self { index: u32::try_from(index).unwrap_or(u32::MAX), kind, reason: reason.to_string() }
    }
}
