//! When one partition's checkpoint is due, and its ordered steps.
//!
//! A plain state machine without tokio, Kafka or a clock: [`Partition::next`] says what to do, the worker does it and reports
//! back. Everything about offsets is decided here, so what runs in production is what the simulator runs. The watermark
//! of the [`ledger`] is the only source of offsets to commit (S1).

pub mod bisection;
pub mod call_size;
pub mod ledger;
mod portion;
pub mod retry_plan;
mod rewind;
mod step;

use crate::model::Offset;
use ledger::{Ledger, Obligation};
use portion::Portion;
use step::Phase;

pub use step::{Abort, Command, Limits, Refused};

/// Milliseconds on the caller's clock, which never goes back.
pub type Millis = u64;

/// Commits tried for one checkpoint before the partition gives up (S12).
pub const MAX_COMMIT_ATTEMPTS: u32 = 10;

/// The longest that a read waits before the checkpoint is looked at again (S9).
pub const LONGEST_READ: Millis = 1_000;

/// One partition's way from window to commit. See the module's text.
#[derive(Clone, Debug)]
pub struct Partition {
    limits: Limits,
    buffering: Vec<bool>,
    ledger: Ledger,
    epoch: u64,
    phase: Phase,
    closing: bool,
    committed: Offset,
    /// The watermark of the last sync that held. A commit of unknown outcome may have moved the group there.
    synced: Offset,
    /// How many records lay below it.
    synced_records: u64,
    /// How many records lie below what was committed.
    committed_records: u64,
    /// The first record read since then.
    first_unsynced: Option<Offset>,
    created: Millis,
    records: u64,
    buffered_bytes: u64,
    /// How long the destination asked to wait before anything comes again (S29). A failure on the way there does not undo it.
    asked: Option<Millis>,
    counted_aborts: u32,
    failures: u32,
    progress: Offset,
    /// The lowest record that has to come again after a rewind (S34a).
    owed: Option<Offset>,
    /// Nothing more will come: what is read is committed without waiting for the interval.
    hurried: bool,
    portion: Portion,
}

impl Partition {
    /// A partition assigned at `start`, everything below being committed. `buffering` tells for each sink, in order of
    /// registration, whether it buffers.
    pub fn new(limits: Limits, buffering: Vec<bool>, start: Offset, now: Millis) -> Self {
        assert!(buffering.len() <= ledger::MAX_SINKS, "the configuration refuses more sinks");
        Self {
            limits,
            buffering,
            ledger: Ledger::new(start),
            epoch: 0,
            phase: Phase::Idle,
            closing: false,
            committed: start,
            synced: start,
            synced_records: 0,
            committed_records: 0,
            first_unsynced: None,
            created: now,
            records: 0,
            buffered_bytes: 0,
            asked: None,
            counted_aborts: 0,
            failures: 0,
            progress: start,
            owed: None,
            hurried: false,
            portion: Portion::default(),
        }
    }

    /// The offset below which every record is settled (S97).
    pub fn watermark(&self) -> Offset {
        self.ledger.watermark()
    }

    /// The offset that was last committed, or where the assignment started.
    pub fn committed(&self) -> Offset {
        self.committed
    }

    /// The next offset to read.
    pub fn position(&self) -> Offset {
        self.ledger.position()
    }

    /// Counts the partition's fresh starts: results of an earlier epoch mean nothing any more (S49).
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Bytes that buffering sinks hold for this partition.
    pub fn buffered_bytes(&self) -> u64 {
        self.buffered_bytes
    }

