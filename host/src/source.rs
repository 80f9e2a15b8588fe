//! Where records come from, and what a source has to promise.
//!
//! **Assignment.** [`Source::next`] reports partitions given to us, each with a [`Reader`] of its own that one worker
//! holds. After a revocation or loss the source delivers nothing for those partitions; the pipeline calls
//! [`Source::release`] once no worker serves them any more, and only then may they be given away (S45a).
//!
//! **Reading.** A reader yields the records of one partition in offset order, each once, from the assigned start. After
//! [`Reader::rewind`] it yields from the offset named, and nothing that was fetched before (S34).
//!
//! **Cancellation.** `next` and `read` may be dropped while they wait and lose nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::{Batch, Fault, Offset, TopicPartition};

pub mod embedded;
pub mod kafka;

/// What happened to the assignment.
pub enum Event<R> {
    /// Partitions given to us.
    Assigned(Vec<R>),
    /// Partitions taken with notice: they may be flushed and committed first.
    Revoked(Vec<TopicPartition>),
    /// Partitions taken without notice: nothing of them may be committed or written (S48).
    Lost(Vec<TopicPartition>),
    /// So many records of the partition were deleted before they were read, and reading goes on behind them (S52).
    Gap {
        /// Where they were.
        partition: TopicPartition,
        /// How many offsets were passed over.
        records: u64,
    },
    /// The source cannot go on.
    Failed(Fault),
    /// Every record up to the source's end is committed; only sources with an end say so.
    Ended,
}

/// What a reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Records, at least one; at most a window's worth (S59).
    Records(Arc<Batch>),
    /// No record, but the position moved: the offsets below it hold only what is no record, such as a transaction's
    /// markers (S98, S99).
    Position(Offset),
}

/// Why a commit did not take place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// The group has moved on: the partition is no longer ours to commit. Not a failure (S12).
    Stale(String),
    /// It may succeed later (S101).
    Retry(Fault),
    /// It never will.
    Fatal(Fault),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale(why) => f.write_str(why),
            Self::Retry(fault) | Self::Fatal(fault) => fault.fmt(f),
        }
    }
}

/// One assigned partition, held by the worker that serves it.
#[async_trait]
pub trait Reader: Send + 'static {
    /// Which partition it reads.
    fn partition(&self) -> &TopicPartition;

    /// The offset that the assignment starts at: everything below is committed.
    fn start(&self) -> Offset;

    /// Waits for the first record, then takes what is already fetched, up to the window's limits, without waiting for
    /// more (S59). May be cancelled.
    async fn read(&mut self) -> Result<Read, Fault>;

    /// Goes back: the next record read is the first one at or above `to`.
    async fn rewind(&mut self, to: Offset) -> Result<(), Fault>;

    /// The first record at or above `from` that there is now, asked apart from what is being read, so that it proves what a
    /// rewind did not bring back (S34a). `None` when there is none.
    async fn first_from(&mut self, from: Offset) -> Result<Option<Offset>, Fault>;

    /// Stops or resumes fetching without losing the assignment.
    async fn set_paused(&mut self, paused: bool) -> Result<(), Fault>;

    /// Commits `offset`, the next one to read, for this partition alone (S12).
    async fn commit(&mut self, offset: Offset) -> Result<(), CommitError>;

    /// Where the partition's log ends, as far as the brokers have said. Asks nobody.
    fn log_end(&self) -> Option<Offset> {
        None
    }

    /// Whether everything up to the end of a source that has one has been read: what is settled is then committed without
    /// waiting for more.
    fn is_at_end(&self) -> bool {
        false
    }
}

/// Where records come from; see the module's text.
#[async_trait]
pub trait Source: Send + 'static {
    /// What reads one partition.
    type Reader: Reader;

    /// Waits for the next change of the assignment. May be cancelled.
    async fn next(&mut self) -> Event<Self::Reader>;

    /// Lets revoked or lost partitions go. Their readers have been dropped.
    async fn release(&mut self, partitions: Vec<TopicPartition>);

    /// Leaves the group, or gives up after `patience`. Every reader has been dropped.
    async fn close(&mut self, patience: Duration);
}
