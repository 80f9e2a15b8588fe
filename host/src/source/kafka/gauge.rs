//! How much was read and is not done with, over all partitions, so that memory stays bounded however many there are and however
//! large their records (S38). Windows waiting for a worker and windows in a worker's hand count; what buffering sinks keep is
//! bounded by `checkpoint.max_total_bytes`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::context::Bell;

/// Reading goes on everywhere when this share of a mark is left, one in so many.
const LOW_SHARE: usize = 4;

/// Records and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amount {
    pub records: usize,
    pub bytes: usize,
}

impl Amount {
    fn reaches(self, mark: Self) -> bool {
        self.records >= mark.records || self.bytes >= mark.bytes
    }

    fn part(self, parts: usize) -> Self {
        Self { records: self.records / parts.max(1), bytes: self.bytes / parts.max(1) }
    }
}

/// What is held at the moment.
#[derive(Debug, Default)]
pub(super) struct Load {
    records: AtomicUsize,
    bytes: AtomicUsize,
}

impl Load {
    fn amount(&self) -> Amount {
        Amount { records: self.records.load(Ordering::Acquire), bytes: self.bytes.load(Ordering::Acquire) }
    }

    fn add(&self, amount: Amount) {
        self.records.fetch_add(amount.records, Ordering::AcqRel);
        self.bytes.fetch_add(amount.bytes, Ordering::AcqRel);
    }

    fn take(&self, amount: Amount) {
        self.records.fetch_sub(amount.records, Ordering::AcqRel);
        self.bytes.fetch_sub(amount.bytes, Ordering::AcqRel);
    }
}

/// All partitions' load against its mark.
#[derive(Debug)]
pub(super) struct Gauge {
    load: Load,
    high: Amount,
    full: AtomicBool,
    relieved: AtomicBool,
    bell: Arc<Bell>,
}

impl Gauge {
    pub(super) fn new(high: Amount, bell: Arc<Bell>) -> Self {
        Self { load: Load::default(), high, full: AtomicBool::new(false), relieved: AtomicBool::new(false), bell }
    }

    /// Whether a partition with this load has to wait: all together are over the mark, and it over its share. One that holds
    /// nothing never waits, so that none is starved.
    pub(super) fn holds_back(&self, own: &Load, partitions: usize) -> bool {
        let own = own.amount();
        self.full.load(Ordering::Acquire) && own.records > 0 && own.reaches(self.high.part(partitions))
    }

    /// Whether the low mark was reached since this was last asked: partitions that were held back are to be looked at.
    pub(super) fn take_relieved(&self) -> bool {
        self.relieved.swap(false, Ordering::AcqRel)
    }

    /// Counts a window of a partition until what is returned goes.
    pub(super) fn hold(self: &Arc<Self>, own: &Arc<Load>, amount: Amount) -> Held {
        own.add(amount);
        self.load.add(amount);
        if self.load.amount().reaches(self.high) {
            self.full.store(true, Ordering::Release);
        }
        Held { all: Arc::clone(self), own: Arc::clone(own), amount }
    }

    fn release(&self, amount: Amount) {
        self.load.take(amount);
        let low = !self.load.amount().reaches(self.high.part(LOW_SHARE));
        if low && self.full.swap(false, Ordering::AcqRel) {
            self.relieved.store(true, Ordering::Release);
            self.bell.ring();
        }
    }
}

/// One window, counted as long as this lives.
#[derive(Debug)]
pub(super) struct Held {
    all: Arc<Gauge>,
    own: Arc<Load>,
    amount: Amount,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.own.take(self.amount);
        self.all.release(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(records: usize) -> Amount {
        Amount { records, bytes: records * 10 }
    }

    /// S38: above the high mark those over their share wait, and until the low mark is reached; who holds nothing reads on.
    #[test]
    fn s38_who_is_over_the_share_waits_until_the_low_mark() {
        let high = Amount { records: 100, bytes: 800 };
        let gauge = Arc::new(Gauge::new(high, Arc::default()));
        let (large, small, idle) = (Arc::new(Load::default()), Arc::new(Load::default()), Load::default());
        let mut held: Vec<Held> = (0..7).map(|_| gauge.hold(&large, window(10))).collect();
        let little = gauge.hold(&small, window(5));
        assert!(!gauge.holds_back(&large, 2), "75 records and 750 bytes are below the mark");
        held.push(gauge.hold(&large, window(10)));
        // Bytes are over the mark, records are not: either counts.
        assert!(gauge.holds_back(&large, 2));
        assert!(!gauge.holds_back(&small, 2) && !gauge.holds_back(&idle, 2));
        held.truncate(2);
        assert!(gauge.holds_back(&large, 16), "25 records with 250 bytes are above the low mark");
        assert!(!gauge.take_relieved());
        held.truncate(1);
        assert!(gauge.take_relieved() && !gauge.holds_back(&large, 16));
        assert!(!gauge.take_relieved(), "said once");
        drop((held, little));
        assert_eq!((gauge.load.amount(), large.amount()), (window(0), window(0)));
    }
}
