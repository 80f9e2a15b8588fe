//! What outlives a crash in the simulation, who may do what, and the oracle that watches every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tidegate::model::Offset;

pub const TOPIC: &str = "orders";
pub const SINKS: [&str; 3] = ["kafka/direct", "filesystem/files", "plugin/buffering"];

/// How likely each kind of fault is in one run; a swarm: many are off, some are frequent.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    pub row_reject: f64,
    pub row_retry: f64,
    pub call_retry: f64,
    pub away: f64,
    pub row_away: f64,
    pub row_hold: f64,
    pub backpressure: f64,
    pub slow: f64,
    pub hang: f64,
    pub trap: f64,
    pub collect_fault: f64,
    pub poison: f64,
    pub sync_fault: f64,
    pub dlq_fault: f64,
    pub commit_fault: f64,
    pub seek_fault: f64,
    pub seek_lie: f64,
    pub revoke: f64,
    pub lose: f64,
    pub foreign: f64,
    pub crash: f64,
}

impl Weights {
    pub fn swarm(random: &mut fastrand::Rng) -> Self {
        let mut weight = |often: f64| match random.u8(0..4) {
            0 | 1 => 0.0,
            2 => often / 8.0,
            _ => often,
        };
        Self {
            row_reject: weight(0.1),
            row_retry: weight(0.15),
            call_retry: weight(0.2),
            away: weight(0.2),
            row_away: weight(0.1),
            row_hold: weight(0.1),
            backpressure: weight(0.2),
            slow: weight(0.3),
            hang: weight(0.05),
            trap: weight(0.15),
            collect_fault: weight(0.15),
            poison: weight(0.05),
            sync_fault: weight(0.2),
            dlq_fault: weight(0.3),
            commit_fault: weight(0.3),
            seek_fault: weight(0.1),
            seek_lie: weight(0.3),
            revoke: weight(0.6),
            lose: weight(0.5),
            foreign: weight(0.5),
            crash: weight(0.7),
        }
    }
}

/// One write as the destination sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub partition: usize,
    pub offset: Offset,
    pub ordinal: u32,
}

#[derive(Debug, Default)]
pub struct Log {
    /// Offsets that hold a record, ascending, with gaps.
    pub offsets: Vec<Offset>,
    /// The log's end: past the last record, and past what is no record behind it.
    pub end: Offset,
    pub committed: Offset,
    /// Whether our group member may write and commit for it.
    pub ours: bool,
    /// Taken with notice and not let go yet.
    pub leaving: bool,
    /// Records that another member of the group took care of.
    pub foreign: BTreeSet<Offset>,
}

