//! Waits that no attempt is counted for: for a destination that is not available, or as long as one asked for. However many calls
//! and partitions wait for one destination, it is logged when that begins, once a minute, and when it ends (S79a, S27b).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::shared::Shared;
use crate::clock::{Clock, Millis};
use crate::model::{Fault, Offset, TopicPartition};

/// Time between two log lines of what is waited for, in milliseconds.
const LOG_INTERVAL: Millis = 60_000;
/// Troubles that are no sink's.
const COMMITS: &str = "commits";
const LETTERS: &str = "dead letters";
/// The shortest wait for a destination that says "now" twice in a row (S33).
const SHORTEST_REPEATED_BACKPRESSURE: Duration = Duration::from_millis(100);

/// How long something has been waited for, over all repetitions of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// There was a wait.
    begun: bool,
    /// How often in a row the destination was not available.
    failures: u32,
    /// How often in a row it asked to wait.
    asked: u32,
}

impl Waiting {
    /// The destination has asked to wait so often in a row already, in this call or before.
    pub fn asked_before(&mut self, asked: u32) {
        self.asked = self.asked.max(asked);
    }

    /// How often in a row the destination asked to wait.
    pub fn asked(&self) -> u32 {
        self.asked
    }
}

/// What is not available now, or was not before, by its name in the log.
#[derive(Debug, Default)]
pub struct Troubles {
    known: Mutex<BTreeMap<String, Trouble>>,
}

#[derive(Debug)]
struct Trouble {
    /// When it began; `None` once it is over.
    since: Option<Millis>,
    /// When it was last logged.
    logged: Millis,
    /// This one was logged, and not only one before it.
    is_logged: bool,
    /// The partitions that have waited since it began.
    partitions: BTreeSet<TopicPartition>,
}

/// What is logged of a trouble that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Its age.
    pub seconds: Millis,
    /// How many partitions have waited since it began.
    pub partitions: usize,
}

impl Troubles {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Trouble>> {
        // Whole after every step, so a panic elsewhere spoils nothing.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `what` is not available to the partition: how long and to how many, where that is to be logged now.
    pub fn begin(&self, what: &str, source: Option<&TopicPartition>, now: Millis) -> Option<Wait> {
        let mut known = self.known();
        let is_first = !known.contains_key(what);
        let trouble = known.entry(what.to_owned()).or_insert(Trouble {
            since: None,
            logged: now,
            is_logged: is_first,
            partitions: BTreeSet::new(),
        });
        let since = *trouble.since.get_or_insert(now);
        trouble.partitions.extend(source.cloned());
        let is_due = is_first || now.saturating_sub(trouble.logged) >= LOG_INTERVAL;
        if is_due {
            (trouble.logged, trouble.is_logged) = (now, true);
        }
        is_due.then(|| Wait { seconds: now.saturating_sub(since) / 1000, partitions: trouble.partitions.len() })
    }

    /// `what` is available; for how many seconds it was not, where that was logged.
    pub fn end(&self, what: &str, now: Millis) -> Option<Millis> {
        let mut known = self.known();
        let trouble = known.get_mut(what)?;
        let since = trouble.since.take()?;
        trouble.partitions.clear();
        std::mem::take(&mut trouble.is_logged).then(|| now.saturating_sub(since) / 1000)
    }
}

impl<C: Clock> Shared<C> {
    /// Waits before a destination that is not available is asked again: with a growing back-off, for as long as it takes (S79a).
    pub async fn wait_until_available(&self, waiting: &mut Waiting, what: &str, source: &TopicPartition, reason: &str) {
        waiting.asked = 0;
        waiting.failures = waiting.failures.saturating_add(1);
        waiting.begun = true;
        if let Some(Wait { seconds, partitions }) = self.troubles.begin(what, Some(source), self.clock.now()) {
            tracing::warn!(sink = what, partition = %source, partitions, seconds, reason, "waiting until it is available");
        }
        self.back_off_abort(waiting.failures).await;
    }

