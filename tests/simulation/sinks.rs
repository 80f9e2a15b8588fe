//! Destinations, the dead letter queue and a collector that fail as the world's dice say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::collect::{Collect, Collected, DeliveryError};
use tidegate::model::{Action, Answer, Batch, CallError, Failure, Fault, Payload, SinkKind, TopicPartition};
use tidegate::pipeline::dlq::{DeadLetters, Letter};
use tidegate::sink::{Description, Sink, Style};

use super::world::{SINKS, Shared, Write, lock};

fn partition(source: &TopicPartition) -> usize {
    usize::try_from(source.partition).unwrap_or(0)
}

fn writes(batch: &Batch) -> Vec<Write> {
    batch
        .rows()
        .map(|row| Write { partition: partition(&batch.source), offset: row.offset, ordinal: row.ordinal })
        .collect()
}

fn fault(what: &str) -> Fault {
    Fault::destination(format!("simulated: {what}"))
}

/// Draws what a call answers. Rows that fail are left out of what is written; a whole-call fault may still have written
/// a part, as a connection that breaks half-way does.
fn draw(world: &Shared, sink: usize, rows: &[Write]) -> (Vec<Write>, Answer) {
    let mut world = lock(world);
    if world.chance(|weights| weights.backpressure) {
        world.mark("backpressure");
        let wait = world.random.u64(0..4_000);
        return (Vec::new(), Err(CallError::Backpressure(Duration::from_millis(wait))));
    }
    if world.chance(|weights| weights.call_retry) {
        world.mark("call failed");
        let written = world.random.usize(0..=rows.len());
        return (rows[..written].to_vec(), Err(CallError::Retry(fault("connection reset"))));
    }
    // Plugins have no word for it, so the buffering sink never says it.
    if sink != 2 && world.chance(|weights| weights.away) {
        world.mark("destination away");
        return (Vec::new(), Err(CallError::Away(fault("connection refused"))));
    }
    if world.chance(|weights| weights.trap) {
        world.mark("trap");
        if let (1, [row]) = (sink, rows) {
            world.excused.insert((row.partition, row.offset));
        }
        return (Vec::new(), Err(CallError::Trap(Fault::plugin("simulated: trap"))));
    }
    let (mut written, mut failures) = (Vec::new(), Vec::new());
    for (index, row) in (0..).zip(rows) {
        if world.chance(|weights| weights.row_reject) {
            world.mark("row rejected");
            if sink == 1 {
                world.excused.insert((row.partition, row.offset));
            }
            failures.push(Failure::reject(index, "simulated"));
        } else if sink != 1 && world.chance(|weights| weights.row_retry) {
            world.mark("row to retry");
            failures.push(Failure::retry(index, "simulated"));
        } else if sink == 0 && world.chance(|weights| weights.row_away) {
            world.mark("row not written, destination away");
            failures.push(Failure::away(index, "simulated"));
        } else if sink == 0 && world.chance(|weights| weights.row_hold) {
            world.mark("row held");
            let wait = Duration::from_millis(world.random.u64(0..2_000));
            failures.push(Failure::hold(index, wait, "simulated"));
        } else {
            written.push(*row);
        }
    }
    (written, Ok(failures))
}

async fn think(world: &Shared) {
    let (pause, hang) = {
        let mut world = lock(world);
        let hang = world.chance(|weights| weights.hang);
        (world.pause(), hang)
    };
    tokio::time::sleep(pause).await;
    if hang {
        lock(world).mark("call hung");
        tokio::time::sleep(Duration::from_secs(45)).await;
    }
}

/// Writes at once. As `files`, what it wrote counts only once it is synced.
pub struct Direct {
    pub world: Shared,
    pub sink: usize,
}

