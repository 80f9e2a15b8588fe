//! One assigned partition on the polling thread: its queue, the window being built, and the hand-off to its reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use tokio::sync::mpsc;

use super::context::Context;
use super::headers;
use super::leader_epoch::{self, LeaderEpochs};
use super::ready::Ready;
use super::truncation::{Course, Truncation};
use super::{Limits, OnOffsetGap};
use crate::memory::{Account, Share};
use crate::model::{Batch, Fault, Offset, TopicPartition};
use crate::source::Read;

/// Windows that are built ahead of the worker: one to be taken at once while the next is filled. What is fetched beyond
/// them stays in librdkafka's queue, whose size is bounded there.
pub(super) const WINDOWS_AHEAD: usize = 2;

/// What a member may still do with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Standing {
    /// Read and commit.
    Held,
    /// Commit only: it was taken with notice.
    Revoked,
    /// Nothing: it was lost or given away.
    Gone,
}

/// What the reader and the polling thread both see of a partition.
#[derive(Debug)]
pub(super) struct Shared {
    partition: TopicPartition,
    standing: AtomicU8,
    /// Whether the partition is among those to look at.
    dirty: AtomicBool,
    ready: Arc<Ready>,
    /// What is committed as far as this member knows: the start, then what it has committed itself.
    committed: AtomicI64,
    /// Under which leaders the records were written that were read.
    pub leader_epochs: LeaderEpochs,
    /// Held while a commit is on its way: there is one at a time (S16), and giving the partition away waits for it (S12).
    pub committing: Arc<tokio::sync::Mutex<()>>,
}

impl Shared {
    pub(super) fn new(partition: TopicPartition, ready: Arc<Ready>, start: Offset, leader_epoch: i32) -> Self {
        Self {
            partition,
            standing: AtomicU8::new(Standing::Held as u8),
            dirty: AtomicBool::new(false),
            ready,
            committed: AtomicI64::new(start),
            leader_epochs: LeaderEpochs::new(start, leader_epoch),
            committing: Arc::default(),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Acquire) {
            0 => Standing::Held,
            1 => Standing::Revoked,
            _ => Standing::Gone,
        }
    }

    pub(super) fn stand(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Release);
    }

    /// Asks the polling thread to look at this partition's queue.
    pub(super) fn touch(&self) {
        self.soil();
        self.ready.bell.ring();
    }

    pub(super) fn committed(&self) -> Offset {
        self.committed.load(Ordering::Acquire)
    }

    pub(super) fn committed_at(&self, offset: Offset) {
        self.committed.store(offset, Ordering::Release);
        self.ready.bell.ring();
    }

    /// The same without waking it.
    pub(super) fn soil(&self) {
        if !self.dirty.swap(true, Ordering::AcqRel) {
            self.ready.push(self.partition.clone());
        }
    }

    pub(super) fn take_dirty(&self) -> bool {
        self.dirty.swap(false, Ordering::AcqRel)
    }
}

/// What is handed to the reader, and under which epoch it was read: a rewind begins a new one, and what is older is
/// thrown away (S34).
pub(super) struct Handed {
    pub epoch: u64,
    pub read: Result<Read, Fault>,
}

/// Why a lane was left.
pub(super) enum Filled {
    /// The worker is behind; reading goes on when it takes a window.
    Full,
    /// Everything that was fetched is handed over.
    Drained,
    /// The library reported an error in the partition's place in the log.
    Failed(KafkaError),
    /// The library went back to where the log was cut.
    Truncated(Truncation),
}

/// See the module's text.
pub(super) struct Lane {
    pub shared: Arc<Shared>,
    pub window: Open,
    /// Between an order to rewind and its completion nothing is read.
    pub moving: bool,
    /// Fetching is stopped on the pipeline's behalf.
    pub paused: bool,
    queue: PartitionQueue<Context>,
}