    /// What to do next. `pressed`: all partitions together hold as much in buffers as they may (S15).
    pub fn next(&mut self, now: Millis, pressed: bool) -> Command {
        loop {
            match self.phase {
                Phase::Idle if self.closing || self.is_due(now, pressed) => self.phase = Phase::Flushing { next: 0 },
                Phase::Idle => {
                    if now >= self.due_at() {
                        // S10: an expired checkpoint without records is closed without asking anybody.
                        self.begin_checkpoint(now);
                    }
                    let tick = now.saturating_add(LONGEST_READ);
                    return Command::Read { until: if self.records > 0 { tick.min(self.due_at()) } else { tick } };
                }
                Phase::Window => return Command::Process,
                Phase::Flushing { next } => {
                    // S22: only a partition with processed records in this checkpoint is flushed.
                    let to_flush = |sink: &usize| self.records > 0 && self.buffering[*sink];
                    let left: Vec<usize> = (next..self.buffering.len()).filter(to_flush).collect();
                    match left.as_slice() {
                        [] => self.phase = Phase::Syncing,
                        [_, _, ..] if self.closing => return Command::FlushTogether(left),
                        [sink, ..] => {
                            self.phase = Phase::Flushing { next: *sink };
                            return Command::Flush(*sink);
                        }
                    }
                }
                Phase::Syncing if self.watermark() > self.committed => return Command::Sync,
                Phase::Syncing => self.phase = Phase::Committing { attempt: 0, wait: false },
                Phase::Committing { attempt, wait: true } => return Command::BackOff { attempt },
                Phase::Committing { .. } if self.watermark() > self.committed => {
                    return Command::Commit(self.watermark());
                }
                Phase::Committing { .. } if self.closing => self.phase = Phase::Ended,
                Phase::Committing { .. } => {
                    self.begin_checkpoint(now);
                    self.phase = Phase::Idle;
                }
                Phase::Discarding => return Command::Discard,
                Phase::Rewinding => return Command::Rewind(self.position()),
                Phase::Waiting => {
                    return match self.asked {
                        Some(wait) => Command::Pause(wait),
                        None => Command::BackOff { attempt: self.failures },
                    };
                }
                Phase::Ended => return Command::End,
            }
        }
    }

    /// A window was read: its records enter the ledger.
    ///
    /// # Errors
    /// When the records are not the ones that have to come next; the partition then has to be aborted.
    pub fn opened(&mut self, offsets: &[Offset]) -> Result<(), Refused> {
        assert_eq!(self.phase, Phase::Idle, "one window at a time");
        if let Some(&found) = offsets.first() {
            if let Some(expected) = self.owed_below(found) {
                return Err(Refused::Skipped { expected, found });
            }
            self.owed = None;
        }
        self.first_unsynced = self.first_unsynced.or(offsets.first().copied());
        for &offset in offsets {
            self.ledger.open(offset).map_err(Refused::WentBack)?;
        }
        self.phase = Phase::Window;
        Ok(())
    }

    /// The record that has to come again after a rewind, when the source goes on at `found`, above it (S34a).
    pub fn owed_below(&self, found: Offset) -> Option<Offset> {
        self.owed.filter(|expected| found > *expected)
    }

    /// What was owed is proved to be gone at the source.
    pub fn is_gone(&mut self) {
        self.owed = None;
    }

    /// The source has no record below `position` any more (S99).
    pub fn advanced(&mut self, position: Offset) {
        // A record that is owed after a rewind is still to come, or to be proved gone.
        if self.owed.is_none() {
            self.ledger.advance(position);
        }
    }

    /// A record of the open window yielded payloads for the sink.
    pub fn owe(&mut self, offset: Offset, sink: usize) {
        self.ledger.owe(offset, Obligation::sink(sink));
    }

    /// Every payload of the record for the sink is delivered, dead-lettered or skipped.
    pub fn settle(&mut self, offset: Offset, sink: usize) {
        self.ledger.settle(offset, Obligation::sink(sink));
    }

    /// What is kept of the partition in buffering sinks and for them, in bytes.
    pub fn set_buffered_bytes(&mut self, bytes: u64) {
        self.buffered_bytes = bytes;
    }

    /// The source has no record left: the checkpoint is due as soon as what was read has its answer.
    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Every record of the open window has its answer and its round is over (S2).
    pub fn window_done(&mut self, records: u64) {
        assert_eq!(self.phase, Phase::Window, "a window was open");
        self.ledger.settle_all(Obligation::WINDOW);
        self.records += records;
        self.note_progress();
        self.phase = Phase::Idle;
    }

    /// The sink of that index flushed: everything it was owed is settled (S20).
    pub fn flushed(&mut self, sink: usize) {
        self.ledger.settle_all(Obligation::sink(sink));
        self.note_progress();
        self.phase = Phase::Flushing { next: sink + 1 };
    }

