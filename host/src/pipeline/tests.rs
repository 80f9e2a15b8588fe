//! What becomes of rows that a sink does not take, on a sink that answers as told and a clock that nobody waits for.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::deliver::Way;
use super::dlq::{DeadLetters, Letter};
use super::options::{DeliveryOptions, ExecutorOptions, OnError};
use super::route::{Group, Routes};
use super::rows::Rows;
use super::shared::{Settings, Shared, SinkSlot, Stop};
use crate::checkpoint::Abort;
use crate::clock::{Clock, Millis, VirtualClock};
use crate::collect::{Collect, Collected, DeliveryError, Passthrough};
use crate::model::{Action, Answer, Batch, CallError, Failure, FailureKind, Fault, SinkKind, TopicPartition};
use crate::sink::{Description, Sink};
use crate::telemetry::SinkCounters;

mod window;

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
        sinks: vec![SinkSlot {
            kind: SinkKind::Http,
            name: "hook".into(),
            sink: sink.clone(),
            description: given.description,
            delivery: DeliveryOptions { on_error: given.on_error, ..DeliveryOptions::default() },
            counters: Arc::default(),
        }],
        routes: Routes::new([(SinkKind::Http, "hook")]),
        collector: given.collector.unwrap_or_else(|| Arc::new(Passthrough)),
        collector_name: String::new(),
        dlq: letters.clone(),
        settings: Settings { executor, ..Settings::default() },
        clock,
        counters: Arc::default(),
        buffered_bytes: AtomicU64::new(0),
        unforgotten: Mutex::default(),
    };
    (shared, sink, letters)
}

/// Gives the window to the sink.
async fn settle(given: Given) -> Told {
    let (shared, sink, letters) = shared(given);
    let rows = Rows { group: Group { sink: 0, batch: window(), origin: None }, window: window() };
    let stopped = shared.settle(Way::Deliver, rows, None).await.err();
    let calls = std::mem::take(&mut *sink.calls.lock().unwrap());
    let letters = std::mem::take(&mut *letters.0.lock().unwrap());
    Told { stopped, calls, letters, counters: shared.sinks[0].counters.clone(), lasted: shared.clock.now() }
}

fn retry(index: u32) -> Answer {
    Ok(vec![Failure::retry(index, "busy")])
}

fn reject(index: u32) -> Answer {
    Ok(vec![Failure::reject(index, "bad")])
}

fn away(index: u32) -> Answer {
    Ok(vec![Failure::unavailable(index, "gone")])
}

fn hold(index: u32, seconds: u64) -> Answer {
    Ok(vec![Failure::backpressure(index, Duration::from_secs(seconds), "too many requests")])
}

const ALL: [Option<OnError>; 5] =
    [None, Some(OnError::Dlq), Some(OnError::Retry), Some(OnError::Skip), Some(OnError::Abort)];

