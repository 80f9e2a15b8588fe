//! What outlives a crash in the simulation: logs, destinations, dead letters; and the dice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use tidegate::model::Offset;

use super::accounts::{Account, Known};
use super::call::Aim;
use super::capacity::Capacity;
use super::flaws::Flaws;
use super::group::{Claim, Standing};
use super::guest::Guest;
use super::member::Member;
use super::outage::Outage;
use super::stage::Stage;
use super::weights::Weights;

pub const TOPIC: &str = "orders";
pub const SINKS: [&str; 3] = ["kafka/direct", "filesystem/files", "plugin/buffering"];

/// One write as the destination sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub partition: usize,
    pub offset: Offset,
    pub ordinal: u32,
    /// Yielded by the window hook.
    pub window: bool,
    /// Written by a member that the group had given up on and that did not know it yet.
    pub zombie: bool,
    pub member: usize,
}

/// A row for good: sink, partition, offset, whether of the window hook, ordinal.
pub type Row = (usize, usize, Offset, bool, u32);

impl Write {
    pub const fn row(&self, sink: usize) -> Row {
        (sink, self.partition, self.offset, self.window, self.ordinal)
    }

    pub fn name(&self) -> String {
        let window = if self.window { " of a window" } else { "" };
        format!("[{}]@{}.{}{window}", self.partition, self.offset, self.ordinal)
    }
}

#[derive(Debug, Default)]
pub struct Log {
    /// Offsets that hold a record, ascending, with gaps.
    pub offsets: Vec<Offset>,
    /// How many of them were produced already.
    pub shown: usize,
    /// The log's end: past the last record, and past what is no record behind it.
    pub end: Offset,
    pub committed: Offset,
    /// The claim that the group takes commits from.
    pub owner: Option<usize>,
    /// What the window hook yielded per sink, by the offset that it stands under, until the window comes again.
    pub hooked: BTreeMap<Offset, [u32; 3]>,
}

pub struct World {
    pub random: fastrand::Rng,
    pub weights: Weights,
    /// No more faults.
    pub calm: bool,
    /// Nobody comes back any more.
    pub closing: bool,
    /// Everything is committed.
    pub finished: bool,
    pub aim: Aim,
    /// How far apart faults are, in await points.
    pub gap: u64,
    pub logs: Vec<Log>,
    pub members: Vec<Member>,
    pub claims: Vec<Claim>,
    /// Per sink, everything that is there for good, in order.
    pub durable: [Vec<Write>; 3],
    /// The same to look up.
    pub arrived: BTreeSet<Row>,
    /// What the file sink wrote and did not sync yet: a crash or a failed sync may lose it.
    pub unsynced: Vec<Write>,
    /// The guests of the buffering sink, by member and place.
    pub guests: BTreeMap<(usize, usize), Guest>,
    /// Rows in the dead letter queue or skipped.
    pub dead_rows: BTreeSet<Row>,
    /// The same of whole source records.
    pub dead_records: BTreeSet<(usize, Offset)>,
    /// What the calls said of rows, by member.
    pub accounts: BTreeMap<Known, Account>,
    /// How many calls had an answer that shows their destination and guest at work, by member.
    pub passed: BTreeMap<(usize, Stage), u64>,
    /// The stages in which a call had an answer that named its rows, all of them as unavailable, by member.
    pub named_unavailable: BTreeSet<(usize, Stage)>,
    /// Rows that failed by themselves in the file sink at least once: those behind them may come first from then on,
    /// even when the failure was forgotten by a crash.
    pub excused: BTreeSet<(usize, Offset)>,
    pub flaws: Flaws,
    pub capacity: Capacity,
    pub outages: BTreeMap<Stage, Outage>,
    pub passthrough: bool,
    pub window_hook: bool,
    pub delivery_hook: bool,
    pub dlq_down_until: Option<tokio::time::Instant>,
    /// How far the wall clock is off, in milliseconds.
    pub skew: i64,
    pub marks: BTreeMap<String, u64>,
    pub violation: Option<String>,
    pub trace: Vec<String>,
}

pub type Shared = Arc<Mutex<World>>;

