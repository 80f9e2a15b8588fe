//! What guests and destinations can take, drawn once for each seed: calls and buffers beyond it fail, single rows do
//! not.

use std::collections::BTreeMap;

use super::stage::Stage;
use super::weights::Weights;
use super::world::World;
use tidegate::model::{CallError, Fault};

#[derive(Clone, Debug, Default)]
pub struct Capacity {
    /// Rows that a slow destination or plugin gets done before the call's time is up.
    pub slow: BTreeMap<Stage, usize>,
    /// What the buffering sink wishes for in one call; 0 for no wish.
    pub max_rows: usize,
    pub max_bytes: usize,
    /// Rows that one `add` of the guest can take.
    pub call_rows: Option<usize>,
    /// Rows of one partition that the guest has memory for.
    pub memory_rows: Option<usize>,
    /// Rows of one partition that the guest has memory to flush.
    pub flush_rows: Option<usize>,
    /// Rows of one partition from which on it takes no more until they are flushed.
    pub full_rows: Option<usize>,
    /// Bytes that one instance is to be given between two flushes, over all its partitions (S15a).
    pub buffer_bytes: Option<u64>,
    /// Instances of the buffering sink; partitions share them.
    pub slots: usize,
}

impl Capacity {
    pub fn draw(random: &mut fastrand::Rng, weights: &Weights) -> Self {
        let mut slow = BTreeMap::new();
        for stage in Stage::ALL {
            if random.f64() < weights.slow_destination {
                slow.insert(stage, random.usize(1..5));
            }
        }
        let mut limit = |share: f64| (random.f64() < share).then(|| random.usize(1..7));
        Self {
            slow,
            call_rows: limit(weights.limits),
            memory_rows: limit(weights.limits),
            flush_rows: limit(weights.limits),
            full_rows: limit(weights.full),
            buffer_bytes: limit(weights.limits).map(|rows| 100 * (5 + rows) as u64),
            max_rows: [0, 0, 1, 3][random.usize(0..4)],
            max_bytes: [0, 0, 1, 6][random.usize(0..4)],
            slots: random.usize(1..3),
        }
    }

    /// The instance that serves a partition.
    pub fn slot(&self, partition: usize) -> usize {
        partition % self.slots.max(1)
    }
}

impl World {
    /// Why a call with so many rows cannot succeed; `held` are in the guest's buffer already.
    pub fn exceeded(&mut self, stage: Stage, rows: usize, held: usize) -> Option<CallError> {
        let beyond = |limit: Option<usize>, rows: usize| limit.is_some_and(|limit| rows > limit);
        if beyond(self.capacity.slow.get(&stage).copied(), rows) {
            self.mark("slow destination");
            self.mark(format!("too slow in {}", stage.name()));
            let slow = Fault::destination(format!("simulated: {rows} rows take too long"));
            return Some(match stage {
                // A collector computes: nobody else is waited for.
                Stage::Collect => CallError::LimitExceeded(slow),
                _ => CallError::Timeout(slow),
            });
        }
        let limit = |what: &str| CallError::LimitExceeded(Fault::plugin(format!("simulated: {what}")));
        match stage {
            Stage::Add if beyond(self.capacity.call_rows, rows) => {
                self.mark("call too large for its guest");
                Some(limit("the call is too large"))
            }
            Stage::Add if beyond(self.capacity.memory_rows, rows + held) => {
                self.mark("guest memory outgrown");
                // A guest that asks its allocator in vain traps by itself.
                let traps = self.random.u8(0..4) == 0;
                let trap = CallError::Trap(Fault::plugin("simulated: out of memory"));
                Some(if traps { trap } else { limit("the buffer outgrows the memory") })
            }
            Stage::Flush if beyond(self.capacity.flush_rows, rows) => {
                self.mark("guest memory outgrown in flush");
                Some(limit("no memory to encode the buffer"))
            }
            _ => None,
        }
    }
}
