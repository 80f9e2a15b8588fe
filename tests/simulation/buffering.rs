//! The buffering sink: places with one guest each, which partitions share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidegate::model::{Answer, Batch, CallError, Failure, Fault, TopicPartition};
use tidegate::sink::{BufferLimit, Description, Sink, Style};

use super::call::{Call, Host};
use super::draw::Drawn;
use super::guest::Guest;
use super::sinks::{partition, wait, writes};
use super::stage::{BUFFERING, Stage};
use super::world::{World, Write, lock};

pub struct Buffering {
    pub host: Host,
}

/// A call to a guest. Given up before it has answered, it takes the instance with it, as the host cannot know how far
/// it came.
struct Running<'a> {
    host: &'a Host,
    partition: usize,
    answered: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let mut world = lock(&self.host.world);
            world.mark("instance retired with a call that was given up");
            world.guest(self.host.member, self.partition).retire(self.partition);
        }
    }
}

impl World {
    pub fn guest(&mut self, member: usize, partition: usize) -> &mut Guest {
        let slot = self.capacity.slot(partition);
        self.guests.entry((member, slot)).or_default()
    }

    /// What a member's guest really holds of a partition.
    pub fn held(&self, member: usize, partition: usize) -> Vec<Write> {
        let slot = self.capacity.slot(partition);
        self.guests.get(&(member, slot)).map(|guest| guest.rows(partition)).unwrap_or_default()
    }

    /// A call other than `discard` reaches the guest. S27a: after a fault none may; S27: what went with an earlier
    /// instance is gone, and nothing may pretend otherwise.
    fn enter(&mut self, member: usize, partition: usize, claim: usize, stage: Stage) -> Result<(), CallError> {
        let guest = self.guest(member, partition);
        let (must_discard, lost) = (guest.must_discard(partition), guest.has_lost(partition));
        if must_discard {
            self.violate(format!("[{partition}] discard was skipped: {} came after a fault", stage.name()));
        }
        if lost {
            self.mark("buffer lost to a neighbour's trap");
            self.claims[claim].excused = true;
            self.guest(member, partition).fault(partition, false);
            return Err(CallError::BufferLost(Fault::plugin("simulated: the instance was replaced")));
        }
        Ok(())
    }

    /// S15a: an instance is given no more than it said, save a single row that is larger.
    fn check_limit(&mut self, member: usize, partition: usize, rows: usize, bytes: u64) {
        let Some(limit) = self.capacity.buffer_bytes else { return };
        let held = self.guest(member, partition).bytes();
        if held + bytes > limit && (rows > 1 || held > 0) {
            self.violate(format!("[{partition}] {bytes} bytes were added to {held}, with a limit of {limit}"));
        }
    }

    /// A call of the guest failed as a whole: what is left of its buffer is its own affair until the host discards it.
    fn fail(&mut self, member: usize, partition: usize, stage: Stage, error: &CallError) {
        match error {
            CallError::Backpressure(_) if stage == Stage::Flush => self.guest(member, partition).clear(partition),
            CallError::Trap(_) | CallError::LimitExceeded(_) | CallError::Timeout(_) => {
                self.guest(member, partition).retire(partition);
            }
            _ => {
                let forgets = self.random.bool();
                let held = !self.held(member, partition).is_empty();
                if held {
                    let does = if forgets { "forgot" } else { "kept" };
                    self.mark(format!("{} failed and the guest {does} its buffer", stage.name()));
                }
                self.guest(member, partition).fault(partition, forgets);
            }
        }
    }
}

#[async_trait]
impl Sink for Buffering {
    fn description(&self) -> Description {
        let world = lock(&self.host.world);
        let (max_rows, max_bytes) = (world.capacity.max_rows, world.capacity.max_bytes);
        Description { style: Style::Buffering, max_rows, max_bytes, ..Description::direct(true) }
    }

    fn buffer_limit(&self, source: &TopicPartition) -> Option<BufferLimit> {
        let capacity = &lock(&self.host.world).capacity;
        let instance = capacity.slot(partition(source));
        capacity.buffer_bytes.map(|max_bytes| BufferLimit { instance, max_bytes })
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, _batch: &Arc<Batch>) -> Answer {
        Err(CallError::Fatal(Fault::host("simulated: not a direct sink")))
    }

