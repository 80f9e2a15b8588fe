//! The thread that alone polls, pauses, seeks and assigns (S45a). It never waits for a worker: what a worker cannot take
//! stays with librdkafka, and the group's calls go on meanwhile (S14). It never waits for a broker either: another thread asks
//! what has to be asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::{ClientConfig, Message};
use tokio::sync::{mpsc, oneshot};

use super::config::First;
use super::context::{Bell, Context, Rebalance};
use super::inquiry::Rules;
use super::lane::{Filled, Lane, Standing};
use super::offsets::{self, lowest};
use super::reader::KafkaReader;
use super::ready::Ready;
use super::resolver::Resolver;
use super::rewind::Rewind;
use super::truncation::Truncation;
use super::witness::Witness;
use super::{CLOSE_PATIENCE, Limits, OnOffsetGap};
use crate::clock::{self, Instant};
use crate::memory::Account;
use crate::model::{Fault, Offset, TopicPartition};
use crate::source::Event;

mod assignment;
mod end;
mod joining;
mod opening;
mod rewinds;
mod trouble;
mod truncation;

use end::Ends;
use joining::Unjoined;
use opening::Openings;

/// The main queue is polled at least this often: the group's calls and all callbacks come from it.
const MAIN_POLL: Duration = Duration::from_millis(50);
/// Entries of the main queue that are looked at in one turn, so that a flood of them does not hold up the records.
const MAIN_ENTRIES: usize = 64;
/// A look at partitions whose queues have announced nothing is spread over so many turns, and takes at most so many in one.
const SWEEP_TURNS: usize = 20;
const SWEEP_LANES: usize = 25;
/// An order to the thread.
pub(super) enum Command {
    /// Go back; see [`Rewind`].
    Rewind { partition: TopicPartition, to: Offset, epoch: u64, done: oneshot::Sender<Result<(), Fault>> },
    /// Stop fetching, or go on.
    Pause { partition: TopicPartition, paused: bool, done: oneshot::Sender<Result<(), Fault>> },
    /// Give partitions away that no worker serves any more.
    Release { partitions: Vec<TopicPartition>, done: oneshot::Sender<()> },
    /// Leave the group and end.
    Close,
}

/// What the thread is told at its start.
pub(super) struct Settings {
    pub topics: Vec<String>,
    pub limits: Limits,
    pub first: First,
    pub until_end: bool,
    pub on_offset_gap: OnOffsetGap,
    /// Whether records of transactions that are still open are left for later.
    pub read_committed: bool,
    pub witness: Arc<Witness>,
    /// For questions of a client of its own.
    pub client: ClientConfig,
}

/// Partitions taken from us that workers still serve.
struct Closing {
    partitions: Vec<TopicPartition>,
    left: BTreeSet<TopicPartition>,
    /// The claim to commit is gone, and the workers know.
    lost: bool,
}

/// Partitions that workers have let go and whose last commit may be on its way.
struct Release {
    partitions: Vec<TopicPartition>,
    since: Instant,
    done: oneshot::Sender<()>,
}

/// The thread's state.
pub(super) struct Poller {
    consumer: Arc<BaseConsumer<Context>>,
    settings: Settings,
    bell: Arc<Bell>,
    sender: mpsc::WeakSender<Command>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event<KafkaReader>>,
    outbox: VecDeque<Event<KafkaReader>>,
    lanes: BTreeMap<TopicPartition, Lane>,
    /// Lanes to look at.
    ready: Arc<Ready>,
    /// What the library has been assigned: the lanes, and those that workers have let go and that are not answered for yet.
    assigned: BTreeSet<TopicPartition>,
    memory: Arc<Account>,
    openings: Openings,
    closing: Option<Closing>,
    releases: Vec<Release>,
    rewinds: Vec<Rewind>,
    /// Partitions that are taken up again where their log was cut, once no worker serves them any more.
    truncated: BTreeMap<TopicPartition, Truncation>,
    /// Below these offsets a partition's lost records are counted.
    gone: BTreeMap<TopicPartition, Offset>,
    /// What keeps this member out of the group, and may pass.
    unjoined: Option<Unjoined>,
    failed: bool,
    /// Only of a source with an end.
    ends: Option<Ends>,
    /// Whether topics are missing is being asked.
    asking_for_topics: bool,
    ended: bool,
    /// When the assignment last changed; `None` before the first one.
    changed: Option<Instant>,
    polled: Instant,
    swept: Instant,
    /// The last partition that was swept.
    swept_to: Option<TopicPartition>,
}

