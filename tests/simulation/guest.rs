//! One instance of the buffering guest as the contract (wit/plugin.wit) lets one be, with what it really holds.

use std::collections::{BTreeMap, BTreeSet};

use super::world::Write;

#[derive(Debug, Default)]
pub struct Guest {
    /// Counts the instances that served in this place.
    generation: u64,
    buffers: BTreeMap<usize, Buffer>,
    /// Partitions whose last call ended in a fault, so that `discard` has to be the next one.
    faulted: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Buffer {
    generation: u64,
    /// Rows of all accepted adds since the last flush or discard, refused ones included: what failure indices count.
    given: u32,
    rows: Vec<(u32, Write)>,
    bytes: u64,
}

impl Guest {
    /// Whether what was added of the partition went with an earlier instance.
    pub fn has_lost(&self, partition: usize) -> bool {
        self.buffers.get(&partition).is_some_and(|buffer| buffer.generation != self.generation)
    }

    /// Whether a call other than `discard` breaks the contract.
    pub fn must_discard(&self, partition: usize) -> bool {
        self.faulted.contains(&partition)
    }

    /// The rows that it holds, in the order of their adds.
    pub fn rows(&self, partition: usize) -> Vec<Write> {
        self.held(partition).iter().map(|(_, row)| *row).collect()
    }

    /// The index by which the guest names one of the rows that it holds.
    pub fn index(&self, partition: usize, place: usize) -> u32 {
        self.held(partition).get(place).map_or(u32::MAX, |(index, _)| *index)
    }

    fn held(&self, partition: usize) -> &[(u32, Write)] {
        let buffer = self.buffers.get(&partition).filter(|buffer| buffer.generation == self.generation);
        buffer.map(|buffer| buffer.rows.as_slice()).unwrap_or_default()
    }

    /// A call with these rows was accepted, save those refused by index.
    pub fn add(&mut self, partition: usize, rows: &[Write], bytes: u64, refused: &BTreeSet<u32>) {
        let generation = self.generation;
        let buffer = self.buffers.entry(partition).or_insert(Buffer { generation, ..Buffer::default() });
        for (index, row) in (0u32..).zip(rows) {
            if !refused.contains(&index) {
                buffer.rows.push((buffer.given + index, *row));
            }
        }
        buffer.given += u32::try_from(rows.len()).unwrap_or(0);
        buffer.bytes += bytes * (rows.len() - refused.len()) as u64 / rows.len().max(1) as u64;
    }

    /// Bytes that this instance was given and did not flush, over all partitions.
    pub fn bytes(&self) -> u64 {
        let held = self.buffers.values().filter(|buffer| buffer.generation == self.generation);
        held.map(|buffer| buffer.bytes).sum()
    }

    /// The buffer is empty, and its indices start anew.
    pub fn clear(&mut self, partition: usize) {
        self.buffers.remove(&partition);
    }

    /// A call failed as a whole. The guest may forget what it holds of the partition, or keep it.
    pub fn fault(&mut self, partition: usize, forgets: bool) {
        self.faulted.insert(partition);
        if forgets {
            self.clear(partition);
        }
    }

    /// The instance is gone, in a call for that partition, with the buffers of all of them; of those that had none,
    /// nothing is lost.
    pub fn retire(&mut self, partition: usize) {
        let generation = self.generation;
        self.buffers.entry(partition).or_insert(Buffer { generation, ..Buffer::default() });
        self.faulted.insert(partition);
        self.generation += 1;
    }

    pub fn discard(&mut self, partition: usize) {
        self.clear(partition);
        self.faulted.remove(&partition);
    }
}
