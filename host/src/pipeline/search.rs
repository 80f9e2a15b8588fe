//! What a search for the rows that break a call knows, and what follows from it: whether a row, the plugin or the destination is
//! at fault (S63, S79b).

use std::collections::{BTreeMap, BTreeSet};

use super::policy::Suspicion;
use crate::checkpoint::bisection::Bisection;
use crate::model::{FailureKind, Fault};

/// Rows in a row that may fail alone before the destination counts as unavailable. Doubles with each wait, so that slow rows
/// ahead of good ones are told from an outage in the end.
const ROWS_BEFORE_OUTAGE: usize = 2;
/// The most of them.
const MOST_ROWS_BEFORE_OUTAGE: usize = 64;
/// Rows that may use up a guest's whole deadline alone, while none has passed, before the plugin counts as what is at fault.
const ROWS_AT_THE_DEADLINE: usize = 16;

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
    /// Rows on which the guest trapped once: a trap by chance is no row's fault.
    trapped_once: BTreeSet<usize>,
    /// Rows that failed alone one after the other until one passed: an outage may have ended there.
    in_a_run: BTreeSet<usize>,
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
            trapped_once: BTreeSet::new(),
            in_a_run: BTreeSet::new(),
        }
    }

    /// The next part has passed.
    pub(super) fn passed(&mut self) {
        if self.maybe_outage() > 1 {
            self.in_a_run.extend(self.parts.unconfirmed());
        }
        self.parts.passed();
    }

    /// A call with the next part has failed. A row on which the guest trapped alone is tried once more before it counts as failed.
    pub(super) fn failed(&mut self, suspicion: Suspicion, fault: Fault) {
        let Some(part) = self.parts.next() else { return };
        if part.len() > 1 {
            return self.parts.failed();
        }
        if suspicion == Suspicion::Trapped && self.trapped_once.insert(part.start) {
            return;
        }
        self.parts.failed();
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
        if self.any_passed() {
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

    /// Whether there is an outage in which every one of `rows` rows has failed alone.
    pub(super) fn has_failed_on_all(&self, rows: usize) -> bool {
        self.parts.unconfirmed().len() >= rows
    }

    /// Tries the unconfirmed rows again, after a wait.
    pub(super) fn retry_unconfirmed(&mut self) {
        self.before_outage = (self.before_outage * 2).min(MOST_ROWS_BEFORE_OUTAGE);
        for row in self.parts.unconfirmed() {
            self.reasons.remove(row);
        }
        self.parts.retry_unconfirmed();
    }

    /// The rows that failed alone, ascending: what each is answered with, and why.
    pub(super) fn into_failures(self) -> BTreeMap<usize, (FailureKind, Fault)> {
        let Self { reasons, known, in_a_run, .. } = self;
        let kind = |row: usize, suspicion: Suspicion| {
            // Several rows in a row may have met the end of an outage; next time each of them is judged by itself.
            let excused = suspicion.may_be_an_outage() && in_a_run.contains(&row) && !known.contains(&row);
            if excused { FailureKind::Unavailable } else { suspicion.of_a_single_row() }
        };
        reasons.into_iter().map(|(row, (suspicion, fault))| (row, (kind(row, suspicion), fault))).collect()
    }
}

fn is_guest(suspicion: Suspicion) -> bool {
    matches!(suspicion, Suspicion::Trapped | Suspicion::LimitExceeded)
}