impl Poller {
    pub(super) fn new(
        consumer: Arc<BaseConsumer<Context>>,
        settings: Settings,
        (memory, bell): (Arc<Account>, Arc<Bell>),
        (sender, commands): (mpsc::WeakSender<Command>, mpsc::Receiver<Command>),
        events: mpsc::Sender<Event<KafkaReader>>,
    ) -> Result<Self, Fault> {
        let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(|error| Fault::config(format!("cannot subscribe to {}", topics.join(", "))).because(error))?;
        let now = clock::instant();
        let ends = settings.until_end.then(|| Ends::start(&settings, &bell)).transpose()?;
        let rules = Rules {
            topics: settings.topics.clone(),
            first: settings.first,
            on_gap: settings.on_offset_gap,
            read_committed: settings.read_committed,
        };
        let resolver = Resolver::start(Arc::clone(&consumer), rules, settings.client.clone(), Arc::clone(&bell))?;
        Ok(Self {
            consumer,
            settings,
            memory,
            sender,
            commands,
            events,
            outbox: VecDeque::new(),
            lanes: BTreeMap::new(),
            ready: Arc::new(Ready::new(Arc::clone(&bell))),
            assigned: BTreeSet::new(),
            openings: Openings::new(resolver),
            bell,
            closing: None,
            releases: Vec::new(),
            rewinds: Vec::new(),
            truncated: BTreeMap::new(),
            gone: BTreeMap::new(),
            unjoined: None,
            failed: false,
            ends,
            asking_for_topics: false,
            ended: false,
            changed: None,
            polled: now,
            swept: now,
            swept_to: None,
        })
    }

    pub(super) fn run(mut self) {
        self.bell.hang(std::thread::current());
        loop {
            self.poll_main();
            if !self.obey() {
                break;
            }
            self.rebalance();
            self.rewind();
            self.fill();
            self.end();
            self.report();
            // Rung by every queue that becomes non-empty, every order, and every window taken.
            std::thread::park_timeout(self.longest_rest());
        }
        self.close();
    }

    /// Serves the group's calls, callbacks and errors.
    fn poll_main(&mut self) {
        self.polled = clock::instant();
        let consumer = Arc::clone(&self.consumer);
        let mut quiet = 0;
        for _ in 0..MAIN_ENTRIES {
            match consumer.poll(Duration::ZERO) {
                Some(Ok(record)) => {
                    // Queues are split off before they are assigned, so that none is expected here. If one comes, it is
                    // older than what waits in its partition's queue.
                    let place = TopicPartition::new(record.topic(), record.partition());
                    let low = || lowest(&consumer, self.settings.on_offset_gap, &place);
                    match self.lanes.get_mut(&place).filter(|lane| !lane.moving) {
                        Some(lane) => lane.window.take(&record, &low),
                        None => tracing::debug!(at = place.at(record.offset()), "a record of no partition of ours"),
                    }
                }
                Some(Err(error)) => self.complain(&error),
                // Log lines and rebalances are used up inside and look like an empty queue.
                None if quiet == 2 => break,
                None => quiet += 1,
            }
        }
    }

