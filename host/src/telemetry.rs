//! What the pipeline counts while it runs. Read by `run`'s closing line, `demo`'s progress and the tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{Offset, TopicPartition};

/// A number that only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `by`.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// The present count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one sink did with payloads.
#[derive(Debug, Default)]
pub struct SinkCounters {
    /// Payloads that reached the sink.
    pub delivered: Counter,
    /// Payloads tried again.
    pub retried: Counter,
    /// Payloads dead-lettered.
    pub dead_lettered: Counter,
    /// Payloads given up by a hook's `skip`.
    pub skipped: Counter,
    /// Payloads that stand before an earlier one of their key, because that one was tried again (S76a).
    pub reordered: Counter,
}

/// Where one partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// The next offset to read.
    pub position: Offset,
    /// The committed offset.
    pub committed: Offset,
    /// Where its log ends, as far as the brokers have said; `None` where they have not.
    pub end: Option<Offset>,
}

/// Everything counted by one pipeline.
#[derive(Debug, Default)]
pub struct Counters {
    /// Records whose offsets were committed, each once.
    pub records: Counter,
    /// Source records dead-lettered, payloads not included.
    pub dead_records: Counter,
    /// Dead letters given up because the queue could not take them and `dlq.on_send_failure` says `drop` (S94).
    pub lost_letters: Counter,
    /// Dead letters that were acknowledged after their partition had given them up, because it was lost or the call took too long:
    /// they stand in the topic, and their records come again.
    pub late_letters: Arc<Counter>,
    /// Records that were deleted at the source before they were read, and passed over because `kafka.on_offset_gap` says
    /// `continue` (S52).
    pub lost_records: Counter,
    /// Partitions rewound to their watermark (S40).
    pub aborts: Counter,
    /// Rows that plugins' answers named wrongly, source rewinds that went wrong, and the like.
    pub breaches: Counter,
    sinks: Mutex<BTreeMap<String, Arc<SinkCounters>>>,
    partitions: Mutex<BTreeMap<TopicPartition, PartitionState>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A count is whole after every step, so a panic elsewhere spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counters {
    /// The counts of the sink called `kind/name`.
    pub fn sink(&self, name: &str) -> Arc<SinkCounters> {
        lock(&self.sinks).entry(name.to_owned()).or_default().clone()
    }

    /// Every sink that counted anything, by `kind/name`.
    pub fn sinks(&self) -> BTreeMap<String, Arc<SinkCounters>> {
        lock(&self.sinks).clone()
    }

    /// Notes where a partition stands.
    pub fn place(&self, partition: &TopicPartition, state: PartitionState) {
        lock(&self.partitions).insert(partition.clone(), state);
    }

    /// A partition is another member's from now on.
    pub fn forget(&self, partition: &TopicPartition) {
        lock(&self.partitions).remove(partition);
    }

    /// Where every partition that is assigned stands, or was when the pipeline stopped.
    pub fn partitions(&self) -> BTreeMap<TopicPartition, PartitionState> {
        lock(&self.partitions).clone()
    }

    /// Dead letters of every kind.
    pub fn dead_letters(&self) -> u64 {
        let settled = self.dead_records.get() + self.late_letters.get();
        settled + self.sinks().values().map(|sink| sink.dead_lettered.get()).sum::<u64>()
    }
}
