//! The consumer group: who owns which partition, cooperative hand-over, and what happens to members.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::call::Call;
use super::member::Change;
use super::stage::BUFFERING;
use super::world::World;

/// The least that a last commit may take even when the revoke budget is spent (S46).
const COMMIT_FLOOR: Duration = Duration::from_secs(5);
/// What cancelling, discarding and the way to `release` may take beyond it.
const RELEASE_SLACK: Duration = Duration::from_secs(6);

/// How a claim stands with the group and with the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Given, and the member does not know yet.
    Coming,
    Held,
    /// The member was told to finish; the group still waits for it.
    Leaving,
    /// The group went on without the member, which was not told.
    Fenced,
    /// The loss was told.
    Told,
    /// Released, or its member is dead.
    Gone,
}

/// A wait that a destination asked for.
#[derive(Default)]
pub struct Patience {
    until: Duration,
    in_a_row: u32,
    /// A call is under way; one that is given up never answers, and what it would have said is not known.
    open: bool,
}

/// One partition given to one member, from the assignment to the release.
pub struct Claim {
    pub member: usize,
    pub partition: usize,
    pub standing: Standing,
    /// A revocation is on its way.
    pub revoking: bool,
    /// Something failed since the last rewind, so that there is a reason for another one (S50).
    pub excused: bool,
    pub paused: bool,
    /// Held by the commit that is on its way (S16).
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// When the revocation was told, with the time that the member had spent in `release` by then.
    pub told: Option<(Instant, Duration)>,
    patience: BTreeMap<(Call, usize), Patience>,
}

/// What happens to a member at an await point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Revoked,
    Lost,
    Crashed,
    Stopped,
    Suspended,
    Jumped,
}

impl Fault {
    pub const ALL: [Self; 6] = [Self::Revoked, Self::Lost, Self::Crashed, Self::Stopped, Self::Suspended, Self::Jumped];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Lost => "lost",
            Self::Crashed => "crashed",
            Self::Stopped => "stopped",
            Self::Suspended => "suspended",
            Self::Jumped => "time jumped",
        }
    }
}

impl World {
    /// A call for a partition begins. S49: none may once the loss was told.
    pub fn begin(&mut self, member: usize, call: Call, partition: usize, sink: usize) -> usize {
        let found = self.claims.iter().rposition(|claim| claim.member == member && claim.partition == partition);
        let Some(claim) = found else { panic!("member {member} never had partition {partition}") };
        let standing = self.claims[claim].standing;
        if !matches!(call, Call::Discard | Call::Release) && matches!(standing, Standing::Told | Standing::Gone) {
            self.violate(format!("[{partition}] {} began after its loss was told to member {member}", call.name()));
        }
        let now = self.time_of(member);
        let early = self.claims[claim].patience.get_mut(&(call, sink)).is_some_and(|asked| {
            if std::mem::replace(&mut asked.open, true) {
                asked.in_a_row = 0;
            }
            now < asked.until
        });
        if early {
            self.violate(format!("[{partition}] {} came again before the wait it had asked for", call.name()));
        }
        claim
    }

    /// A call answered. S33: patience asked for three times in a row is at least a tenth of a second.
    pub fn answered(&mut self, claim: usize, call: Call, sink: usize, wait: Option<Duration>) {
        let now = self.time_of(self.claims[claim].member);
        let patience = self.claims[claim].patience.entry((call, sink)).or_default();
        patience.open = false;
        patience.in_a_row = if wait.is_some() { patience.in_a_row + 1 } else { 0 };
        let least = Duration::from_millis(if patience.in_a_row > 2 { 100 } else { 0 });
        patience.until = wait.map_or(Duration::ZERO, |wait| now + wait.max(least));
        if patience.in_a_row > 3 {
            self.mark(format!("backpressure storm in {}", call.name()));
        }
    }

    /// Something else than backpressure came in between, so that what is asked for next is asked for the first time.
    pub fn asked_anew(&mut self, claim: usize, call: Call) {
        if let Some(patience) = self.claims[claim].patience.get_mut(&(call, BUFFERING)) {
            patience.in_a_row = 0;
        }
    }

    /// The guest has room again, so that what it asked for in `add` is over (S27b).
    pub fn room_made(&mut self, claim: usize) {
        if let Some(patience) = self.claims[claim].patience.get_mut(&(Call::Add, BUFFERING)) {
            patience.until = Duration::ZERO;
        }
    }

