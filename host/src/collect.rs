//! What turns records into payloads: a collector plugin, or the passthrough when none is configured.

use std::sync::Arc;

use async_trait::async_trait;

use crate::model::{Action, Batch, CallError, Failure, FailureKind, Offset, Payload, SinkKind, TopicPartition};

/// A collector's answer to one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Collected {
    /// Every record's key, value and headers go to every sink as they are. No row is copied.
    Passthrough,
    /// One list per sink kind that got any payload, each list's order kept.
    Payloads {
        /// The payloads.
        payloads: Vec<(SinkKind, Vec<Payload>)>,
        /// Rejected rows go to the dead letter queue and their payloads are ignored. From the first row to retry on,
        /// everything in the answer is ignored and asked for again.
        failed: Vec<Failure>,
    },
}

/// The records that one call of the window hook speaks for (S62).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Where they come from.
    pub source: TopicPartition,
    /// The first record's offset.
    pub first: Offset,
    /// The last record's offset.
    pub last: Offset,
    /// How many there are.
    pub records: u32,
}

/// What the delivery hook is asked about (S79).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryError {
    /// The sink's kind.
    pub kind: SinkKind,
    /// The sink's name.
    pub name: String,
    /// Where the records come from.
    pub source: TopicPartition,
    /// The record that each payload came from.
    pub offsets: Vec<Offset>,
    /// The payloads as they would stand in the dead letter.
    pub payloads: Vec<String>,
    /// What may become of them, and whether the destination is the cause.
    pub failure: FailureKind,
    /// Why they failed.
    pub error: String,
    /// Calls made so far, from 1.
    pub attempt: u32,
}

/// Turns records into payloads. Calls for one topic-partition never overlap.
#[async_trait]
pub trait Collect: Send + Sync {
    /// Makes the collector ready for its first record: called once, after every sink is connected (S66).
    async fn ready(&self) -> Result<(), CallError> {
        Ok(())
    }

    /// Asks what the records yield. May be asked again for records it has seen.
    async fn collect(&self, batch: &Arc<Batch>) -> Result<Collected, CallError>;

    /// Asks the same of a fresh instance that is thrown away afterwards, with its answer: finds the record on which a
    /// collector traps, by halves (S63).
    async fn probe(&self, batch: &Arc<Batch>) -> Result<(), CallError> {
        self.collect(batch).await.map(|_| ())
    }

    /// Whether [`Self::window_complete`] is to be called.
    fn has_window_hook(&self) -> bool {
        false
    }

    /// Called once per window after every record of it has its answer; payload indices count the window's records (S62).
    async fn window_complete(&self, window: &Window) -> Result<Option<Collected>, CallError> {
        let _ = window;
        Ok(None)
    }

    /// Whether [`Self::delivery_error`] is to be asked; without it every failure is decided by the table (S79a).
    fn has_delivery_hook(&self) -> bool {
        false
    }

    /// What to do with payloads that a sink did not take. A hook that is missing or fails answers [`Action::Default`]
    /// (S84).
    async fn delivery_error(&self, error: &DeliveryError) -> Action {
        let _ = error;
        Action::Default
    }

    /// Ends the collector. Errors are logged by the implementation.
    async fn close(&self) {}
}

/// No collector configured: each record's value goes to every sink.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passthrough;

#[async_trait]
impl Collect for Passthrough {
    async fn collect(&self, _batch: &Arc<Batch>) -> Result<Collected, CallError> {
        Ok(Collected::Passthrough)
    }
}