    /// Carries out what was ordered. `false`: the end.
    fn obey(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Close) | Err(mpsc::error::TryRecvError::Disconnected) => return false,
                Err(mpsc::error::TryRecvError::Empty) => break,
                Ok(Command::Rewind { partition, to, epoch, done }) => {
                    let rewind = Rewind::new(partition, to, epoch, done);
                    self.supersede(&rewind.partition);
                    match self.lanes.get_mut(&rewind.partition) {
                        Some(lane) if lane.shared.standing() == Standing::Held => {
                            lane.moving = true;
                            self.rewinds.push(rewind);
                        }
                        _ => rewind.let_go(),
                    }
                }
                Ok(Command::Pause { partition, paused, done }) => {
                    let _ = done.send(self.pause(&partition, paused));
                }
                Ok(Command::Release { partitions, done }) => {
                    self.releases.push(Release { partitions, since: clock::instant(), done });
                }
            }
        }
        self.release();
        true
    }

    fn pause(&mut self, partition: &TopicPartition, paused: bool) -> Result<(), Fault> {
        let Some(lane) = self.lanes.get_mut(partition) else { return Ok(()) };
        lane.paused = paused;
        lane.shared.soil();
        if lane.moving {
            // A rewind on its way has stopped fetching already and leaves it as it is wanted at its end.
            return Ok(());
        }
        let place = offsets::list(std::slice::from_ref(partition));
        let result = if paused { self.consumer.pause(&place) } else { self.consumer.resume(&place) };
        result.map_err(|error| Fault::host(format!("fetching of {partition} cannot be switched")).because(error))
    }

    /// Moves what is fetched into windows, as far as workers have room. Who has waited longest is served first.
    fn fill(&mut self) {
        if self.memory.take_relieved() {
            self.lanes.values().for_each(|lane| lane.shared.soil());
        }
        self.sweep();
        let partitions = self.lanes.len();
        let mut drained = Vec::new();
        let (mut failures, mut gaps, mut truncations) = (Vec::new(), Vec::new(), Vec::new());
        // Those that announce themselves meanwhile are served in the next turn.
        for _ in 0..self.ready.len() {
            let Some(partition) = self.ready.pop() else { break };
            let Some(lane) = self.lanes.get_mut(&partition) else { continue };
            let dirty = lane.shared.take_dirty();
            if lane.moving || lane.shared.standing() != Standing::Held || !dirty {
                continue;
            }
            let low = || lowest(&self.consumer, self.settings.on_offset_gap, &partition);
            let filled = lane.fill(partitions, &low);
            gaps.extend(lane.window.take_gaps().map(|gap| (partition.clone(), gap)));
            match filled {
                Filled::Full => {}
                Filled::Drained => drained.push(partition),
                Filled::Truncated(truncation) => truncations.push((partition, truncation)),
                Filled::Failed(error) => {
                    lane.shared.soil();
                    failures.push((partition, error));
                }
            }
            if self.polled.elapsed() >= MAIN_POLL {
                // Those that were not reached are the first ones in the next turn, which the bell makes come at once.
                self.bell.ring();
                break;
            }
        }
        for (partition, error) in failures {
            self.misplaced(&partition, &error);
        }
        for (partition, truncation) in truncations {
            self.truncate(&partition, truncation);
        }
        for (partition, gap) in gaps {
            self.passed_over(&partition, gap);
        }
        self.pass_positions(&drained);
    }

    /// Has some partitions looked at that have announced nothing: all of them within a second when they are few.
    fn sweep(&mut self) {
        if self.lanes.is_empty() || self.swept.elapsed() < MAIN_POLL {
            return;
        }
        self.swept = clock::instant();
        let count = self.lanes.len().div_ceil(SWEEP_TURNS).min(SWEEP_LANES);
        let after = self.swept_to.take().map_or(Bound::Unbounded, Bound::Excluded);
        for (partition, lane) in self.lanes.range((after, Bound::Unbounded)).take(count) {
            lane.shared.soil();
            self.swept_to = Some(partition.clone());
        }
    }

    /// Tells readers whose partition is read to its end how far that is (S99).
    fn pass_positions(&mut self, drained: &[TopicPartition]) {
        if drained.is_empty() {
            return;
        }
        for (partition, position) in drained.iter().zip(offsets::positions(&self.consumer, drained)) {
            if let (Some((offset, leader_epoch)), Some(lane)) = (position, self.lanes.get_mut(partition)) {
                if offset > lane.window.wanted() {
                    // What is passed is no record of its own that could tell its epoch.
                    lane.window.note(leader_epoch);
                }
                lane.window.pass(offset, &|| lowest(&self.consumer, self.settings.on_offset_gap, partition));
            }
        }
    }

    fn report(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(event)) => return self.outbox.push_front(event),
            }
        }
    }

    fn longest_rest(&self) -> Duration {
        let now = clock::instant();
        let due = self.rewinds.iter().map(|rewind| rewind.due).min();
        due.map_or(MAIN_POLL, |due| due.saturating_duration_since(now).min(MAIN_POLL))
    }

    /// Leaves the group. A revocation that stays unanswered would make the consumer's end hang for ever, so that whatever
    /// is open is answered first.
    fn close(mut self) {
        for lane in self.lanes.values() {
            lane.shared.stand(Standing::Gone);
        }
        self.lanes.clear();
        let consumer = self.consumer;
        consumer.context().close();
        let asking = self.openings.into_resolver().end();
        let mut open: Vec<Rebalance> = Vec::new();
        open.extend(self.closing.take().map(|it| Rebalance::Revoke { partitions: it.partitions, lost: false }));
        open.extend(std::iter::from_fn(|| consumer.context().take_rebalance()));
        for change in open {
            let answer = match change {
                Rebalance::Assign(_) => consumer.incremental_assign(&TopicPartitionList::new()),
                Rebalance::Revoke { mut partitions, .. } => {
                    partitions.retain(|partition| self.assigned.remove(partition));
                    consumer.incremental_unassign(&offsets::list(&partitions))
                }
            };
            if let Err(error) = answer {
                tracing::debug!("while closing: {error}");
            }
        }
        let started = clock::instant();
        if let Err(error) = consumer.close_queue() {
            tracing::debug!("while closing: {error}");
        }
        // Commits on their way hold the consumer too; they end with it or before it. A question to a broker that does not
        // answer is not waited for: the thread that asks then frees the consumer.
        let others = || Arc::strong_count(&consumer) - 1 - usize::from(!asking.is_finished());
        while started.elapsed() < CLOSE_PATIENCE && !(consumer.closed() && others() == 0) {
            let _ = consumer.poll(MAIN_POLL);
        }
        if !consumer.closed() {
            tracing::warn!("the consumer group could not be left in time");
            // Ending it would wait without end for what did not come in time; the process ends soon.
            std::mem::forget(consumer);
        }
    }
}