    async fn add(&self, batch: &Arc<Batch>) -> Answer {
        let (at, member) = (partition(&batch.source), self.host.member);
        let rows = writes(&self.host, BUFFERING, batch);
        let mut running = Running { host: &self.host, partition: at, answered: false };
        let claim = self.host.call(Call::Add, at, BUFFERING).await;
        let extra = {
            let mut world = lock(&self.host.world);
            let hang = world.hang(claim);
            if world.chance(|weights| weights.slow) { hang + Duration::from_secs(1) } else { hang }
        };
        tokio::time::sleep(extra).await;
        self.host.gate().await;
        let mut world = lock(&self.host.world);
        running.answered = true;
        world.enter(member, at, claim, Stage::Add)?;
        let (held, bytes) = (world.held(member, at).len(), BufferLimit::bytes_of(batch));
        world.check_limit(member, at, rows.len(), bytes);
        if world.capacity.max_rows == 1 {
            world.mark("max_rows 1");
        }
        let Drawn { answer, .. } = world.draw(Stage::Add, &rows, held);
        if answer.as_ref().map_or(true, |failures| !failures.is_empty()) {
            world.claims[claim].excused = true;
        }
        match &answer {
            Ok(failures) => {
                let refused: BTreeSet<u32> = failures.iter().map(|failure| failure.index).collect();
                world.guest(member, at).add(at, &rows, bytes, &refused);
            }
            Err(CallError::Backpressure(_)) => {}
            Err(error) => {
                world.asked_anew(claim, Call::Flush);
                world.fail(member, at, Stage::Add, error);
            }
        }
        world.answered(claim, Call::Add, BUFFERING, wait(&answer));
        world.heard(member, Stage::Add, &rows, rows.len() == 1 && held == 0, &answer);
        let said = said(&answer);
        world.note(format!("[{at}] add of {} to {held}: {said}", rows.len()));
        answer
    }

    /// Writes a part at once, the rest when it answers. Given up in between, the part stays.
    async fn flush(&self, source: &TopicPartition) -> Answer {
        let (at, member) = (partition(source), self.host.member);
        let mut running = Running { host: &self.host, partition: at, answered: false };
        let (claim, rows, rest, answer, pause) = {
            let mut world = lock(&self.host.world);
            let claim = world.begin(member, Call::Flush, at, BUFFERING);
            if let Err(error) = world.enter(member, at, claim, Stage::Flush) {
                drop(world);
                running.answered = true;
                return Err(error);
            }
            let rows = world.held(member, at);
            let Drawn { mut written, answer, extra } = world.draw(Stage::Flush, &rows, 0);
            let at_once = if world.random.bool() { world.random.usize(0..=written.len()) } else { 0 };
            let rest = written.split_off(at_once);
            world.write(claim, BUFFERING, written);
            if answer.as_ref().map_or(true, |failures| !failures.is_empty()) {
                world.claims[claim].excused = true;
            }
            let hit = world.point(member, Call::Flush, Some(claim));
            let pause = world.pause(hit) + extra + world.hang(claim);
            (claim, rows, rest, answer, pause)
        };
        tokio::time::sleep(pause).await;
        self.host.gate().await;
        let mut world = lock(&self.host.world);
        running.answered = true;
        // Another partition's call may have taken the instance meanwhile.
        if world.guest(member, at).has_lost(at) {
            world.answered(claim, Call::Flush, BUFFERING, None);
            world.enter(member, at, claim, Stage::Flush)?;
        }
        world.write(claim, BUFFERING, rest);
        world.answered(claim, Call::Flush, BUFFERING, wait(&answer));
        world.heard(member, Stage::Flush, &rows, rows.len() == 1, &answer);
        let said = said(&answer);
        world.note(format!("[{at}] flush of {}: {said}", rows.len()));
        match answer {
            Ok(failures) => {
                let guest = world.guest(member, at);
                let named = |failure: Failure| Failure { index: guest.index(at, failure.index as usize), ..failure };
                let failures = failures.into_iter().map(named).collect();
                guest.clear(at);
                world.room_made(claim);
                Ok(failures)
            }
            Err(error) => {
                world.fail(member, at, Stage::Flush, &error);
                Err(error)
            }
        }
    }

    async fn discard(&self, source: &TopicPartition) {
        let at = partition(source);
        let claim = {
            let mut world = lock(&self.host.world);
            let claim = world.begin(self.host.member, Call::Discard, at, BUFFERING);
            world.point(self.host.member, Call::Discard, Some(claim));
            claim
        };
        let hung = lock(&self.host.world).chance(|weights| weights.hang);
        if hung {
            lock(&self.host.world).mark("discard hung");
        }
        tokio::time::sleep(if hung { Duration::from_secs(45) } else { Duration::from_millis(5) }).await;
        self.host.gate().await;
        let mut world = lock(&self.host.world);
        world.note(format!("discard [{at}] under claim {claim}"));
        world.guest(self.host.member, at).discard(at);
        world.room_made(claim);
    }
}

/// An answer in the trace.
fn said(answer: &Answer) -> String {
    match answer {
        Ok(failures) => format!("{} failed", failures.len()),
        Err(CallError::Backpressure(wait)) => format!("backpressure for {wait:?}"),
        Err(error) => error.to_string(),
    }
}
