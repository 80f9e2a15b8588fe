//! Reading the next window, and proving what a rewind did not bring back.

use std::time::Duration;

use super::Worker;
use crate::checkpoint::{Abort, Millis, Refused};
use crate::clock::Clock;
use crate::model::Offset;
use crate::pipeline::shared::Stop;
use crate::source::{Read, Reader};

impl<R: Reader, C: Clock> Worker<R, C> {
    /// Waits for a window until then, at most.
    pub(super) async fn read(&mut self, until: Millis) -> Result<(), Stop> {
        let wait = Duration::from_millis(until.saturating_sub(self.shared.clock.now()));
        let read = tokio::select! {
            biased;
            read = self.reader.read() => read.map_err(Stop::abort)?,
            () = self.shared.clock.sleep(wait) => return Ok(()),
        };
        let found = match &read {
            Read::Position(position) => *position,
            Read::Records(batch) => batch.offsets.first().copied().unwrap_or_default(),
        };
        if let Some(owed) = self.core.owed_below(found) {
            self.prove_gone(owed, found).await?;
        }
        match read {
            Read::Position(position) => {
                self.core.advanced(position);
                if self.reader.is_at_end() {
                    self.core.hurry();
                }
            }
            Read::Records(batch) => {
                self.core.opened(&batch.offsets).map_err(|refused| {
                    self.shared.counters.breaches.add(1);
                    Stop::Abort(Abort::Failure, refused.fault(&self.source))
                })?;
                self.window = Some(batch);
                if self.reader.is_at_end() {
                    self.core.hurry();
                }
            }
        }
        Ok(())
    }

    /// S34a: after a rewind the source went on above a record that is owed. Unless the log itself says that there is none before
    /// `found`, the rewind is made again. That never counts as a failure: it ends by itself.
    async fn prove_gone(&mut self, owed: Offset, found: Offset) -> Result<(), Stop> {
        let again = |fault| Stop::Abort(Abort::Destination, fault);
        match self.reader.first_from(owed).await.map_err(again)? {
            Some(first) if first < found => {
                self.shared.counters.breaches.add(1);
                Err(again(Refused::Skipped { expected: first, found }.fault(&self.source)))
            }
            _ => {
                tracing::info!(partition = %self.source, owed, found, "deleted at the source while it was to come again");
                self.core.is_gone();
                Ok(())
            }
        }
    }
}
