//! A producer that tells the outcome of every row.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use super::report::{Missed, Reports};
use crate::model::{Answer, Batch, CallError, Failure, Fault};
use crate::sink::TOO_LARGE;

/// The wait before a row is offered again to a full queue. The queue empties within librdkafka's own time limit, which
/// bounds the waiting as a whole.
const QUEUE_WAIT: Duration = Duration::from_millis(5);
/// Rows that are queued before others get their turn on this thread.
const ROWS_PER_TURN: u32 = 1024;

pub(super) struct Producer {
    inner: ThreadedProducer<Reports>,
    reports: Reports,
    topic: String,
    /// Batches are known to be as small as the topic wants them: what is too large still is so by itself.
    fits_batches: bool,
}

impl Producer {
    pub(super) fn new(config: &ClientConfig, topic: &str, fits_batches: bool) -> Result<Self, Fault> {
        let reports = Reports::default();
        let inner = config
            .create_with_context(reports.clone())
            .map_err(|error| Fault::config("the Kafka producer cannot be created").because(error))?;
        Ok(Self { inner, reports, topic: topic.to_owned(), fits_batches })
    }

    /// `false` once librdkafka has met an error after which this producer cannot go on.
    pub(super) fn is_usable(&self) -> bool {
        self.inner.client().fatal_error().is_none()
    }

    /// Asks for the topic's metadata (S124). Blocks.
    pub(super) fn probe(&self, brokers: &str, timeout: Duration) -> Result<(), CallError> {
        let metadata = self.inner.client().fetch_metadata(Some(&self.topic), timeout).map_err(|error| {
            let fault = Fault::destination(format!("no broker of `{brokers}` answered for topic `{}`", self.topic))
                .hint("check `brokers`, that the cluster runs, and its TLS and SASL settings");
            CallError::Unknown(match self.reports.take_complaint() {
                Some(complaint) => fault.because(complaint),
                None => fault.because(error),
            })
        })?;
        let found = metadata.topics().iter().find(|found| found.name() == self.topic);
        match found.and_then(rdkafka::metadata::MetadataTopic::error).map(RDKafkaErrorCode::from) {
            Some(code @ RDKafkaErrorCode::LeaderNotAvailable) => Err(CallError::Unknown(self.fault().because(code))),
            Some(code) => Err(CallError::Fatal(self.unusable(code))),
            None if found.is_none_or(|found| found.partitions().is_empty()) => {
                Err(CallError::Fatal(self.unusable(RDKafkaErrorCode::UnknownTopicOrPartition)))
            }
            None => Ok(()),
        }
    }

    /// Writes every row and waits for every row's report.
    pub(super) async fn deliver(&self, batch: &Batch) -> Answer {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let awaited = self.reports.expect(batch.len());
        // Rows that carry what Kafka cannot take; known before anything is sent.
        let mut unfit = Vec::new();
        let rows = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        for row in 0..rows {
            if row % ROWS_PER_TURN == ROWS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
            match headers(batch, row as usize) {
                Ok(headers) => self.offer(batch, row, headers, &awaited).await,
                Err(name) => {
                    unfit.push((row, name));
                    awaited.refuse(row, RDKafkaErrorCode::InvalidRecord);
                }
            }
        }
        let Some(missed) = awaited.missed().await else {
            return Err(CallError::Unknown(self.fault().because("the producer ended before it had reported")));
        };
        self.answer(missed, &unfit)
    }

    /// Puts a row into librdkafka's queue, waiting while that is full.
    async fn offer(&self, batch: &Batch, row: u32, headers: Option<OwnedHeaders>, awaited: &super::report::Awaited) {
        let of = batch.row(row as usize);
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.topic, awaited.ticket(row));
        record.key = of.key;
        record.payload = of.value;
        // Zero would mean now to librdkafka, so that only the epoch's first millisecond is lost.
        record.timestamp = Some(of.timestamp).filter(|timestamp| *timestamp > 0);
        record.headers = headers;
        while let Err((error, back)) = self.inner.send(record) {
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                    record = back;
                    tokio::time::sleep(QUEUE_WAIT).await;
                }
                error => {
                    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                    return awaited.refuse(row, code);
                }
            }
        }
    }

    fn answer(&self, missed: Vec<Missed>, unfit: &[(u32, String)]) -> Answer {
        use RDKafkaErrorCode as Code;
        let too_large = |code| matches!(code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge);
        if !self.fits_batches && missed.iter().filter(|(_, code)| too_large(*code)).count() > 1 {
            // The broker refuses a batch as a whole; which row made it too large has to be found by halves.
            return Err(CallError::Reject(self.fault().because(format!("{TOO_LARGE}, together"))));
        }
        let mut failures = Vec::with_capacity(missed.len());
        for (row, code) in missed {
            if let Some((_, name)) = unfit.iter().find(|(unfit, _)| *unfit == row) {
                failures.push(Failure::reject(row, format!("header name `{name}` is not UTF-8, which Kafka requires")));
                continue;
            }
            failures.push(match code {
                code if too_large(code) => Failure::reject(row, format!("{TOO_LARGE}: {code}")),
                Code::InvalidRecord
                | Code::InvalidTimestamp
                | Code::PolicyViolation
                | Code::UnsupportedForMessageFormat => {
                    Failure::reject(row, format!("topic `{}` does not take it: {code}", self.topic))
                }
                // No row can be written: it is not this one's fault.
                Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed => return Err(CallError::Fatal(self.unusable(code))),
                other => Failure::retry(row, format!("topic `{}` did not take it: {other}", self.topic)),
            });
        }
        Ok(failures)
    }

    fn fault(&self) -> Fault {
        Fault::destination(format!("topic `{}` cannot be written to", self.topic))
    }

    fn unusable(&self, code: RDKafkaErrorCode) -> Fault {
        let hint = match code {
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                format!("allow the principal to write to `{}`", self.topic)
            }
            _ => format!("create `{}`, or correct its name", self.topic),
        };
        Fault::config(format!("topic `{}` cannot be written to", self.topic)).because(code).hint(hint)
    }
}

/// A row's headers for librdkafka, which takes names as text only; the name that is none as the error.
fn headers(batch: &Batch, row: usize) -> Result<Option<OwnedHeaders>, String> {
    let mut headers: Option<OwnedHeaders> = None;
    for (name, value) in batch.headers(row) {
        let key = std::str::from_utf8(name).map_err(|_| String::from_utf8_lossy(name).into_owned())?;
        headers = Some(headers.unwrap_or_default().insert(Header { key, value }));
    }
    Ok(headers)
}
