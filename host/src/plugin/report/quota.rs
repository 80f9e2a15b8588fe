//! How much of what a plugin says reaches the log. One instance after the other has the same quota, so that a plugin
//! whose instances die in a row says no more than one that lives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::plugin::engine::{TICK, Ticks};
use crate::plugin::limits::Limits;

/// Most refusals of one instance that reach the log in one second. They count apart from what the guest says, so that
/// it cannot hide them by a flood.
const REFUSALS_PER_SECOND: u32 = 10;

/// What reaches the log of one instance and its replacements.
pub(crate) struct Quota {
    ticks: Arc<Ticks>,
    /// Most that reaches the log in one second; what is more is counted.
    pub(super) most: Spoken,
    used: Mutex<Used>,
}

/// What is used up of a quota.
#[derive(Default)]
struct Used {
    second: u64,
    spoken: Spoken,
    refusals: u32,
    suppressed: u64,
}

/// What reached the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spoken {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

impl Quota {
    /// Nothing used yet.
    pub(crate) fn new(ticks: &Arc<Ticks>, limits: &Limits) -> Arc<Self> {
        let most = Spoken { lines: limits.output_lines_per_second, bytes: limits.output_bytes_per_second };
        Arc::new(Self { ticks: Arc::clone(ticks), most, used: Mutex::default() })
    }

    /// Takes a line from the quota: how many were left out before it. None when this one is left out as well.
    pub(super) fn take_line(&self, bytes: usize) -> Option<u64> {
        let mut used = self.this_second();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let spoken = Spoken { lines: used.spoken.lines + 1, bytes: used.spoken.bytes.saturating_add(bytes) };
        if spoken.lines > self.most.lines || spoken.bytes > self.most.bytes {
            used.suppressed += 1;
            return None;
        }
        used.spoken = spoken;
        Some(std::mem::take(&mut used.suppressed))
    }

    /// Takes a refusal from the quota: whether there was one left.
    pub(super) fn take_refusal(&self) -> bool {
        let mut used = self.this_second();
        if used.refusals == REFUSALS_PER_SECOND {
            used.suppressed += 1;
            return false;
        }
        used.refusals += 1;
        true
    }

    /// What is used up, counted anew when a second has begun.
    fn this_second(&self) -> MutexGuard<'_, Used> {
        let second = self.ticks.now() * u64::try_from(TICK.as_millis()).unwrap_or(1) / 1000;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.second != second {
            *used = Used { second, suppressed: used.suppressed, ..Used::default() };
        }
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_there_again_in_the_next_second_and_counts_what_was_left_out() {
        let ticks = Arc::new(Ticks::default());
        let limits = Limits { output_lines_per_second: 2, output_bytes_per_second: 10, ..Limits::default() };
        let quota = Quota::new(&ticks, &limits);
        let lines = [4, 4, 1].map(|bytes| quota.take_line(bytes));
        assert_eq!(lines, [Some(0), Some(0), None]);
        let refusals = (0..12).filter(|_| quota.take_refusal()).count();
        assert_eq!(refusals, 10);
        (0..100).for_each(|_| ticks.pass());
        assert_eq!(quota.take_line(11), None, "longer than all bytes of a second");
        assert_eq!(quota.take_line(10), Some(4));
        assert!(quota.take_refusal());
    }
}
