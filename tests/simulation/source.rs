//! A consumer group of one, whose partitions come and go as the world's dice say.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidegate::model::{Batch, Fault, Offset, TopicPartition};
use tidegate::source::{CommitError, Event, Read, Reader, Source};

use super::world::{Shared, TOPIC, World, Write, lock};

/// What happens to the assignment, and when.
enum Plan {
    Assign(usize),
    Take { lost: bool },
}

pub struct FakeSource {
    world: Shared,
    plans: Vec<(tokio::time::Instant, Plan)>,
}

impl FakeSource {
    /// All partitions come within the first second; revocations and losses are strewn over `life`.
    pub fn new(world: Shared, life: Duration) -> Self {
        let now = tokio::time::Instant::now();
        let mut plans = Vec::new();
        {
            let mut world = lock(&world);
            for partition in 0..world.logs.len() {
                world.logs[partition].ours = false;
                plans.push((now + Duration::from_millis(world.random.u64(0..1_000)), Plan::Assign(partition)));
            }
            let span = u64::try_from(life.as_millis()).unwrap_or(1).max(1);
            for _ in 0..6 {
                for lost in [true, false] {
                    if world.chance(|weights| if lost { weights.lose } else { weights.revoke }) {
                        let at = now + Duration::from_millis(world.random.u64(0..span));
                        plans.push((at, Plan::Take { lost }));
                    }
                }
            }
        }
        let mut source = Self { world, plans };
        source.sort();
        source
    }

    fn sort(&mut self) {
        // The latest first, so that the next one is popped from the end; stable, so a seed repeats.
        self.plans.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    }

    /// Another member serves a partition for a while; it comes back later.
    fn give_away(&mut self, partitions: &[usize]) {
        let mut world = lock(&self.world);
        for &partition in partitions {
            if world.chance(|weights| weights.foreign) {
                world.mark("another member went on");
                let done = world.random.usize(1..6);
                let log = &mut world.logs[partition];
                let next: Vec<Offset> =
                    log.offsets.iter().copied().filter(|offset| *offset >= log.committed).take(done).collect();
                if let Some(last) = next.last() {
                    log.committed = last + 1;
                }
                log.foreign.extend(next.iter().copied());
                for sink in 0..3 {
                    for &offset in &next {
                        for ordinal in 0..world.yields(sink, partition, offset) {
                            world.durable[sink].push(Write { partition, offset, ordinal });
                        }
                    }
                }
            }
            let back = tokio::time::Instant::now() + Duration::from_millis(world.random.u64(0..5_000));
            self.plans.push((back, Plan::Assign(partition)));
        }
        drop(world);
        self.sort();
    }
}

#[async_trait]
impl Source for FakeSource {
    type Reader = FakeReader;

    async fn next(&mut self) -> Event<FakeReader> {
        loop {
            let Some((at, _)) = self.plans.last() else {
                std::future::pending::<()>().await;
                continue;
            };
            tokio::time::sleep_until(*at).await;
            let Some((_, plan)) = self.plans.pop() else { continue };
            let mut world = lock(&self.world);
            match plan {
                Plan::Assign(partition) => {
                    world.logs[partition].ours = true;
                    world.logs[partition].leaving = false;
                    let start = world.logs[partition].committed;
                    world.note(format!("assign [{partition}] at {start}"));
                    let limit = world.random.usize(1..20);
                    return Event::Assigned(vec![FakeReader {
                        world: self.world.clone(),
                        partition: TopicPartition::new(TOPIC, i32::try_from(partition).unwrap_or(0)),
                        at: partition,
                        start,
                        next: start,
                        limit,
                        lies: 0,
                    }]);
                }
                Plan::Take { lost } => {
                    let ours: Vec<usize> = (0..world.logs.len())
                        .filter(|partition| world.logs[*partition].ours && !world.logs[*partition].leaving)
                        .collect();
                    let taken: Vec<usize> = ours.into_iter().filter(|_| world.random.bool()).collect();
                    if taken.is_empty() {
                        continue;
                    }
                    world.note(format!("take {taken:?} lost={lost}"));
                    world.mark(if lost { "partition lost" } else { "partition revoked" });
                    let names = taken
                        .iter()
                        .map(|partition| TopicPartition::new(TOPIC, i32::try_from(*partition).unwrap_or(0)))
                        .collect();
                    if lost {
                        for &partition in &taken {
                            world.logs[partition].ours = false;
                        }
                        return Event::Lost(names);
                    }
                    for &partition in &taken {
                        world.logs[partition].leaving = true;
                    }
                    return Event::Revoked(names);
                }
            }
        }
    }

