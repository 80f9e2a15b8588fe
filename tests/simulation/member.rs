//! One host of the group: its parts, its life, and what the world knows of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidegate::collect::{Collect, Passthrough};
use tidegate::memory::Account;
use tidegate::model::{Owner, SinkKind};
use tidegate::pipeline::options::{
    AbortOptions, CheckpointOptions, DeliveryOptions, ExecutorOptions, OnError, OnSendFailure, WindowOptions,
};
use tidegate::pipeline::shared::Settings;
use tidegate::pipeline::{NamedSink, Parts, run};
use tidegate::telemetry::Counters;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::buffering::Buffering;
use super::call::Host;
use super::clock::SimClock;
use super::collector::Collector;
use super::dead_letters::Queue;
use super::group::Standing;
use super::sinks::Direct;
use super::source::FakeSource;
use super::world::{Shared, World, lock};

/// What a clean stop may take beyond its drain limit: the late commit, its floor, and the way there (S55).
const STOP_SLACK: Duration = Duration::from_secs(20);
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(8 * 3_600);

/// What the group tells a member.
pub enum Change {
    Assigned(usize),
    Revoked(Vec<usize>),
    Lost { claims: Vec<usize>, at: Instant },
}

pub struct Member {
    pub alive: bool,
    pub stopping: bool,
    pub stopped_at: Option<(Instant, Duration)>,
    pub died: Option<Instant>,
    pub asleep_until: Option<Instant>,
    pub fell_asleep: Instant,
    /// How long the group waits for a sign of life.
    pub session: Duration,
    pub started: Instant,
    /// How far its monotonic clock jumped in all.
    pub ahead: Duration,
    pub jumped: Arc<Notify>,
    pub changes: VecDeque<Change>,
    pub bell: Arc<Notify>,
    pub stop: Arc<Notify>,
    pub settings: Settings,
    /// What each sink was told about failures.
    pub on_error: [Option<OnError>; 3],
    /// Time spent in `release`, and since when it is in it.
    pub released: Duration,
    pub releasing: Option<Instant>,
    abort: Option<AbortHandle>,
}

impl Member {
    pub fn release_time(&self, now: Instant) -> Duration {
        self.released + self.releasing.map_or(Duration::ZERO, |since| now.duration_since(since))
    }
}

impl World {
    /// A member's own time since its start.
    pub fn time_of(&self, member: usize) -> Duration {
        let member = &self.members[member];
        member.started.elapsed() + member.ahead
    }

    pub fn crash(&mut self, member: usize) {
        self.mark("crash");
        self.note(format!("member {member} is dead"));
        let now = Instant::now();
        let host = &mut self.members[member];
        host.alive = false;
        host.died = Some(now);
        if let Some(abort) = &host.abort {
            abort.abort();
        }
        if self.random.bool() {
            self.cut_power(member);
        }
    }

    pub fn stop(&mut self, member: usize) {
        let now = Instant::now();
        let host = &mut self.members[member];
        if host.alive && !host.stopping {
            host.stopping = true;
            let heard = host.asleep_until.map_or(now, |until| until.max(now));
            host.stopped_at = Some((heard, host.release_time(now)));
            host.stop.notify_one();
            self.mark("clean stop");
        }
    }
}

fn settings(random: &mut fastrand::Rng) -> Settings {
    Settings {
        checkpoint: CheckpointOptions {
            interval_seconds: [0.0, 0.5, 5.0][random.usize(0..3)],
            every_records: [0, 1, 7][random.usize(0..3)],
            max_records: [3, 1_000][random.usize(0..2)],
            max_bytes: [20, 1_000_000][random.usize(0..2)],
        },
        window: WindowOptions::default(),
        executor: ExecutorOptions {
            max_retries: random.u32(0..4),
            delivery_timeout_seconds: 30.0,
            drain_timeout_seconds: [0.5, 30.0][random.usize(0..2)],
        },
        abort: AbortOptions { max_consecutive: 5 },
        on_send_failure: OnSendFailure::Stall,
        revoke_budget: Duration::from_millis([0, 500, 10_000][random.usize(0..3)]),
        is_replay: false,
    }
}

