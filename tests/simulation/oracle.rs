//! What must hold at every step: nothing lost, nothing committed early, order kept.

use std::collections::{BTreeMap, BTreeSet};

use tidegate::model::Offset;

use super::group::Standing;
use super::stage::Stage;
use super::world::{Row, SINKS, TOPIC, World};

impl World {
    /// Whether the row is in the dead letter queue, by itself or with its record, or was skipped.
    fn is_dead(&self, row: Row) -> bool {
        let (_, partition, offset, ..) = row;
        self.dead_rows.contains(&row) || self.dead_records.contains(&(partition, offset))
    }

    /// Why a record is not settled, if it is not.
    pub fn unsettled(&self, partition: usize, offset: Offset) -> Option<String> {
        if self.dead_records.contains(&(partition, offset)) {
            return None;
        }
        let hooked = self.logs[partition].hooked.get(&offset);
        (0..SINKS.len()).find_map(|sink| {
            let is_owed = |window: bool, ordinal: u32| {
                let row = (sink, partition, offset, window, ordinal);
                !self.arrived.contains(&row) && !self.dead_rows.contains(&row)
            };
            let expected = self.yields(sink, partition, offset);
            let wanted = hooked.map_or(0, |counts| counts[sink]);
            let own = (0..expected).find(|ordinal| is_owed(false, *ordinal));
            let of_window = (0..wanted).find(|ordinal| is_owed(true, *ordinal));
            let what = match (own, of_window) {
                (Some(ordinal), _) => format!("payload {ordinal} of {expected}"),
                (None, Some(ordinal)) => format!("the window's own, {ordinal} of {wanted}"),
                (None, None) => return None,
            };
            Some(format!("{TOPIC}[{partition}]@{offset} is owed to {}: {what}", SINKS[sink]))
        })
    }

    /// The group's coordinator is asked to commit. `false`: the claim is not the owner's, so that nothing happens.
    /// Nothing below it may be unsettled.
    pub fn commit(&mut self, claim: usize, offset: Offset) -> bool {
        let partition = self.claims[claim].partition;
        if self.logs[partition].owner != Some(claim) {
            self.note(format!("commit [{partition}] {offset} by claim {claim} refused"));
            self.mark("commit refused");
            return false;
        }
        self.note(format!("commit [{partition}] {offset} by claim {claim}"));
        if !matches!(self.claims[claim].standing, Standing::Held | Standing::Leaving) {
            self.violate(format!("[{partition}] was committed to {offset} though its loss had been told"));
        }
        if offset < self.logs[partition].committed {
            self.violate(format!("a commit went back: [{partition}] {} to {offset}", self.logs[partition].committed));
        }
        if offset > self.logs[partition].end {
            self.violate(format!("a commit passed the log's end: [{partition}] to {offset}"));
        }
        let from = self.logs[partition].committed;
        let log = &self.logs[partition];
        let below: Vec<Offset> = log.offsets.iter().copied().filter(|one| (from..offset).contains(one)).collect();
        if let Some(owed) = below.into_iter().find_map(|one| self.unsettled(partition, one)) {
            self.violate(format!("committed [{partition}] to {offset} while {owed}"));
        }
        let member = self.claims[claim].member;
        if let Some(row) = self.held(member, partition).into_iter().find(|row| row.offset < offset) {
            self.violate(format!("committed [{partition}] to {offset} while the guest still holds {}", row.name()));
        }
        self.check_upserts(partition, offset);
        self.logs[partition].committed = offset;
        true
    }

    /// S76a: the direct and the buffering sink are idempotent. When a partition is committed to `below`, per key
    /// nothing from before it that arrived and was not given up on stands behind an older row of that key. What a
    /// member wrote that was not the owner any more and did not know it is left out: only a fencing transaction could
    /// order it.
    pub fn check_upserts(&mut self, partition: usize, below: Offset) {
        for sink in [0, 2] {
            let mut last: BTreeMap<Vec<u8>, Offset> = BTreeMap::new();
            let mut newest = last.clone();
            for write in self.durable[sink].iter().filter(|write| write.partition == partition) {
                // The window's own payloads belong to windows, which are cut anew when their records come again.
                if write.zombie || write.window {
                    continue;
                }
                let key = Self::key(partition, write.offset);
                last.insert(key.clone(), write.offset);
                if !self.is_dead(write.row(sink)) && write.offset < below {
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

    /// Everything, at the end of everything.
    pub fn check_end(&mut self) {
        for partition in 0..self.logs.len() {
            let log = &self.logs[partition];
            if log.committed != log.end {
                let (committed, end) = (log.committed, log.end);
                self.violate(format!("[{partition}] is stuck at {committed} of {end}"));
            }
            for offset in self.logs[partition].offsets.clone() {
                if let Some(owed) = self.unsettled(partition, offset) {
                    self.violate(format!("lost: {owed}"));
                }
            }
            self.check_upserts(partition, Offset::MAX);
        }
        self.check_files();
        self.check_flaws();
    }

    /// Chosen rows that stay as they are end as dead letters, and their neighbours arrive.
    fn check_flaws(&mut self) {
        let mut neighbours = 0;
        for ((stage, partition, offset), _) in self.flaws.rows.clone() {
            let Some(flaw) = self.flaw(stage, partition, offset) else { continue };
            if self.dead_records.contains(&(partition, offset)) || (stage == Stage::Collect && self.passthrough) {
                continue;
            }
            let rows = stage.sink().map_or(0..0, |sink| 0..self.yields(sink, partition, offset));
            let is_dead =
                |ordinal| stage.sink().is_some_and(|sink| self.is_dead((sink, partition, offset, false, ordinal)));
            let given_up = stage.sink().is_some() && rows.into_iter().all(is_dead);
            if !given_up {
                self.violate(format!(
                    "[{partition}]@{offset} {} in {}, and is no dead letter",
                    flaw.name(),
                    stage.name()
                ));
            }
            let after = self.logs[partition].offsets.iter().copied().find(|next| *next > offset);
            neighbours += u64::from(stage.sink().zip(after).is_some_and(|(sink, after)| {
                self.arrived.contains(&(sink, partition, after, false, 0)) && self.unsettled(partition, after).is_none()
            }));
        }
        if neighbours > 0 {
            self.mark("neighbours of a chosen row delivered");
        }
    }

    /// The file sink never asks for single rows again, so first occurrences ascend per partition.
    fn check_files(&mut self) {
        let mut seen: BTreeMap<usize, Offset> = BTreeMap::new();
        let mut known: BTreeSet<(usize, Offset)> = BTreeSet::new();
        for write in self.durable[1].clone() {
            let dead = self.is_dead(write.row(1)) || self.excused.contains(&(write.partition, write.offset));
            // The window's own payloads come in a round of their own, under its last offset.
            if !dead && !write.zombie && !write.window && known.insert((write.partition, write.offset)) {
                let before = seen.insert(write.partition, write.offset);
                if before.is_some_and(|before| before > write.offset) {
                    self.violate(format!("{}: {write:?} came first after {before:?}", SINKS[1]));
                }
            }
        }
    }
}
