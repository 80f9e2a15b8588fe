//! A Kafka topic as the dead letter queue. It writes through the Kafka sink, so that a letter counts only when the brokers
//! have acknowledged it, in order and without repetitions of the producer's own making (S93).

use std::sync::Arc;

use async_trait::async_trait;

use super::{DeadLetters, Letter, names};
use crate::model::{Batch, CallError, Failure, FailureKind, Fault, TopicPartition};
use crate::pipeline::options::{DlqFormat, DlqOptions};
use crate::sink::{Sink, TOO_LARGE};

/// What the source topic's name is followed by when no topic is configured (S88).
const SUFFIX: &str = "_dlq";
/// Why a letter had to be written without its payloads (S94a).
const SIZE: &[u8] = b"size";

/// The topic that dead letters go to: the configured one, or the first source topic's name with `_dlq` behind it (S88).
pub fn topic(options: &DlqOptions, source_topics: &[String]) -> String {
    if options.topic.is_empty() {
        format!("{}{SUFFIX}", source_topics.first().map_or("", String::as_str))
    } else {
        options.topic.clone()
    }
}

/// Writes letters to a topic.
pub struct KafkaDlq {
    sink: Arc<dyn Sink>,
    topic: String,
    format: DlqFormat,
}

impl KafkaDlq {
    /// Writes to `topic` through `sink`, which is a Kafka sink for that topic and not connected yet.
    pub fn new(sink: Arc<dyn Sink>, topic: impl Into<String>, format: DlqFormat) -> Self {
        Self { sink, topic: topic.into(), format }
    }

    /// Writes the batch and returns the rows that did not arrive.
    async fn write(&self, batch: Batch) -> Result<Vec<Failure>, Fault> {
        self.sink.deliver(&Arc::new(batch)).await.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &CallError) -> Fault {
        match error.fault() {
            // Kept whole: whether waiting helps depends on whose fault it is (S94a).
            Some(fault) => fault.clone(),
            None => {
                Fault::destination(format!("dead letter topic `{}` takes no letter now", self.topic)).because(error)
            }
        }
    }

    fn refused(&self, failure: &Failure) -> Fault {
        let message = format!("a dead letter could not be written to `{}`", self.topic);
        match failure.kind {
            FailureKind::Retry | FailureKind::Unavailable | FailureKind::Backpressure(_) | FailureKind::NotTried => {
                Fault::destination(message).because(&failure.reason)
            }
            FailureKind::Reject => Fault::config(message)
                .because(&failure.reason)
                .hint(format!("correct the configuration of topic `{}`", self.topic)),
        }
    }
}

#[async_trait]
impl DeadLetters for KafkaDlq {
    async fn send(&self, letters: &[Letter]) -> Result<(), Fault> {
        let Some(first) = letters.first() else { return Ok(()) };
        let mut batch = Batch::new(first.source.clone());
        for letter in letters {
            push(&mut batch, letter, self.format, false);
        }
        let failures = self.write(batch).await?;
        let Some(first) = failures.first() else { return Ok(()) };
        if let Some(other) = failures.iter().find(|failure| !is_too_large(failure)) {
            return Err(self.refused(other));
        }
        let mut small = Batch::new(letters.get(first.index as usize).map_or_else(nowhere, |it| it.source.clone()));
        for failure in &failures {
            if let Some(letter) = letters.get(failure.index as usize) {
                tracing::warn!(letter = letter.source.at(letter.offset), "dead letter is written without its payload");
                push(&mut small, letter, self.format, true);
            }
        }
        match self.write(small).await?.first() {
            None => Ok(()),
            Some(failure) => Err(self.refused(failure)),
        }
    }

    async fn connect(&self) -> Result<(), Fault> {
        self.sink.connect().await.map_err(|error| self.failed(&error))
    }

    async fn close(&self) {
        if let Err(fault) = self.sink.close().await {
            tracing::warn!(topic = self.topic, "dead letter queue: {fault}");
        }
    }
}

fn is_too_large(failure: &Failure) -> bool {
    failure.kind == FailureKind::Reject && failure.reason.starts_with(TOO_LARGE)
}

fn nowhere() -> TopicPartition {
    TopicPartition::new("", -1)
}

/// Adds a letter as a row: its value in the format asked for, and under its record's key, so that the letters of one key
/// stay in order.
pub(in crate::pipeline) fn push(batch: &mut Batch, letter: &Letter, format: DlqFormat, without_payload: bool) {
    let format = letter.form.unwrap_or(format);
    let mut headers = letter.facts(format, !without_payload);
    let json;
    let value = match (format, without_payload) {
        (DlqFormat::Raw, false) => letter.value.as_deref(),
        (DlqFormat::Raw, true) => None,
        (DlqFormat::Json, false) => {
            json = letter.json();
            Some(json.as_bytes())
        }
        (DlqFormat::Json, true) => {
            json = Letter { payloads: Vec::new(), ..letter.clone() }.json();
            Some(json.as_bytes())
        }
    };
    if without_payload {
        headers.push((names::OMITTED.into(), Some(SIZE.to_vec())));
    }
    // A letter is as old as the failure: under the record's own timestamp it could be past the topic's retention already.
    batch.push(letter.offset, letter.failed_at, letter.key.as_deref(), value);
    batch.push_headers(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())));
}

#[cfg(test)]
#[path = "kafka/tests.rs"]
mod tests;
