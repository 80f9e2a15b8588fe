//! What all workers of one pipeline share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use super::NamedSink;
use super::buffer_shares::BufferShares;
use super::dlq::{DeadLetters, Letter};
use super::options::{AbortOptions, CheckpointOptions, DeliveryOptions, ExecutorOptions, OnSendFailure, WindowOptions};
use super::route::Routes;
use super::waiting::Troubles;
use crate::checkpoint::{Abort, Limits};
use crate::clock::Clock;
use crate::collect::Collect;
use crate::memory::Account;
use crate::model::{Fault, Owner, SinkKind, TopicPartition};
use crate::sink::{Description, Sink};
use crate::telemetry::{Counters, SinkCounters};

/// The first wait between attempts; each further one may be twice as long (S83).
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
/// The longest wait between attempts of one call (S83).
const LONGEST_BACK_OFF: Duration = Duration::from_secs(10);
/// The longest wait between fresh starts of a partition (S41).
const LONGEST_ABORT_BACK_OFF: Duration = Duration::from_secs(60);

/// Why a partition cannot simply go on.
#[derive(Clone, Debug)]
pub enum Stop {
    /// Start over from the watermark.
    Abort(Abort, Fault),
    /// Commit what is settled and end the process (S44).
    Fatal(Fault),
}

impl Stop {
    /// An abort that counts or not, by the fault's owner (S41).
    pub fn abort(fault: Fault) -> Self {
        let abort = if fault.owner == Owner::Destination { Abort::Destination } else { Abort::Failure };
        Self::Abort(abort, fault)
    }

    /// Of what several sinks stopped for, what counts: what ends the process, else what came first.
    pub fn after(self, before: Option<Self>) -> Self {
        match (before, self) {
            (_, stop @ Self::Fatal(_)) | (None, stop) => stop,
            (Some(before), _) => before,
        }
    }
}

/// One configured sink.
pub struct SinkSlot {
    /// Its kind.
    pub kind: SinkKind,
    /// Its name in the configuration.
    pub name: String,
    /// The sink.
    pub sink: Arc<dyn Sink>,
    /// What it says of itself.
    pub description: Description,
    /// What it was told beside its own options.
    pub delivery: DeliveryOptions,
    /// What it did.
    pub counters: Arc<SinkCounters>,
    /// It has taken a row since it was loaded (S63).
    passed: AtomicBool,
}

impl SinkSlot {
    /// A connected sink.
    pub fn new(named: NamedSink, counters: Arc<SinkCounters>) -> Self {
        let NamedSink { kind, name, sink, delivery } = named;
        Self { kind, name, description: sink.description(), sink, delivery, counters, passed: AtomicBool::new(false) }
    }

    /// The sink has taken a row.
    pub(super) fn note_passed(&self) {
        self.passed.store(true, Ordering::Relaxed);
    }

    /// Whether it has ever taken one.
    pub(super) fn has_passed(&self) -> bool {
        self.passed.load(Ordering::Relaxed)
    }

    /// Names the sink as messages do: `kafka/results`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// The part of the configuration that workers read.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// When checkpoints are due.
    pub checkpoint: CheckpointOptions,
    /// How much is taken in hand together.
    pub window: WindowOptions,
    /// Attempts and patience.
    pub executor: ExecutorOptions,
    /// How often a partition may fail.
    pub abort: AbortOptions,
    /// What happens when a dead letter cannot be written.
    pub on_send_failure: OnSendFailure,
    /// The time a revoked partition may take (S46).
    pub revoke_budget: Duration,
    /// Dead letters are sent through again: each has failed before, so that one that breaks a plugin alone is at fault also where no
    /// other passes (S96).
    pub is_replay: bool,
}

impl Settings {
    /// The core's limits.
    pub fn limits(&self) -> Limits {
        Limits {
            interval: millis(seconds(self.checkpoint.interval_seconds)),
            every_records: self.checkpoint.every_records,
            max_bytes: self.checkpoint.max_bytes,
            max_records: self.checkpoint.max_records,
            max_consecutive_aborts: self.abort.max_consecutive,
        }
    }
}

/// Seconds from the configuration as a duration; what is senseless counts as none, the configuration's checks having
/// refused it already.
pub fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What all workers of one pipeline share.
pub struct Shared<C> {
    /// Every sink, in order of registration.
    pub sinks: Vec<SinkSlot>,
    /// Names → sinks.
    pub routes: Routes,
    /// What turns records into payloads.
    pub collector: Arc<dyn Collect>,
    /// The collector's name, for dead letters.
    pub collector_name: String,
    /// Where given-up payloads go.
    pub dlq: Arc<dyn DeadLetters>,
    /// The configuration.
    pub settings: Settings,
    /// Time and chance.
    pub clock: C,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// What records take in memory (S15).
    pub memory: Arc<Account>,
    /// What each plugin's instances hold (S15a).
    pub buffers: BufferShares,
    /// What is waited for.
    pub troubles: Troubles,
    /// The collector has answered since it was loaded.
    pub collected: AtomicBool,
    /// Partitions of which a sink may still hold something that it was told to forget (S26).
    pub unforgotten: Mutex<BTreeSet<TopicPartition>>,
}

impl<C: Clock> Shared<C> {
    /// See the field.
    pub fn unforgotten(&self) -> MutexGuard<'_, BTreeSet<TopicPartition>> {
        // A set is whole after every step, so a panic elsewhere spoils nothing.
        self.unforgotten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits before the attempt after the `failures`-th failure in a row, from 1 (S83).
    pub async fn back_off(&self, failures: u32) {
        self.wait_jittered(failures, LONGEST_BACK_OFF).await;
    }

    /// Waits before a partition starts over for the `failures`-th time in a row, from 1 (S41).
    pub async fn back_off_abort(&self, failures: u32) {
        self.wait_jittered(failures, LONGEST_ABORT_BACK_OFF).await;
    }

    async fn wait_jittered(&self, failures: u32, longest: Duration) {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(FIRST_BACK_OFF)
            .with_max_delay(longest)
            .without_max_times()
            .build();
        // The doubling reaches its cap within twenty steps, so a higher count changes nothing.
        let wait = waits.nth(failures.clamp(1, 20) as usize - 1).unwrap_or(longest);
        self.clock.sleep(self.clock.jitter(wait)).await;
    }

    /// The collector has answered a call row by row.
    pub(super) fn note_collected(&self) {
        self.collected.store(true, Ordering::Relaxed);
    }

    /// Whether it ever has, since it was loaded (S63).
    pub(super) fn has_collected(&self) -> bool {
        self.collected.load(Ordering::Relaxed)
    }

    /// Writes dead letters and waits until they are acknowledged (S93). A queue that does not take them is tried again
    /// for as long as it takes, unless the configuration prefers to lose them (S94).
    pub async fn dead_letter(&self, letters: Vec<Letter>) -> Result<(), Stop> {
        if letters.is_empty() {
            return Ok(());
        }
        let count = letters.len() as u64;
        let mut failures = 0u32;
        loop {
            match self.dlq.send(&letters).await {
                Ok(()) => {
                    self.note_letters_written();
                    return Ok(());
                }
                Err(fault) if fault.owner == Owner::Config => return Err(Stop::Fatal(fault)),
                Err(fault) => {
                    self.note_letters_failed(count, &fault);
                    if self.settings.on_send_failure == OnSendFailure::Drop {
                        self.counters.lost_letters.add(count);
                        return Ok(());
                    }
                }
            }
            failures = failures.saturating_add(1);
            self.back_off(failures).await;
        }
    }
}
