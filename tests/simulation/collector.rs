//! A collector and a dead letter queue that fail as the world's dice say.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidegate::collect::{Collect, Collected, DeliveryError, Window};
use tidegate::model::{Action, Batch, CallError, Failure, Fault, Payload, SinkKind};
use tidegate::pipeline::dlq::{DeadLetters, Letter};
use tokio::time::Instant;

use super::call::{Call, Host};
use super::group::Standing;
use super::sinks::{fault, partition, patience, wait};
use super::world::{SINKS, World, lock};

/// The value of what the window hook yields.
pub const OF_WINDOW: &[u8] = b"w";

const KINDS: [SinkKind; 3] = [SinkKind::Kafka, SinkKind::Filesystem, SinkKind::Plugin];

pub struct Queue {
    pub host: Host,
}

#[async_trait]
impl DeadLetters for Queue {
    async fn send(&self, letters: &[Letter]) -> Result<(), Fault> {
        let Some(first) = letters.first() else { return Ok(()) };
        let claim = self.host.call(Call::DeadLetter, partition(&first.source), 0).await;
        let mut world = lock(&self.host.world);
        let now = Instant::now();
        if world.chance(|weights| weights.dlq_outage) {
            let down = now + Duration::from_secs(world.random.u64(10..600));
            world.dlq_down_until = world.dlq_down_until.max(Some(down));
        }
        if !world.calm && world.dlq_down_until.is_some_and(|until| until > now) {
            world.mark("dead letter queue down for long");
            return Err(fault("dead letter queue down"));
        }
        let failed = world.chance(|weights| weights.dlq_fault);
        // A part may have been written all the same.
        let written = if failed { world.random.usize(0..=letters.len()) } else { letters.len() };
        for letter in &letters[..written] {
            let name = format!("{}/{}", letter.sink_type, letter.sink_name);
            let sink = SINKS.iter().position(|sink| *sink == name);
            world.mark(if sink.is_some() { "payload dead-lettered" } else { "record dead-lettered" });
            let at = partition(&letter.source);
            if !matches!(world.claims[claim].standing, Standing::Held | Standing::Leaving | Standing::Fenced) {
                world.violate(format!("a dead letter was written for a partition that is not ours: [{at}]"));
            }
            if world.weights.is_patient() && !world.calm {
                world.violate(format!("[{at}]@{} was dead-lettered where only patience was asked for", letter.offset));
            }
            world.dead.insert((sink, at, letter.offset));
        }
        if failed {
            world.mark("dead letter queue failed");
            return Err(fault("dead letters lost on their way"));
        }
        Ok(())
    }

    async fn connect(&self) -> Result<(), Fault> {
        Ok(())
    }

    async fn close(&self) {}
}

pub struct Collector {
    pub host: Host,
}

impl Collector {
    /// Traps on poisonous records, always; and on a throw of the dice. Returns the claim.
    async fn enter(&self, call: Call, batch: &Batch) -> Result<(), CallError> {
        let at = partition(&batch.source);
        let claim = self.host.call(call, at, 0).await;
        let mut world = lock(&self.host.world);
        let answer = Self::draw(&mut world, at, batch);
        world.answered(claim, call, 0, wait(&answer));
        world.claims[claim].excused |= answer.is_err();
        answer
    }

