//! Destinations that fail as the world's dice say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::model::{Answer, Batch, CallError, Failure, Fault, TopicPartition};
use tidegate::sink::{Description, Sink, Style};

use super::call::{Call, Host};
use super::world::{World, Write, lock};

pub fn partition(source: &TopicPartition) -> usize {
    usize::try_from(source.partition).unwrap_or(0)
}

pub fn fault(what: &str) -> Fault {
    Fault::destination(format!("simulated: {what}"))
}

fn writes(batch: &Batch, member: usize) -> Vec<Write> {
    let partition = partition(&batch.source);
    batch
        .rows()
        .map(|row| Write {
            partition,
            offset: row.offset,
            ordinal: row.ordinal,
            window: row.value == Some(super::collector::OF_WINDOW),
            zombie: false,
            member,
        })
        .collect()
}

/// How long a destination asks to wait: nothing, now and then, and often the same again.
pub fn patience(world: &mut World) -> Duration {
    let most = [0, 0, 200, 4_000][world.random.usize(0..4)];
    Duration::from_millis(world.random.u64(0..=most))
}

/// Draws what a call answers. Rows that fail are left out of what is written; a whole-call fault may still have written
/// a part, as a connection that breaks half-way does.
fn draw(world: &mut World, sink: usize, rows: &[Write]) -> (Vec<Write>, Answer) {
    if world.chance(|weights| weights.backpressure) {
        world.mark("backpressure");
        return (Vec::new(), Err(CallError::Backpressure(patience(world))));
    }
    if world.chance(|weights| weights.call_retry) {
        world.mark("call failed");
        let written = world.random.usize(0..=rows.len());
        return (rows[..written].to_vec(), Err(CallError::Unknown(fault("connection reset"))));
    }
    // Plugins have no word for it, so the buffering sink never says it.
    if sink != 2 && world.chance(|weights| weights.away) {
        world.mark("destination away");
        return (Vec::new(), Err(CallError::Unavailable(fault("connection refused"))));
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
            failures.push(Failure::unavailable(index, "simulated"));
        } else if sink == 0 && world.chance(|weights| weights.row_hold) {
            world.mark("row held");
            let wait = Duration::from_millis(world.random.u64(0..2_000));
            failures.push(Failure::backpressure(index, wait, "simulated"));
        } else {
            written.push(*row);
        }
    }
    (written, Ok(failures))
}

impl Host {
    /// Writes rows by a call that takes its time and may hang: a part at once, the rest when it answers. Given up in
    /// between, the part stays.
    async fn write(&self, call: Call, sink: usize, at: usize, rows: &[Write]) -> Answer {
        let (claim, mut written, answer, pause) = {
            let mut world = lock(&self.world);
            let claim = world.begin(self.member, call, at, sink);
            let (mut written, answer) = draw(&mut world, sink, rows);
            let at_once = if world.random.bool() { world.random.usize(0..=written.len()) } else { 0 };
            let rest = written.split_off(at_once);
            world.write(claim, sink, written);
            if answer.as_ref().map_or(true, |failures| !failures.is_empty()) {
                world.claims[claim].excused = true;
            }
            let hit = world.point(self.member, call, Some(claim));
            let mut pause = world.pause(hit);
            if world.chance(|weights| weights.hang) {
                world.mark("call hung");
                world.claims[claim].excused = true;
                pause += Duration::from_secs(45);
            }
            (claim, rest, answer, pause)
        };
        tokio::time::sleep(pause).await;
        self.gate().await;
        let mut world = lock(&self.world);
        world.write(claim, sink, written.drain(..));
        world.answered(claim, call, sink, wait(&answer));
        answer
    }
}

pub fn wait<T>(answer: &Result<T, CallError>) -> Option<Duration> {
    match answer {
        Err(CallError::Backpressure(wait)) => Some(*wait),
        _ => None,
    }
}

