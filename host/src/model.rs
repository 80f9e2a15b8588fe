//! What everything else speaks of: coordinates, batches of records in columns, outcomes and faults.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

mod batch;
mod fault;

pub use batch::{Batch, Column, Record};
pub use fault::{CallError, Fault, Owner};

/// Whether the character turns or hides the text around it, so that what is read is not what is written.
pub fn hides(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(character, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A position in a topic-partition; a committed offset is the next one to read.
pub type Offset = i64;

/// The unit of order, assignment and commit, written `orders[3]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// The coordinates of one record, written `orders[3]@1042`.
    pub fn at(&self, offset: Offset) -> String {
        format!("{self}@{offset}")
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// The kinds of sink that a payload can be addressed to (S67).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SinkKind {
    /// A Kafka topic.
    Kafka,
    /// A PostgreSQL table.
    Postgres,
    /// A MongoDB collection.
    Mongo,
    /// An HTTP endpoint.
    Http,
    /// A Redis key.
    Redis,
    /// A file of JSON lines.
    Filesystem,
    /// A WebAssembly component.
    Plugin,
}

impl SinkKind {
    /// Every kind, in the order of the contract's result lists.
    pub const ALL: [Self; 7] =
        [Self::Kafka, Self::Postgres, Self::Mongo, Self::Http, Self::Redis, Self::Filesystem, Self::Plugin];

    /// The name in configurations, dead letters and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
            Self::Mongo => "mongo",
            Self::Http => "http",
            Self::Redis => "redis",
            Self::Filesystem => "filesystem",
            Self::Plugin => "plugin",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for SinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Headers in order, with names that need not be text; duplicates allowed (S17).
pub type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// One unit addressed to one sink, as a collector yields it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The row of the batch that the payload comes from.
    pub index: u32,
    /// The sink instance's name, empty for the only one of its kind.
    pub sink: String,
    /// The key as it is written to Kafka or to a plugin; for Redis the key's suffix.
    pub key: Option<Vec<u8>>,
    /// The bytes to write: one JSON document for every kind but Kafka and plugin, which take any bytes and null.
    pub value: Option<Vec<u8>>,
    /// Where inside the sink: a table, a collection or a path.
    pub target: Option<String>,
    /// Seconds until the destination forgets it (Redis); the sink refuses 0.
    pub ttl: Option<u32>,
    /// Headers, for plugin and Kafka sinks.
    pub headers: Headers,
    /// The time that the row carries to its sink, in milliseconds since the Unix epoch; left out, its record's.
    pub timestamp: Option<i64>,
    /// See [`Batch::version`]; left out, its record's offset.
    pub version: Option<Offset>,
}

/// What may become of a row that a call did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// It may succeed later.
    Retry,
    /// It never will.
    Reject,
    /// Not written, because the destination cannot be reached, has no room or is locked: that says nothing about the row.
    Unavailable,
    /// The destination asked to wait this long (S37).
    Backpressure(Duration),
    /// Not tried, because another row of its batch failed: it is sent again without that one, at once (S79c).
    NotTried,
}

impl FailureKind {
    /// The word for it in dead letters and hooks (S79).
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry | Self::NotTried => "retry",
            Self::Reject => "reject",
            Self::Unavailable | Self::Backpressure(_) => "unavailable",
        }
    }
}

/// One row of a call that did not make it. The rows not named did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The row, counted from 0.
    pub index: u32,
    /// Whether asking again makes sense.
    pub kind: FailureKind,
    /// Why, in words for the operator; never a secret.
    pub reason: String,
    /// Rejected because the destination finds the row itself too large, so that less of it may be taken (S94a).
    pub too_large: bool,
}

impl Failure {
    /// A row that was not written.
    pub fn new(index: u32, kind: FailureKind, reason: impl Into<String>) -> Self {
        Self { index, kind, reason: reason.into(), too_large: false }
    }

    /// A row that never will be written.
    pub fn reject(index: u32, reason: impl Into<String>) -> Self {
        Self::new(index, FailureKind::Reject, reason)
    }

    /// A row that never will be written because it is larger than the destination takes.
    pub fn too_large(index: u32, reason: impl Into<String>) -> Self {
        Self { too_large: true, ..Self::reject(index, reason) }
    }

    /// A row that may be written later.
    pub fn retry(index: u32, reason: impl Into<String>) -> Self {
        Self::new(index, FailureKind::Retry, reason)
    }

    /// A row that was not written because the destination is unavailable.
    pub fn unavailable(index: u32, reason: impl Into<String>) -> Self {
        Self::new(index, FailureKind::Unavailable, reason)
    }

    /// A row that was not tried because another of its batch failed (S79c).
    pub fn not_tried(index: u32, reason: impl Into<String>) -> Self {
        Self::new(index, FailureKind::NotTried, reason)
    }

    /// A row that the destination wants to be asked about later.
    pub fn backpressure(index: u32, wait: Duration, reason: impl Into<String>) -> Self {
        Self::new(index, FailureKind::Backpressure(wait), reason)
    }
}

/// What a sink or collector answers to a call: the rows that failed (none: every row counts), or why nothing counts.
pub type Answer = Result<Vec<Failure>, CallError>;

/// What happens to payloads that a sink did not take (S79–S82).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What the table says where nothing was chosen (S79a).
    Default,
    /// Write them to the dead letter queue.
    Dlq,
    /// Ask the sink again, up to `executor.max_retries` times.
    Retry,
    /// Give them up, counted.
    Skip,
    /// Rewind the partition to its watermark and start over after a back-off.
    Abort,
    /// Wait, then ask again; no attempt is counted.
    Backpressure(Duration),
}
