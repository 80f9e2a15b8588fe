//! Why rows are not written, and what that means for them.

use std::io;
use std::path::Path;

use super::errno::{self, Class};
use crate::model::{Answer, CallError, Failure, FailureKind, Fault};

/// Why rows cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) class: Class,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn path(reason: impl Into<String>) -> Self {
        Self { class: Class::Path, reason: reason.into() }
    }

    /// What became of a write that left nothing behind.
    pub(super) fn of_write(path: &Path, error: &io::Error) -> Self {
        let reason = format!("could not write to `{}`: {error}", path.display());
        Self { class: errno::classify(error), reason }
    }

    /// A row that names no path of its own is not to blame for where it leads.
    pub(super) fn of_path(self, path: &Path, configured: &Path) -> Self {
        let class = if self.class == Class::Path && path == configured { Class::Unavailable } else { self.class };
        Self { class, ..self }
    }
}

/// What became of a call's rows.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) failures: Vec<Failure>,
    /// Some line is written, so what fails alone is not the file system's trouble.
    pub(super) written: bool,
    /// Rows whose failure says neither that the path nor that the file system is the cause.
    unknown: Vec<(u32, String)>,
}

impl Outcome {
    pub(super) fn refuse(&mut self, rows: &[u32], refusal: &Refusal) {
        for &row in rows {
            let reason = refusal.reason.clone();
            match refusal.class {
                Class::Path => self.failures.push(Failure::reject(row, reason)),
                Class::Unavailable => self.failures.push(Failure::unavailable(row, reason)),
                Class::Unknown => self.unknown.push((row, reason)),
            }
        }
    }

    /// The call's answer. `is_to_blame`: whether a row whose failure says nothing of a cause is it, where others are
    /// written or not.
    pub(super) fn answer(mut self, name: &str, is_to_blame: impl Fn(u32, bool) -> bool) -> Answer {
        let unavailable = self.failures.iter().any(|failure| failure.kind == FailureKind::Unavailable);
        for (index, reason) in std::mem::take(&mut self.unknown) {
            let kind = if is_to_blame(index, self.written) { FailureKind::Retry } else { FailureKind::Unavailable };
            if kind == FailureKind::Unavailable && !unavailable {
                let fault = Fault::destination(format!("`filesystem/{name}` could not write")).because(reason);
                return Err(CallError::Unknown(fault));
            }
            self.failures.push(Failure::new(index, kind, reason));
        }
        self.failures.sort_by_key(|failure| failure.index);
        Ok(self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S79b: an error that nobody knows is the rows' own only where others were written.
    #[test]
    fn s79b_an_unknown_error_is_the_rows_own_among_written_ones() {
        let refusal = |class| Refusal { class, reason: "why".into() };
        let answer = |classes: &[Class], written| {
            let mut outcome = Outcome { written, ..Outcome::default() };
            for (row, class) in (0..).zip(classes) {
                outcome.refuse(&[row], &refusal(*class));
            }
            let answer = outcome.answer("log", |_, written| written);
            answer.map(|failures| failures.into_iter().map(|failure| failure.kind).collect::<Vec<_>>())
        };
        assert_eq!(answer(&[Class::Unknown, Class::Path], true), Ok(vec![FailureKind::Retry, FailureKind::Reject]));
        assert!(matches!(answer(&[Class::Unknown, Class::Path], false), Err(CallError::Unknown(_))));
        assert_eq!(answer(&[Class::Unknown, Class::Unavailable], false), Ok(vec![FailureKind::Unavailable; 2]));
    }
}
