//! What a search for the rows that break a call knows, and what follows from it: whether a row, the plugin or the destination is
//! at fault (S63, S79b).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::policy::Suspicion;
use crate::checkpoint::bisection::Bisection;
use crate::clock::Millis;
use crate::model::{Failure, FailureKind, Fault};

/// Rows in a row that may fail alone before the destination counts as unavailable. Doubles with each wait, so that slow rows
/// ahead of good ones are told from an outage in the end.
const ROWS_BEFORE_OUTAGE: usize = 2;
/// The most of them, until [`LONGEST_PATIENCE`] is over.
const MOST_ROWS_BEFORE_OUTAGE: usize = 64;
/// How long the last rows of a window are tried in place, at first, before their window comes again. Four times as long after each
/// time that it came.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// The longest that may become.
const LONGEST_PATIENCE: Duration = Duration::from_secs(600);
/// Rows that may use up a guest's whole deadline alone, while none has passed, before the plugin counts as what is at fault.
const ROWS_AT_THE_DEADLINE: usize = 16;

/// How often in a row a partition's window came again because its last rows failed alone with nothing behind them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TailPatience {
    rewinds: u32,
}

impl TailPatience {
    /// How long they are tried in place this time.
    fn patience(self) -> Duration {
        FIRST_PATIENCE.saturating_mul(4_u32.saturating_pow(self.rewinds)).min(LONGEST_PATIENCE)
    }

    /// The window comes again.
    pub(super) fn note_rewind(&mut self) {
        self.rewinds = self.rewinds.saturating_add(1);
    }
}

/// What to do about rows that failed alone with nothing behind them that could show whether the destination is available.
pub(super) enum Tail {
    /// Wait, and try them again.
    Wait,
    /// Have the window come again, so that newer rows are behind them.
    Rewind(Fault),
    /// They are at fault.
    Blame,
}

/// A search for the rows that break a call.
pub(super) struct Search {
    /// The parts to try.
    pub(super) parts: Bisection,
    /// Why rows failed alone.
    reasons: BTreeMap<usize, (Suspicion, Fault)>,
    /// Rows that failed alone in an earlier attempt beside neighbours that passed.
    known: BTreeSet<usize>,
    /// How many unconfirmed rows are taken for an outage.
    before_outage: usize,
    /// Whether rows of the same window have passed before.
    passed_before: bool,
    /// Since when rows have failed alone with none that passed after them, on the pipeline's clock.
    unconfirmed_since: Option<Millis>,
    /// Rows on which the guest trapped once: a trap by chance is no row's fault.
    trapped_once: BTreeSet<usize>,
    /// Rows that failed alone one after the other until one passed: an outage may have ended there.
    in_a_run: BTreeSet<usize>,
    /// Some rows were answered by name, all of them with the destination's trouble: they neither passed nor failed.
    met_unavailable: bool,
}

impl Search {
    /// A search among rows that have not been tried by themselves yet. `passed_before`: whether others of the same window have passed.
    pub(super) fn new(parts: Bisection, known: BTreeSet<usize>, passed_before: bool) -> Self {
        Self {
            parts,
            reasons: BTreeMap::new(),
            known,
            before_outage: ROWS_BEFORE_OUTAGE,
            passed_before,
            unconfirmed_since: None,
            trapped_once: BTreeSet::new(),
            in_a_run: BTreeSet::new(),
            met_unavailable: false,
        }
    }

    /// A call with the next part has answered row by row, with these failures.
    pub(super) fn answered(&mut self, failures: &[Failure]) {
        let rows = self.parts.next().map_or(0, |part| part.len());
        let shows = |failure: &Failure| matches!(failure.kind, FailureKind::Reject | FailureKind::Retry);
        if failures.len() < rows || failures.iter().any(shows) {
            self.passed();
        } else {
            self.met_unavailable = true;
            self.parts.answered();
        }
    }

    /// The next part has passed.
    pub(super) fn passed(&mut self) {
        if self.maybe_outage() > 1 {
            self.in_a_run.extend(self.parts.unconfirmed());
        }
        self.unconfirmed_since = None;
        self.parts.passed();
    }

    /// A call with the next part has failed. A row on which the guest trapped alone is tried once more before it counts as failed.
    pub(super) fn failed(&mut self, suspicion: Suspicion, fault: Fault, now: Millis) {
        let Some(part) = self.parts.next() else { return };
        if part.len() > 1 {
            return self.parts.failed();
        }
        if suspicion == Suspicion::Trapped && self.trapped_once.insert(part.start) {
            return;
        }
        self.parts.failed();
        self.unconfirmed_since.get_or_insert(now);
        self.reasons.insert(part.start, (suspicion, fault));
    }

