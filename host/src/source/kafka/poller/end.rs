//! When a source with an end is at it: everything that the topics held at the start is committed, by whichever member
//! of the group (S58).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::super::context::Bell;
use super::super::ends::{Answer, Bounds, Progress, Question, Surveyor};
use super::super::lane::Lane;
use super::{MAIN_POLL, Poller, Settings};
use crate::clock::{self, Instant};
use crate::model::{Fault, Offset, TopicPartition};
use crate::source::Event;

/// How often the brokers are asked how far partitions have come.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long nothing may move while other members have partitions: so many session timeouts, within which the partitions
/// of a member that is gone come to others, and never less than the second.
const STALL_SESSIONS: u32 = 2;
const STALL: Duration = Duration::from_secs(10);
/// A session timeout that cannot be read counts as the client library's own.
const SESSION: Duration = Duration::from_secs(45);
/// How many partitions a fault names.
const NAMED: usize = 5;

/// What a source with an end knows of its end.
pub(super) struct Ends {
    surveyor: Surveyor,
    bounds: Option<BTreeMap<TopicPartition, Bounds>>,
    /// Partitions of which no leader has told where they end.
    unknown: BTreeSet<TopicPartition>,
    /// Partitions that are not known to be committed to their end, and how far they had come when last asked.
    left: BTreeMap<TopicPartition, Option<Progress>>,
    asked: bool,
    due: Instant,
    moved: Instant,
    patience: Duration,
    /// Whether this member had nothing left to do when last looked at.
    settled: bool,
    /// When it was last looked at: each commit wakes the thread, and with many partitions many do.
    judged: Instant,
    /// Partitions of which an open transaction was named.
    named: BTreeSet<TopicPartition>,
}

impl Ends {
    pub(super) fn start(settings: &Settings, bell: &Arc<Bell>) -> Result<Self, Fault> {
        let client = &settings.client;
        let surveyor = Surveyor::start(client.clone(), settings.topics.clone(), settings.first, Arc::clone(bell))?;
        let now = clock::instant();
        let session = client.get("session.timeout.ms").and_then(|text| text.parse().ok());
        let session = session.map_or(SESSION, Duration::from_millis);
        Ok(Self {
            surveyor,
            bounds: None,
            unknown: BTreeSet::new(),
            left: BTreeMap::new(),
            asked: false,
            due: now,
            moved: now,
            patience: (session * STALL_SESSIONS).max(STALL),
            settled: false,
            judged: now,
            named: BTreeSet::new(),
        })
    }

    fn begin(&self, partition: &TopicPartition) -> Option<Bounds> {
        self.bounds.as_ref()?.get(partition).copied()
    }

    fn learn_bounds(&mut self, found: BTreeMap<TopicPartition, Bounds>, unknown: BTreeSet<TopicPartition>) {
        let open = found.iter().filter(|(_, bounds)| bounds.begin < bounds.end);
        self.left.extend(open.map(|(partition, _)| (partition.clone(), None)));
        if self.bounds.is_none() || !found.is_empty() {
            self.moved = clock::instant();
        }
        self.bounds.get_or_insert_default().extend(found);
        self.unknown = unknown;
    }

    fn learn(&mut self, found: BTreeMap<TopicPartition, Progress>) {
        for (partition, progress) in found {
            let Some(bounds) = self.begin(&partition) else { continue };
            if position(bounds, progress) >= bounds.end {
                self.left.remove(&partition);
                self.moved = clock::instant();
            } else if let Some(known) = self.left.get_mut(&partition)
                && *known != Some(progress)
            {
                *known = Some(progress);
                self.moved = clock::instant();
            }
        }
    }

    /// Partitions that come no further before a transaction ends: `next` is what is to be read next of those of ours.
    fn in_transactions(&self, next: impl Fn(&TopicPartition) -> Option<Offset>) -> BTreeSet<TopicPartition> {
        let waits = |(partition, progress): (&TopicPartition, &Option<Progress>)| {
            let (bounds, progress) = (self.begin(partition)?, (*progress)?);
            let at = next(partition).unwrap_or(0).max(position(bounds, progress));
            (progress.readable < bounds.end && at >= progress.readable).then(|| partition.clone())
        };
        self.left.iter().filter_map(waits).collect()
    }

    fn answered(&mut self) {
        self.asked = false;
        self.due = clock::instant() + ASK_EVERY;
    }

    fn ask(&mut self, holders: bool) {
        let partitions = self.left.keys().cloned().collect();
        self.asked = self.surveyor.questions.send(Question { partitions, holders }).is_ok();
    }