#[async_trait]
impl Sink for Direct {
    fn description(&self) -> Description {
        Description { max_rows: if self.sink == 0 { 7 } else { 0 }, ..Description::direct(self.sink == 0) }
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        think(&self.world).await;
        let (written, answer) = draw(&self.world, self.sink, &writes(batch));
        lock(&self.world).write(self.sink, written);
        answer
    }

    async fn sync(&self, source: &TopicPartition) -> Result<(), CallError> {
        if self.sink != 1 {
            return Ok(());
        }
        think(&self.world).await;
        let mut world = lock(&self.world);
        if world.chance(|weights| weights.sync_fault) {
            world.mark("sync failed");
            world.lose_unsynced(Some(partition(source)));
            return Err(CallError::Retry(fault("fsync failed")));
        }
        world.synced(partition(source));
        Ok(())
    }
}

/// Buffers in an instance that a trap takes away, with the rows of every partition.
pub struct Buffering {
    pub world: Shared,
    state: Mutex<Instance>,
}

#[derive(Default)]
struct Instance {
    generation: u64,
    buffers: BTreeMap<usize, Buffer>,
}

#[derive(Default)]
struct Buffer {
    generation: u64,
    /// Rows of all adds so far, refused ones included: what failure indices count.
    given: u32,
    rows: Vec<(u32, Write)>,
}

