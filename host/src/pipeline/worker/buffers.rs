//! What sinks hold of a partition: counted, and forgotten where it comes again (S15, S26).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Worker;
use crate::clock::Clock;
use crate::model::Batch;
use crate::pipeline::route::Routed;
use crate::sink::{BufferLimit, Style};
use crate::source::Reader;

/// How long sinks may take to forget at a partition's end, so that a revocation keeps to its budget (S46).
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

impl<R: Reader, C: Clock> Worker<R, C> {
    /// Tells every sink to forget what it holds of the partition: it will come again, or is not ours any more.
    pub(super) async fn discard(&mut self) {
        join_all(self.shared.sinks.iter().map(|slot| slot.sink.discard(&self.source))).await;
        self.clear_buffers();
    }

    /// The same within a bound. A sink that does not answer in time is told again before the partition is next served here.
    pub(super) async fn forget(&mut self) -> bool {
        let clock = self.shared.clock.clone();
        let in_time = tokio::select! {
            biased;
            () = self.discard() => true,
            () = clock.sleep(DISCARD_TIMEOUT) => false,
        };
        if in_time {
            self.shared.unforgotten().remove(&self.source);
        } else {
            tracing::warn!(
                partition = %self.source,
                "a sink did not forget the partition in time; it is told again before the next record"
            );
            self.shared.unforgotten().insert(self.source.clone());
            self.clear_buffers();
        }
        in_time
    }

    /// Whether buffers are as full as they may be, so that this partition's checkpoint is due (S15, S15a).
    pub(super) fn is_pressed(&self) -> bool {
        let mut limits = self.limits();
        self.shared.memory.is_pressed()
            || limits.any(|(sink, limit)| self.shared.buffers.is_largest_of_full(sink, limit, &self.source))
    }

    /// The sinks whose instances bound what they hold.
    fn limits(&self) -> impl Iterator<Item = (usize, BufferLimit)> {
        let buffering =
            self.shared.sinks.iter().enumerate().filter(|(_, slot)| slot.description.style == Style::Buffering);
        buffering.filter_map(|(sink, slot)| Some((sink, slot.sink.buffer_limit(&self.source)?)))
    }

    /// The partition is served: it has a share of what each instance may hold.
    pub(super) fn join_buffers(&self) {
        for (sink, limit) in self.limits() {
            self.shared.buffers.join(sink, limit, &self.source);
        }
    }

    /// The partition is served no longer.
    pub(super) fn leave_buffers(&mut self) {
        for (sink, limit) in self.limits() {
            self.shared.buffers.leave(sink, limit, &self.source);
        }
        self.clear_buffers();
    }

    fn clear_buffers(&mut self) {
        for state in &mut self.sinks {
            state.buffered.clear();
        }
        self.recount_buffers();
    }

    /// Counts what a round has added to buffers. Rows that were made of a window keep it alive, for their dead letters.
    pub(super) fn count_buffers(&mut self, round: &Routed, window: &Arc<Batch>) {
        let is_kept = |sink: usize| self.sinks.get(sink).is_some_and(|state| !state.buffered.is_empty());
        if round.groups.iter().any(|group| group.origin.is_some() && is_kept(group.sink)) {
            self.kept_window_bytes += window.size_bytes() as u64;
        }
        self.recount_buffers();
    }

    /// Counts what buffers hold now.
    pub(super) fn recount_buffers(&mut self) {
        if self.sinks.iter().all(|state| state.buffered.is_empty()) {
            self.kept_window_bytes = 0;
        }
        let rows: u64 = self.sinks.iter().map(|state| state.buffered.bytes()).sum();
        let bytes = rows + self.kept_window_bytes;
        self.core.set_buffered_bytes(bytes);
        self.guest_memory.resize(self.sinks.iter().map(|state| state.buffered.guest_bytes()).sum());
        for (sink, limit) in self.limits() {
            let bytes = self.sinks.get(sink).map_or(0, |state| state.buffered.guest_bytes());
            self.shared.buffers.set(sink, limit, &self.source, bytes);
        }
    }
}
