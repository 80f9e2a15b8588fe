//! How much a destination is given at once that has asked for patience (S29).

/// The most that a checkpoint may hold: after one that met backpressure at most half as much, down to a single window, and
/// twice as much after each that was taken. A destination that refuses five seconds of records for ever takes them in
/// smaller portions so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Portion {
    /// Records and bytes; none while nothing was refused.
    most: Option<(u64, u64)>,
}

impl Portion {
    /// A checkpoint of so many records and buffered bytes met backpressure.
    pub fn refused(&mut self, records: u64, bytes: u64) {
        // Without bytes in buffers the records alone say how large it was.
        let bytes = if bytes == 0 { u64::MAX } else { bytes };
        self.most = Some(((records / 2).max(1), (bytes / 2).max(1)));
    }

    /// A checkpoint was taken. What has grown to the limits again is no bound any more.
    pub fn taken(&mut self, max_records: u64, max_bytes: u64) {
        self.most = self.most.and_then(|(records, bytes)| {
            let (records, bytes) = (records.saturating_mul(2), bytes.saturating_mul(2));
            (records < max_records || bytes < max_bytes).then_some((records, bytes))
        });
    }

    /// Whether a checkpoint of that size is as large as it may be.
    pub fn is_full(&self, records: u64, bytes: u64) -> bool {
        self.most.is_some_and(|(most_records, most_bytes)| records >= most_records || bytes >= most_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn s29_a_refused_checkpoint_is_halved_and_a_taken_one_doubles_it() {
        let mut portion = Portion::default();
        assert!(!portion.is_full(u64::MAX - 1, u64::MAX - 1));
        portion.refused(1_000, 64_000);
        assert!(portion.is_full(500, 0) && portion.is_full(1, 32_000) && !portion.is_full(499, 31_999));
        portion.refused(500, 31_000);
        assert!(portion.is_full(250, 0) && portion.is_full(1, 15_500) && !portion.is_full(249, 15_499));
        portion.taken(100_000, 1 << 20);
        assert!(portion.is_full(500, 0) && !portion.is_full(499, 0));
        for _ in 0..20 {
            portion.taken(100_000, 1 << 20);
        }
        assert_eq!(portion, Portion::default());
        portion.refused(7, 0);
        assert!(portion.is_full(3, 0) && !portion.is_full(2, 1 << 40));
    }

    proptest! {
        /// S29: refused again and again, checkpoints come down to a single window, whatever its size, and no further; taken
        /// ones lift the bound away.
        #[test]
        fn s29_it_comes_down_to_one_window_and_up_again(window in 1..5_000u64, first in 1..1_000u64) {
            let (mut portion, mut windows) = (Portion::default(), first);
            for _ in 0..32 {
                portion.refused(windows * window, windows * window * 10);
                let next = (1..).find(|count| portion.is_full(count * window, count * window * 10)).unwrap_or(0);
                prop_assert!(next <= windows.div_ceil(2));
                windows = next;
            }
            prop_assert_eq!(windows, 1);
            for _ in 0..40 {
                portion.taken(1_000_000, 1 << 30);
            }
            prop_assert_eq!(portion, Portion::default());
        }
    }
}