pub struct World {
    pub random: fastrand::Rng,
    pub weights: Weights,
    pub logs: Vec<Log>,
    /// Per sink, everything that is there for good, in order.
    pub durable: [Vec<Write>; 3],
    /// What the file sink wrote and did not sync yet: a crash or a failed sync may lose it.
    pub unsynced: Vec<Write>,
    /// Per sink, rows in the dead letter queue or skipped; `None` for a whole source record.
    pub dead: BTreeSet<(Option<usize>, usize, Offset)>,
    /// Rows that the file sink refused for good at least once: they hold back nothing from then on, even when the
    /// refusal was forgotten by a crash before its dead letter was written.
    pub excused: BTreeSet<(usize, Offset)>,
    /// Records on which the collector traps for good.
    pub poison: BTreeSet<(usize, Offset)>,
    pub passthrough: bool,
    pub marks: BTreeMap<&'static str, u64>,
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
        let mut poison = BTreeSet::new();
        let logs = (0..random.usize(1..4))
            .map(|partition| {
                let mut log = Log::default();
                let mut next = random.i64(0..3);
                log.committed = next;
                for _ in 0..random.usize(0..60) {
                    if random.f64() < 0.15 {
                        next += random.i64(1..4);
                    }
                    if random.f64() < weights.poison {
                        poison.insert((partition, next));
                    }
                    log.offsets.push(next);
                    next += 1;
                }
                log.end = next + random.i64(0..2);
                log
            })
            .collect();
        let passthrough = random.f64() < 0.3;
        Self {
            random,
            weights,
            logs,
            durable: Default::default(),
            unsynced: Vec::new(),
            dead: BTreeSet::new(),
            excused: BTreeSet::new(),
            poison,
            passthrough,
            marks: BTreeMap::new(),
            violation: None,
            trace: Vec::new(),
        }
    }

    pub fn note(&mut self, what: String) {
        self.trace.push(what);
    }

    pub fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }

    pub fn chance(&mut self, weight: impl Fn(&Weights) -> f64) -> bool {
        let weight = weight(&self.weights);
        weight > 0.0 && self.random.f64() < weight
    }

    pub fn pause(&mut self) -> Duration {
        let most = if self.chance(|weights| weights.slow) { 3_000 } else { 20 };
        Duration::from_millis(self.random.u64(0..=most))
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
        hash.u32(0..3)
    }

    pub fn key(partition: usize, offset: Offset) -> Vec<u8> {
        vec![u8::try_from((offset.unsigned_abs() * 7 + partition as u64) % 3).unwrap_or(0)]
    }

    /// A destination writes rows of one call, in order.
    pub fn write(&mut self, sink: usize, writes: impl IntoIterator<Item = Write>) {
        for write in writes {
            if !self.logs[write.partition].ours {
                self.violate(format!("{} was written for a partition that is not ours: {write:?}", SINKS[sink]));
            }
            if sink == 1 {
                self.unsynced.push(write);
            } else {
                self.durable[sink].push(write);
            }
        }
    }

    /// What the file sink wrote for a partition is on the disk.
    pub fn synced(&mut self, partition: usize) {
        let (kept, open) =
            std::mem::take(&mut self.unsynced).into_iter().partition(|write| write.partition == partition);
        let kept: Vec<Write> = kept;
        self.durable[1].extend(kept);
        self.unsynced = open;
    }

    /// A failed sync may have thrown the written pages away.
    pub fn lose_unsynced(&mut self, partition: Option<usize>) {
        self.unsynced.retain(|write| partition.is_some_and(|partition| write.partition != partition));
    }

    /// Why a record is not settled, if it is not.
    pub fn unsettled(&self, partition: usize, offset: Offset) -> Option<String> {
        if self.logs[partition].foreign.contains(&offset) || self.dead.contains(&(None, partition, offset)) {
            return None;
        }
        (0..SINKS.len()).find_map(|sink| {
            let expected = self.yields(sink, partition, offset);
            let arrived: BTreeSet<u32> = self.durable[sink]
                .iter()
                .filter(|write| write.partition == partition && write.offset == offset)
                .map(|write| write.ordinal)
                .collect();
            let dead = self.dead.contains(&(Some(sink), partition, offset));
            (!dead && arrived.len() < expected as usize)
                .then(|| format!("{TOPIC}[{partition}]@{offset} is owed to {}: {arrived:?} of {expected}", SINKS[sink]))
        })
    }

    /// The group's coordinator takes a commit. Nothing below it may be unsettled, and it is ours to make.
    pub fn commit(&mut self, partition: usize, offset: Offset) {
        self.note(format!("commit [{partition}] {offset}"));
        if !self.logs[partition].ours {
            self.violate(format!("a partition that is not ours was committed: [{partition}] to {offset}"));
        }
        if offset < self.logs[partition].committed {
            self.violate(format!("a commit went back: [{partition}] {} to {offset}", self.logs[partition].committed));
        }
        if offset > self.logs[partition].end {
            self.violate(format!("a commit passed the log's end: [{partition}] to {offset}"));
        }
        let from = self.logs[partition].committed;
        let below: Vec<Offset> =
            self.logs[partition].offsets.iter().copied().filter(|one| (from..offset).contains(one)).collect();
        if let Some(owed) = below.into_iter().find_map(|one| self.unsettled(partition, one)) {
            self.violate(format!("committed [{partition}] to {offset} while {owed}"));
        }
        self.check_upserts(partition, offset);
        self.logs[partition].committed = offset;
    }

    /// S76a: the direct and the buffering sink are idempotent. When a partition is committed to `below`, per key nothing
    /// from before it that arrived and was not given up on stands behind an older row of that key.
    fn check_upserts(&mut self, partition: usize, below: Offset) {
        for sink in [0, 2] {
            let mut last: BTreeMap<Vec<u8>, Offset> = BTreeMap::new();
            let mut newest = last.clone();
            for write in self.durable[sink].iter().filter(|write| write.partition == partition) {
                let key = Self::key(partition, write.offset);
                last.insert(key.clone(), write.offset);
                let dead = self.dead.contains(&(Some(sink), partition, write.offset))
                    || self.dead.contains(&(None, partition, write.offset));
                if !dead && write.offset < below {
                    let most = newest.entry(key).or_insert(write.offset);
                    *most = (*most).max(write.offset);
                }
            }
            if let Some((key, newest)) = newest.iter().find(|(key, newest)| last.get(*key) < Some(newest)) {
                let last = last.get(key).copied();
                self.violate(format!("[{partition}] {} ends at {last:?} for {key:?}, newest {newest}", SINKS[sink]));
            }
        }
    }

    /// Order, at the end of everything: what each destination is left with.
    pub fn check_order(&mut self) {
        for partition in 0..self.logs.len() {
            self.check_upserts(partition, Offset::MAX);
        }
        // The file sink never asks for single rows again, so first occurrences ascend per partition.
        let mut seen: BTreeMap<usize, Offset> = BTreeMap::new();
        let mut known: BTreeSet<(usize, Offset)> = BTreeSet::new();
        for write in self.durable[1].clone() {
            let dead = self.dead.contains(&(Some(1), write.partition, write.offset))
                || self.dead.contains(&(None, write.partition, write.offset))
                || self.excused.contains(&(write.partition, write.offset));
            if !dead && known.insert((write.partition, write.offset)) {
                let before = seen.insert(write.partition, write.offset);
                if before.is_some_and(|before| before > write.offset) {
                    self.violate(format!("{}: {write:?} came first after {before:?}", SINKS[1]));
                }
            }
        }
    }
}