    /// Something happens to the member, weighed by the swarm, to a claim of its where that matters.
    pub fn strike(&mut self, member: usize, claim: Option<usize>) -> Option<Fault> {
        let host = &self.members[member];
        if !host.alive || host.asleep_until.is_some_and(|until| until > Instant::now()) {
            return None;
        }
        let stopping = host.stopping;
        let claim = claim.or_else(|| {
            let held: Vec<usize> = self.claims_of(member, |standing| standing == Standing::Held);
            (!held.is_empty()).then(|| held[self.random.usize(0..held.len())])
        });
        let standing = claim.map(|claim| (self.claims[claim].standing, self.claims[claim].revoking));
        let weigh = |fault: Fault| match fault {
            Fault::Revoked if standing == Some((Standing::Held, false)) => self.weights.revoke,
            Fault::Lost if matches!(standing, Some((Standing::Held | Standing::Leaving, _))) => self.weights.lose,
            Fault::Crashed => self.weights.crash,
            Fault::Stopped if !stopping => self.weights.stop,
            Fault::Suspended => self.weights.suspend,
            Fault::Jumped => self.weights.time_jump / 4.0,
            _ => 0.0,
        };
        let weights = Fault::ALL.map(weigh);
        let mut dart = self.random.f64() * weights.iter().sum::<f64>();
        let fault = Fault::ALL.into_iter().zip(weights).find(|(_, weight)| {
            dart -= weight;
            *weight > 0.0 && dart <= 0.0
        });
        let (fault, _) = fault?;
        match (fault, claim) {
            (Fault::Revoked, Some(claim)) => self.revoke(claim),
            (Fault::Lost, Some(claim)) => {
                let known = self.claims[claim].standing == Standing::Held || self.random.bool();
                let delay = [0, 0, 2_000][self.random.usize(0..3)];
                let at = Instant::now() + Duration::from_millis(self.random.u64(0..=delay));
                self.fence(claim);
                if known {
                    self.tell(member, Change::Lost { claims: vec![claim], at });
                }
            }
            (Fault::Crashed, _) => self.crash(member),
            (Fault::Stopped, _) => self.stop(member),
            (Fault::Suspended, _) => {
                let asleep = [500, 10_000, 90_000][self.random.usize(0..3)];
                let asleep = Duration::from_millis(self.random.u64(100..=asleep));
                self.members[member].fell_asleep = Instant::now();
                self.members[member].asleep_until = Some(Instant::now() + asleep);
                self.disturb(member);
            }
            (Fault::Jumped, _) => {
                let ahead = [1_000, 60_000, 36_000_000][self.random.usize(0..3)];
                let ahead = Duration::from_millis(self.random.u64(1..=ahead));
                self.members[member].ahead += ahead;
                self.members[member].jumped.notify_waiters();
                self.disturb(member);
            }
            _ => return None,
        }
        Some(fault)
    }

    /// Its timers fire at once: calls may time out, which is a reason to start over, and no budget means anything.
    fn disturb(&mut self, member: usize) {
        for claim in self.claims.iter_mut().filter(|claim| claim.member == member) {
            claim.excused = true;
            claim.told = None;
        }
        self.members[member].stopped_at = None;
    }

    pub fn claims_of(&self, member: usize, standing: impl Fn(Standing) -> bool) -> Vec<usize> {
        let of = |claim: &Claim| claim.member == member && standing(claim.standing);
        (0..self.claims.len()).filter(|claim| of(&self.claims[*claim])).collect()
    }

    pub fn tell(&mut self, member: usize, change: Change) {
        self.members[member].changes.push_back(change);
        self.members[member].bell.notify_one();
    }

    /// Takes a partition with notice, and now and then others of the same member with it.
    fn revoke(&mut self, claim: usize) {
        let member = self.claims[claim].member;
        let others = self.claims_of(member, |standing| standing == Standing::Held);
        let too = self.random.u8(0..4) == 0;
        let taken: Vec<usize> =
            others.into_iter().filter(|other| *other == claim || (too && !self.claims[*other].revoking)).collect();
        for taken in &taken {
            self.claims[*taken].revoking = true;
        }
        self.tell(member, Change::Revoked(taken));
    }

    /// The group goes on without the claim.
    fn fence(&mut self, claim: usize) {
        let partition = self.claims[claim].partition;
        if self.logs[partition].owner == Some(claim) {
            self.logs[partition].owner = None;
        }
        let known = self.claims[claim].standing != Standing::Coming;
        self.claims[claim].standing = if known { Standing::Fenced } else { Standing::Gone };
        self.note(format!("[{partition}] goes on without claim {claim}"));
    }

