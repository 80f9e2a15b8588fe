//! Direct destinations.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidegate::model::{Answer, Batch, CallError, TopicPartition};
use tidegate::sink::{Description, Sink};

use super::call::{Call, Host};
use super::draw::{Drawn, fault};
use super::payload;
use super::stage::Stage;
use super::world::{Write, lock};

pub fn partition(source: &TopicPartition) -> usize {
    usize::try_from(source.partition).unwrap_or(0)
}

/// The rows of a call.
pub fn writes(host: &Host, sink: usize, batch: &Batch) -> Vec<Write> {
    let partition = partition(&batch.source);
    let mut writes = Vec::with_capacity(batch.len());
    for row in batch.rows() {
        let (window, ordinal) = payload::identity(row.value.unwrap_or_default());
        if !window && ordinal != row.ordinal {
            let text = format!("[{partition}]@{}.{ordinal} came to sink {sink} as .{}", row.offset, row.ordinal);
            lock(&host.world).violate(text);
        }
        writes.push(Write { partition, offset: row.offset, ordinal, window, zombie: false, member: host.member });
    }
    writes
}

/// The wait that an answer asked for.
pub fn wait<T>(answer: &Result<T, CallError>) -> Option<Duration> {
    match answer {
        Err(CallError::Backpressure(wait)) => Some(*wait),
        _ => None,
    }
}

/// A call that the host stops waiting for: to the host it has timed out.
struct Unanswered<'a> {
    host: &'a Host,
    stage: Stage,
    rows: &'a [Write],
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let timeout = Err(CallError::Timeout(fault("given up")));
            lock(&self.host.world).heard(self.host.member, self.stage, self.rows, self.rows.len() == 1, &timeout);
        }
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

    /// Writes a part at once, the rest when it answers. Given up in between, the part stays.
    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        let rows = writes(&self.host, self.sink, batch);
        let (stage, member) = (Stage::Deliver(self.sink), self.host.member);
        let mut unanswered = Unanswered { host: &self.host, stage, rows: &rows, answered: false };
        let (claim, rest, answer, pause) = {
            let mut world = lock(&self.host.world);
            let claim = world.begin(member, Call::Deliver, partition(&batch.source), self.sink);
            let Drawn { mut written, answer, extra } = world.draw(stage, &rows, 0);
            let at_once = if world.random.bool() { world.random.usize(0..=written.len()) } else { 0 };
            let rest = written.split_off(at_once);
            world.write(claim, self.sink, written);
            if answer.as_ref().map_or(true, |failures| !failures.is_empty()) {
                world.claims[claim].excused = true;
            }
            // Rows behind a refused one may be written although its refusal is never heard.
            for failure in answer.iter().flatten() {
                let row = rows[failure.index as usize];
                world.excuse(stage, row.partition, row.offset);
            }
            let hit = world.point(member, Call::Deliver, Some(claim));
            let pause = world.pause(hit) + extra + world.hang(claim);
            (claim, rest, answer, pause)
        };
        tokio::time::sleep(pause).await;
        self.host.gate().await;
        let mut world = lock(&self.host.world);
        unanswered.answered = true;
        world.write(claim, self.sink, rest);
        world.answered(claim, Call::Deliver, self.sink, wait(&answer));
        world.heard(member, stage, &rows, rows.len() == 1, &answer);
        answer
    }

    /// As `files` it forgets what it would still have to sync: nobody ever will, so that a power cut may take it.
    async fn discard(&self, source: &TopicPartition) {
        if self.sink == 1 {
            lock(&self.host.world).lose_unsynced(self.host.member, partition(source));
        }
    }

    async fn sync(&self, source: &TopicPartition) -> Result<(), CallError> {
        if self.sink != 1 {
            return Ok(());
        }
        let at = partition(source);
        let begun = lock(&self.host.world).unsynced_writes(self.host.member, at);
        let claim = self.host.call(Call::Sync, at, self.sink).await;
        let mut world = lock(&self.host.world);
        if world.chance(|weights| weights.sync_fault) {
            world.mark("sync failed");
            world.claims[claim].excused = true;
            world.lose_unsynced(self.host.member, at);
            return Err(CallError::Unknown(fault("fsync failed")));
        }
        world.synced(self.host.member, at, begun);
        Ok(())
    }
}
