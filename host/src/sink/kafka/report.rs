//! Delivery reports: one entry per call, and in each record's opaque word the call and the row, so that no record needs
//! an allocation or a future of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::oneshot;

const _: () = assert!(usize::BITS == 64, "a ticket holds a call and a row");

/// A row that did not arrive, and the library's word for why.
pub(super) type Missed = (u32, RDKafkaErrorCode);

/// One call whose reports are awaited.
struct Call {
    open: usize,
    missed: Vec<Missed>,
    done: oneshot::Sender<Vec<Missed>>,
}

/// All calls whose reports are awaited.
#[derive(Clone, Default)]
pub(super) struct Reports {
    calls: Arc<Mutex<HashMap<u32, Call>>>,
    next: Arc<AtomicU32>,
    complaint: Arc<Mutex<Option<String>>>,
}

/// One call; giving it up makes its late reports meaningless.
pub(super) struct Awaited {
    reports: Reports,
    call: u32,
    done: oneshot::Receiver<Vec<Missed>>,
}

impl Reports {
    /// Begins a call of so many rows.
    pub(super) fn expect(&self, rows: usize) -> Awaited {
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, done) = oneshot::channel();
        let entry = Call { open: rows, missed: Vec::new(), done: sender };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).insert(call, entry);
        Awaited { reports: self.clone(), call, done }
    }

    /// Takes a row's outcome; the last one ends the call.
    fn settle(&self, ticket: usize, error: Option<RDKafkaErrorCode>) {
        #[allow(clippy::cast_possible_truncation, reason = "the two halves of a ticket")]
        let (call, row) = ((ticket >> 32) as u32, ticket as u32);
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = calls.get_mut(&call) else { return };
        entry.missed.extend(error.map(|error| (row, error)));
        entry.open = entry.open.saturating_sub(1);
        if entry.open == 0
            && let Some(Call { missed, done, .. }) = calls.remove(&call)
        {
            // Refused only when the call was given up in this very moment.
            let _ = done.send(missed);
        }
    }

    /// The last thing that a connection complained of.
    pub(super) fn take_complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Awaited {
    /// The word that a record carries to its report.
    pub(super) fn ticket(&self, row: u32) -> usize {
        ((self.call as usize) << 32) | row as usize
    }

    /// A row that was not even taken into the queue.
    pub(super) fn refuse(&self, row: u32, error: RDKafkaErrorCode) {
        self.reports.settle(self.ticket(row), Some(error));
    }

    /// Waits for the last report. `None`: the producer has ended without it.
    pub(super) async fn missed(mut self) -> Option<Vec<Missed>> {
        let mut missed = (&mut self.done).await.ok()?;
        missed.sort_unstable_by_key(|(row, _)| *row);
        Some(missed)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.reports.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.call);
    }
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%reason, "Kafka producer: {error}");
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

    /// S104: a call ends with its last report, whatever their order, and a late one of another call is not counted.
    #[tokio::test]
    async fn a_call_ends_with_its_last_report_s104() {
        let reports = Reports::default();
        let (first, second) = (reports.expect(3), reports.expect(1));
        reports.settle(first.ticket(2), Some(RDKafkaErrorCode::MessageSizeTooLarge));
        reports.settle(second.ticket(0), None);
        assert_eq!(second.missed().await, Some(Vec::new()));
        first.refuse(0, RDKafkaErrorCode::QueueFull);
        let given_up = reports.expect(1);
        let late = given_up.ticket(0);
        drop(given_up);
        reports.settle(late, Some(RDKafkaErrorCode::Fail));
        reports.settle(first.ticket(1), None);
        let missed = first.missed().await.unwrap();
        assert_eq!(missed, [(0, RDKafkaErrorCode::QueueFull), (2, RDKafkaErrorCode::MessageSizeTooLarge)]);
        assert!(reports.calls.lock().unwrap().is_empty());
    }
}
