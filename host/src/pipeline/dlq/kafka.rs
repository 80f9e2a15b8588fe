//! A Kafka topic as the dead letter queue. It writes through the Kafka sink, so that a letter counts only when the brokers
//! have acknowledged it, in order and without repetitions of the producer's own making (S93).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{DeadLetters, Extent, Letter, names};
use crate::model::{Batch, CallError, Failure, FailureKind, Fault, TopicPartition};
use crate::pipeline::options::{DlqFormat, DlqOptions};
use crate::sink::Sink;

/// What the source topic's name is followed by when no topic is configured (S88).
const SUFFIX: &str = "_dlq";
/// How often in a row letters are sent again at once although none of them was written or made smaller.
const AT_ONCE: u32 = 8;

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
    /// Sends that failed half-way, so that what was acknowledged is not written again.
    unfinished: Mutex<HashMap<TopicPartition, Unfinished>>,
}

/// What is left of a send.
struct Unfinished {
    /// Tells the letters from others.
    letters: u64,
    rows: Vec<Row>,
}

/// One letter that is not acknowledged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    /// Its place among those that were given.
    letter: usize,
    extent: Extent,
    /// It has a key of its own, because the topic takes no record without one and the letter's record has none.
    keyed: bool,
}

impl KafkaDlq {
    /// Writes to `topic` through `sink`, which is a Kafka sink for that topic and not connected yet.
    pub fn new(sink: Arc<dyn Sink>, topic: impl Into<String>, format: DlqFormat) -> Self {
        Self { sink, topic: topic.into(), format, unfinished: Mutex::default() }
    }

    fn unfinished(&self) -> MutexGuard<'_, HashMap<TopicPartition, Unfinished>> {
        // An entry is whole after every step.
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be written of these letters: all, or what an earlier send of the same has left.
    fn rows(&self, source: &TopicPartition, letters: &[Letter]) -> Vec<Row> {
        match self.unfinished().remove(source) {
            Some(left) if left.letters == fingerprint(letters) => left.rows,
            _ => (0..letters.len()).map(|letter| Row { letter, extent: Extent::Whole, keyed: false }).collect(),
        }
    }

    /// Writes these rows in one call, or one by one where a call is refused as a whole. Those that were not written come back with
    /// the failure.
    async fn write(&self, letters: &[Letter], rows: &[Row]) -> Result<Vec<(Row, Failure)>, CallError> {
        match self.call(letters, rows).await {
            Err(CallError::Reject(_)) => {}
            answer => return answer,
        }
        let mut failed = Vec::new();
        for row in rows {
            match self.call(letters, std::slice::from_ref(row)).await {
                Ok(failures) => failed.extend(failures),
                Err(CallError::Reject(fault)) => failed.push((*row, Failure::reject(0, fault.to_string()))),
                Err(error) => return Err(error),
            }
        }
        Ok(failed)
    }

    async fn call(&self, letters: &[Letter], rows: &[Row]) -> Result<Vec<(Row, Failure)>, CallError> {
        let mut batch = Batch::new(letters.first().map_or_else(|| TopicPartition::new("", -1), |it| it.source.clone()));
        for row in rows {
            push(&mut batch, &letters[row.letter], self.format, row.extent, row.keyed);
        }
        let failures = self.sink.deliver(&Arc::new(batch)).await?;
        Ok(failures.into_iter().filter_map(|it| Some((*rows.get(it.index as usize)?, it))).collect())
    }

    /// What to write next of a letter that was not taken.
    ///
    /// # Errors
    /// When nothing of it can be written.
    fn next(&self, letter: &Letter, row: Row, failure: &Failure) -> Result<Row, Fault> {
        match failure.kind {
            FailureKind::Retry | FailureKind::Unavailable | FailureKind::Backpressure(_) | FailureKind::NotTried => {
                Ok(row)
            }
            FailureKind::Reject if failure.too_large => match row.extent.less(letter) {
                Some(extent) => Ok(Row { extent, ..row }),
                None => Err(self.refused(failure)),
            },
            FailureKind::Reject if letter.key.is_none() && !row.keyed => Ok(Row { keyed: true, ..row }),
            FailureKind::Reject => Err(self.refused(failure)),
        }
    }

