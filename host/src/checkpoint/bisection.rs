//! Finds the rows that break a call, when the call says only that it broke.

use std::ops::Range;

/// A search by halves for the rows that break a call of their own (S63, S79b).
///
/// Ask [`Self::next`] which rows to try and report with [`Self::passed`] or [`Self::failed`] until there are none left. Rows are
/// tried in ascending order, so that rows which are written on the way keep their order.
#[derive(Clone, Debug)]
pub struct Bisection {
    /// What is left to try; the next part is the last.
    open: Vec<Range<usize>>,
    /// The rows that failed alone, ascending.
    suspects: Vec<usize>,
    /// How many of them failed before some other part passed.
    confirmed: usize,
    /// Whether any part passed.
    any_passed: bool,
    /// The most rows that passed together.
    largest_passed: usize,
}

impl Bisection {
    /// A search among `rows` that have not been tried by themselves yet.
    pub fn new(rows: Range<usize>) -> Self {
        Self { open: vec![rows], suspects: Vec::new(), confirmed: 0, any_passed: false, largest_passed: 0 }
    }

    /// The rows to try next, or `None` when every row has its answer.
    pub fn next(&self) -> Option<Range<usize>> {
        self.open.last().cloned()
    }

    /// A call with the rows of [`Self::next`] passed.
    pub fn passed(&mut self) {
        if let Some(rows) = self.open.pop() {
            self.any_passed = true;
            self.confirmed = self.suspects.len();
            self.largest_passed = self.largest_passed.max(rows.len());
        }
    }

    /// A call with the rows of [`Self::next`] has said of each that it cannot be told now: nothing has passed.
    pub fn answered(&mut self) {
        self.open.pop();
    }

    /// A call with the rows of [`Self::next`] failed.
    pub fn failed(&mut self) {
        if let Some(rows) = self.open.pop() {
            self.split(rows);
        }
    }

    /// Further rows, above all others, to be tried as one part when the others have their answers.
    pub fn extend(&mut self, rows: Range<usize>) {
        if !rows.is_empty() {
            self.open.insert(0, rows);
        }
    }

    /// The rows that failed alone, ascending.
    pub fn suspects(&self) -> &[usize] {
        &self.suspects
    }

    /// The rows that failed alone and after which no part has passed yet, ascending: they may have met an outage.
    pub fn unconfirmed(&self) -> &[usize] {
        self.suspects.get(self.confirmed..).unwrap_or_default()
    }

    /// Tries the rows of [`Self::unconfirmed`] again, one by one.
    pub fn retry_unconfirmed(&mut self) {
        let again = self.suspects.split_off(self.confirmed);
        self.open.extend(again.into_iter().rev().map(|row| row..row + 1));
    }

    /// Whether any part passed.
    pub fn any_passed(&self) -> bool {
        self.any_passed
    }

    /// The most rows that passed in one call.
    pub fn largest_passed(&self) -> usize {
        self.largest_passed
    }

    fn split(&mut self, rows: Range<usize>) {
        match rows.len() {
            0 => {}
            1 => self.suspects.push(rows.start),
            len => {
                let middle = rows.start + len / 2;
                self.open.push(middle..rows.end);
                self.open.push(rows.start..middle);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// S63: exactly the rows that break alone are found, in order, with at most two calls per row and level.
        #[test]
        fn s63_a_search_finds_exactly_the_rows_that_fail_alone(
            rows in 1usize..200,
            bad in proptest::collection::btree_set(0usize..200, 1..6),
        ) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|row| *row < rows).collect();
            prop_assume!(!bad.is_empty());
            let mut search = Bisection::new(0..rows);
            let (mut calls, mut next_row) = (0, 0);
            while let Some(part) = search.next() {
                calls += 1;
                if part.clone().any(|row| bad.contains(&row)) {
                    search.failed();
                } else {
                    prop_assert!(part.start >= next_row, "rows that pass go in order");
                    next_row = part.end;
                    search.passed();
                }
            }
            prop_assert_eq!(search.suspects(), bad.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(search.any_passed(), bad.len() < rows);
            let levels = usize::BITS as usize - rows.leading_zeros() as usize + 1;
            prop_assert!(calls <= 2 * levels * bad.len() + 1);
        }
    }

    /// S79b: a row that fails alone counts as tried beside a neighbour once a later part has passed, not before.
    #[test]
    fn s79b_a_suspect_is_confirmed_by_a_part_that_passes_after_it() {
        let mut search = Bisection::new(0..4);
        search.failed();
        search.failed();
        search.failed();
        assert_eq!((search.next(), search.unconfirmed()), (Some(1..2), &[0][..]));
        search.failed();
        assert_eq!(search.unconfirmed(), [0, 1]);
        search.retry_unconfirmed();
        assert_eq!((search.next(), search.suspects()), (Some(0..1), &[][..]));
        search.failed();
        search.passed();
        assert_eq!((search.suspects(), search.unconfirmed()), (&[0][..], &[][..]));
        assert_eq!(search.next(), Some(2..4));
        search.passed();
        search.extend(4..9);
        assert_eq!((search.next(), search.largest_passed()), (Some(4..9), 2));
    }

    /// S79b: a search that is given further rows tries them last.
    #[test]
    fn s79b_further_rows_come_last() {
        let mut search = Bisection::new(0..1);
        search.failed();
        assert_eq!((search.next(), search.suspects()), (None, &[0][..]));
        search.extend(1..3);
        search.failed();
        assert_eq!(search.next(), Some(1..2));
        search.passed();
        assert_eq!((search.next(), search.unconfirmed()), (Some(2..3), &[][..]));
    }
}