impl Lane {
    pub(super) fn new(
        mut queue: PartitionQueue<Context>,
        partition: TopicPartition,
        course: Course,
        limits: Limits,
        memory: Arc<Account>,
        ready: Arc<Ready>,
    ) -> (Self, mpsc::Receiver<Handed>) {
        let shared = Arc::new(Shared::new(partition.clone(), ready, course.start, course.leader_epoch));
        queue.set_nonempty_callback({
            let shared = Arc::clone(&shared);
            move || shared.touch()
        });
        let (windows, handed) = mpsc::channel(WINDOWS_AHEAD);
        let window = Open::new(partition, course, Arc::clone(&shared), limits, memory, windows);
        (Self { shared, window, moving: false, paused: false, queue }, handed)
    }

    /// Whether everything below the end is committed; never where there is no end.
    pub(super) fn is_done(&self) -> bool {
        self.window.end.is_some_and(|end| self.shared.committed() >= end)
    }

    /// Hands over what is fetched, as far as there is room; `partitions` share it. `low` tells the first offset that the broker has.
    pub(super) fn fill(&mut self, partitions: usize, low: &dyn Fn() -> Option<Offset>) -> Filled {
        loop {
            if let Some(truncation) = self.window.truncation.take() {
                return Filled::Truncated(truncation);
            }
            if self.window.is_full() {
                self.window.hand_over();
            }
            if self.window.is_held_back(partitions) {
                // What waits behind its share stays with librdkafka (S38).
                self.window.hand_over();
                return Filled::Full;
            }
            if !self.window.has_room() {
                return Filled::Full;
            }
            if self.window.passed_end {
                self.window.hand_over();
                self.window.pass(Offset::MAX, &|| None);
                return Filled::Full;
            }
            match self.queue.poll(Duration::ZERO) {
                Some(Ok(record)) => self.window.take(&record, low),
                Some(Err(error)) => {
                    self.window.hand_over();
                    return Filled::Failed(error);
                }
                None => {
                    self.window.hand_over();
                    return Filled::Drained;
                }
            }
        }
    }
}

/// The window being built.
pub(super) struct Open {
    partition: TopicPartition,
    limits: Limits,
    windows: mpsc::Sender<Handed>,
    memory: Arc<Account>,
    share: Arc<Share>,
    /// Most bytes of the window being built.
    max_bytes: usize,
    batch: Option<Batch>,
    /// Rows and bytes of the last window: the next one is made as large at once.
    last_size: (usize, usize),
    wanted: Offset,
    /// Where reading stops: what lies there or above is not handed over.
    end: Option<Offset>,
    /// A record above the end has been seen, so that there is none left below it.
    passed_end: bool,
    /// Offsets that were deleted before they were read: from the first to before the second.
    gaps: Vec<(Offset, Offset)>,
    epoch: u64,
    /// Knows the epochs of what was read; the last one is kept here too.
    shared: Arc<Shared>,
    leader_epoch: i32,
    /// What to do where the log was cut.
    on_gap: OnOffsetGap,
    truncation: Option<Truncation>,
}

impl Open {
    fn new(
        partition: TopicPartition,
        Course { start, end, leader_epoch, on_gap }: Course,
        shared: Arc<Shared>,
        limits: Limits,
        memory: Arc<Account>,
        windows: mpsc::Sender<Handed>,
    ) -> Self {
        Self {
            partition,
            limits,
            windows,
            memory,
            share: Arc::default(),
            max_bytes: limits.bytes,
            batch: None,
            last_size: (0, 0),
            wanted: start,
            end,
            passed_end: false,
            gaps: Vec::new(),
            epoch: 0,
            shared,
            leader_epoch,
            on_gap,
            truncation: None,
        }
    }

    /// The next offset to read.
    pub(super) fn wanted(&self) -> Offset {
        self.wanted
    }

    /// Forgets what is being built and goes on at `to` under a new epoch.
    pub(super) fn restart(&mut self, to: Offset, epoch: u64) {
        self.batch = None;
        self.wanted = to;
        self.passed_end = false;
        self.epoch = epoch;
        self.leader_epoch = self.shared.leader_epochs.below(to);
        self.truncation = None;
    }

    /// What is read from here on is of this epoch.
    pub(super) fn note(&mut self, leader_epoch: i32) {
        if leader_epoch != self.leader_epoch {
            self.leader_epoch = leader_epoch;
            self.shared.leader_epochs.note(self.wanted, leader_epoch);
        }
    }