    fn suspicion(&self, row: usize) -> Option<Suspicion> {
        self.reasons.get(&row).map(|(suspicion, _)| *suspicion)
    }

    /// Whether any row of the window has passed.
    pub(super) fn any_passed(&self) -> bool {
        self.passed_before || self.parts.any_passed()
    }

    /// How many rows failed alone, after which nothing has passed, and which may have met an outage.
    pub(super) fn maybe_outage(&self) -> usize {
        let outage = |row: &&usize| self.suspicion(**row).is_some_and(Suspicion::may_be_an_outage);
        self.parts.unconfirmed().iter().filter(outage).filter(|row| !self.known.contains(row)).count()
    }

    /// Whether that is more than slow rows would explain.
    pub(super) fn is_outage(&self) -> bool {
        self.maybe_outage() >= self.before_outage
    }

    /// Why the first row failed alone by the guest's doing, where nothing has passed at all.
    pub(super) fn maybe_plugin(&self) -> Option<&Fault> {
        if self.any_passed() || self.met_unavailable {
            return None;
        }
        self.reasons.values().find(|(suspicion, _)| is_guest(*suspicion)).map(|(_, fault)| fault)
    }

    /// Whether so many rows have used up the guest's deadline, and none has passed, that the plugin is at fault.
    pub(super) fn is_plugin_stuck(&self) -> bool {
        let stuck = self.reasons.values().filter(|(suspicion, _)| *suspicion == Suspicion::LimitExceeded).count();
        !self.any_passed() && stuck >= ROWS_AT_THE_DEADLINE
    }

    /// Why the first of the unconfirmed rows failed.
    pub(super) fn outage(&self) -> Option<&Fault> {
        self.parts.unconfirmed().first().and_then(|row| self.reasons.get(row)).map(|(_, fault)| fault)
    }

    /// Whether every row has an answer: none may have met an outage, and no plugin fails on everything.
    pub(super) fn is_answered(&self) -> bool {
        self.maybe_outage() == 0 && self.maybe_plugin().is_none()
    }

    /// What to do about unconfirmed rows with nothing behind them. A window that is full would come again as it is.
    pub(super) fn tail(&self, now: Millis, patience: TailPatience, window_is_full: bool) -> Tail {
        let waited = self.waited(now);
        match self.outage() {
            Some(fault) if !window_is_full && waited >= patience.patience() => Tail::Rewind(fault.clone()),
            Some(_) if window_is_full && self.any_passed() && waited >= LONGEST_PATIENCE => Tail::Blame,
            _ => Tail::Wait,
        }
    }

    fn waited(&self, now: Millis) -> Duration {
        Duration::from_millis(self.unconfirmed_since.map_or(0, |since| now.saturating_sub(since)))
    }

    /// Tries the unconfirmed rows again, after a wait.
    pub(super) fn retry_unconfirmed(&mut self, now: Millis) {
        let most = if self.waited(now) < LONGEST_PATIENCE { MOST_ROWS_BEFORE_OUTAGE } else { usize::MAX };
        self.before_outage = self.before_outage.saturating_mul(2).min(most);
        for row in self.parts.unconfirmed() {
            self.reasons.remove(row);
        }
        self.parts.retry_unconfirmed();
    }

    /// The rows that failed alone, ascending: what each is answered with, and why.
    pub(super) fn into_failures(self) -> BTreeMap<usize, (FailureKind, Fault)> {
        let untold = self.met_unavailable && !self.any_passed();
        let Self { reasons, known, in_a_run, .. } = self;
        let kind = |row: usize, suspicion: Suspicion| {
            // Several rows in a row may have met the end of an outage; next time each of them is judged by itself.
            let excused = suspicion.may_be_an_outage() && in_a_run.contains(&row) && !known.contains(&row);
            // What breaks a guest while its destination is unavailable is told when others pass again.
            let excused = excused || (untold && is_guest(suspicion));
            if excused { FailureKind::Unavailable } else { suspicion.of_a_single_row() }
        };
        reasons.into_iter().map(|(row, (suspicion, fault))| (row, (kind(row, suspicion), fault))).collect()
    }
}

fn is_guest(suspicion: Suspicion) -> bool {
    matches!(suspicion, Suspicion::Trapped | Suspicion::LimitExceeded)
}