#[tokio::test(start_paused = true)]
async fn s37_a_wait_that_was_asked_for_is_no_attempt_and_no_error() {
    for on_error in ALL {
        let answers = [hold(1, 5)].into_iter().chain((0..20).map(|_| hold(0, 5))).collect();
        let told = settle(Given { max_retries: 0, ..Given::answers(answers).on_error(on_error) }).await;
        assert!(told.stopped.is_none() && told.letters.is_empty(), "{on_error:?}");
        assert_eq!(told.counts(), [3, 0, 0], "{on_error:?}");
        let expected: Vec<&[i64]> = [&[0, 1, 2][..]].into_iter().chain([&[1][..]; 21]).collect();
        assert_eq!(told.offsets(), expected, "only the row that waits comes again");
        assert_eq!(told.times(), (0..=21).map(|call| call * 5000).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn s37_the_longest_wait_of_a_call_counts_and_the_hook_is_not_asked() {
    let hook = Arc::new(Hook { action: Action::Skip, asked: Mutex::default() });
    let both = Ok(vec![
        Failure::backpressure(0, Duration::from_secs(2), "wait"),
        Failure::backpressure(2, Duration::from_secs(9), "wait"),
    ]);
    let told = settle(Given { collector: Some(hook.clone()), ..Given::answers(vec![both]) }).await;
    assert_eq!((told.offsets(), told.times()), (vec![&[0, 1, 2][..], &[0, 2]], vec![0, 9000]));
    assert_eq!((told.counts(), hook.asked.lock().unwrap().len()), ([3, 0, 0], 0));
}

/// S33: an endpoint that says "now" again and again is not asked in a tight loop.
#[tokio::test(start_paused = true)]
async fn s33_no_wait_at_all_is_not_believed_twice() {
    let told = settle(Given::answers((0..4).map(|_| hold(0, 0)).collect())).await;
    // Row 0 stands first in every call.
    assert_eq!(told.times(), [0, 0, 100, 200, 300]);
}

#[tokio::test(start_paused = true)]
async fn s37_a_wait_between_attempts_does_not_count_and_does_not_forgive() {
    let answers = vec![retry(0), hold(0, 60), retry(0), hold(0, 60), hold(0, 60), retry(0), retry(0), retry(0)];
    let told = settle(Given::answers(answers).on_error(Some(OnError::Retry))).await;
    assert_eq!(told.dead(), [(0, 4, FailureKind::Retry)]);
    assert_eq!(told.calls.len(), 7);
    assert_eq!(told.counts(), [2, 0, 1]);
}

/// S37, S80: a row that waits for another has all its attempts left when it is sent itself.
#[tokio::test(start_paused = true)]
async fn s37_attempts_are_counted_for_each_row() {
    let both = || Ok(vec![Failure::retry(0, "busy"), Failure::backpressure(1, Duration::ZERO, "waits for the other")]);
    let given = Given { max_retries: 1, ..Given::answers(vec![both(), both(), retry(0)]) };
    let told = settle(given.on_error(Some(OnError::Retry))).await;
    assert_eq!(told.offsets(), [&[0, 1, 2][..], &[0, 1], &[1], &[1]]);
    assert_eq!((told.dead(), told.counts()), (vec![(0, 2, FailureKind::Retry)], [2, 0, 1]));
}

/// S41: neither single rows nor whole calls that meet a destination which is away are ever given up.
#[tokio::test(start_paused = true)]
async fn s41_a_destination_that_is_away_is_waited_for() {
    let answers = (0..200).map(|round| match round {
        0..100 => Err(CallError::Unavailable(Fault::destination("refused"))),
        _ => Ok(vec![
            Failure::unavailable(0, "refused"),
            Failure::unavailable(1, "refused"),
            Failure::unavailable(2, "refused"),
        ]),
    });
    let told = settle(Given { max_retries: 0, ..Given::answers(answers.collect()) }).await;
    assert!(told.stopped.is_none() && told.letters.is_empty());
    assert_eq!((told.calls.len(), told.counts()), (201, [3, 0, 0]));
    let waits: Vec<Millis> = told.times().windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[..3].iter().zip([100, 200, 400]).all(|(wait, most)| *wait <= most), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 60_000), "{waits:?}");
    assert!(waits.iter().max() > Some(&30_000), "the waits grow: {waits:?}");
}

#[tokio::test(start_paused = true)]
async fn s41_one_row_that_is_away_does_not_repeat_its_neighbours() {
    let told = settle(Given::answers(vec![away(1), away(0)])).await;
    assert_eq!(told.offsets(), [&[0, 1, 2][..], &[1], &[1]]);
    assert_eq!(told.counts(), [3, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn s79_on_error_decides_of_a_destination_that_is_away_too() {
    let told = settle(Given::answers(vec![away(1)]).on_error(Some(OnError::Dlq))).await;
    assert_eq!((told.dead(), told.counts()), (vec![(1, 1, FailureKind::Unavailable)], [2, 0, 1]));
    let told = settle(Given::answers(vec![away(1)]).on_error(Some(OnError::Skip))).await;
    assert_eq!((told.calls.len(), told.counts()), (1, [2, 1, 0]));
    let told = settle(Given::answers(vec![away(1)]).on_error(Some(OnError::Abort))).await;
    assert!(matches!(told.stopped, Some(Stop::Abort(Abort::Destination, _))));
    let answers = [away(1)].into_iter().chain((0..9).map(|_| away(0))).collect();
    let told = settle(Given::answers(answers).on_error(Some(OnError::Retry))).await;
    assert_eq!((told.calls.len(), told.dead()), (4, vec![(1, 4, FailureKind::Unavailable)]));
}

#[tokio::test(start_paused = true)]
async fn s79_what_fails_is_dead_lettered_when_nothing_else_is_said() {
    for on_error in [None, Some(OnError::Dlq)] {
        let both = Ok(vec![Failure::retry(0, "busy"), Failure::reject(2, "bad")]);
        let mut told = settle(Given::answers(vec![both]).on_error(on_error)).await;
        told.letters.sort_by_key(|letter| letter.offset);
        assert_eq!(told.dead(), [(0, 1, FailureKind::Retry), (2, 1, FailureKind::Reject)]);
        let reasons: Vec<_> = told.letters.iter().map(|letter| letter.error.as_str()).collect();
        assert_eq!(reasons, ["busy", "bad"]);
        assert_eq!((told.calls.len(), told.counts()), (1, [1, 0, 2]));
    }
}

#[tokio::test(start_paused = true)]
async fn s80_s81_retry_asks_so_often_and_then_dead_letters() {
    for (max_retries, calls) in [(3, 4), (1, 2), (0, 1)] {
        let answers = [retry(1)].into_iter().chain((0..9).map(|_| retry(0))).collect();
        let told = settle(Given { max_retries, ..Given::answers(answers).on_error(Some(OnError::Retry)) }).await;
        let expected: Vec<&[i64]> = [&[0, 1, 2][..], &[1], &[1], &[1]].into_iter().take(calls).collect();
        assert_eq!(told.offsets(), expected, "S76: what was delivered is not repeated");
        assert_eq!(told.dead(), [(1, u32::try_from(calls).unwrap(), FailureKind::Retry)]);
        assert_eq!(told.counts(), [2, 0, 1]);
        assert!(told.lasted <= 100 + 200 + 400, "S83: {} ms", told.lasted);
    }
    let told = settle(Given::answers(vec![retry(1), retry(0)]).on_error(Some(OnError::Retry))).await;
    assert_eq!((told.calls.len(), told.counts()), (3, [3, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn s80_what_never_will_be_written_is_not_tried_again() {
    let both = Ok(vec![Failure::reject(0, "bad"), Failure::retry(1, "busy")]);
    let told = settle(Given::answers(vec![both, reject(0)]).on_error(Some(OnError::Retry))).await;
    assert_eq!(told.offsets(), [&[0, 1, 2][..], &[1]]);
    assert_eq!(told.dead(), [(0, 1, FailureKind::Reject), (1, 2, FailureKind::Reject)]);
}

#[tokio::test(start_paused = true)]
async fn s82_skip_gives_up_and_counts_and_abort_starts_over() {
    for answer in [retry(1), reject(1)] {
        let told = settle(Given::answers(vec![answer.clone()]).on_error(Some(OnError::Skip))).await;
        assert!(told.stopped.is_none() && told.letters.is_empty());
        assert_eq!((told.calls.len(), told.counts()), (1, [2, 1, 0]));
        let told = settle(Given::answers(vec![answer]).on_error(Some(OnError::Abort))).await;
        let Some(Stop::Abort(Abort::Destination, fault)) = told.stopped else { panic!("{:?}", told.stopped) };
        assert!(fault.message.contains("`http/hook`"), "{fault}");
        assert_eq!((told.calls.len(), told.letters.len()), (1, 0));
    }
}

/// S79, S82: the hook decides of every failure, also of a destination that is away, and `on_error` counts for nothing.
#[tokio::test(start_paused = true)]
async fn s79_the_hook_is_asked_before_on_error() {
    for (kind, answer) in
        [(FailureKind::Retry, retry(1)), (FailureKind::Reject, reject(1)), (FailureKind::Unavailable, away(1))]
    {
        let hook = Arc::new(Hook { action: Action::Skip, asked: Mutex::default() });
        let given = Given::answers(vec![answer.clone()]).on_error(Some(OnError::Abort));
        let told = settle(Given { collector: Some(hook.clone()), ..given }).await;
        assert_eq!((told.counts(), hook.asked.lock().unwrap().clone()), ([2, 1, 0], vec![(kind, 1)]));
        // A hook that answers with a wait is as patient as an endpoint that asks for one.
        let wait = Action::Backpressure(Duration::from_secs(3));
        let hook = Arc::new(Hook { action: wait, asked: Mutex::default() });
        let again = Ok(vec![Failure { index: 0, ..answer.clone().unwrap().remove(0) }]);
        let given = Given::answers(vec![answer, again]);
        let told = settle(Given { collector: Some(hook.clone()), max_retries: 0, ..given }).await;
        assert_eq!((told.counts(), told.times()), ([3, 0, 0], vec![0, 3000, 6000]));
        assert_eq!(hook.asked.lock().unwrap().clone(), [(kind, 1), (kind, 1)]);
    }
}

/// S77: a call ends in time, which a sink that bounds its own calls may move.
#[tokio::test(start_paused = true)]
async fn s77_a_call_has_a_deadline_and_a_sink_may_ask_for_patience() {
    let slow = |patience| Given {
        description: Description { patience: Duration::from_secs(patience), ..Description::direct(false) },
        pause: Duration::from_secs(100),
        ..Given::answers(Vec::new())
    };
    let told = settle(slow(0)).await;
    assert_eq!((told.lasted, told.counts()), (30_000, [0, 0, 3]));
    assert!(told.letters[0].error.contains("did not answer within 30 s"), "{}", told.letters[0].error);
    assert_eq!(settle(slow(99)).await.lasted, 99_000);
    let told = settle(slow(101)).await;
    assert_eq!((told.lasted, told.counts()), (100_000, [3, 0, 0]));
}
