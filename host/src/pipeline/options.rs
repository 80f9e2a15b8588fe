//! The pipeline's part of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a partition's buffering sinks are flushed and its watermark is committed.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointOptions {
    /// Seconds from a checkpoint's creation until it is due; 0 makes one due after every window (S6, S7).
    pub interval_seconds: f64,
    /// Records of the partition after which a checkpoint is due; 0 turns this off (S6, S8).
    pub every_records: u64,
    /// Bytes that buffering sinks may keep of one partition, windows included, before its checkpoint is due. What all partitions may
    /// take together is `memory.max_mebibytes` (S15).
    pub max_bytes: u64,
    /// Records that one partition may have read and not yet committed before its checkpoint is due (S15, S102).
    pub max_records: u64,
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        Self { interval_seconds: 5.0, every_records: 0, max_bytes: 64 << 20, max_records: 1_000_000 }
    }
}

/// How many records of a partition are taken in hand together.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WindowOptions {
    /// Most records of one window (S59).
    pub max_records: usize,
    /// Most bytes of keys, values and headers of one window; a single larger record still makes a window of its own.
    pub max_bytes: usize,
}

impl Default for WindowOptions {
    fn default() -> Self {
        Self { max_records: 1024, max_bytes: 16 << 20 }
    }
}

/// Attempts and patience.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExecutorOptions {
    /// How often a delivery is tried again after its first call (S80).
    pub max_retries: u32,
    /// Seconds that one delivery call may take (S77).
    pub delivery_timeout_seconds: f64,
    /// Seconds that a stop may take in all. After two thirds what is unsettled is left to the next start, and the rest is for
    /// closing (S55). A last commit, and closing, are given 5 s each even then.
    pub drain_timeout_seconds: f64,
}

impl Default for ExecutorOptions {
    fn default() -> Self {
        Self { max_retries: 3, delivery_timeout_seconds: 30.0, drain_timeout_seconds: 30.0 }
    }
}

/// What every sink can be told beside its own options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryOptions {
    /// What happens to payloads that the sink does not take, where no collector's hook decides. Left out, a row that never will be
    /// written goes to the dead letter queue, one that may be later is tried again first, and a destination that is unavailable is
    /// waited for (S79, S79a).
    pub on_error: Option<OnError>,
    /// The source topics whose records go to this sink; left out, all do. Without a collector only, which decides by itself.
    pub topics: Vec<String>,
}

impl DeliveryOptions {
    /// The names of these options.
    pub const KEYS: &'static [&'static str] = &["on_error", "topics"];

    /// Whether records of this topic go to the sink.
    pub fn takes(&self, topic: &str) -> bool {
        self.topics.is_empty() || self.topics.iter().any(|one| one == topic)
    }
}

/// What happens to payloads that a sink does not take (S79–S82).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// They go to the dead letter queue, also those that only met a destination that is unavailable.
    Dlq,
    /// What may succeed later, be it the row or the destination, is tried again up to `executor.max_retries` times and then
    /// dead-lettered; the rest is dead-lettered at once.
    Retry,
    /// They are given up, counted. Loses data.
    Skip,
    /// The partition goes back to its last commit and starts over after a wait.
    Abort,
}

/// What happens to a partition that fails again and again.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AbortOptions {
    /// Rewinds in a row without progress, through faults of a plugin or of Tidegate, after which the process stops; 0 stops at
    /// the first (S41). A destination that is down never counts.
    pub max_consecutive: u32,
}

impl Default for AbortOptions {
    fn default() -> Self {
        Self { max_consecutive: 5 }
    }
}

/// Where given-up payloads and records go.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DlqOptions {
    /// The topic; empty for the source topic's name with `_dlq` behind it (S88).
    pub topic: String,
    /// The brokers; empty for those of the source (S88).
    pub brokers: String,
    /// What happens when a dead letter cannot be written (S94).
    pub on_send_failure: OnSendFailure,
    /// What a dead letter's value holds (S89, S92).
    pub format: DlqFormat,
}

/// What happens when a dead letter cannot be written (S94).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnSendFailure {
    /// The partition waits and tries again; nothing is committed.
    #[default]
    Stall,
    /// The letter is given up, counted, and the offset may be committed. Loses data.
    Drop,
}

/// What a dead letter's value holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DlqFormat {
    /// A JSON object of seven fields (S89).
    #[default]
    Json,
    /// The source record's bytes as they came; the error is in the headers (S92).
    Raw,
}
