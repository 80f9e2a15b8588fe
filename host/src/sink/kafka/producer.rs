//! A producer that tells the outcome of every row.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer};
use tokio::runtime::Handle;

use super::code::hint;
use super::config;
use super::report::{Awaited, Missed, Reports};
use crate::model::{Batch, CallError, Failure, Fault};

/// The wait before a row is offered again to a full queue.
const QUEUE_WAIT: Duration = Duration::from_millis(5);
/// How long rows of one call are offered to a full queue. Together with `message.timeout.ms` less than a call may take (S77).
const OFFER_LIMIT: Duration = Duration::from_secs(5);
/// Rows that are queued before others get their turn on this thread.
const ROWS_PER_TURN: usize = 1024;
/// How often it is looked whether a retired producer's last record is reported, and the wait in between: 30 seconds in all. By
/// default every record is reported within `message.timeout.ms`.
const DRAIN_LOOKS: u32 = 600;
const DRAIN_WAIT: Duration = Duration::from_millis(50);

pub(super) struct Producer {
    /// None once it is being dropped.
    inner: Option<ThreadedProducer<Reports>>,
    number: u32,
    reports: Reports,
    topic: String,
    /// The largest batch of several rows that it sends, in bytes.
    batch_size: u64,
    /// The largest value that its queue takes, in bytes.
    queue_bytes: u64,
    /// Takes no more rows.
    retired: AtomicBool,
    /// What waits in its queue is not sent any more.
    purging: AtomicBool,
    runtime: Handle,
}

/// What became of rows.
pub(super) struct Written {
    /// Those that were not acknowledged, ascending.
    pub(super) missed: Vec<Missed>,
    /// Those that carry what Kafka does not take; they were not sent.
    pub(super) unfit: Vec<Failure>,
}

/// A call on its way; given up, it takes what it left in the queue with it.
struct Call {
    awaited: Awaited,
    producer: Weak<Producer>,
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.awaited.is_open()
            && let Some(producer) = self.producer.upgrade()
        {
            producer.retire(true);
        }
    }
}

impl Producer {
    /// Creates the producer number `number` of its sink. Needs a runtime around it.
    pub(super) fn new(
        client: &ClientConfig,
        topic: &str,
        number: u32,
        batch_size: u64,
        reports: &Reports,
    ) -> Result<Self, Fault> {
        let inner = config::within(client, batch_size)
            .create_with_context(reports.clone())
            .map_err(|error| Fault::config("the Kafka producer cannot be created").because(error))?;
        Ok(Self {
            inner: Some(inner),
            number,
            reports: reports.clone(),
            topic: topic.to_owned(),
            batch_size,
            queue_bytes: config::queue_bytes(client),
            retired: AtomicBool::new(false),
            purging: AtomicBool::new(false),
            runtime: Handle::current(),
        })
    }

    pub(super) fn batch_size(&self) -> u64 {
        self.batch_size
    }

