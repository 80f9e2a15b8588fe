//! What a replay counts: letters, each once, however often its partition starts over.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::{Offset, TopicPartition};

/// Letters that failed again and are told apart; beyond them one that fails twice counts twice.
const MOST_TOLD_APART: usize = 1_000_000;

/// Sinks that are not configured and are named; letters for further ones are counted together.
const MOST_SINKS_NAMED: usize = 16;
const OTHER_SINKS: &str = "…";

/// Why a letter stays where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passed {
    /// The filters do not mean it.
    NotMeant,
    /// It was replayed as often as may be.
    TooOften,
    /// A replay of all letters has taken it up already.
    Handled,
    /// Its payloads were left out of it for their size.
    Omitted,
    /// It is no letter of ours, and why.
    Unreadable(String),
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// The first offset of each partition that was not counted yet.
    seen: BTreeMap<TopicPartition, Offset>,
    taken: u64,
    not_meant: u64,
    too_often: u64,
    handled: u64,
    omitted: u64,
    unreadable: u64,
    not_configured: BTreeMap<String, u64>,
    again: HashSet<(TopicPartition, Offset)>,
    uncounted: u64,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Letters sent through again.
    pub taken: u64,
    /// Those of them that became letters again.
    pub again: u64,
    /// Letters that the filters do not mean.
    pub not_meant: u64,
    /// Letters replayed too often already.
    pub too_often: u64,
    /// Letters that a replay of all has taken up already.
    pub handled: u64,
    /// Letters without payloads.
    pub omitted: u64,
    /// What is no letter of ours.
    pub unreadable: u64,
}

impl Totals {
    /// Letters that stay where they are, for any reason.
    pub fn passed(&self) -> u64 {
        self.not_meant + self.too_often + self.handled + self.omitted + self.unreadable
    }
}

impl Counts {
    /// Whether it is the first time that this letter is met.
    fn first(&mut self, partition: &TopicPartition, offset: Offset) -> bool {
        let next = self.seen.entry(partition.clone()).or_insert(Offset::MIN);
        let first = offset >= *next;
        *next = (*next).max(offset + 1);
        first
    }
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // A count is whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The letter is sent through again.
    pub fn take(&self, partition: &TopicPartition, offset: Offset) {
        let mut counts = self.lock();
        if counts.first(partition, offset) {
            counts.taken += 1;
        }
    }

    /// The letter stays where it is.
    pub fn pass(&self, partition: &TopicPartition, offset: Offset, passed: Passed) {
        let mut counts = self.lock();
        if !counts.first(partition, offset) {
            return;
        }
        match passed {
            Passed::NotMeant => counts.not_meant += 1,
            Passed::TooOften => counts.too_often += 1,
            Passed::Handled => counts.handled += 1,
            Passed::Omitted => {
                tracing::warn!(letter = partition.at(offset), "passed over: its payload was too large to be kept");
                counts.omitted += 1;
            }
            Passed::Unreadable(why) => {
                tracing::warn!(letter = partition.at(offset), why, "passed over: no dead letter of Tidegate's");
                counts.unreadable += 1;
            }
        }
    }

    /// The letter's sink, `kind/name`, is not configured.
    pub fn not_configured(&self, sink: String) {
        let mut counts = self.lock();
        let sinks = &mut counts.not_configured;
        let named = if sinks.len() < MOST_SINKS_NAMED || sinks.contains_key(&sink) { sink } else { OTHER_SINKS.into() };
        *sinks.entry(named).or_default() += 1;
    }

    /// The sinks that are not configured, with the letters for each.
    pub fn sinks_not_configured(&self) -> Vec<(String, u64)> {
        self.lock().not_configured.iter().map(|(sink, count)| (sink.clone(), *count)).collect()
    }

    /// The letter became a letter again.
    pub fn again(&self, partition: &TopicPartition, offset: Offset) {
        let mut counts = self.lock();
        if counts.again.len() < MOST_TOLD_APART {
            counts.again.insert((partition.clone(), offset));
        } else if !counts.again.contains(&(partition.clone(), offset)) {
            counts.uncounted += 1;
        }
    }

    /// What was counted so far.
    pub fn totals(&self) -> Totals {
        let counts = self.lock();
        Totals {
            taken: counts.taken,
            again: counts.again.len() as u64 + counts.uncounted,
            not_meant: counts.not_meant,
            too_often: counts.too_often,
            handled: counts.handled,
            omitted: counts.omitted,
            unreadable: counts.unreadable,
        }
    }
}
