//! Writes a call's statements in one transaction (S108).

use std::sync::Arc;
use std::time::Duration;

use sqlx::Error;

use super::dsn::Address;
use super::plan::{Statement, parameter};
use super::session::Session;
use super::sqlstate::{self, Class};
use crate::model::{Answer, CallError, Failure, FailureKind, Fault};

/// How often a transaction is tried that others are in the way of.
const CONTENDED_TRIES: u32 = 6;
/// The wait before the second try; each further one waits twice as long.
const CONTENDED_WAIT: Duration = Duration::from_millis(20);
/// Why a transaction did not come to its end.
pub(super) struct Broken {
    pub(super) error: Error,
    at: At,
}

/// How far a transaction had come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Nothing of the rows was sent, so that they are not the cause.
    Begin,
    Rows,
    /// COMMIT was sent: what the server does not deny may have happened.
    Commit,
}

impl Broken {
    pub(super) fn beginning(error: Error) -> Self {
        Self { error, at: At::Begin }
    }

    pub(super) fn open(error: Error) -> Self {
        Self { error, at: At::Rows }
    }

    pub(super) fn committing(error: Error) -> Self {
        Self { error, at: At::Commit }
    }

    /// What a single row that fails like this would be; `None` where the rows are not the cause, or may be written.
    pub(super) fn rows(&self) -> Option<FailureKind> {
        match sqlstate::classify(&self.error) {
            Class::Rows(kind) if self.at != At::Begin && !self.outcome_is_unknown() => Some(kind),
            _ => None,
        }
    }

    fn outcome_is_unknown(&self) -> bool {
        self.at == At::Commit && sqlstate::leaves_outcome_unknown(&self.error)
    }
}

/// What became of a first try.
pub(super) enum First {
    /// All is written.
    Written,
    /// Nothing is, and some rows may be the cause. A lock may have been waited for in vain.
    Refused { locked: bool },
    /// It is answered: nothing more can be done now.
    Answered(Answer),
}

/// Who writes, for the words of faults.
pub(super) struct Writer<'a> {
    pub(super) name: &'a str,
    pub(super) address: Arc<Address>,
    /// The configured table as it stands in a statement.
    pub(super) table: String,
    pub(super) idempotent: bool,
}

impl Writer<'_> {
    /// Writes all statements in one transaction.
    pub(super) async fn all_at_once(&self, session: &mut Session, statements: &[Statement<'_>]) -> First {
        let mut tries = 0;
        loop {
            let Err(broken) = whole(session, statements).await else { return First::Written };
            if let Some(kind) = broken.rows() {
                if session.close("ROLLBACK").await.is_ok() {
                    return First::Refused { locked: kind == FailureKind::Unavailable };
                }
                return First::Answered(Err(self.unavailable(&broken.error)));
            }
            if let Some(error) = self.failed(session, broken, &mut tries).await {
                return First::Answered(Err(error));
            }
        }
    }

    /// Writes what can be written, and names what cannot: good rows land exactly once, in one transaction.
    pub(super) async fn isolating(
        &self,
        session: &mut Session,
        statements: &[Statement<'_>],
        locked: bool,
        is_to_blame: &(dyn Fn(u32, bool) -> bool + Sync),
    ) -> Result<Vec<Failure>, CallError> {
        let mut tries = 0;
        loop {
            let broken = match self.parts(session, statements, locked, is_to_blame).await {
                Ok(answer) => return answer,
                Err(broken) => broken,
            };
            if let Some(kind) = broken.rows() {
                // Only a COMMIT can be refused here, although every constraint had been looked at.
                let _ = session.close("ROLLBACK").await;
                let fault = self.fault("refused the rows", &broken.error);
                return Err(match kind {
                    FailureKind::Reject => CallError::Reject(fault),
                    _ => CallError::Unknown(fault),
                });
            }
            if let Some(error) = self.failed(session, broken, &mut tries).await {
                return Err(error);
            }
        }
    }

    /// What a failure means that is not the rows' own; `None`: try again.
    async fn failed(&self, session: &mut Session, broken: Broken, tries: &mut u32) -> Option<CallError> {
        let error = &broken.error;
        if broken.outcome_is_unknown() {
            return Some(if self.idempotent {
                self.unavailable(error)
            } else {
                CallError::Unknown(self.fault("did not say whether the rows were written", error))
            });
        }
        Some(match sqlstate::classify(error) {
            Class::Contention => {
                *tries += 1;
                if *tries < CONTENDED_TRIES && session.close("ROLLBACK").await.is_ok() {
                    tokio::time::sleep(CONTENDED_WAIT * 2_u32.pow(*tries - 1)).await;
                    return None;
                }
                CallError::Unavailable(self.fault("has other transactions in the way", error))
            }
            Class::Unavailable => self.unavailable(error),
            Class::Unknown | Class::Rows(_) if broken.at == At::Begin => self.unavailable(error),
            Class::Timeout => {
                let _ = session.close("ROLLBACK").await;
                CallError::Timeout(self.fault("did not write in time", error))
            }
            Class::Unknown | Class::Rows(_) => CallError::Unknown(self.fault("could not write", error)),
        })
    }

    /// The destination is unavailable, and nothing was written.
    pub(super) fn unavailable(&self, error: &Error) -> CallError {
        CallError::Unavailable(self.fault("cannot be written to", error))
    }

    /// A fault of the destination.
    pub(super) fn fault(&self, what: &str, error: &Error) -> Fault {
        self.told(what, sqlstate::words(error, self.address.user()))
    }

    /// A fault of the destination, with the words of its error.
    pub(super) fn told(&self, what: &str, words: String) -> Fault {
        Fault::destination(format!("`postgres/{}` {what} at `{}`", self.name, self.address.shown)).because(words)
    }
}

async fn whole(session: &mut Session, statements: &[Statement<'_>]) -> Result<(), Broken> {
    session.begin().await.map_err(Broken::beginning)?;
    for statement in statements {
        session.execute(&statement.sql, &parameter(&statement.items)).await.map_err(Broken::open)?;
    }
    session.close("COMMIT").await.map_err(Broken::committing)
}