    fn draw(world: &mut World, at: usize, batch: &Batch) -> Result<(), CallError> {
        if let Some(offset) = batch.offsets.iter().find(|offset| world.poison.contains(&(at, **offset))) {
            let offset = *offset;
            world.mark("poison");
            return Err(CallError::Trap(Fault::plugin(format!("simulated: poison at {offset}"))));
        }
        if world.chance(|weights| weights.backpressure / 2.0) {
            world.mark("backpressure");
            return Err(CallError::Backpressure(patience(world)));
        }
        if world.chance(|weights| weights.collect_fault) {
            world.mark("collect failed");
            return Err(match world.random.u8(0..4) {
                0 => CallError::Trap(Fault::plugin("simulated: trap by chance")),
                1 => CallError::Timeout(fault("a look-up hung")),
                2 => CallError::BufferLost(Fault::plugin("simulated: replaced in between")),
                _ => CallError::Unknown(fault("a look-up failed")),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Collect for Collector {
    async fn collect(&self, batch: &Arc<Batch>) -> Result<Collected, CallError> {
        self.enter(Call::Collect, batch).await?;
        let mut world = lock(&self.host.world);
        world.mark("collect call");
        let at = partition(&batch.source);
        let mut lists: Vec<(SinkKind, Vec<Payload>)> = KINDS.map(|kind| (kind, Vec::new())).into();
        let mut failed = Vec::new();
        for (index, offset) in (0..).zip(&batch.offsets) {
            if world.chance(|weights| weights.row_retry / 4.0) {
                world.mark("collect row to retry");
                failed.push(Failure::retry(index, "simulated"));
            }
            for (sink, (_, list)) in lists.iter_mut().enumerate() {
                for _ in 0..world.yields(sink, at, *offset) {
                    let key = Some(World::key(at, *offset));
                    list.push(Payload { index, key, value: Some(b"{}".to_vec()), ..Payload::default() });
                }
            }
        }
        Ok(Collected::Payloads { payloads: lists, failed })
    }

    async fn probe(&self, batch: &Arc<Batch>) -> Result<(), CallError> {
        self.enter(Call::Probe, batch).await
    }

    fn has_window_hook(&self) -> bool {
        lock(&self.host.world).window_hook
    }

    async fn window_complete(&self, window: &Window) -> Result<Option<Collected>, CallError> {
        let at = partition(&window.source);
        {
            // What an earlier window of these records yielded is void: they came again.
            let mut world = lock(&self.host.world);
            let claim = world.begin(self.host.member, Call::WindowHook, at, 0);
            if world.logs[at].owner == Some(claim) {
                world.logs[at].hooked.retain(|offset, _| *offset < window.first);
            }
        }
        let claim = self.host.call(Call::WindowHook, at, 0).await;
        let mut world = lock(&self.host.world);
        let answer = if world.chance(|weights| weights.backpressure / 2.0) {
            world.mark("backpressure");
            Err(CallError::Backpressure(patience(&mut world)))
        } else if world.chance(|weights| weights.window_fault) {
            world.mark("window hook failed");
            Err(match world.random.u8(0..4) {
                0 => CallError::Trap(Fault::plugin("simulated: trap")),
                1 => CallError::Timeout(fault("a look-up hung")),
                2 => CallError::BufferLost(Fault::plugin("simulated: replaced in between")),
                _ => CallError::Unknown(fault("a look-up failed")),
            })
        } else {
            Ok(())
        };
        world.answered(claim, Call::WindowHook, 0, wait(&answer));
        world.claims[claim].excused |= answer.is_err();
        answer?;
        let counts = [0; 3].map(|_| world.random.u32(0..3));
        if counts == [0; 3] {
            return Ok(None);
        }
        if world.logs[at].owner == Some(claim) {
            world.logs[at].hooked.insert(window.last, counts);
        }
        world.note(format!("window [{at}] {} to {} yields {counts:?}", window.first, window.last));
        // The row whose record the dead letter would show is the one under whose offset the payload stands.
        let index = window.records.saturating_sub(1);
        let key = Some(World::key(at, window.last));
        let one = Payload { index, key, value: Some(OF_WINDOW.to_vec()), ..Payload::default() };
        let lists = KINDS.into_iter().zip(counts).map(|(kind, count)| (kind, vec![one.clone(); count as usize]));
        Ok(Some(Collected::Payloads { payloads: lists.collect(), failed: Vec::new() }))
    }

    fn has_delivery_hook(&self) -> bool {
        lock(&self.host.world).delivery_hook
    }

    async fn delivery_error(&self, error: &DeliveryError) -> Action {
        let at = partition(&error.source);
        self.host.call(Call::DeliveryHook, at, 0).await;
        let mut world = lock(&self.host.world);
        if world.weights.is_patient() && !world.calm {
            world.violate(format!("[{at}] counted an attempt where only patience was asked for"));
        }
        match world.random.u8(0..10) {
            0 => Action::Dlq,
            1 => {
                world.mark("payload skipped");
                let name = format!("{}/{}", error.kind, error.name);
                let sink = SINKS.iter().position(|sink| *sink == name);
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
