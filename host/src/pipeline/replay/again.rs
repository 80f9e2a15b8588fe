//! The dead letter queue of a replay: what fails again becomes a further letter of the same record, not one of the letter.

use std::sync::Arc;

use async_trait::async_trait;

use super::super::dlq::{COLLECT, Content, DeadLetters, Letter, Opened, open};
use super::super::options::DlqFormat;
use super::super::route::RouteError;
use super::Tally;
use crate::model::{Batch, FailureKind, Fault};

/// Writes to the queue that the letters came from.
pub struct Again {
    inner: Arc<dyn DeadLetters>,
    tally: Arc<Tally>,
}

impl Again {
    /// Writes to `inner`, and counts.
    pub fn new(inner: Arc<dyn DeadLetters>, tally: Arc<Tally>) -> Self {
        Self { inner, tally }
    }
}

/// Whether the failure uses up a replay. Neither a destination that was unavailable nor a sink that is not configured says anything
/// of the letter.
fn is_counted(letter: &Letter) -> bool {
    let is_misrouted = letter.sink_type == COLLECT && RouteError::is_in(&letter.error);
    letter.kind != FailureKind::Unavailable && !is_misrouted
}

/// A letter about a letter, as one about the record that the letter was about.
fn unfolded(letter: &Letter) -> Letter {
    let mut record = Batch::new(letter.source.clone());
    record.push(letter.offset, letter.timestamp, letter.key.as_deref(), letter.value.as_deref());
    record.push_headers(letter.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())));
    let Ok(Opened { letter: before, content, .. }) = open(&record, 0) else {
        // Only what could be read is ever replayed.
        return letter.clone();
    };
    let mut after = Letter {
        error: letter.error.clone(),
        kind: letter.kind,
        attempt_count: letter.attempt_count,
        failed_at: letter.failed_at,
        first_failed_at: Some(before.first_failed_at.unwrap_or(before.failed_at)),
        replays: before.replays.saturating_add(u32::from(is_counted(letter))),
        ..before
    };
    if letter.sink_type != COLLECT {
        after.sink_type.clone_from(&letter.sink_type);
        after.sink_name.clone_from(&letter.sink_name);
        after.payloads.clone_from(&letter.payloads);
    } else if content == Content::Record && after.sink_type != COLLECT {
        // The collector did not get as far as the sink's payload: the record is all there is.
        after.form = Some(DlqFormat::Raw);
    } else if after.sink_type == COLLECT {
        after.sink_name.clone_from(&letter.sink_name);
    }
    after
}

#[async_trait]
impl DeadLetters for Again {
    async fn send(&self, letters: &[Letter]) -> Result<(), Fault> {
        let unfolded: Vec<Letter> = letters.iter().map(unfolded).collect();
        self.inner.send(&unfolded).await?;
        for letter in letters {
            self.tally.again(&letter.source, letter.offset);
        }
        Ok(())
    }

    async fn connect(&self) -> Result<(), Fault> {
        self.inner.connect().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
