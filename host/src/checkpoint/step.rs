//! What goes in and out of one partition's state machine.

use super::Millis;
use super::ledger::WentBack;
use crate::model::{Fault, Offset, TopicPartition};

/// When a checkpoint is due, and how often a partition may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Milliseconds from a checkpoint's creation until it is due (S6, S7).
    pub interval: Millis,
    /// Records after which it is due; 0 for never (S6).
    pub every_records: u64,
    /// Bytes in buffering sinks at which it is due (S15).
    pub max_bytes: u64,
    /// Records not yet committed at which it is due (S15, S102).
    pub max_records: u64,
    /// Aborts in a row, without progress and not through the destination, that end the partition (S41).
    pub max_consecutive_aborts: u32,
}

/// What the worker has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read a window; come back without one at `until`.
    Read {
        /// When the open checkpoint has to be looked at.
        until: Millis,
    },
    /// Settle the window that was opened.
    Process,
    /// Flush the buffering sink of that index (S11).
    Flush(usize),
    /// Flush these buffering sinks at the same time: the partition ends, and the time for that is short (S46).
    FlushTogether(Vec<usize>),
    /// Sync what direct sinks wrote (S11).
    Sync,
    /// Commit this offset, the watermark (S1).
    Commit(Offset),
    /// Tell every buffering sink to drop the partition's buffer (S26).
    Discard,
    /// Seek the source to this offset.
    Rewind(Offset),
    /// Wait before going on: after the `attempt`-th failure in a row, from 1.
    BackOff {
        /// Failures in a row.
        attempt: u32,
    },
    /// Wait this long with the partition paused: a destination asked for it (S29).
    Pause(Millis),
    /// Nothing is left to do for this partition.
    End,
}

/// Where a partition stands between two reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Window,
    Flushing { next: usize },
    Syncing,
    Committing { attempt: u32, wait: bool },
    Discarding,
    Rewinding,
    Waiting,
    Ended,
}

/// Why a partition starts over from its watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// A plugin or Tidegate failed; counts towards the limit (S41).
    Failure,
    /// A destination failed, a buffer went away through no fault of this partition, or the source left out what is owed; never
    /// counts (S41).
    Destination,
    /// A sync failed, so what was written since the last one that held may not be on the disk: back to where that was.
    Unsynced,
    /// A buffering sink takes no more for that many milliseconds (S29).
    Backpressure(Millis),
}

/// Why a window could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The source went back unasked (S13).
    WentBack(WentBack),
    /// The source went on above a record that is still owed (S34a).
    Skipped {
        /// The lowest record owed before the rewind.
        expected: Offset,
        /// The first record that came instead.
        found: Offset,
    },
}

impl Refused {
    /// In words.
    pub fn fault(&self, source: &TopicPartition) -> Fault {
        Fault::host(match self {
            Self::WentBack(back) => {
                format!(
                    "the source went back to {} where {} or later had to come",
                    source.at(back.offset),
                    back.expected
                )
            }
            Self::Skipped { expected, found } => {
                format!("after a rewind the source went on at {} and left out {expected}", source.at(*found))
            }
        })
    }
}
