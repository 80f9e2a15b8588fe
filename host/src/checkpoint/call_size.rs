//! How many rows a call may have, after larger ones have failed for their size (S79b, S15a).

use std::time::Duration;

/// Most successes that are wanted before a larger call is tried again.
const MOST_SUCCESSES: u32 = 1_024;

/// The most rows of one call. Without bound until a call failed for its size; from then on it doubles after a number of
/// successes, which itself doubles each time the larger size fails again, and is halved when it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallSize {
    bound: Option<Bound>,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    rows: usize,
    /// The size that failed.
    failed: usize,
    /// How long it took to fail, where it was the time that it did not fit into.
    time: Option<Duration>,
    successes: u32,
    /// It has been doubled, and no call has shown yet whether that was right.
    grown: bool,
}

impl CallSize {
    /// The most rows of one call.
    pub fn max_rows(&self) -> usize {
        self.bound.map_or(usize::MAX, |bound| bound.rows)
    }

    /// A call of `failed` rows failed for its size, and `passed` rows (at least one) are known or hoped to fit. `time`: how long the
    /// call took, where the time was what it did not fit into.
    pub fn shrink(&mut self, failed: usize, passed: usize, time: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        self.bound = Some(Bound { rows: passed.max(1), failed, time, successes: 0, grown: false });
    }

    /// A call of so many rows took so long and succeeded.
    pub fn succeeded(&mut self, rows: usize, took: Duration) {
        let Some(bound) = &mut self.bound else { return };
        // A call that was smaller than it might have been says nothing of a larger one, nor does one that took most of the time.
        if rows < bound.rows || bound.time.is_some_and(|time| took.saturating_mul(2) >= time) {
            return;
        }
        if std::mem::take(&mut bound.grown) {
            self.failures = (self.failures / 2).max(1);
        }
        bound.successes += 1;
        if bound.successes < 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX).min(MOST_SUCCESSES) {
            return;
        }
        bound.successes = 0;
        bound.grown = true;
        bound.rows = bound.rows.saturating_mul(2);
        if bound.rows > bound.failed {
            // What failed has been passed by: whatever made it fail is over.
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn s79b_calls_shrink_and_grow_again_with_successes() {
        let mut size = CallSize::default();
        assert_eq!(size.max_rows(), usize::MAX);
        size.shrink(1_000, 250, Some(Duration::from_secs(10)));
        assert_eq!(size.max_rows(), 250);
        for _ in 0..100 {
            size.succeeded(250, Duration::from_secs(6));
            size.succeeded(10, SHORT);
        }
        assert_eq!(size.max_rows(), 250, "neither slow nor small calls speak for larger ones");
        for expected in [250, 500, 500, 1_000, 1_000, usize::MAX] {
            size.succeeded(size.max_rows(), SHORT);
            assert_eq!(size.max_rows(), expected);
        }
    }

    /// S15a: what meets its memory limit again and again is tried ever more seldom.
    #[test]
    fn s15a_a_size_that_fails_again_is_tried_more_seldom() {
        let mut size = CallSize::default();
        let mut calls = Vec::new();
        for _ in 0..12 {
            size.shrink(100, 50, None);
            let mut count = 0;
            while size.max_rows() == 50 {
                size.succeeded(50, SHORT);
                count += 1;
            }
            calls.push(count);
        }
        assert_eq!(calls[..5], [2, 4, 8, 16, 32]);
        assert_eq!(calls[11], MOST_SUCCESSES);
    }

    #[test]
    fn s15a_it_never_falls_below_one_row() {
        let mut size = CallSize::default();
        size.shrink(1, 0, None);
        assert_eq!(size.max_rows(), 1);
    }
}
