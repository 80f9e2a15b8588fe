//! Letting sinks forget what they hold of a partition (S26).

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Worker;
use crate::clock::Clock;
use crate::source::Reader;

/// How long sinks may take to forget at a partition's end, so that a revocation keeps to its budget (S46).
const PATIENCE: Duration = Duration::from_secs(5);

impl<R: Reader, C: Clock> Worker<R, C> {
    /// Tells every sink to forget what it holds of the partition: it will come again, or is not ours any more.
    pub(super) async fn discard(&mut self) {
        for slot in &self.shared.sinks {
            slot.sink.discard(&self.source).await;
        }
        self.added.clear();
        self.release_buffers();
    }

    /// The same within a bound. A sink that does not answer in time is told again before the partition is next served here.
    pub(super) async fn forget(&mut self) -> bool {
        let clock = self.shared.clock.clone();
        let in_time = tokio::select! {
            biased;
            () = self.discard() => true,
            () = clock.sleep(PATIENCE) => false,
        };
        if in_time {
            self.shared.unforgotten().remove(&self.source);
        } else {
            tracing::warn!(partition = %self.source, "a sink did not forget the partition in time; it is told again before the next record");
            self.shared.unforgotten().insert(self.source.clone());
            self.added.clear();
            self.release_buffers();
        }
        in_time
    }

    pub(super) fn hold(&mut self, bytes: u64) {
        self.core.buffered(bytes);
        self.held_bytes += bytes;
        self.shared.buffered_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release_buffers(&mut self) {
        self.shared.buffered_bytes.fetch_sub(self.held_bytes, Ordering::Relaxed);
        self.held_bytes = 0;
    }
}
