//! A member of the group as the pipeline sees it: changes of the assignment, and readers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidegate::model::{Batch, Fault, Offset, TopicPartition};
use tidegate::source::{CommitError, Event, Read, Reader, Source};
use tokio::time::Instant;

use super::call::{Call, Host};
use super::group::Standing;
use super::member::Change;
use super::world::{TOPIC, World, lock};

/// How long letting a partition go waits for a commit that is on its way, as the Kafka source does.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);
/// Most records of one window.
const LARGEST_WINDOW: usize = 20;

fn name(partition: usize) -> TopicPartition {
    TopicPartition::new(TOPIC, i32::try_from(partition).unwrap_or(0))
}

pub struct FakeSource {
    pub host: Host,
}

impl FakeSource {
    /// The next change that is due, or when to look again.
    fn take(&self) -> Result<Event<FakeReader>, Option<Instant>> {
        let mut guard = lock(&self.host.world);
        let world = &mut *guard;
        let member = self.host.member;
        loop {
            if let Some(Change::Lost { at, .. }) = world.members[member].changes.front()
                && *at > Instant::now()
            {
                return Err(Some(*at));
            }
            match world.members[member].changes.pop_front().ok_or(None)? {
                Change::Assigned(claim) => {
                    if world.claims[claim].standing == Standing::Coming {
                        return Ok(Event::Assigned(vec![self.reader(world, claim)]));
                    }
                }
                Change::Revoked(claims) => {
                    let now = Instant::now();
                    let released = world.members[member].release_time(now);
                    for &claim in &claims {
                        let claim = &mut world.claims[claim];
                        if claim.standing == Standing::Held {
                            claim.standing = Standing::Leaving;
                        }
                        claim.told = Some((now, released));
                    }
                    world.note(format!("member {member} is told to leave {claims:?}"));
                    world.mark("partition revoked");
                    return Ok(Event::Revoked(claims.iter().map(|one| name(world.claims[*one].partition)).collect()));
                }
                Change::Lost { mut claims, .. } => {
                    claims.retain(|claim| world.claims[*claim].standing == Standing::Fenced);
                    if claims.is_empty() {
                        continue;
                    }
                    for &claim in &claims {
                        world.claims[claim].standing = Standing::Told;
                        if world.claims[claim].revoking {
                            world.mark("a loss overtook a revocation");
                        }
                    }
                    world.note(format!("member {member} is told that {claims:?} are lost"));
                    world.mark("partition lost");
                    return Ok(Event::Lost(claims.iter().map(|one| name(world.claims[*one].partition)).collect()));
                }
            }
        }
    }

    fn reader(&self, world: &mut World, claim: usize) -> FakeReader {
        let (member, at) = (self.host.member, world.claims[claim].partition);
        let start = world.logs[at].committed;
        world.claims[claim].standing = Standing::Held;
        world.note(format!("assign [{at}] at {start} to member {member} as claim {claim}"));
        let limit = world.random.usize(1..LARGEST_WINDOW);
        FakeReader { host: self.host.clone(), partition: name(at), at, claim, start, next: start, limit }
    }

    /// Lets claims go, after the commits on their way.
    async fn let_go(&self, claims: Vec<usize>) {
        let now = Instant::now();
        {
            let mut world = lock(&self.host.world);
            for &claim in &claims {
                world.check_budget(claim, now);
            }
            world.members[self.host.member].releasing = Some(now);
        }
        if let Some(claim) = claims.first() {
            let partition = lock(&self.host.world).claims[*claim].partition;
            self.host.call(Call::Release, partition, 0).await;
        }
        for &claim in &claims {
            let turn = lock(&self.host.world).claims[claim].turn.clone();
            if turn.try_lock().is_err() {
                lock(&self.host.world).mark("release waited for a commit");
                let _ = tokio::time::timeout(COMMIT_PATIENCE, turn.lock()).await;
            }
        }
        self.host.gate().await;
        let mut world = lock(&self.host.world);
        world.note(format!("member {} lets {claims:?} go", self.host.member));
        for claim in claims {
            let partition = world.claims[claim].partition;
            if world.logs[partition].owner == Some(claim) {
                world.logs[partition].owner = None;
            }
            world.claims[claim].standing = Standing::Gone;
        }
        let spent = now.elapsed();
        let member = &mut world.members[self.host.member];
        member.releasing = None;
        member.released += spent;
    }
}

#[async_trait]
impl Source for FakeSource {
    type Reader = FakeReader;

    async fn next(&mut self) -> Event<FakeReader> {
        let bell = lock(&self.host.world).members[self.host.member].bell.clone();
        loop {
            self.host.gate().await;
            match self.take() {
                Ok(event) => return event,
                Err(None) => bell.notified().await,
                Err(Some(at)) => {
                    let _ = tokio::time::timeout_at(at, bell.notified()).await;
                }
            }
        }
    }

    async fn release(&mut self, partitions: Vec<TopicPartition>) {
        let claims = {
            let world = lock(&self.host.world);
            let named = |at: usize| partitions.iter().any(|partition| *partition == name(at));
            let mut claims = world.claims_of(self.host.member, |standing| standing != Standing::Gone);
            claims.retain(|claim| named(world.claims[*claim].partition));
            claims
        };
        self.let_go(claims).await;
    }

    async fn close(&mut self, _patience: Duration) {
        let claims = lock(&self.host.world).claims_of(self.host.member, |standing| standing != Standing::Gone);
        self.let_go(claims).await;
    }
}

