//! Delivery reports: one entry per call, and in each record's opaque word the call and the row, so that no record needs
//! an allocation or a future of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::oneshot;

use crate::brokers;
use crate::model::TopicPartition;
use crate::telemetry::Counter;

const _: () = assert!(usize::BITS == 64, "a ticket holds a call and a row");

/// How often it is looked whether the last report of a call that was given up has come.
const LOOK: Duration = Duration::from_millis(20);

/// A row that did not arrive, and the library's word for why.
pub(super) type Missed = (u32, RDKafkaErrorCode);

/// One call whose reports are awaited.
struct Call {
    source: TopicPartition,
    /// The number of the producer that it was given to.
    producer: u32,
    open: usize,
    missed: Vec<Missed>,
    /// None once the call was given up.
    done: Option<oneshot::Sender<Vec<Missed>>>,
    /// Rows that were acknowledged after the call was given up.
    late: u64,
}

/// All calls of a sink whose reports are awaited.
#[derive(Clone, Default)]
pub(super) struct Reports {
    calls: Arc<Mutex<HashMap<u32, Call>>>,
    next: Arc<AtomicU32>,
    complaint: Arc<Mutex<Option<String>>>,
    late: Arc<Counter>,
}

/// One call. Dropped before its last report it is given up: its late reports are only counted.
pub(super) struct Awaited {
    reports: Reports,
    call: u32,
    /// Rows that were not offered yet.
    unoffered: usize,
    done: oneshot::Receiver<Vec<Missed>>,
}

impl Reports {
    /// Counts rows that are acknowledged after their call was given up.
    pub(super) fn counting_late(&mut self, late: Arc<Counter>) {
        self.late = late;
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u32, Call>> {
        // An entry is whole after every step.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call of so many rows on a producer.
    pub(super) fn expect(&self, producer: u32, source: &TopicPartition, rows: usize) -> Awaited {
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, done) = oneshot::channel();
        let (source, done_sender) = (source.clone(), Some(sender));
        let entry = Call { source, producer, open: rows, missed: Vec::new(), done: done_sender, late: 0 };
        self.calls().insert(call, entry);
        Awaited { reports: self.clone(), call, unoffered: rows, done }
    }

    /// Takes a row's outcome; the last one ends the call.
    fn settle(&self, ticket: usize, error: Option<RDKafkaErrorCode>) {
        #[allow(clippy::cast_possible_truncation, reason = "the two halves of a ticket")]
        let (call, row) = ((ticket >> 32) as u32, ticket as u32);
        let mut calls = self.calls();
        let Some(entry) = calls.get_mut(&call) else { return };
        if entry.done.is_none() && error.is_none() {
            entry.late += 1;
            self.late.add(1);
        }
        entry.missed.extend(error.map(|error| (row, error)));
        entry.open = entry.open.saturating_sub(1);
        if entry.open == 0 {
            end(calls.remove(&call));
        }
    }

    /// Ends all calls of a producer that is gone: what it did not report, it never will.
    pub(super) fn end(&self, producer: u32) {
        self.calls().retain(|_, call| call.producer != producer);
    }

    /// Waits until the last report of every call that was given up has come, of one topic-partition or of all. Rows that are
    /// written now would otherwise stand before older ones of their partition.
    pub(super) async fn given_up_settled(&self, source: Option<&TopicPartition>) {
        let meant = |call: &Call| call.done.is_none() && source.is_none_or(|source| call.source == *source);
        while self.calls().values().any(meant) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The last thing that a connection complained of.
    pub(super) fn take_complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn end(call: Option<Call>) {
    match call {
        Some(Call { missed, done: Some(done), .. }) => {
            // Refused only when the call was given up in this very moment.
            let _ = done.send(missed);
        }
        Some(Call { source, late, .. }) if late > 0 => {
            tracing::warn!(%source, rows = late, "acknowledged after their call was given up, so they may come again");
        }
        _ => {}
    }
}

impl Awaited {
    /// The word that a record carries to its report.
    pub(super) fn ticket(&self, row: u32) -> usize {
        ((self.call as usize) << 32) | row as usize
    }

    /// A row was taken into the queue: it will be reported.
    pub(super) fn queued(&mut self) {
        self.unoffered = self.unoffered.saturating_sub(1);
    }

    /// A row was not even taken into the queue.
    pub(super) fn refuse(&mut self, row: u32, error: RDKafkaErrorCode) {
        self.queued();
        self.reports.settle(self.ticket(row), Some(error));
    }

    /// Waits for the last report. `None`: the producer has ended without it.
    pub(super) async fn missed(&mut self) -> Option<Vec<Missed>> {
        let mut missed = (&mut self.done).await.ok()?;
        missed.sort_unstable_by_key(|(row, _)| *row);
        Some(missed)
    }

    /// Whether reports are still to come.
    pub(super) fn is_open(&self) -> bool {
        self.reports.calls().contains_key(&self.call)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut calls = self.reports.calls();
        let Some(entry) = calls.get_mut(&self.call) else { return };
        entry.done = None;
        entry.open = entry.open.saturating_sub(self.unoffered);
        if entry.open == 0 {
            calls.remove(&self.call);
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        brokers::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        brokers::error("Kafka producer", &error, reason);
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let error = match result {
            Ok(_) => None,
            Err((error, _)) => Some(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        self.settle(ticket, error);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn source() -> TopicPartition {
        TopicPartition::new("orders", 0)
    }

    /// S104: a call ends with its last report, whatever their order, and one of another call is not counted.
    #[tokio::test]
    async fn a_call_ends_with_its_last_report_s104() {
        let reports = Reports::default();
        let (mut first, mut second) = (reports.expect(0, &source(), 3), reports.expect(0, &source(), 1));
        reports.settle(first.ticket(2), Some(RDKafkaErrorCode::MessageSizeTooLarge));
        reports.settle(second.ticket(0), None);
        assert_eq!(second.missed().await, Some(Vec::new()));
        first.refuse(0, RDKafkaErrorCode::QueueFull);
        reports.settle(first.ticket(1), None);
        let missed = first.missed().await.unwrap();
        assert_eq!(missed, [(0, RDKafkaErrorCode::QueueFull), (2, RDKafkaErrorCode::MessageSizeTooLarge)]);
        assert!(reports.calls().is_empty());
        let mut gone = reports.expect(7, &source(), 1);
        reports.end(7);
        assert_eq!(gone.missed().await, None);
    }

    /// K3: what was offered before a call was given up is waited for and counted, what was not offered is not.
    #[tokio::test(start_paused = true)]
    async fn a_call_given_up_is_settled_by_its_reports_s104() {
        let reports = Reports::default();
        let mut given_up = reports.expect(0, &source(), 3);
        let tickets = [given_up.ticket(0), given_up.ticket(1)];
        given_up.queued();
        given_up.queued();
        assert!(given_up.is_open());
        drop(given_up);
        let elsewhere = TopicPartition::new("orders", 1);
        reports.given_up_settled(Some(&elsewhere)).await;
        for (ticket, error) in tickets.into_iter().zip([Some(RDKafkaErrorCode::PurgeQueue), None]) {
            let waiting = tokio::time::timeout(LOOK * 3, reports.given_up_settled(Some(&source()))).await;
            assert!(waiting.is_err(), "reports are to come");
            reports.settle(ticket, error);
        }
        reports.given_up_settled(None).await;
        assert_eq!(reports.late.get(), 1);
        drop(reports.expect(0, &source(), 5));
        assert!(reports.calls().is_empty());
    }
}
