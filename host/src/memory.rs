//! Memory for records is one budget: what the Kafka client fetches ahead, windows and what was made of them, and what buffering
//! plugins hold (S15).

use schemars::JsonSchema;
use serde::Deserialize;

mod account;
mod arenas;

pub use account::{Account, Lease, Share};
pub use arenas::bound_arenas;

/// Bytes in one MiB.
const MEBIBYTE: u64 = 1 << 20;
/// The part of the budget that the Kafka client may fetch ahead, one in so many.
const PREFETCH_SHARE: u64 = 4;
/// What the Kafka client takes for one fetched record beside its key, value and headers, in bytes: an estimate for
/// librdkafka 2.12, whose queue entry carries the message and its headers.
const FETCHED_RECORD_BYTES: u64 = 512;
/// A record's size as far as the client's queue is concerned, which is bounded in records and in bytes.
const USUAL_RECORD_BYTES: u64 = 256;
/// The least that the client may fetch ahead of one partition, in bytes and in records, however many partitions there are.
const LEAST_PREFETCH_BYTES: u64 = 16 << 10;
const LEAST_PREFETCH_RECORDS: u64 = 16;
/// The most that one partition's share of a broker's response is worth: more makes nothing faster.
const MOST_FETCH_BYTES: u64 = 1 << 20;
/// Responses that may be in memory at a time: one stays there as a whole until its last record is taken.
const RESPONSES: u64 = 8;
/// The least and the most of one response of a broker, in bytes.
const RESPONSE_BYTES: (u64, u64) = (1_000_000, 16 << 20);

/// How much memory records may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Memory")]
pub struct Options {
    /// Most memory for records, in MiB, at least 16: a quarter is fetched ahead from Kafka, the rest is for windows, the payloads
    /// made of them, and what buffering plugins hold. The program itself and plugins' own memory come on top (S15).
    pub max_mebibytes: u64,
}

impl Options {
    /// The least that can be configured, in MiB.
    pub const LEAST_MEBIBYTES: u64 = 16;
    /// The most.
    pub const MOST_MEBIBYTES: u64 = 1 << 20;

    /// How the budget is divided.
    pub fn budget(self) -> Budget {
        Budget::of_mebibytes(self.max_mebibytes)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { max_mebibytes: 96 }
    }
}

/// How the budget is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What the Kafka client may fetch ahead, over all partitions.
    pub prefetch_bytes: u64,
    /// What windows, their payloads, and rows in buffering plugins may take together.
    pub record_bytes: u64,
}

impl Budget {
    /// A budget of so many MiB.
    pub const fn of_mebibytes(mebibytes: u64) -> Self {
        let bytes = mebibytes.saturating_mul(MEBIBYTE);
        Self { prefetch_bytes: bytes / PREFETCH_SHARE, record_bytes: bytes - bytes / PREFETCH_SHARE }
    }

    /// What the client may fetch ahead of each of so many partitions. Half of a partition's share is its queue's mark, below which
    /// the broker is asked for more; the other half is the answer that then comes.
    pub fn prefetch(self, partitions: usize) -> Prefetch {
        let share = self.prefetch_bytes / partitions.max(1) as u64;
        // A record of the usual size takes that much more in the client's memory than on the wire.
        let wire = share * USUAL_RECORD_BYTES / (USUAL_RECORD_BYTES + FETCHED_RECORD_BYTES);
        Prefetch {
            queue_bytes: (share / 2).max(LEAST_PREFETCH_BYTES),
            queue_records: (wire / 2 / USUAL_RECORD_BYTES).max(LEAST_PREFETCH_RECORDS),
            fetch_bytes: (wire / 2).clamp(LEAST_PREFETCH_BYTES, MOST_FETCH_BYTES),
            response_bytes: (self.prefetch_bytes / RESPONSES).clamp(RESPONSE_BYTES.0, RESPONSE_BYTES.1),
        }
    }
}

/// What the Kafka client may fetch ahead of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// Bytes in the partition's queue below which more is fetched.
    pub queue_bytes: u64,
    /// Records in the partition's queue below which more is fetched.
    pub queue_records: u64,
    /// Most bytes of the partition in one response.
    pub fetch_bytes: u64,
    /// Most bytes of one response of a broker, over all partitions.
    pub response_bytes: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// S15: whatever the number of partitions, what is fetched ahead of all of them stays within its part of the budget, down to
        /// the least that each is given.
        #[test]
        fn s15_prefetch_is_a_total_divided_by_the_partitions(
            mebibytes in Options::LEAST_MEBIBYTES..4_096,
            partitions in 1usize..20_000,
        ) {
            let budget = Budget::of_mebibytes(mebibytes);
            prop_assert_eq!(budget.prefetch_bytes + budget.record_bytes, mebibytes * MEBIBYTE);
            let prefetch = budget.prefetch(partitions);
            let least = LEAST_PREFETCH_BYTES.max(LEAST_PREFETCH_RECORDS * (USUAL_RECORD_BYTES + FETCHED_RECORD_BYTES));
            let most = (budget.prefetch_bytes / partitions as u64 / 2).max(least);
            let queue = prefetch.queue_records * (USUAL_RECORD_BYTES + FETCHED_RECORD_BYTES);
            prop_assert!(prefetch.queue_bytes <= most && queue <= most, "{:?} of {}", prefetch, most);
            prop_assert!(prefetch.fetch_bytes <= most, "{:?} of {}", prefetch, most);
        }
    }
}
