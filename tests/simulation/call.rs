//! Await points: every simulated call counts as one, and at the one that the seed drew something happens to the member.

use std::time::Duration;

use super::group::Fault;
use super::world::{Shared, World, lock};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Read,
    Rewind,
    SetPaused,
    Commit,
    Collect,
    WindowHook,
    Probe,
    DeliveryHook,
    Deliver,
    Add,
    Flush,
    Sync,
    DeadLetter,
    Discard,
    Release,
    Wait,
}

impl Call {
    pub const ALL: [Self; 16] = [
        Self::Read,
        Self::Rewind,
        Self::SetPaused,
        Self::Commit,
        Self::Collect,
        Self::WindowHook,
        Self::Probe,
        Self::DeliveryHook,
        Self::Deliver,
        Self::Add,
        Self::Flush,
        Self::Sync,
        Self::DeadLetter,
        Self::Discard,
        Self::Release,
        Self::Wait,
    ];

    /// Those that few runs make.
    const SELDOM: [Self; 4] = [Self::SetPaused, Self::Probe, Self::Sync, Self::DeliveryHook];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Rewind => "rewind",
            Self::SetPaused => "set_paused",
            Self::Commit => "commit",
            Self::Collect => "collect",
            Self::WindowHook => "window hook",
            Self::Probe => "probe",
            Self::DeliveryHook => "delivery hook",
            Self::Deliver => "deliver",
            Self::Add => "add",
            Self::Flush => "flush",
            Self::Sync => "sync",
            Self::DeadLetter => "dead letter",
            Self::Discard => "discard",
            Self::Release => "release",
            Self::Wait => "wait",
        }
    }
}

/// The await point at which something happens next.
#[derive(Debug)]
pub struct Aim {
    /// Only calls of this kind count, or all do.
    call: Option<Call>,
    left: u64,
    /// Await points of any kind until another aim is drawn: some kinds never come.
    patience: u64,
}

impl Aim {
    pub fn draw(random: &mut fastrand::Rng, gap: u64) -> Self {
        let rare = random.bool();
        let seldom = random.u8(0..4) == 0;
        let calls: &[Call] = if seldom { &Call::SELDOM } else { &Call::ALL };
        let call = rare.then(|| calls[random.usize(0..calls.len())]);
        let left = if rare { random.u64(1..4) } else { random.u64(1..=gap) };
        Self { call, left, patience: gap.max(200) }
    }
}

impl World {
    /// Counts an await point; `true` when something happened to the member just here.
    pub fn point(&mut self, member: usize, call: Call, claim: Option<usize>) -> bool {
        if self.calm {
            return false;
        }
        self.aim.patience = self.aim.patience.saturating_sub(1);
        if self.aim.call.is_none_or(|aimed| aimed == call) {
            self.aim.left = self.aim.left.saturating_sub(1);
        }
        let due = self.aim.left == 0;
        if !due && self.aim.patience > 0 {
            return false;
        }
        let happened = due.then(|| self.strike(member, claim)).flatten();
        if happened.is_none() && due && self.aim.patience > 0 {
            // Not here: the member has no such partition any more. The next await point will do.
            self.aim.left = 1;
            return false;
        }
        self.aim = Aim::draw(&mut self.random, self.gap);
        let Some(fault) = happened else { return false };
        self.mark(format!("{} in {}", fault.name(), call.name()));
        self.note(format!("member {member} {} in {}", fault.name(), call.name()));
        fault != Fault::Jumped
    }
}

/// What everything that one member calls knows of it.
#[derive(Clone)]
pub struct Host {
    pub world: Shared,
    pub member: usize,
}

impl Host {
    /// A call begins: it may be where something happens, it takes its time, and a member that sleeps answers late.
    /// Returns the claim that it is made under.
    pub async fn call(&self, call: Call, partition: usize, sink: usize) -> usize {
        let (claim, pause) = {
            let mut world = lock(&self.world);
            let claim = world.begin(self.member, call, partition, sink);
            let hit = world.point(self.member, call, Some(claim));
            (claim, world.pause(hit))
        };
        tokio::time::sleep(pause).await;
        self.gate().await;
        claim
    }

    /// Returns once the member is awake; never, when it is dead.
    pub async fn gate(&self) {
        loop {
            let asleep = {
                let world = lock(&self.world);
                let member = &world.members[self.member];
                if member.alive { member.asleep_until } else { None }.map_or_else(|| Err(member.alive), Ok)
            };
            match asleep {
                Ok(until) if until > tokio::time::Instant::now() => tokio::time::sleep_until(until).await,
                Ok(_) | Err(true) => return,
                Err(false) => std::future::pending().await,
            }
        }
    }
}

impl World {
    /// How long a call takes; one in which something happens often outlasts what that leads to.
    pub fn pause(&mut self, hit: bool) -> Duration {
        let most = match self.random.u8(0..4) {
            _ if !hit && self.chance(|weights| weights.glacial) => 20_000,
            _ if !hit => {
                if self.chance(|weights| weights.slow) {
                    3_000
                } else {
                    20
                }
            }
            0 => 50,
            1 | 2 => 3_000,
            _ => 20_000,
        };
        Duration::from_millis(self.random.u64(0..=most))
    }

    /// What a call that hangs takes beyond that: longer than a native sink's call may.
    pub fn hang(&mut self, claim: usize) -> Duration {
        if !self.chance(|weights| weights.hang) {
            return Duration::ZERO;
        }
        self.mark("call hung");
        self.claims[claim].excused = true;
        Duration::from_secs(45)
    }
}