    async fn release(&mut self, partitions: Vec<TopicPartition>) {
        let released: Vec<usize> =
            partitions.iter().map(|partition| usize::try_from(partition.partition).unwrap_or(0)).collect();
        {
            let mut world = lock(&self.world);
            world.note(format!("release {released:?}"));
            for &partition in &released {
                world.logs[partition].ours = false;
            }
        }
        self.give_away(&released);
    }

    async fn close(&mut self) {
        for log in &mut lock(&self.world).logs {
            log.ours = false;
        }
    }
}

pub struct FakeReader {
    world: Shared,
    partition: TopicPartition,
    at: usize,
    start: Offset,
    next: Offset,
    limit: usize,
    lies: u32,
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
        let pause = lock(&self.world).pause();
        tokio::time::sleep(pause).await;
        let (offsets, end) = {
            let mut world = lock(&self.world);
            let most = world.random.usize(1..=self.limit);
            let log = &world.logs[self.at];
            let offsets: Vec<Offset> =
                log.offsets.iter().copied().filter(|offset| *offset >= self.next).take(most).collect();
            (offsets, log.end)
        };
        if let Some(last) = offsets.last() {
            self.next = last + 1;
            let mut batch = Batch::new(self.partition.clone());
            for offset in offsets {
                batch.push(offset, offset, Some(&World::key(self.at, offset)), Some(b"{}"));
            }
            lock(&self.world).mark("window");
            return Ok(Read::Records(Arc::new(batch)));
        }
        if self.next < end {
            self.next = end;
            return Ok(Read::Position(end));
        }
        std::future::pending().await
    }

    async fn rewind(&mut self, to: Offset) -> Result<(), Fault> {
        let pause = lock(&self.world).pause();
        tokio::time::sleep(pause).await;
        let mut world = lock(&self.world);
        world.note(format!("rewind [{}] to {to}", self.at));
        world.mark("rewind");
        if world.chance(|weights| weights.seek_fault) {
            world.mark("seek failed");
            return Err(Fault::host("simulated: seek failed"));
        }
        // S34a: a seek that says it worked and did not. Never often enough in a row to pass for a deleted record.
        if self.lies < 2 && world.chance(|weights| weights.seek_lie) {
            world.mark("seek lied");
            self.lies += 1;
            return Ok(());
        }
        self.lies = 0;
        self.next = to;
        Ok(())
    }

    async fn set_paused(&mut self, _paused: bool) -> Result<(), Fault> {
        Ok(())
    }

    async fn commit(&mut self, offset: Offset) -> Result<(), CommitError> {
        let pause = lock(&self.world).pause();
        tokio::time::sleep(pause).await;
        let mut world = lock(&self.world);
        if world.chance(|weights| weights.commit_fault) {
            world.mark("commit failed");
            let late = world.random.bool();
            if late {
                // The broker took it, only the answer was lost.
                world.commit(self.at, offset);
            }
            return match world.random.u8(0..3) {
                0 => Err(CommitError::Stale("simulated".into())),
                _ => Err(CommitError::Retry(Fault::host("simulated: commit failed"))),
            };
        }
        world.commit(self.at, offset);
        Ok(())
    }
}
