//! A collector that fails as its records and the dice say.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidegate::collect::{Collect, Collected, DeliveryError, Window};
use tidegate::model::{Action, Answer, Batch, CallError, Failure, FailureKind, Fault, Offset, Payload, SinkKind};

use super::call::{Call, Host};
use super::draw::{fault, patience};
use super::flaws::Flaw;
use super::payload;
use super::sinks::{partition, wait};
use super::stage::Stage;
use super::world::{Row, SINKS, World, lock};

const KINDS: [SinkKind; 3] = [SinkKind::Kafka, SinkKind::Filesystem, SinkKind::Plugin];

pub struct Collector {
    pub host: Host,
}

impl Collector {
    /// A call with these records, up to its answer.
    async fn enter(&self, call: Call, batch: &Batch) -> Result<(), CallError> {
        let (at, member) = (partition(&batch.source), self.host.member);
        let claim = self.host.call(call, at, 0).await;
        let (answer, extra) = {
            let mut world = lock(&self.host.world);
            let answer = Self::draw(&mut world, at, &batch.offsets);
            let extra = answer.as_ref().err().map_or(Duration::ZERO, |error| world.extra(error));
            (answer, extra)
        };
        tokio::time::sleep(extra).await;
        self.host.gate().await;
        let mut world = lock(&self.host.world);
        world.answered(claim, call, 0, wait(&answer));
        world.claims[claim].excused |= answer.is_err();
        let heard: Answer = answer.clone().map(|()| Vec::new());
        world.heard_records(member, at, &batch.offsets, &heard);
        answer
    }