    /// What direct sinks wrote is on the disk.
    pub fn synced(&mut self) {
        if self.records > 0 {
            self.portion.taken(self.limits.max_records, self.limits.max_bytes);
        }
        self.settled_synced();
        self.phase = Phase::Committing { attempt: 0, wait: false };
    }

    /// Whether everything below the watermark that direct sinks wrote is on the disk.
    pub fn is_synced(&self) -> bool {
        self.synced >= self.watermark()
    }

    /// What direct sinks wrote below the watermark is on the disk, whatever step the partition is at.
    pub fn settled_synced(&mut self) {
        self.synced = self.watermark();
        self.synced_records = self.ledger.settled();
        self.first_unsynced = Some(self.watermark()).filter(|_| self.ledger.span() > 0);
    }

    /// The watermark, where it is above what was committed.
    pub fn uncommitted(&self) -> Option<Offset> {
        Some(self.watermark()).filter(|watermark| *watermark > self.committed)
    }

    /// The commit took place. How many records it has settled for good.
    pub fn committed_at(&mut self, offset: Offset) -> u64 {
        assert!(offset <= self.watermark(), "never past an unsettled record");
        assert!(offset >= self.committed, "commits never go back (S16)");
        self.committed = offset;
        let before = std::mem::replace(&mut self.committed_records, self.ledger.settled());
        self.committed_records.saturating_sub(before)
    }

    /// The group has moved on, and a coming change of the assignment says what that means for us: keep what is settled
    /// and go on (S12).
    pub fn commit_stale(&mut self, now: Millis) {
        if self.closing {
            self.phase = Phase::Ended;
        } else {
            self.begin_checkpoint(now);
            self.phase = Phase::Idle;
        }
    }

    /// The commit failed and may be tried again. `false`: it has been tried often enough (S12).
    #[must_use]
    pub fn commit_failed(&mut self) -> bool {
        if let Phase::Committing { attempt, .. } = self.phase {
            self.phase = Phase::Committing { attempt: attempt + 1, wait: true };
            return attempt + 1 < MAX_COMMIT_ATTEMPTS;
        }
        true
    }

    /// Asks for a last cut: the open window is finished, buffers are flushed, the watermark is committed, and the
    /// partition ends (S45, S54). A wait after an abort is cut short: what was rewound is left to the next owner.
    pub fn close(&mut self) {
        self.closing = true;
        if matches!(self.phase, Phase::Waiting | Phase::Rewinding) {
            self.phase = Phase::Syncing;
        }
    }

    /// Gives up everything unsettled for good and commits the watermark, which is always safe (S55, S44).
    pub fn abandon(&mut self) {
        self.closing = true;
        if self.phase != Phase::Ended {
            let watermark = self.watermark();
            self.ledger.reset(watermark);
            self.epoch += 1;
            self.records = 0;
            self.buffered_bytes = 0;
            self.phase = Phase::Discarding;
        }
    }

    fn note_progress(&mut self) {
        if self.watermark() > self.progress {
            self.progress = self.watermark();
            self.counted_aborts = 0;
            self.failures = 0;
        }
    }

    fn begin_checkpoint(&mut self, now: Millis) {
        self.created = now;
        self.hurried = false;
        self.records = 0;
        self.buffered_bytes = 0;
    }

    /// When the interval of the open checkpoint ends.
    pub fn due_at(&self) -> Millis {
        self.created.saturating_add(self.limits.interval)
    }

    fn is_due(&self, now: Millis, pressed: bool) -> bool {
        let full = self.buffered_bytes >= self.limits.max_bytes
            || self.ledger.span() as u64 >= self.limits.max_records
            || self.records >= self.limits.max_records
            || self.portion.is_full(self.records, self.buffered_bytes)
            || (pressed && self.buffered_bytes > 0);
        let counted = self.limits.every_records > 0 && self.records >= self.limits.every_records;
        let expired = (self.hurried || now >= self.due_at()) && (self.records > 0 || self.watermark() > self.committed);
        expired || (self.records > 0 && (counted || full))
    }
}

#[cfg(test)]
mod tests;