    /// What is left, with who has it.
    fn unreached(&self, group: &str, holders: &BTreeMap<TopicPartition, String>) -> Fault {
        let count = |partition: &TopicPartition, progress: &Option<Progress>| {
            let bounds = self.begin(partition).unwrap_or(Bounds { begin: 0, end: 0 });
            bounds.end - progress.map_or(bounds.begin, |progress| position(bounds, progress))
        };
        let total: Offset = self.left.iter().map(|(partition, progress)| count(partition, progress)).sum();
        let mut which = String::new();
        for (partition, progress) in self.left.iter().take(NAMED) {
            let holder = holders.get(partition).map_or("no member", String::as_str);
            let separator = if which.is_empty() { "" } else { ", " };
            let _ = write!(which, "{separator}{} of `{partition}`, which {holder} has", count(partition, progress));
        }
        if self.left.len() > NAMED {
            let _ = write!(which, " and {} partitions more", self.left.len() - NAMED);
        }
        for partition in self.unknown.iter().take(NAMED) {
            let separator = if which.is_empty() { "" } else { ", " };
            let _ = write!(which, "{separator}`{partition}` has no leader");
        }
        Fault::host(format!("{total} records before the topics' ends are not committed, and other members have them"))
            .because(format!(
                "group `{group}` has committed nothing of them for {} s: {which}",
                self.patience.as_secs()
            ))
            .hint("stop the group's other members, or let them finish, and run again")
    }
}

/// Everything below is committed, or was never to be read.
fn position(bounds: Bounds, progress: Progress) -> Offset {
    progress.committed.unwrap_or(bounds.begin).max(progress.low)
}

impl Poller {
    /// Whether a partition may be taken up: a source with an end has to know it before.
    pub(super) fn knows_end_of(&self, partition: &TopicPartition) -> bool {
        self.ends.as_ref().is_none_or(|ends| ends.bounds.is_some() && !ends.unknown.contains(partition))
    }

    /// Where reading of a partition stops. Of one that came later nothing is read.
    pub(super) fn end_of(&self, partition: &TopicPartition) -> Option<Offset> {
        let ends = self.ends.as_ref()?;
        Some(ends.begin(partition).map_or(0, |bounds| bounds.end))
    }

    /// Says once that everything there was is committed, or that it will not be.
    pub(super) fn end(&mut self) {
        let Some(mut ends) = self.ends.take() else { return };
        if !self.ended && !self.failed {
            self.hear(&mut ends);
            self.compare(&mut ends);
        }
        self.ends = Some(ends);
    }

    fn hear(&mut self, ends: &mut Ends) {
        while let Ok(answer) = ends.surveyor.answers.try_recv() {
            match answer {
                Answer::Bounds { found, unknown } => ends.learn_bounds(found, unknown),
                Answer::Progress(found, holders) => {
                    ends.answered();
                    ends.learn(found);
                    if let Some(holders) = holders
                        && self.is_stalled(ends)
                    {
                        self.fail(ends.unreached(&self.group(), &holders));
                    }
                }
                Answer::Unanswered(why) => {
                    tracing::warn!("how far the group has come is asked again: {why}");
                    ends.moved = clock::instant();
                    ends.answered();
                }
                Answer::Failed(fault) => self.fail(fault),
            }
        }
    }

    fn compare(&mut self, ends: &mut Ends) {
        let now = clock::instant();
        let Some(changed) = self.changed.filter(|_| ends.bounds.is_some()) else {
            return self.give_up_joining(ends.patience);
        };
        ends.moved = ends.moved.max(changed);
        if ends.judged.elapsed() < MAIN_POLL {
            return;
        }
        ends.judged = now;
        let moving = !self.openings.is_empty() || self.closing.is_some() || !self.truncated.is_empty();
        let settled = !moving && self.lanes.values().all(Lane::is_done);
        if settled && !std::mem::replace(&mut ends.settled, settled) {
            // The last commit of this member may be all that was missing.
            ends.due = now;
        }
        ends.settled = settled;
        if settled && ends.left.is_empty() && ends.unknown.is_empty() {
            self.ended = true;
            self.outbox.push_back(Event::Ended);
            return;
        }
        for partition in ends.in_transactions(|partition| self.next(partition)) {
            if !ends.named.contains(&partition) {
                tracing::warn!(%partition, "waiting for an open transaction to end: its records lie before the end");
                ends.named.insert(partition);
            }
        }
        if !ends.asked && now >= ends.due && !(ends.left.is_empty() && ends.unknown.is_empty()) {
            ends.ask(self.is_stalled(ends));
        }
    }

    /// Whether all that is left is with other members, and nothing has moved for long.
    fn is_stalled(&self, ends: &Ends) -> bool {
        ends.settled
            && ends.moved.elapsed() >= ends.patience
            && ends.in_transactions(|partition| self.next(partition)).len() < ends.left.len() + ends.unknown.len()
    }

    fn next(&self, partition: &TopicPartition) -> Option<Offset> {
        self.lanes.get(partition).map(|lane| lane.window.wanted())
    }
}