/// Writes at once. As `files`, what it wrote counts only once it is synced.
pub struct Direct {
    pub host: Host,
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
        let rows = writes(batch, self.host.member);
        self.host.write(Call::Deliver, self.sink, partition(&batch.source), &rows).await
    }

    async fn sync(&self, source: &TopicPartition) -> Result<(), CallError> {
        if self.sink != 1 {
            return Ok(());
        }
        let at = partition(source);
        let claim = self.host.call(Call::Sync, at, self.sink).await;
        let mut world = lock(&self.host.world);
        if world.chance(|weights| weights.sync_fault) {
            world.mark("sync failed");
            world.claims[claim].excused = true;
            world.lose_unsynced(self.host.member, at);
            return Err(CallError::Unknown(fault("fsync failed")));
        }
        world.synced(self.host.member, at);
        Ok(())
    }
}

/// Buffers in an instance that a trap takes away, with the rows of every partition.
pub struct Buffering {
    pub host: Host,
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
    pub fn new(host: Host) -> Self {
        Self { host, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Instance> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// S27: rows that were given to an earlier instance are gone, and nothing may pretend otherwise.
    fn held(&self, partition: usize) -> Result<(), CallError> {
        let state = self.state();
        match state.buffers.get(&partition) {
            Some(buffer) if buffer.generation != state.generation => {
                let mut world = lock(&self.host.world);
                world.mark("buffer lost with its instance");
                let claims = world.claims_of(self.host.member, |_| true);
                for claim in claims {
                    world.claims[claim].excused |= world.claims[claim].partition == partition;
                }
                Err(CallError::BufferLost(Fault::plugin("simulated: the instance was replaced")))
            }
            _ => Ok(()),
        }
    }

    fn show(&self, partition: usize) {
        let rows = self.state().buffers.get(&partition).map_or(0, |buffer| buffer.rows.len());
        lock(&self.host.world).buffers.insert((self.host.member, partition), rows);
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
        let at = partition(&batch.source);
        let claim = self.host.call(Call::Add, at, 2).await;
        self.held(at)?;
        let (taken, answer) = {
            let mut world = lock(&self.host.world);
            let (taken, answer) = draw(&mut world, 2, &writes(batch, self.host.member));
            if answer.as_ref().map_or(true, |failures| !failures.is_empty()) {
                world.claims[claim].excused = true;
            }
            world.answered(claim, Call::Add, 2, wait(&answer));
            (taken, answer)
        };
        {
            let mut state = self.state();
            if matches!(answer, Err(CallError::Trap(_))) {
                state.generation += 1;
            }
            if let Ok(failures) = &answer {
                let generation = state.generation;
                let buffer = state.buffers.entry(at).or_insert(Buffer { generation, ..Buffer::default() });
                let refused: Vec<u32> = failures.iter().map(|failure| failure.index).collect();
                let places = (0..u32::try_from(batch.len()).unwrap_or(0)).filter(|row| !refused.contains(row));
                let given = buffer.given;
                buffer.rows.extend(places.map(|row| given + row).zip(taken));
                buffer.given += u32::try_from(batch.len()).unwrap_or(0);
            }
        }
        self.show(at);
        answer
    }

    async fn flush(&self, source: &TopicPartition) -> Answer {
        let at = partition(source);
        self.held(at)?;
        let buffer = self.state().buffers.remove(&at).unwrap_or_default();
        self.show(at);
        let rows: Vec<Write> = buffer.rows.iter().map(|(_, write)| *write).collect();
        let answer = self.host.write(Call::Flush, 2, at, &rows).await;
        if matches!(answer, Err(CallError::Trap(_))) {
            self.state().generation += 1;
        }
        answer.map(|failures| {
            failures
                .into_iter()
                .map(|failure| Failure { index: buffer.rows[failure.index as usize].0, ..failure })
                .collect()
        })
    }

    async fn discard(&self, source: &TopicPartition) {
        let at = partition(source);
        let claim = {
            let mut world = lock(&self.host.world);
            let claim = world.begin(self.host.member, Call::Discard, at, 2);
            world.point(self.host.member, Call::Discard, Some(claim));
            claim
        };
        let hung = lock(&self.host.world).chance(|weights| weights.hang);
        if hung {
            lock(&self.host.world).mark("discard hung");
        }
        tokio::time::sleep(if hung { Duration::from_secs(45) } else { Duration::from_millis(5) }).await;
        self.host.gate().await;
        lock(&self.host.world).note(format!("discard [{at}] under claim {claim}"));
        self.state().buffers.remove(&at);
        self.show(at);
    }
}
