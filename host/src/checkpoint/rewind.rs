//! Going back to the watermark after a failure, and the wait before the records come again (S29, S40).

use super::step::Phase;
use super::{Abort, Millis, Partition};

impl Partition {
    /// Gives the records since the watermark up for this time: buffers are dropped, the source goes back, and after a
    /// wait they come again (S29, S40). `false`: it has happened too often without progress (S41).
    #[must_use]
    pub fn abort(&mut self, abort: Abort) -> bool {
        self.note_progress();
        let (to, owed) = match abort {
            Abort::Unsynced => (self.synced, self.first_unsynced),
            _ => (self.watermark(), Some(self.watermark()).filter(|_| self.ledger.span() > 0)),
        };
        // What is owed from an earlier rewind that was not read back yet stays owed (S34a).
        if let Some(owed) = owed
            && self.owed.is_none_or(|earlier| owed < earlier)
        {
            self.owed = Some(owed);
        }
        if matches!(abort, Abort::Backpressure(_)) && self.records > 0 {
            self.portion.refused(self.records, self.buffered_bytes);
        }
        let settled = if abort == Abort::Unsynced { self.synced_records } else { self.ledger.settled() };
        self.ledger.reset_to(to, settled);
        self.epoch += 1;
        self.records = 0;
        self.buffered_bytes = 0;
        if let Abort::Backpressure(wait) = abort {
            self.asked_to_wait(wait);
        }
        self.phase = Phase::Discarding;
        match abort {
            Abort::Failure => {
                self.failures += 1;
                self.counted_aborts += 1;
                self.counted_aborts < self.limits.max_consecutive_aborts.max(1)
                    && self.limits.max_consecutive_aborts > 0
            }
            Abort::Destination | Abort::Unsynced => {
                self.failures += 1;
                true
            }
            Abort::Backpressure(_) => true,
        }
    }

    /// A destination asked to wait so long before anything comes again. While a wait is still to come, the first one stands (S31).
    pub fn asked_to_wait(&mut self, wait: Millis) {
        self.asked = self.asked.or(Some(wait));
    }

    /// Every buffering sink has dropped the partition's buffer.
    pub fn discarded(&mut self) {
        self.phase = if self.closing { Phase::Syncing } else { Phase::Rewinding };
    }

    /// The source has gone back.
    pub fn rewound(&mut self) {
        self.phase = Phase::Waiting;
    }

    /// The wait that [`Command::BackOff`] or [`Command::Pause`] asked for is over.
    pub fn waited(&mut self, now: Millis) {
        match self.phase {
            Phase::Committing { attempt, .. } => self.phase = Phase::Committing { attempt, wait: false },
            Phase::Waiting => {
                self.asked = None;
                self.begin_checkpoint(now);
                self.phase = Phase::Idle;
            }
            _ => {}
        }
    }
}