    fn draw(world: &mut World, at: usize, offsets: &[Offset]) -> Result<(), CallError> {
        if let Some(error) = world.outage(Stage::Collect) {
            return Err(error);
        }
        if world.chance(|weights| weights.backpressure / 2.0) {
            world.mark("backpressure");
            return Err(CallError::Backpressure(patience(world)));
        }
        let flawed = offsets.iter().find_map(|offset| Some((offset, world.flaw(Stage::Collect, at, *offset)?)));
        if let Some((offset, flaw)) = flawed {
            world.mark(format!("row {} in collect", flaw.name()));
            let by = format!("simulated: {offset} {}", flaw.name());
            return Err(match flaw {
                Flaw::Traps => CallError::Trap(Fault::plugin(by)),
                Flaw::NeverReturns => CallError::LimitExceeded(Fault::plugin(by)),
                Flaw::RejectsCall => CallError::Reject(fault(&by)),
                Flaw::TimesOut => CallError::Timeout(fault(&by)),
                Flaw::Breaks => CallError::Unknown(fault(&by)),
            });
        }
        if let Some(error) = world.exceeded(Stage::Collect, offsets.len(), 0) {
            return Err(error);
        }
        if world.chance(|weights| weights.collect_fault) {
            world.mark("collect failed");
            return Err(match world.random.u8(0..7) {
                0 => CallError::Trap(Fault::plugin("simulated: trap by chance")),
                1 => CallError::Timeout(fault("a look-up hung")),
                2 => CallError::BufferLost(Fault::plugin("simulated: replaced in between")),
                3 => CallError::Reject(fault("rejected by chance")),
                4 => CallError::LimitExceeded(Fault::plugin("simulated: limit exceeded")),
                5 => CallError::Unavailable(fault("a look-up was refused")),
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
        let (at, member) = (partition(&batch.source), self.host.member);
        let mut lists: Vec<(SinkKind, Vec<Payload>)> = KINDS.map(|kind| (kind, Vec::new())).into();
        let mut failed = Vec::new();
        for (index, offset) in (0..).zip(&batch.offsets) {
            if world.chance(|weights| weights.row_retry / 4.0) {
                world.mark("collect row to retry");
                failed.push(Failure::retry(index, "simulated"));
            } else if world.chance(|weights| weights.row_reject / 4.0) {
                world.mark("collect row rejected");
                failed.push(Failure::reject(index, "simulated"));
            }
            for (sink, (_, list)) in lists.iter_mut().enumerate() {
                for ordinal in 0..world.yields(sink, at, *offset) {
                    let (key, value) = (Some(World::key(at, *offset)), Some(payload::value(false, ordinal)));
                    list.push(Payload { index, key, value, ..Payload::default() });
                }
            }
        }
        world.heard_records(member, at, &batch.offsets, &Ok(failed.clone()));
        Ok(Collected::Payloads { payloads: lists, failed })
    }

    async fn probe(&self, batch: &Arc<Batch>) -> Result<(), CallError> {
        self.enter(Call::Probe, batch).await
    }

    fn has_window_hook(&self) -> bool {
        lock(&self.host.world).window_hook
    }

    async fn window_complete(&self, window: &Window) -> Result<Option<Collected>, CallError> {
        let (at, member) = (partition(&window.source), self.host.member);
        {
            // What an earlier window of these records yielded is void: they came again.
            let mut world = lock(&self.host.world);
            let claim = world.begin(member, Call::WindowHook, at, 0);
            if world.logs[at].owner == Some(claim) {
                world.logs[at].hooked.retain(|offset, _| *offset < window.first);
            }
        }
        let claim = self.host.call(Call::WindowHook, at, 0).await;
        let mut world = lock(&self.host.world);
        let answer = Self::draw_window(&mut world);
        world.answered(claim, Call::WindowHook, 0, wait(&answer));
        world.claims[claim].excused |= answer.is_err();
        if let Err(error) = &answer
            && matches!(error, CallError::Trap(_) | CallError::LimitExceeded(_) | CallError::Reject(_))
        {
            world.window_failed(member, at, window.first, window.last);
        }
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
        let one = |ordinal| {
            let value = Some(payload::value(true, ordinal));
            Payload { index, key: key.clone(), value, ..Payload::default() }
        };
        let lists = KINDS.into_iter().zip(counts).map(|(kind, count)| (kind, (0..count).map(one).collect()));
        Ok(Some(Collected::Payloads { payloads: lists.collect(), failed: Vec::new() }))
    }

    fn has_delivery_hook(&self) -> bool {
        lock(&self.host.world).delivery_hook
    }

    async fn delivery_error(&self, error: &DeliveryError) -> Action {
        let at = partition(&error.source);
        self.host.call(Call::DeliveryHook, at, 0).await;
        lock(&self.host.world).delivery_error(self.host.member, at, error)
    }
}

impl Collector {
    fn draw_window(world: &mut World) -> Result<(), CallError> {
        if world.chance(|weights| weights.backpressure / 2.0) {
            world.mark("backpressure");
            return Err(CallError::Backpressure(patience(world)));
        }
        if !world.chance(|weights| weights.window_fault) {
            return Ok(());
        }
        world.mark("window hook failed");
        Err(match world.random.u8(0..7) {
            0 => CallError::Trap(Fault::plugin("simulated: trap")),
            1 => CallError::Timeout(fault("a look-up hung")),
            2 => CallError::BufferLost(Fault::plugin("simulated: replaced in between")),
            3 => CallError::Reject(fault("rejected by chance")),
            4 => CallError::LimitExceeded(Fault::plugin("simulated: limit exceeded")),
            5 => CallError::Unavailable(fault("a look-up was refused")),
            _ => CallError::Unknown(fault("a look-up failed")),
        })
    }
}

impl World {
    /// The delivery hook decides about rows that a sink did not take.
    fn delivery_error(&mut self, member: usize, at: usize, error: &DeliveryError) -> Action {
        let name = format!("{}/{}", error.kind, error.name);
        if matches!(error.failure, FailureKind::Backpressure(_) | FailureKind::NotTried) {
            self.violate(format!("[{at}] the hook was asked about {:?} of {name}", error.failure));
        }
        if self.weights.is_patient() && !self.calm {
            if error.failure != FailureKind::Unavailable {
                self.violate(format!("[{at}] counted an attempt of {name} where only patience was asked for"));
            }
            return Action::Default;
        }
        let sink = SINKS.iter().position(|sink| *sink == name).unwrap_or_default();
        let row = |(offset, text): (&Offset, &String)| {
            let (window, ordinal) = payload::of_letter(text)?;
            Some((sink, at, *offset, window, ordinal))
        };
        let rows: Vec<Row> = error.offsets.iter().zip(&error.payloads).filter_map(row).collect();
        match self.random.u8(0..12) {
            0 => {
                for row in rows {
                    self.hook_gave_up(member, row);
                }
                Action::Dlq
            }
            1 => {
                self.mark("payload skipped");
                self.dead_rows.extend(rows);
                Action::Skip
            }
            2 => Action::Abort,
            3 => Action::Backpressure(Duration::from_millis(20)),
            4..8 => Action::Default,
            _ => {
                self.mark("payload retried");
                for row in rows {
                    self.hook_retried(member, row);
                }
                Action::Retry
            }
        }
    }
}
