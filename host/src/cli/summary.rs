//! What a pipeline did, in the few numbers that its closing line needs.

use crate::telemetry::Counters;

/// What the closing line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// `SIGTERM`, `SIGINT`, or nothing when it was no signal.
    pub signal: Option<&'static str>,
    /// Records settled.
    pub records: u64,
    /// Dead letters written.
    pub dead_letters: u64,
    /// Records and dead letters that were lost by a rule that the configuration asked for: `kafka.on_offset_gap: continue` and
    /// `dlq.on_send_failure: drop`.
    pub lost: u64,
    /// Partitions committed to the last record that was read of them.
    pub complete: usize,
    /// Partitions that were ever assigned.
    pub partitions: usize,
}

impl Summary {
    /// What the counters say.
    pub fn of(counters: &Counters, signal: Option<&'static str>) -> Self {
        let places = counters.partitions();
        Self {
            signal,
            records: counters.records.get(),
            dead_letters: counters.dead_letters(),
            lost: counters.lost_records.get() + counters.lost_letters.get(),
            complete: places.values().filter(|place| place.committed == place.position).count(),
            partitions: places.len(),
        }
    }
}
