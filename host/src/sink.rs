//! What a destination has to promise. Native sinks and plugin sinks stand behind one trait.
//!
//! **Calls and their order.** `connect` once, before the first row. A *buffering* sink then gets `add` … `flush` for each
//! topic-partition, a *direct* one gets `deliver`; `sync` follows before the offsets are committed. `close` comes last.
//!
//! **Parallelism.** Calls for one topic-partition never overlap. Calls for different topic-partitions do, unless the sink
//! serialises them itself.
//!
//! **Outcomes.** An empty list means that every row was taken; rows named in it were not, and all others were. An error
//! means that nothing of the call counts. A call may be cancelled by dropping its future; its outcome is then unknown, and
//! its rows come again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Answer, Batch, CallError, Fault, TopicPartition};

pub mod filesystem;
pub mod http;
mod json;
pub mod kafka;
pub mod mongo;
pub mod postgres;
pub mod redis;
mod suspects;
pub mod tls;

/// How the reason begins with which a sink rejects a row because its destination finds it too large (S94a).
pub const TOO_LARGE: &str = "larger than the destination takes";

/// How a sink takes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Takes rows in `add`; only `flush` makes them count.
    Buffering,
    /// Writes in `deliver`.
    Direct,
}

/// What a sink says of itself once it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// How it takes rows.
    pub style: Style,
    /// Writing the same rows twice, in order, leaves the destination as writing them once.
    pub idempotent: bool,
    /// Most rows wished for in one call, 0 for no wish.
    pub max_rows: usize,
    /// Most bytes of keys and values wished for in one call, 0 for no wish. A single row may exceed it.
    pub max_bytes: usize,
    /// How long one call may rightly take where that is longer than `executor.delivery_timeout_seconds`; zero for no wish.
    pub patience: Duration,
}

impl Description {
    /// A sink that writes at once and wishes for nothing.
    pub const fn direct(idempotent: bool) -> Self {
        Self { style: Style::Direct, idempotent, max_rows: 0, max_bytes: 0, patience: Duration::ZERO }
    }
}

/// How much one instance of a buffering sink can take between two flushes (S15a).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLimit {
    /// Which instance of the sink buffers the rows of the topic-partition, counted from 0. Topic-partitions with the
    /// same number share one limit.
    pub instance: usize,
    /// Most bytes, as [`Self::bytes_of`] counts them, that may be added to that instance and not yet flushed, over all
    /// its topic-partitions. A single row may exceed it.
    pub max_bytes: u64,
}

impl BufferLimit {
    /// What a row takes in an instance's memory besides its key, value and headers: offset, timestamp, lengths.
    pub(crate) const ROW_BYTES: usize = 64;

    /// What the rows count towards [`Self::max_bytes`].
    pub fn bytes_of(rows: &Batch) -> u64 {
        rows.size_bytes().saturating_add(rows.len().saturating_mul(Self::ROW_BYTES)) as u64
    }
}

/// What a sink that needs a document does with a record whose value is null, which Kafka calls a tombstone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnTombstone {
    /// Refuses it: it goes to the dead letter queue.
    #[default]
    Reject,
    /// Passes over it.
    Skip,
    /// Deletes what stands under its key, in a sink that has keys.
    Delete,
}

/// A destination with one delivery contract; see the module's text.
#[async_trait]
pub trait Sink: Send + Sync {
    /// What the sink says of itself.
    fn description(&self) -> Description;

    /// Where inside the destination a row goes that names no place itself (a table, a collection, a path), so that its
    /// dead letter says it (S90).
    fn target(&self, source: &TopicPartition) -> Option<String> {
        let _ = source;
        None
    }

    /// What bounds the rows that may be added for this topic-partition and not yet flushed, besides the pipeline's own
    /// limits; none for a sink whose buffers are only bounded by those (S15a).
    fn buffer_limit(&self, source: &TopicPartition) -> Option<BufferLimit> {
        let _ = source;
        None
    }

    /// Reaches the destination and proves it (S124).
    async fn connect(&self) -> Result<(), CallError>;

    /// Direct sinks: writes the rows now. Buffering sinks are never asked.
    async fn deliver(&self, batch: &Arc<Batch>) -> Answer;

    /// Buffering sinks: takes rows into the topic-partition's buffer, or writes them at once; only `flush` makes them
    /// count (S20). Rows named in the answer are not taken (S21). After an error other than backpressure the
    /// topic-partition's buffer counts as unknown until `discard` (S27a).
    async fn add(&self, batch: &Arc<Batch>) -> Answer {
        let _ = batch;
        Err(CallError::Fatal(Fault::host("a direct sink was asked to buffer")))
    }

    /// Buffering sinks: makes everything added for this topic-partition durable. Failure indices count the rows of all
    /// `add` calls that did not fail as a whole since the last `flush` or `discard`, rows refused there included (S27).
    /// The buffer is empty afterwards, whatever is returned.
    async fn flush(&self, source: &TopicPartition) -> Answer {
        let _ = source;
        Ok(Vec::new())
    }

    /// Forgets what was added for this topic-partition, or written and not synced; it will come again, or is not ours
    /// any more. Idempotent (S26).
    async fn discard(&self, source: &TopicPartition) {
        let _ = source;
    }

    /// Makes what `deliver` wrote for this topic-partition survive a power cut, before its offsets are committed (S11).
    async fn sync(&self, source: &TopicPartition) -> Result<(), CallError> {
        let _ = source;
        Ok(())
    }

    /// Ends the connection. Errors are logged and never stop a shutdown (S57).
    async fn close(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// The same destination for those who may ask it questions, if it takes any (S109).
    fn query(self: Arc<Self>) -> Option<Arc<dyn Query>> {
        None
    }
}

/// A destination that takes statements, from plugins that are granted it (S66, S109).
#[async_trait]
pub trait Query: Send + Sync {
    /// Runs one statement with its parameters, a JSON array. Returns its rows, a JSON array of objects.
    ///
    /// # Errors
    /// Why it was not run, or had no effect, in words without secrets.
    async fn query(&self, statement: &str, parameters: &str) -> Result<String, String>;
}

/// Destinations that take statements, by the names of their sinks.
pub type Queries = BTreeMap<String, Arc<dyn Query>>;