fn parts(host: &Host, settings: Settings) -> Parts {
    let (passthrough, choices, memory) = {
        let mut world = lock(&host.world);
        // Left out where an outage may not cost anything, and often where it may.
        let all = [None, None, None, Some(OnError::Dlq), Some(OnError::Retry), Some(OnError::Abort)];
        let some = match () {
            () if world.weights.is_patient() && !world.calm => 1,
            // A chosen row that is never given up on would never let the end come.
            () if world.calm => all.len() - 1,
            () => all.len(),
        };
        let choices = [0; 3].map(|_| all[world.random.usize(0..some)]);
        world.members[host.member].on_error = choices;
        let memory = [500, 1_000_000][world.random.usize(0..2)];
        (world.passthrough, choices, memory)
    };
    let collector: Arc<dyn Collect> =
        if passthrough { Arc::new(Passthrough) } else { Arc::new(Collector { host: host.clone() }) };
    let named = |kind, name, sink, on_error| NamedSink {
        delivery: DeliveryOptions { on_error, topics: Vec::new() },
        ..NamedSink::new(kind, name, sink)
    };
    Parts {
        sinks: vec![
            named(SinkKind::Kafka, "direct", Arc::new(Direct { host: host.clone(), sink: 0 }), choices[0]),
            named(SinkKind::Filesystem, "files", Arc::new(Direct { host: host.clone(), sink: 1 }), choices[1]),
            named(SinkKind::Plugin, "buffering", Arc::new(Buffering { host: host.clone() }), choices[2]),
        ],
        collector,
        collector_name: "simulated".into(),
        dlq: Arc::new(Queue { host: host.clone() }),
        settings,
        counters: Arc::new(Counters::default()),
        memory: Account::new(memory),
    }
}

/// One life of one member, from its start to its end, whichever that is.
pub async fn live(world: &Shared) {
    let now = Instant::now();
    let (host, seed, settings, stop) = {
        let mut locked = lock(world);
        let settings = settings(&mut locked.random);
        let member = locked.members.len();
        let seed = locked.random.u64(..);
        let stop = Arc::new(Notify::new());
        let session = Duration::from_millis(locked.random.u64(1_000..6_000));
        locked.members.push(Member {
            alive: true,
            stopping: false,
            stopped_at: None,
            died: None,
            asleep_until: None,
            fell_asleep: now,
            session,
            started: now,
            ahead: Duration::ZERO,
            jumped: Arc::default(),
            changes: VecDeque::new(),
            bell: Arc::default(),
            stop: stop.clone(),
            settings: settings.clone(),
            on_error: [None; 3],
            released: Duration::ZERO,
            releasing: None,
            abort: None,
        });
        locked.note(format!("member {member} joins"));
        locked.mark("member");
        (Host { world: world.clone(), member }, seed, settings, stop)
    };
    let source = FakeSource { host: host.clone() };
    let clock = SimClock::new(host.clone(), seed);
    let asked = {
        let host = host.clone();
        async move {
            stop.notified().await;
            host.gate().await;
        }
    };
    let parts = parts(&host, settings);
    let memory = parts.memory.clone();
    let running = tokio::spawn(run(parts, source, clock, asked));
    lock(world).members[host.member].abort = Some(running.abort_handle());
    let outcome = tokio::time::timeout(PATIENCE, running).await;
    let mut world = lock(world);
    let member = host.member;
    // S15: what is over is counted no more.
    if matches!(outcome, Ok(Ok(_))) && memory.used() > 0 {
        world.violate(format!("member {member} ended with {} bytes still counted", memory.used()));
    }
    let fault = match outcome {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(fault))) => Some(fault),
        Ok(Err(error)) if error.is_cancelled() => return,
        Ok(Err(error)) => {
            world.violate(format!("member {member} panicked: {error}"));
            None
        }
        Err(_) => {
            world.violate(format!("member {member} never came to its end"));
            return;
        }
    };
    let now = Instant::now();
    world.members[member].alive = false;
    world.members[member].died = Some(now);
    // One that was only on its way to a member that ended by a fault expires with its session.
    for claim in world.claims_of(member, |standing| !matches!(standing, Standing::Gone | Standing::Coming)) {
        let partition = world.claims[claim].partition;
        world.violate(format!("[{partition}] was not let go though member {member} had come to its end"));
    }
    if let Some((since, released)) = world.members[member].stopped_at {
        let drain = Duration::from_secs_f64(world.members[member].settings.executor.drain_timeout_seconds);
        let waited = world.members[member].release_time(now).saturating_sub(released);
        if now.duration_since(since) > drain + STOP_SLACK + waited {
            world.violate(format!("member {member} took {:?} to stop", now.duration_since(since)));
        }
    }
    match fault {
        None if !world.members[member].stopping => world.violate(format!("member {member} ended unasked")),
        None => {}
        Some(fault) => {
            world.note(format!("member {member} ended by {fault}"));
            world.mark("stopped by a fault");
            // Where a window holds chosen rows only, nothing passes and the plugin is blamed.
            let flawed = world.flaws.lasting && fault.owner == Owner::Plugin;
            if world.calm && !flawed {
                world.violate(format!("member {member}, without faults, ended by {fault}"));
            }
            let patient = world.weights.is_patient() && world.weights.commit_fault == 0.0;
            if !world.calm && patient {
                world.violate(format!("member {member} ended by {fault} where only patience was asked for"));
            }
        }
    }
}

/// One place for a host, which is started again whenever it has ended.
pub async fn place(world: Shared, first: Duration) {
    tokio::time::sleep(first).await;
    while !lock(&world).closing {
        live(&world).await;
        let wait = lock(&world).random.u64(0..6_000);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
}