    fn refused(&self, failure: &Failure) -> Fault {
        Fault::config(format!("a dead letter could not be written to `{}`", self.topic))
            .because(&failure.reason)
            .hint(format!("correct the configuration of topic `{}`", self.topic))
    }

    fn unavailable(&self, cause: impl std::fmt::Display) -> Fault {
        Fault::destination(format!("dead letter topic `{}` takes no letter now", self.topic)).because(cause)
    }

    fn failed(&self, error: &CallError) -> Fault {
        match error.fault() {
            // Kept whole: whether waiting helps depends on whose fault it is (S94a).
            Some(fault) => fault.clone(),
            None => self.unavailable(error),
        }
    }

    /// Writes the rows until none is left; those that are when waiting is needed stay in `rows`.
    async fn write_all(&self, letters: &[Letter], rows: &mut Vec<Row>) -> Result<(), Fault> {
        let mut in_vain = 0;
        while !rows.is_empty() {
            let failed = self.write(letters, rows).await.map_err(|error| self.failed(&error))?;
            let (mut next, mut waiting) = (Vec::with_capacity(failed.len()), None);
            for (row, failure) in &failed {
                next.push(self.next(&letters[row.letter], *row, failure)?);
                // What was sent but not taken needs time; what was not tried, or became smaller, does not.
                if !matches!(failure.kind, FailureKind::NotTried | FailureKind::Reject) {
                    waiting.get_or_insert(&failure.reason);
                }
            }
            for row in
                rows.iter().filter(|row| row.extent != Extent::Whole && !next.iter().any(|it| it.letter == row.letter))
            {
                let letter = &letters[row.letter];
                let record = letter.source.at(letter.offset);
                tracing::warn!(record, extent = ?row.extent, "a dead letter was larger than its topic takes: written in part");
            }
            in_vain = if next == *rows { in_vain + 1 } else { 0 };
            *rows = next;
            if in_vain >= AT_ONCE {
                waiting = waiting.or(failed.first().map(|(_, failure)| &failure.reason));
            }
            if let Some(reason) = waiting {
                return Err(self.unavailable(reason));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl DeadLetters for KafkaDlq {
    async fn send(&self, letters: &[Letter]) -> Result<(), Fault> {
        let Some(first) = letters.first() else { return Ok(()) };
        let mut rows = self.rows(&first.source, letters);
        let written = self.write_all(letters, &mut rows).await;
        if written.is_err() {
            let left = Unfinished { letters: fingerprint(letters), rows };
            self.unfinished().insert(first.source.clone(), left);
        }
        written
    }

    async fn connect(&self) -> Result<(), Fault> {
        self.sink.connect().await.map_err(|error| self.failed(&error))
    }

    async fn close(&self) {
        if let Err(fault) = self.sink.close().await {
            tracing::warn!(topic = self.topic, "dead letter queue: {}", fault.with_hint());
        }
    }
}

/// Tells letters from other ones, within this process.
fn fingerprint(letters: &[Letter]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for letter in letters {
        let Letter { sink_type, sink_name, error, failed_at, source, offset, key, value, payloads, .. } = letter;
        (sink_type, sink_name, error, failed_at, source, offset, key, value, payloads).hash(&mut hasher);
    }
    hasher.finish()
}

/// Adds a letter as a row: its value in the format asked for, and under its record's key, so that the letters of one key
/// stay in order.
pub(in crate::pipeline) fn push(batch: &mut Batch, letter: &Letter, format: DlqFormat, extent: Extent, keyed: bool) {
    let own_key = format!("{:016x}", fingerprint(std::slice::from_ref(letter)));
    let mut record = letter.record(letter.form.unwrap_or(format), extent);
    if keyed {
        record.key = Some(own_key.as_bytes());
        record.headers.push((names::KEY.into(), None));
    }
    // A letter is as old as the failure: under the record's own timestamp it could be past the topic's retention already.
    batch.push(letter.offset, letter.failed_at, record.key, record.value.as_deref());
    batch.push_headers(record.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())));
}

#[cfg(test)]
#[path = "kafka/tests.rs"]
mod tests;
