//! Failures with an owner, and what a call that failed as a whole means for the partition.

use std::fmt;
use std::time::Duration;

/// Whose failure it is. Decides the exit code, whether to try again, and the wording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The configuration is wrong; nothing changes until it is.
    Config,
    /// A plugin broke its contract, trapped or overran a limit.
    Plugin,
    /// A server or file system that we write to.
    Destination,
    /// Tidegate itself, or the cluster that it reads from.
    Host,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "config",
            Self::Plugin => "plugin",
            Self::Destination => "destination",
            Self::Host => "host",
        })
    }
}

/// A failure with an owner, its causes, and what the user can do next. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose failure it is.
    pub owner: Owner,
    /// What failed, with literals in backticks, no trailing period.
    pub message: String,
    /// Why, outermost cause first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Fault {
    /// A failure of `owner`.
    pub fn new(owner: Owner, message: impl Into<String>) -> Self {
        Self { owner, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// A failure of the configuration.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Owner::Config, message)
    }

    /// A failure of a plugin.
    pub fn plugin(message: impl Into<String>) -> Self {
        Self::new(Owner::Plugin, message)
    }

    /// A failure of a destination.
    pub fn destination(message: impl Into<String>) -> Self {
        Self::new(Owner::Destination, message)
    }

    /// A failure of Tidegate or the source cluster.
    pub fn host(message: impl Into<String>) -> Self {
        Self::new(Owner::Host, message)
    }

    /// Adds the next deeper cause.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// On one line with its hint, for the log: whoever reads it has nobody else to ask.
    pub fn with_hint(&self) -> WithHint<'_> {
        WithHint(self)
    }
}

impl fmt::Display for Fault {
    /// The message and its causes on one line; the hint is for whoever renders it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// A fault on one line, with its hint.
#[derive(Clone, Copy, Debug)]
pub struct WithHint<'f>(&'f Fault);

impl fmt::Display for WithHint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        self.0.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; hint: {hint}"))
    }
}

/// A call to a sink or collector that failed as a whole: no row of it counts as done (S44). What each means for the rows is
/// decided in one place, `pipeline/policy.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The destination takes no more for now: wait, then ask again. Not an error, never counted as an attempt.
    Backpressure(Duration),
    /// The destination cannot be written to, whatever the rows are: not reachable, login refused, shutting down, out of space,
    /// overloaded, locked. Nothing of the call was written, or writing it again is what the destination expects.
    Unavailable(Fault),
    /// It failed, and neither whether a row or the destination is the cause nor whether it wrote anything is known: an internal
    /// error, a connection that broke off (S79b).
    Unknown(Fault),
    /// Refused for good, and which row is to blame is not known.
    Reject(Fault),
    /// No call can succeed; commit what is settled and stop.
    Fatal(Fault),
    /// The guest trapped or broke its contract; its instance is gone, with all its buffers.
    Trap(Fault),
    /// The guest ran past its own deadline or wanted more than a limit allows, which fewer rows may not do (S15a); its instance is
    /// gone, with all its buffers.
    LimitExceeded(Fault),
    /// No answer in time while somebody else was waited for, so the outcome is unknown (S28, S77).
    Timeout(Fault),
    /// What had been added for this partition is no longer there, because the instance that held it was retired (S27).
    BufferLost(Fault),
}

impl CallError {
    /// The failure behind the answer, if it is one.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Backpressure(_) => None,
            Self::Unavailable(fault)
            | Self::Unknown(fault)
            | Self::Reject(fault)
            | Self::Fatal(fault)
            | Self::Trap(fault)
            | Self::LimitExceeded(fault)
            | Self::Timeout(fault)
            | Self::BufferLost(fault) => Some(fault),
        }
    }

    /// The fault to report when the call will not be repeated, such as at start.
    pub fn into_fault(self) -> Fault {
        match self {
            Self::Backpressure(wait) => Fault::destination(format!("takes nothing for {} ms", wait.as_millis())),
            Self::Unavailable(fault)
            | Self::Unknown(fault)
            | Self::Reject(fault)
            | Self::Fatal(fault)
            | Self::Trap(fault)
            | Self::LimitExceeded(fault)
            | Self::Timeout(fault)
            | Self::BufferLost(fault) => fault,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backpressure(wait) => write!(f, "backpressure for {} ms", wait.as_millis()),
            other => match other.fault() {
                Some(fault) => fault.fmt(f),
                None => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_has_causes_and_hint() {
        let fault = Fault::destination("`redis/cache` cannot be reached").because("refused").because("port 1");
        assert_eq!(fault.with_hint().to_string(), "`redis/cache` cannot be reached: refused: port 1");
        let fault = fault.hint("start it");
        assert_eq!(fault.with_hint().to_string(), "`redis/cache` cannot be reached: refused: port 1; hint: start it");
    }
}