    /// One look of the group's coordinator at its members.
    pub fn coordinate(&mut self) {
        let now = Instant::now();
        for partition in 0..self.logs.len() {
            let more = self.random.usize(0..4);
            let log = &mut self.logs[partition];
            log.shown = if self.calm { log.offsets.len() } else { (log.shown + more).min(log.offsets.len()) };
        }
        for claim in 0..self.claims.len() {
            self.look_after(claim, now);
        }
        for partition in 0..self.logs.len() {
            if self.logs[partition].owner.is_none() {
                self.give(partition);
            }
        }
        if self.chance(|weights| weights.balance) {
            self.balance();
        }
    }

    fn look_after(&mut self, claim: usize, now: Instant) {
        let Claim { member, partition, standing, .. } = self.claims[claim];
        let owned = self.logs[partition].owner == Some(claim);
        let host = &self.members[member];
        if let Some(died) = host.died.filter(|_| owned) {
            if now >= died + host.session {
                self.mark("session of a dead member expired");
                self.logs[partition].owner = None;
                self.claims[claim].standing = Standing::Gone;
            }
            return;
        }
        if let Some(until) = host.asleep_until.filter(|until| owned && *until > now) {
            let expired = host.fell_asleep + host.session <= now;
            if expired && standing != Standing::Gone {
                self.mark("session of a sleeping member expired");
                let late = Duration::from_millis(self.random.u64(0..3_000));
                let left = standing == Standing::Leaving;
                self.fence(claim);
                if standing != Standing::Coming && !(left && self.random.bool()) {
                    self.tell(member, Change::Lost { claims: vec![claim], at: until + late });
                }
            }
            return;
        }
        if standing == Standing::Leaving {
            self.check_budget(claim, now);
            if owned && self.chance(|_| 0.002) {
                self.mark("the group lost its patience with a member");
                self.fence(claim);
            }
        }
    }

    /// S46: the partition is let go within the budget, whatever is under way.
    pub fn check_budget(&mut self, claim: usize, now: Instant) {
        let Claim { member, partition, told, .. } = self.claims[claim];
        let host = &self.members[member];
        let Some((since, released)) = told.filter(|_| host.alive) else { return };
        let waited = host.release_time(now).saturating_sub(released);
        let limit = host.settings.revoke_budget + COMMIT_FLOOR + RELEASE_SLACK + waited;
        if now.duration_since(since) > limit {
            self.violate(format!(
                "[{partition}] was not let go within the revoke budget: {:?} after the notice, {:?} allowed",
                now.duration_since(since),
                limit
            ));
        }
    }

    /// Gives a partition to a member that is awake and holds nothing of an earlier claim to it.
    fn give(&mut self, partition: usize) {
        let now = Instant::now();
        let free: Vec<usize> = (0..self.members.len())
            .filter(|member| {
                let host = &self.members[*member];
                let awake = host.asleep_until.is_none_or(|until| until <= now);
                host.alive
                    && !host.stopping
                    && awake
                    && self.claims.iter().all(|claim| {
                        claim.member != *member || claim.partition != partition || claim.standing == Standing::Gone
                    })
            })
            .collect();
        if free.is_empty() {
            return;
        }
        let member = free[self.random.usize(0..free.len())];
        let claim = self.claims.len();
        let before = self.claims.iter().rfind(|claim| claim.partition == partition);
        let (taken_over, paused) = before.map_or((false, false), |before| (before.member != member, before.paused));
        if taken_over {
            self.mark("takeover");
        }
        if paused {
            self.mark("pause left behind");
        }
        self.claims.push(Claim {
            member,
            partition,
            standing: Standing::Coming,
            revoking: false,
            excused: false,
            paused: false,
            turn: Arc::default(),
            told: None,
            patience: BTreeMap::new(),
        });
        self.logs[partition].owner = Some(claim);
        self.tell(member, Change::Assigned(claim));
    }

    /// Moves one partition from the member that has most to one that has least.
    fn balance(&mut self) {
        let mut loads: Vec<(usize, usize)> = (0..self.members.len())
            .filter(|member| self.members[*member].alive && !self.members[*member].stopping)
            .map(|member| (self.claims_of(member, |standing| standing == Standing::Held).len(), member))
            .collect();
        loads.sort_unstable();
        if let (Some((least, _)), Some((most, member))) = (loads.first(), loads.last())
            && *most > least + 1
        {
            let held = self.claims_of(*member, |standing| standing == Standing::Held);
            if let Some(claim) = held.into_iter().find(|claim| !self.claims[*claim].revoking) {
                self.mark("balanced");
                self.revoke(claim);
            }
        }
    }
}