    /// Waits as long as a destination asked for (S37).
    pub async fn wait_as_asked(&self, waiting: &mut Waiting, what: &str, source: &TopicPartition, asked: Duration) {
        waiting.failures = 0;
        waiting.asked = waiting.asked.saturating_add(1);
        waiting.begun = true;
        if let Some(Wait { seconds, partitions }) = self.troubles.begin(what, Some(source), self.clock.now()) {
            tracing::info!(sink = what, partition = %source, partitions, seconds, ?asked, "backpressure: waiting as asked");
        }
        let least = if waiting.asked > 1 { SHORTEST_REPEATED_BACKPRESSURE } else { Duration::ZERO };
        self.clock.sleep(asked.max(least)).await;
    }

    /// Waits as long as a flush asked for, `repeated` when it had asked just before (S29, S33).
    pub async fn wait_paused(&self, asked: Duration, repeated: bool) {
        let least = if repeated { SHORTEST_REPEATED_BACKPRESSURE } else { Duration::ZERO };
        self.clock.sleep(asked.max(least)).await;
    }

    /// A commit failed and is tried again.
    pub fn note_commit_failed(&self, source: &TopicPartition, offset: Offset, fault: &Fault) {
        if let Some(Wait { seconds, .. }) = self.troubles.begin(COMMITS, Some(source), self.clock.now()) {
            let fault = fault.with_hint();
            tracing::warn!(partition = %source, offset, seconds, %fault, "a commit failed and is tried again");
        }
    }

    /// A commit succeeded.
    pub fn note_committed(&self, source: &TopicPartition, offset: Offset) {
        tracing::debug!(partition = %source, offset, "committed");
        if let Some(seconds) = self.troubles.end(COMMITS, self.clock.now()) {
            tracing::info!(partition = %source, seconds, "commits succeed again");
        }
    }

    /// Dead letters could not be written, and are tried again or given up.
    pub fn note_letters_failed(&self, letters: u64, fault: &Fault) {
        if let Some(Wait { seconds, .. }) = self.troubles.begin(LETTERS, None, self.clock.now()) {
            tracing::warn!(fault = %fault.with_hint(), letters, seconds, "dead letters could not be written");
        }
    }

    /// Dead letters were written.
    pub fn note_letters_written(&self) {
        if let Some(seconds) = self.troubles.end(LETTERS, self.clock.now()) {
            tracing::info!(seconds, "dead letters are written again");
        }
    }

    /// Ends a wait: the call got an answer.
    pub fn end_wait(&self, waiting: &mut Waiting, what: &str, source: &TopicPartition) {
        if std::mem::take(waiting).begun {
            self.note_available(what, source);
        }
    }

    /// A destination answered, after whatever waits there were.
    pub fn note_available(&self, what: &str, source: &TopicPartition) {
        if let Some(seconds) = self.troubles.end(what, self.clock.now()) {
            tracing::info!(sink = what, partition = %source, seconds, "the wait is over");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S79a: however many partitions wait for it, a destination that is unavailable is one line at the beginning, one a minute
    /// and one at the end.
    #[test]
    fn s79a_an_outage_is_logged_once_for_all_that_wait() {
        let troubles = Troubles::default();
        let places: Vec<TopicPartition> = (0..64).map(|partition| TopicPartition::new("t", partition)).collect();
        let begin = |what: &str, now| troubles.begin(what, places.first(), now);
        let wait = |seconds, partitions| Wait { seconds, partitions };
        assert_eq!(troubles.end("a", 0), None);
        let lines: Vec<Wait> = places.iter().filter_map(|place| troubles.begin("a", Some(place), 1_000)).collect();
        assert_eq!(lines, [wait(0, 1)]);
        assert_eq!(begin("b", 2_000), Some(wait(0, 1)), "another destination");
        let lines: Vec<Wait> = (2..=200).filter_map(|second| begin("a", second * 1_000)).collect();
        assert_eq!(lines, [wait(60, 64), wait(120, 64), wait(180, 64)]);
        assert_eq!(troubles.end("a", 200_000), Some(199));
        assert_eq!(troubles.end("a", 200_000), None);
        // One partition goes on where another is refused again: no line for each.
        assert_eq!(begin("a", 201_000), None);
        assert_eq!(troubles.end("a", 202_000), None);
        assert_eq!(begin("a", 241_000), Some(wait(0, 1)));
    }
}
