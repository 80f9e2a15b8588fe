//! Partitions that the group has given to us and whose starts are not known yet. Each is asked about until there is an answer,
//! however long that takes, and delays no other.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::inquiry::Found;
use super::super::offsets::{Extent, Unresolved};
use super::super::resolver::{Question, Resolver};
use crate::clock::{self, Instant};
use crate::model::{Fault, TopicPartition};

/// The first and the longest wait before a partition without a start is asked about again.
const WAITS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Nothing is said of a partition that is without a start no longer than this: a new topic's leaders may still be elected.
const SILENCE: Duration = Duration::from_secs(1);
/// How often partitions without a start are named.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// So many are named at most.
const NAMED: usize = 10;

/// One partition.
struct Opening {
    /// Answers to earlier questions are about an earlier assignment.
    round: u64,
    since: Instant,
    due: Instant,
    wait: Duration,
    why: Option<String>,
}

/// All of them, with those whose starts are known and that are not assigned yet.
pub(super) struct Openings {
    resolver: Resolver,
    waiting: BTreeMap<TopicPartition, Opening>,
    ready: Vec<Extent>,
    round: u64,
    /// A question about starts is with the thread that asks, and not yet with the leaders.
    asking: bool,
    /// The earliest time at which one of them is due.
    due: Option<Instant>,
    said: Option<Instant>,
}

impl Openings {
    pub(super) fn new(resolver: Resolver) -> Self {
        Self { resolver, waiting: BTreeMap::new(), ready: Vec::new(), round: 0, asking: false, due: None, said: None }
    }

    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    pub(super) fn into_resolver(self) -> Resolver {
        self.resolver
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.ready.is_empty()
    }

    /// Takes up partitions that were given to us.
    pub(super) fn add(&mut self, partitions: Vec<TopicPartition>) {
        let now = clock::instant();
        let round = self.round + 1;
        for partition in partitions {
            self.waiting.insert(partition, Opening { round, since: now, due: now, wait: WAITS.0, why: None });
        }
        self.due = Some(now);
    }

    /// Forgets partitions that were taken from us: what is found out about them is of no use any more.
    pub(super) fn remove(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.waiting.remove(partition);
        }
        self.ready.retain(|extent| !partitions.contains(&extent.partition));
    }

    /// Asks about all that are due.
    pub(super) fn ask(&mut self) {
        let now = clock::instant();
        if self.asking || self.due.is_none_or(|due| due > now) {
            return;
        }
        let round = self.round + 1;
        let due: Vec<TopicPartition> =
            self.waiting.iter().filter(|(_, opening)| opening.due <= now).map(|(place, _)| place.clone()).collect();
        if !due.is_empty() {
            for partition in &due {
                if let Some(opening) = self.waiting.get_mut(partition) {
                    // An answer moves this; a leader that does not answer may have been replaced by then.
                    opening.due = now + WAITS.1;
                }
            }
            if self.resolver.ask(Question::Starts { round, partitions: due }).is_ok() {
                self.round = round;
                self.asking = true;
            }
        }
        self.due = self.waiting.values().map(|opening| opening.due).min();
    }

    /// The question is with the leaders.
    pub(super) fn asked(&mut self) {
        self.asking = false;
    }

    /// Keeps what was found out, of partitions that are still ours.
    pub(super) fn take(&mut self, found: Vec<Found>) -> Result<(), Fault> {
        let now = clock::instant();
        for Found { round, partition, start } in found {
            let Some(opening) = self.waiting.get_mut(&partition).filter(|opening| opening.round <= round) else {
                continue;
            };
            match start {
                Ok(extent) => {
                    let opening = self.waiting.remove(&partition);
                    if opening.is_some_and(|opening| opening.is_overdue(now)) {
                        tracing::info!(%partition, start = extent.start, "the partition's start is known now");
                    }
                    self.ready.push(extent);
                }
                Err(Unresolved::Later(why)) => {
                    opening.why = Some(why);
                    opening.due = now + opening.wait;
                    opening.wait = (opening.wait * 2).min(WAITS.1);
                    self.due = Some(self.due.map_or(opening.due, |due| due.min(opening.due)));
                }
                Err(Unresolved::Never(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Those whose starts are known.
    pub(super) fn take_ready(&mut self) -> Vec<Extent> {
        std::mem::take(&mut self.ready)
    }

    /// These cannot be assigned yet.
    pub(super) fn put_back(&mut self, extents: Vec<Extent>) {
        self.ready.extend(extents);
    }

    /// Names partitions that have been without a start for some time: at once, and then every minute.
    pub(super) fn complain(&mut self) {
        let now = clock::instant();
        if self.waiting.is_empty() || self.said.is_some_and(|said| now.saturating_duration_since(said) < SAID_AGAIN) {
            return;
        }
        let overdue = || self.waiting.iter().filter(|(_, opening)| opening.is_overdue(now));
        let count = overdue().count();
        let Some((_, first)) = overdue().next() else { return };
        let why = first.why.as_deref().unwrap_or("no answer");
        let named: Vec<String> = overdue().take(NAMED).map(|(partition, _)| partition.to_string()).collect();
        let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
        tracing::warn!(
            "{}{more} cannot be read yet: {why}; asked again until it can, while the other partitions are read",
            named.join(", ")
        );
        self.said = Some(now);
    }
}

impl Opening {
    fn is_overdue(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= SILENCE
    }
}