pub fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let weights = Weights::swarm(&mut random);
        let logs: Vec<Log> = (0..random.usize(1..5))
            .map(|_| {
                let mut log = Log::default();
                let mut next = random.i64(0..3);
                log.committed = next;
                for _ in 0..random.usize(0..60) {
                    if random.f64() < 0.15 {
                        next += random.i64(1..4);
                    }
                    log.offsets.push(next);
                    next += 1;
                }
                log.end = next + random.i64(0..2);
                log.shown = random.usize(0..=log.offsets.len());
                log
            })
            .collect();
        let passthrough = random.f64() < 0.2;
        let (flaws, capacity) = (Flaws::draw(&mut random, &weights, &logs), Capacity::draw(&mut random, &weights));
        let gap = [15, 60, 250][random.usize(0..3)];
        let aim = Aim::draw(&mut random, gap);
        let (window_hook, delivery_hook) = (random.bool(), random.bool());
        let drawn = format!(
            "{weights:?}, {capacity:?}, {flaws:?}, passthrough {passthrough}, hooks: window {window_hook}, delivery {delivery_hook}"
        );
        let only_patience = weights.is_patient() && weights.backpressure > 0.0;
        let mut world = Self {
            random,
            weights,
            calm: false,
            closing: false,
            finished: false,
            aim,
            gap,
            logs,
            members: Vec::new(),
            claims: Vec::new(),
            durable: Default::default(),
            arrived: BTreeSet::new(),
            unsynced: Vec::new(),
            guests: BTreeMap::new(),
            dead_rows: BTreeSet::new(),
            dead_records: BTreeSet::new(),
            accounts: BTreeMap::new(),
            passed: BTreeMap::new(),
            named_unavailable: BTreeSet::new(),
            excused: BTreeSet::new(),
            flaws,
            capacity,
            outages: BTreeMap::new(),
            passthrough,
            window_hook,
            delivery_hook,
            dlq_down_until: None,
            skew: 0,
            marks: BTreeMap::new(),
            violation: None,
            trace: vec![drawn],
        };
        if only_patience {
            world.mark("nothing but patience asked for");
        }
        world
    }

    pub fn note(&mut self, what: String) {
        self.trace.push(what);
    }

    pub fn mark(&mut self, what: impl AsRef<str>) {
        match self.marks.get_mut(what.as_ref()) {
            Some(count) => *count += 1,
            None => {
                self.marks.insert(what.as_ref().to_owned(), 1);
            }
        }
    }

    pub fn chance(&mut self, weight: impl Fn(&Weights) -> f64) -> bool {
        let weight = weight(&self.weights);
        !self.calm && weight > 0.0 && self.random.f64() < weight
    }

    pub fn violate(&mut self, what: String) {
        self.note(format!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    /// How many payloads a record yields for a sink: the same whenever it is asked.
    pub fn yields(&self, sink: usize, partition: usize, offset: Offset) -> u32 {
        if self.passthrough {
            return 1;
        }
        let mut hash = fastrand::Rng::with_seed((partition as u64) << 40 ^ (offset as u64) << 2 ^ sink as u64);
        // The last record has payloads for every sink, so that a chosen row finds a neighbour that passes.
        let least = u32::from(self.logs[partition].offsets.last() == Some(&offset));
        hash.u32(0..3).max(least)
    }

    pub fn key(partition: usize, offset: Offset) -> Vec<u8> {
        vec![u8::try_from((offset.unsigned_abs() * 7 + partition as u64) % 3).unwrap_or(0)]
    }

    /// A destination writes rows of one call, in order.
    pub fn write(&mut self, claim: usize, sink: usize, writes: impl IntoIterator<Item = Write>) {
        let standing = self.claims[claim].standing;
        let writes: Vec<Write> = writes.into_iter().collect();
        if let (Some(first), Some(last)) = (writes.first(), writes.last()) {
            self.note(format!("{} takes {} to {} under claim {claim}", SINKS[sink], first.name(), last.name()));
        }
        for mut write in writes {
            match standing {
                Standing::Held | Standing::Leaving => {}
                Standing::Fenced => {
                    write.zombie = true;
                    self.mark("zombie write");
                }
                _ => self.violate(format!("{} was written for a partition that is not ours: {write:?}", SINKS[sink])),
            }
            if sink == 1 {
                self.unsynced.push(write);
            } else {
                self.settle_write(sink, write);
            }
        }
    }

    fn settle_write(&mut self, sink: usize, write: Write) {
        self.arrived.insert(write.row(sink));
        self.durable[sink].push(write);
    }

    /// How many rows a member's file sink has written for a partition and not synced.
    pub fn unsynced_writes(&self, member: usize, partition: usize) -> usize {
        self.unsynced.iter().filter(|write| write.member == member && write.partition == partition).count()
    }

    /// Of what a member's file sink wrote for a partition so many are on its disk: those before the sync began. The sink then counts
    /// all as synced, so that what was written meanwhile never will be.
    pub fn synced(&mut self, member: usize, partition: usize, begun: usize) {
        let (kept, open): (Vec<Write>, Vec<Write>) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|write| write.member == member && write.partition == partition);
        self.unsynced = open;
        for write in kept.into_iter().take(begun) {
            self.settle_write(1, write);
        }
    }

    /// A failed sync may have thrown the written pages away.
    pub fn lose_unsynced(&mut self, member: usize, partition: usize) {
        self.unsynced.retain(|write| write.member != member || write.partition != partition);
    }

    /// So does a power cut.
    pub fn cut_power(&mut self, member: usize) {
        self.unsynced.retain(|write| write.member != member);
    }
}
