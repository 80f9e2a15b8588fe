//! What became of a call's rows.

use crate::model::{Answer, CallError, Failure, Fault};

/// What is known of the rows so far.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) failures: Vec<Failure>,
    /// Some row is written, so what fails alone is not the server's trouble.
    pub(super) written: bool,
    /// Rows that failed and may be the cause themselves.
    unknown: Vec<(u32, Fault)>,
}

impl Outcome {
    /// Of rows of which some are `written`.
    pub(super) fn new(written: bool) -> Self {
        Self { written, ..Self::default() }
    }

    pub(super) fn reject(&mut self, row: u32, reason: impl Into<String>) {
        self.failures.push(Failure::reject(row, reason));
    }

    pub(super) fn unknown(&mut self, row: u32, fault: Fault) {
        self.unknown.push((row, fault));
    }

    pub(super) fn join(&mut self, other: Self) {
        self.failures.extend(other.failures);
        self.unknown.extend(other.unknown);
        self.written |= other.written;
    }

    /// The call's answer. `is_to_blame`: whether a row that may be the cause is it, where others are written or not
    /// (S79b).
    pub(super) fn answer(mut self, is_to_blame: impl Fn(u32, bool) -> bool) -> Answer {
        if let Some((_, fault)) = self.unknown.iter().find(|(row, _)| !is_to_blame(*row, self.written)) {
            return Err(CallError::Unknown(fault.clone()));
        }
        let retried = self.unknown.into_iter().map(|(row, fault)| Failure::retry(row, fault.to_string()));
        self.failures.extend(retried);
        self.failures.sort_by_key(|failure| failure.index);
        Ok(self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s79b_what_may_be_the_rows_own_is_where_others_were_written() {
        let outcome = |written| {
            let mut outcome = Outcome { written, ..Outcome::default() };
            outcome.unknown(3, Fault::destination("odd"));
            outcome.reject(1, "never");
            outcome.answer(|row, written| row == 3 && written)
        };
        assert_eq!(outcome(true), Ok(vec![Failure::reject(1, "never"), Failure::retry(3, "odd")]));
        assert_eq!(outcome(false), Err(CallError::Unknown(Fault::destination("odd"))));
    }
}