    /// False once it is retired or librdkafka has met an error after which it cannot go on.
    pub(super) fn is_usable(&self) -> bool {
        let is_sound = self.inner.as_ref().is_some_and(|inner| inner.client().fatal_error().is_none());
        is_sound && !self.is_retired()
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Takes no more rows, and ends when the last of those that it has is reported. With `purge`, rows that are not under way
    /// to a broker are not sent: those of other calls are told so and come again. A producer cannot be told to forget the
    /// rows of one call alone, and one that has forgotten some numbers the rest anew, so that it is replaced.
    pub(super) fn retire(self: &Arc<Self>, purge: bool) {
        if purge {
            self.purging.store(true, Ordering::Release);
        }
        if !self.retired.swap(true, Ordering::AcqRel) {
            let producer = Arc::clone(self);
            self.runtime.spawn_blocking(move || producer.drain());
        }
    }

    /// Blocks until every row is reported.
    fn drain(&self) {
        let Some(inner) = &self.inner else { return };
        for _ in 0..DRAIN_LOOKS {
            if inner.in_flight_count() == 0 {
                break;
            }
            if self.purging.load(Ordering::Acquire) {
                // Again and again: what a broker did not answer comes back into the queue.
                inner.purge(PurgeConfig::default().queue());
            }
            std::thread::sleep(DRAIN_WAIT);
        }
    }

    /// Asks for the topic's metadata (S124): how many replicas its best replicated partition has. Blocks.
    pub(super) fn probe(&self, brokers: &str, timeout: Duration) -> Result<usize, CallError> {
        let unreachable = || {
            Fault::destination(format!("no broker of `{brokers}` answered for topic `{}`", self.topic))
                .hint("check `brokers`, that the cluster runs, and its TLS and SASL settings")
        };
        let Some(inner) = &self.inner else { return Err(CallError::Unavailable(unreachable())) };
        let metadata = inner.client().fetch_metadata(Some(&self.topic), timeout).map_err(|error| {
            CallError::Unavailable(match self.reports.take_complaint() {
                Some(complaint) => unreachable().because(complaint),
                None => unreachable().because(error),
            })
        })?;
        let found = metadata.topics().iter().find(|found| found.name() == self.topic);
        match found.and_then(rdkafka::metadata::MetadataTopic::error).map(RDKafkaErrorCode::from) {
            Some(code @ RDKafkaErrorCode::LeaderNotAvailable) => {
                Err(CallError::Unavailable(cannot_write(&self.topic).because(code)))
            }
            Some(code) => Err(CallError::Fatal(unusable(&self.topic, code))),
            None if found.is_none_or(|found| found.partitions().is_empty()) => {
                Err(CallError::Fatal(unusable(&self.topic, RDKafkaErrorCode::UnknownTopicOrPartition)))
            }
            None => {
                let partitions = found.into_iter().flat_map(|found| found.partitions());
                Ok(partitions.map(|partition| partition.replicas().len()).max().unwrap_or_default())
            }
        }
    }

    /// Writes these rows of the batch and waits for every row's report. `None`: the producer ended before it had reported.
    pub(super) async fn write(self: Arc<Self>, batch: &Batch, rows: &[u32]) -> Option<Written> {
        let awaited = self.reports.expect(self.number, &batch.source, rows.len());
        let mut call = Call { awaited, producer: Arc::downgrade(&self) };
        let until = tokio::time::Instant::now() + OFFER_LIMIT;
        let mut unfit = Vec::new();
        for (turn, &row) in rows.iter().enumerate() {
            if turn % ROWS_PER_TURN == ROWS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            match headers(batch, row as usize) {
                Ok(headers) => self.offer(batch, row, headers, &mut call.awaited, until).await,
                Err(name) => {
                    let reason = format!("header name `{name}` is not UTF-8, which Kafka requires");
                    unfit.push(Failure::reject(row, reason));
                    call.awaited.refuse(row, RDKafkaErrorCode::InvalidRecord);
                }
            }
        }
        // Whoever waits here keeps no retired producer alive.
        drop(self);
        let mut missed = call.awaited.missed().await?;
        missed.retain(|(row, _)| unfit.binary_search_by_key(row, |failure: &Failure| failure.index).is_err());
        Some(Written { missed, unfit })
    }

    /// Puts a row into librdkafka's queue, waiting while that is full.
    async fn offer(
        &self,
        batch: &Batch,
        row: u32,
        headers: Option<OwnedHeaders>,
        awaited: &mut Awaited,
        until: tokio::time::Instant,
    ) {
        let of = batch.row(row as usize);
        if of.value.is_some_and(|value| value.len() as u64 > self.queue_bytes) {
            return awaited.refuse(row, RDKafkaErrorCode::MessageSizeTooLarge);
        }
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.topic, awaited.ticket(row));
        record.key = of.key;
        record.payload = of.value;
        // Zero would mean now to librdkafka, so that only the epoch's first millisecond is lost.
        record.timestamp = Some(of.timestamp).filter(|timestamp| *timestamp > 0);
        record.headers = headers;
        loop {
            let Some(inner) = self.inner.as_ref().filter(|_| !self.is_retired()) else {
                return awaited.refuse(row, RDKafkaErrorCode::PurgeQueue);
            };
            match inner.send(record) {
                Ok(()) => return awaited.queued(),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if tokio::time::Instant::now() < until =>
                {
                    record = back;
                    tokio::time::sleep(QUEUE_WAIT).await;
                }
                Err((error, _)) => {
                    return awaited.refuse(row, error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail));
                }
            }
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let (Some(inner), reports, number) = (self.inner.take(), self.reports.clone(), self.number) else { return };
        // Ending it joins its thread.
        self.runtime.spawn_blocking(move || {
            drop(inner);
            reports.end(number);
        });
    }
}

pub(super) fn cannot_write(topic: &str) -> Fault {
    Fault::destination(format!("topic `{topic}` cannot be written to"))
}

/// A fault of the configuration, with what to do about it.
pub(super) fn unusable(topic: &str, code: RDKafkaErrorCode) -> Fault {
    Fault::config(format!("topic `{topic}` cannot be written to")).because(code).hint(hint(code, topic))
}

/// A row's headers for librdkafka, which takes names as text only; the name that is none as the error.
fn headers(batch: &Batch, row: usize) -> Result<Option<OwnedHeaders>, String> {
    let count = batch.headers(row).count();
    if count == 0 {
        return Ok(None);
    }
    let mut headers = OwnedHeaders::new_with_capacity(count);
    for (name, value) in batch.headers(row) {
        let key = std::str::from_utf8(name).map_err(|_| String::from_utf8_lossy(name).into_owned())?;
        headers = headers.insert(Header { key, value });
    }
    Ok(Some(headers))
}