    /// Whether the partition has to wait because of what all records take, `partitions` sharing it.
    fn is_held_back(&mut self, partitions: usize) -> bool {
        self.max_bytes = self.limits.bytes.min(self.memory.window_bytes(partitions));
        self.memory.holds_back(&self.share, partitions)
    }

    fn has_room(&self) -> bool {
        self.windows.capacity() > 0 && !self.windows.is_closed()
    }

    fn is_full(&self) -> bool {
        self.batch
            .as_ref()
            .is_some_and(|batch| batch.len() >= self.limits.records || batch.size_bytes() >= self.max_bytes)
    }

    /// Adds a record; a window that it does not fit into is handed over first.
    pub(super) fn take(&mut self, record: &BorrowedMessage<'_>, low: &dyn Fn() -> Option<Offset>) {
        let (offset, leader_epoch) = (record.offset(), leader_epoch::of_record(record));
        if self.truncation.is_some() {
            // Read again from the cut.
            return;
        }
        if self.on_gap == OnOffsetGap::Continue {
            self.truncation = Truncation::found((offset, leader_epoch), (self.wanted, self.leader_epoch));
            if self.truncation.is_some() {
                return;
            }
        }
        if self.end.is_some_and(|end| offset >= end) {
            self.note(leader_epoch);
            self.passed_end = true;
            return;
        }
        if offset < self.wanted {
            // The library leaves out what lies below a start or a seek. Skipping it here too would hide a topic that was
            // deleted and created again.
            self.fail(
                Fault::host(format!("`{}` came where {} was due", self.partition.at(offset), self.wanted))
                    .because("the client library went back, or the topic was created again"),
            );
            return;
        }
        self.note(leader_epoch);
        self.jump(offset, low);
        let size = record.key_len() + record.payload_len();
        let fits = self
            .batch
            .as_ref()
            .is_none_or(|batch| batch.len() < self.limits.records && batch.size_bytes() + size <= self.max_bytes);
        if !fits {
            self.hand_over();
        }
        let (rows, bytes) = self.last_size;
        let partition = &self.partition;
        let batch = self.batch.get_or_insert_with(|| Batch::with_capacity(partition.clone(), rows, bytes));
        batch.push(offset, record.timestamp().to_millis().unwrap_or(-1), record.key(), record.payload());
        headers::push(batch, record);
        self.wanted = offset + 1;
    }

    /// The position has passed what is no record, and everything before it is handed over (S99).
    pub(super) fn pass(&mut self, position: Offset, low: &dyn Fn() -> Option<Offset>) {
        let position = self.end.map_or(position, |end| position.min(end));
        if position > self.wanted && self.batch.is_none() && self.has_room() && self.send(Ok(Read::Position(position)))
        {
            self.jump(position, low);
            self.wanted = position;
        }
    }

    /// Reading goes on at `to`. What lies between is no record, or was one and is gone: what the broker has deleted lies
    /// below its first offset.
    fn jump(&mut self, to: Offset, low: &dyn Fn() -> Option<Offset>) {
        if to > self.wanted
            && let Some(low) = low()
            && low > self.wanted
        {
            self.gaps.push((self.wanted, low.min(to)));
        }
    }

    /// The gaps that were found since the last time.
    pub(super) fn take_gaps(&mut self) -> impl Iterator<Item = (Offset, Offset)> {
        std::mem::take(&mut self.gaps).into_iter()
    }

    /// Tells the reader that it cannot go on like this.
    pub(super) fn fail(&mut self, fault: Fault) {
        self.send(Err(fault));
    }

    fn hand_over(&mut self) {
        let Some(mut batch) = self.batch.take() else { return };
        if !self.has_room() {
            self.batch = Some(batch);
            return;
        }
        self.last_size = (batch.len(), batch.values.bytes().len());
        batch.guard(self.memory.lease(Some(&self.share), batch.memory_bytes()));
        self.send(Ok(Read::Records(Arc::new(batch))));
    }

    fn send(&mut self, read: Result<Read, Fault>) -> bool {
        // Refused when the reader is gone, or for a fault when two windows wait: it is found again after them.
        self.windows.try_send(Handed { epoch: self.epoch, read }).is_ok()
    }
}