pub struct FakeReader {
    host: Host,
    partition: TopicPartition,
    at: usize,
    claim: usize,
    start: Offset,
    next: Offset,
    limit: usize,
}

#[async_trait]
impl Reader for FakeReader {
    fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    fn start(&self) -> Offset {
        self.start
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        if self.next == self.start {
            let mut world = lock(&self.host.world);
            let (member, at) = (self.host.member, self.at);
            let rows = world.held(member, at).len();
            if rows > 0 {
                world.violate(format!(
                    "[{at}] is read by a member that still buffers {rows} rows of an earlier claim (S26)"
                ));
            }
        }
        self.host.call(Call::Read, self.at, 0).await;
        let (offsets, end) = {
            let mut world = lock(&self.host.world);
            // In the end there is a backlog, and windows that are large enough for a chosen row to have neighbours.
            let most = if world.calm { LARGEST_WINDOW.max(self.limit) } else { self.limit };
            let most = world.random.usize(1..=most);
            // A paused partition is not fetched, and neither is one that is being taken (S50).
            let open = world.claims[self.claim].standing == Standing::Held && !world.claims[self.claim].paused;
            let log = &world.logs[self.at];
            let shown = log.offsets.iter().take(if open { log.shown } else { 0 });
            let offsets: Vec<Offset> = shown.copied().filter(|offset| *offset >= self.next).take(most).collect();
            (offsets, if open && log.shown == log.offsets.len() { log.end } else { self.next })
        };
        if let Some(last) = offsets.last() {
            self.next = last + 1;
            let mut batch = Batch::new(self.partition.clone());
            for offset in offsets {
                batch.push(offset, offset, Some(&World::key(self.at, offset)), Some(b"{}"));
            }
            lock(&self.host.world).mark("window");
            return Ok(Read::Records(Arc::new(batch)));
        }
        if self.next < end {
            self.next = end;
            return Ok(Read::Position(end));
        }
        std::future::pending().await
    }

    async fn rewind(&mut self, to: Offset) -> Result<(), Fault> {
        self.host.call(Call::Rewind, self.at, 0).await;
        let mut world = lock(&self.host.world);
        world.note(format!("rewind [{}] to {to} under claim {}", self.at, self.claim));
        world.mark("rewind");
        if !std::mem::take(&mut world.claims[self.claim].excused) {
            world.violate(format!("[{}] was rewound to {to} though nothing of it had failed (S50)", self.at));
        }
        let rows = world.held(self.host.member, self.at).len();
        if rows > 0 {
            world.violate(format!("[{}] was rewound with {rows} rows still in a buffer (S26)", self.at));
        }
        if world.chance(|weights| weights.seek_fault) {
            world.mark("seek failed");
            world.claims[self.claim].excused = true;
            return Err(Fault::host("simulated: seek failed"));
        }
        // S34a: a seek that says it worked and did not.
        if world.chance(|weights| weights.seek_lie) {
            world.mark("seek lied");
            world.claims[self.claim].excused = true;
            return Ok(());
        }
        self.next = to;
        Ok(())
    }

    async fn first_from(&mut self, from: Offset) -> Result<Option<Offset>, Fault> {
        self.host.call(Call::Read, self.at, 0).await;
        Ok(lock(&self.host.world).logs[self.at].offsets.iter().copied().find(|offset| *offset >= from))
    }

    async fn set_paused(&mut self, paused: bool) -> Result<(), Fault> {
        self.host.call(Call::SetPaused, self.at, 0).await;
        lock(&self.host.world).claims[self.claim].paused = paused;
        Ok(())
    }

    async fn commit(&mut self, offset: Offset) -> Result<(), CommitError> {
        let turn = lock(&self.host.world).claims[self.claim].turn.clone();
        let turn = turn.lock_owned().await;
        let flight = {
            let mut world = lock(&self.host.world);
            let (member, claim) = (self.host.member, self.claim);
            world.begin(member, Call::Commit, self.at, 0);
            let hit = world.point(member, Call::Commit, Some(claim));
            // No longer than the broker may take: the source waits for it before it lets the partition go.
            world.pause(hit).min(Duration::from_secs(4))
        };
        let (shared, claim) = (self.host.world.clone(), self.claim);
        let asking = Arc::new(());
        let asked = Arc::downgrade(&asking);
        // On its way it cannot be called back: given up, it still arrives.
        let answer = tokio::spawn(async move {
            let _turn = turn;
            tokio::time::sleep(flight).await;
            let mut world = lock(&shared);
            if asked.upgrade().is_none() {
                world.mark("commit arrived after it was given up");
            }
            land(&mut world, claim, offset)
        })
        .await;
        drop(asking);
        self.host.gate().await;
        answer.unwrap_or_else(|error| Err(CommitError::Retry(Fault::host(error.to_string()))))
    }
}

fn land(world: &mut World, claim: usize, offset: Offset) -> Result<(), CommitError> {
    let refused = || CommitError::Stale("simulated: another generation".into());
    if world.chance(|weights| weights.commit_fault) {
        world.mark("commit failed");
        return match world.random.u8(0..4) {
            0 => Err(CommitError::Stale("simulated: rebalance in progress".into())),
            1 => Err(CommitError::Retry(Fault::host("simulated: commit failed"))),
            _ => {
                if world.commit(claim, offset) {
                    world.mark("answer of a commit lost");
                }
                Err(CommitError::Retry(Fault::host("simulated: commit timed out")))
            }
        };
    }
    if world.commit(claim, offset) { Ok(()) } else { Err(refused()) }
}