impl Buffering {
    pub fn new(world: Shared) -> Self {
        Self { world, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Instance> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// S27: rows that were given to an earlier instance are gone, and nothing may pretend otherwise.
    fn held(&self, partition: usize) -> Result<(), CallError> {
        let state = self.state();
        match state.buffers.get(&partition) {
            Some(buffer) if buffer.generation != state.generation => {
                Err(CallError::BufferLost(Fault::plugin("simulated: the instance was replaced")))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Sink for Buffering {
    fn description(&self) -> Description {
        Description { style: Style::Buffering, ..Description::direct(true) }
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, _batch: &Arc<Batch>) -> Answer {
        Err(CallError::Fatal(Fault::host("simulated: not a direct sink")))
    }

    async fn add(&self, batch: &Arc<Batch>) -> Answer {
        think(&self.world).await;
        let partition = partition(&batch.source);
        self.held(partition)?;
        let (taken, answer) = draw(&self.world, 2, &writes(batch));
        let mut state = self.state();
        if matches!(answer, Err(CallError::Trap(_))) {
            state.generation += 1;
        }
        if let Ok(failures) = &answer {
            let generation = state.generation;
            let buffer = state.buffers.entry(partition).or_insert(Buffer { generation, ..Buffer::default() });
            let refused: Vec<u32> = failures.iter().map(|failure| failure.index).collect();
            let places = (0..u32::try_from(batch.len()).unwrap_or(0)).filter(|row| !refused.contains(row));
            let given = buffer.given;
            buffer.rows.extend(places.map(|row| given + row).zip(taken));
            buffer.given += u32::try_from(batch.len()).unwrap_or(0);
        }
        answer
    }

    async fn flush(&self, source: &TopicPartition) -> Answer {
        think(&self.world).await;
        let partition = partition(source);
        self.held(partition)?;
        let buffer = self.state().buffers.remove(&partition).unwrap_or_default();
        let rows: Vec<Write> = buffer.rows.iter().map(|(_, write)| *write).collect();
        let (written, answer) = draw(&self.world, 2, &rows);
        if matches!(answer, Err(CallError::Trap(_))) {
            self.state().generation += 1;
        }
        lock(&self.world).write(2, written);
        answer.map(|failures| {
            failures
                .into_iter()
                .map(|failure| Failure { index: buffer.rows[failure.index as usize].0, ..failure })
                .collect()
        })
    }

    async fn discard(&self, source: &TopicPartition) {
        self.state().buffers.remove(&partition(source));
    }
}

pub struct Queue {
    pub world: Shared,
}

#[async_trait]
impl DeadLetters for Queue {
    async fn send(&self, letters: &[Letter]) -> Result<(), Fault> {
        think(&self.world).await;
        let mut world = lock(&self.world);
        if world.chance(|weights| weights.dlq_fault) {
            world.mark("dead letter queue failed");
            return Err(fault("dead letter queue down"));
        }
        for letter in letters {
            let name = format!("{}/{}", letter.sink_type, letter.sink_name);
            let sink = SINKS.iter().position(|sink| *sink == name);
            world.mark(if sink.is_some() { "payload dead-lettered" } else { "record dead-lettered" });
            let at = partition(&letter.source);
            if !world.logs[at].ours {
                world.violate(format!("a dead letter was written for a partition that is not ours: [{at}]"));
            }
            world.dead.insert((sink, at, letter.offset));
        }
        Ok(())
    }

    async fn connect(&self) -> Result<(), Fault> {
        Ok(())
    }

    async fn close(&self) {}
}

pub struct Collector {
    pub world: Shared,
}

impl Collector {
    /// Traps on poisonous records, always; and on a throw of the dice.
    async fn enter(&self, batch: &Batch) -> Result<(), CallError> {
        think(&self.world).await;
        let mut world = lock(&self.world);
        let at = partition(&batch.source);
        if let Some(offset) = batch.offsets.iter().find(|offset| world.poison.contains(&(at, **offset))) {
            let offset = *offset;
            world.mark("poison");
            return Err(CallError::Trap(Fault::plugin(format!("simulated: poison at {offset}"))));
        }
        if world.chance(|weights| weights.collect_fault) {
            world.mark("collect failed");
            return Err(match world.random.u8(0..4) {
                0 => CallError::Backpressure(Duration::from_millis(50)),
                1 => CallError::Timeout(fault("a look-up hung")),
                2 => CallError::BufferLost(Fault::plugin("simulated: replaced in between")),
                _ => CallError::Retry(fault("a look-up failed")),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Collect for Collector {
    async fn collect(&self, batch: &Arc<Batch>) -> Result<Collected, CallError> {
        self.enter(batch).await?;
        let mut world = lock(&self.world);
        world.mark("collect call");
        let at = partition(&batch.source);
        let mut lists: Vec<(SinkKind, Vec<Payload>)> =
            [SinkKind::Kafka, SinkKind::Filesystem, SinkKind::Plugin].map(|kind| (kind, Vec::new())).into();
        let mut failed = Vec::new();
        for (index, offset) in (0..).zip(&batch.offsets) {
            if world.chance(|weights| weights.row_retry / 4.0) {
                world.mark("collect row to retry");
                failed.push(Failure::retry(index, "simulated"));
            }
            for (sink, (_, list)) in lists.iter_mut().enumerate() {
                for _ in 0..world.yields(sink, at, *offset) {
                    let key = Some(super::world::World::key(at, *offset));
                    list.push(Payload { index, key, value: Some(b"{}".to_vec()), ..Payload::default() });
                }
            }
        }
        Ok(Collected::Payloads { payloads: lists, failed })
    }

    async fn probe(&self, batch: &Arc<Batch>) -> Result<(), CallError> {
        self.enter(batch).await
    }

    fn has_delivery_hook(&self) -> bool {
        true
    }

    async fn delivery_error(&self, error: &DeliveryError) -> Action {
        think(&self.world).await;
        let mut world = lock(&self.world);
        match world.random.u8(0..10) {
            0 => Action::Dlq,
            1 => {
                world.mark("payload skipped");
                let name = format!("{}/{}", error.kind, error.name);
                let sink = SINKS.iter().position(|sink| *sink == name);
                let at = partition(&error.source);
                world.dead.extend(error.offsets.iter().map(|offset| (sink, at, *offset)));
                Action::Skip
            }
            2 => Action::Abort,
            3 => Action::Backpressure(Duration::from_millis(20)),
            _ => {
                world.mark("payload retried");
                Action::Retry
            }
        }
    }
}
