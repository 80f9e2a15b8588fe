//! What becomes of rows that a sink does not take, on a sink that answers as told and a clock that nobody waits for.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::NamedSink;
use super::buffer_shares::BufferShares;
use super::delivery::{Delivery, SinkState};
use super::dlq::{DeadLetters, Letter};
use super::options::{DeliveryOptions, ExecutorOptions, OnError};
use super::route::{Group, Routes};
use super::rows::Rows;
use super::shared::{Settings, Shared, SinkSlot, Stop};
use super::waiting::Troubles;
use crate::checkpoint::Abort;
use crate::clock::{Clock, Millis, VirtualClock};
use crate::collect::{Collect, Collected, DeliveryError, Passthrough};
use crate::memory::Account;
use crate::model::{Action, Answer, Batch, CallError, Failure, FailureKind, Fault, SinkKind, TopicPartition};
use crate::sink::{Description, Sink};
use crate::telemetry::SinkCounters;

mod buffering;
mod collect;
mod isolate;
mod on_error;
mod policy;
mod shutdown;
mod window;

/// How a row breaks a call.
type Break = fn(Fault) -> CallError;

/// One call: when it came, and the offsets that it was given.
type Call = (Millis, Vec<i64>);

/// Answers as told, and then takes everything.
struct Scripted {
    clock: VirtualClock,
    answers: Mutex<VecDeque<Answer>>,
    calls: Mutex<Vec<Call>>,
    description: Description,
    /// How long a call takes.
    pause: Duration,
}

#[async_trait]
impl Sink for Scripted {
    fn description(&self) -> Description {
        self.description
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        self.calls.lock().unwrap().push((self.clock.now(), batch.offsets.clone()));
        self.clock.sleep(self.pause).await;
        self.answers.lock().unwrap().pop_front().unwrap_or_else(|| Ok(Vec::new()))
    }
}

#[derive(Default)]
struct Letters(Mutex<Vec<Letter>>);

#[async_trait]
impl DeadLetters for Letters {
    async fn send(&self, letters: &[Letter]) -> Result<(), Fault> {
        self.0.lock().unwrap().extend_from_slice(letters);
        Ok(())
    }

    async fn connect(&self) -> Result<(), Fault> {
        Ok(())
    }

    async fn close(&self) {}
}

/// A collector whose hook says the same of every failure, and remembers what it was asked.
struct Hook {
    action: Action,
    asked: Mutex<Vec<(FailureKind, u32)>>,
}

#[async_trait]
impl Collect for Hook {
    async fn collect(&self, _batch: &Arc<Batch>) -> Result<Collected, CallError> {
        Ok(Collected::Passthrough)
    }

    fn has_delivery_hook(&self) -> bool {
        true
    }

    async fn delivery_error(&self, error: &DeliveryError) -> Action {
        self.asked.lock().unwrap().push((error.failure, error.attempt));
        self.action
    }
}

/// What is fixed before the rows are given.
struct Given {
    answers: Vec<Answer>,
    on_error: Option<OnError>,
    max_retries: u32,
    collector: Option<Arc<dyn Collect>>,
    description: Description,
    pause: Duration,
}

impl Given {
    fn answers(answers: Vec<Answer>) -> Self {
        Self {
            answers,
            on_error: None,
            max_retries: 3,
            collector: None,
            description: Description::direct(false),
            pause: Duration::ZERO,
        }
    }

    fn on_error(self, on_error: Option<OnError>) -> Self {
        Self { on_error, ..self }
    }
}

/// What came of it.
struct Told {
    stopped: Option<Stop>,
    calls: Vec<Call>,
    letters: Vec<Letter>,
    counters: Arc<SinkCounters>,
    lasted: Millis,
}

impl Told {
    fn offsets(&self) -> Vec<&[i64]> {
        self.calls.iter().map(|(_, offsets)| offsets.as_slice()).collect()
    }

    fn times(&self) -> Vec<Millis> {
        self.calls.iter().map(|(time, _)| *time).collect()
    }

    /// Of each dead letter the offset, the calls and the kind.
    fn dead(&self) -> Vec<(i64, u32, FailureKind)> {
        self.letters.iter().map(|letter| (letter.offset, letter.attempt_count, letter.kind)).collect()
    }

    /// Delivered, skipped and dead-lettered payloads.
    fn counts(&self) -> [u64; 3] {
        [&self.counters.delivered, &self.counters.skipped, &self.counters.dead_lettered].map(|counter| counter.get())
    }
}

/// The rows 0, 1 and 2, each with a key of its own.
fn window() -> Arc<Batch> {
    let mut window = Batch::new(TopicPartition::new("t", 0));
    for offset in 0..3u8 {
        window.push(offset.into(), 1, Some(&[offset]), Some(b"{}"));
    }
    Arc::new(window)
}

fn shared(given: Given) -> (Shared<VirtualClock>, Arc<Scripted>, Arc<Letters>) {
    let clock = VirtualClock::start(7);
    let sink = Arc::new(Scripted {
        clock: clock.clone(),
        answers: Mutex::new(given.answers.into()),
        calls: Mutex::default(),
        description: given.description,
        pause: given.pause,
    });
    let letters = Arc::new(Letters::default());
    let executor = ExecutorOptions { max_retries: given.max_retries, ..ExecutorOptions::default() };
    let shared = Shared {
        sinks: vec![SinkSlot::new(
            NamedSink {
                delivery: DeliveryOptions { on_error: given.on_error, ..DeliveryOptions::default() },
                ..NamedSink::new(SinkKind::Http, "hook", sink.clone())
            },
            Arc::default(),
        )],
        routes: Routes::new([(SinkKind::Http, "hook")]),
        collector: given.collector.unwrap_or_else(|| Arc::new(Passthrough)),
        collector_name: String::new(),
        dlq: letters.clone(),
        settings: Settings { executor, ..Settings::default() },
        clock,
        counters: Arc::default(),
        memory: Account::new(u64::MAX),
        buffers: BufferShares::default(),
        troubles: Troubles::default(),
        collected: AtomicBool::new(false),
        unforgotten: Mutex::default(),
    };
    (shared, sink, letters)
}

/// What a pipeline with one sink that takes everything shares.
pub(super) fn shared_for_tests() -> Shared<VirtualClock> {
    shared(Given::answers(Vec::new())).0
}

/// Gives the window to the sink.
async fn settle(given: Given) -> Told {
    let (shared, sink, letters) = shared(given);
    let window = window();
    let rows = Rows::of_group(&Group { sink: 0, batch: window.clone(), origin: None }, &window);
    let mut state = SinkState::default();
    let stopped = Delivery::new(&shared, 0, &window.source, &mut state).give(rows).await.err();
    let calls = std::mem::take(&mut *sink.calls.lock().unwrap());
    let letters = std::mem::take(&mut *letters.0.lock().unwrap());
    Told { stopped, calls, letters, counters: shared.sinks[0].counters.clone(), lasted: shared.clock.now() }
}
