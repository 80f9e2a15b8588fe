//! Which records of one partition are taken in hand together, and how the one on which a call breaks is found.

use std::ops::Range;

/// How much one window may hold (S59).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Most records.
    pub max_records: usize,
    /// Most bytes of keys, values and headers.
    pub max_bytes: usize,
}

impl Limit {
    /// Whether a window that holds `records` with `bytes` takes one more of `next_bytes`. An empty window takes any
    /// record, however large: a record that never fits would stop its partition for good.
    pub fn admits(&self, records: usize, bytes: usize, next_bytes: usize) -> bool {
        records == 0 || (records < self.max_records && bytes.saturating_add(next_bytes) <= self.max_bytes)
    }
}

/// Finds by halves which rows a call breaks on, when the call says only that it broke (S63, S44).
///
/// Ask [`Self::next`] which rows to try, answer with [`Self::answer`], until there are no more; then [`Self::found`] has
/// the rows that break a call of their own. The first question is the halves of the whole, which is known to break.
#[derive(Clone, Debug)]
pub struct Halving {
    open: Vec<Range<usize>>,
    found: Vec<usize>,
}

impl Halving {
    /// Starts with rows `0..rows`, a call with all of which broke.
    pub fn new(rows: usize) -> Self {
        let mut halving = Self { open: Vec::new(), found: Vec::new() };
        halving.split(0..rows);
        halving
    }

    /// The rows to try next, lowest first, or `None` when everything is known.
    pub fn next(&self) -> Option<Range<usize>> {
        self.open.last().cloned()
    }

    /// Whether the call with the rows of [`Self::next`] broke.
    pub fn answer(&mut self, broke: bool) {
        if let Some(tried) = self.open.pop()
            && broke
        {
            self.split(tried);
        }
    }

    /// The rows that break a call alone, ascending so far.
    pub fn found(&self) -> &[usize] {
        &self.found
    }

    fn split(&mut self, rows: Range<usize>) {
        match rows.len() {
            0 => {}
            1 => self.found.push(rows.start),
            _ => {
                let middle = rows.start + rows.len() / 2;
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

    /// S59: limits by count and bytes, and a single record larger than both still makes a window.
    #[test]
    fn s59_a_window_is_bounded_but_always_takes_one_record() {
        let limit = Limit { max_records: 2, max_bytes: 10 };
        assert!(limit.admits(0, 0, 1_000));
        assert!(limit.admits(1, 5, 5));
        assert!(!limit.admits(1, 5, 6));
        assert!(!limit.admits(2, 2, 1));
    }

    proptest! {
        /// S63: exactly the rows that break alone are found, with at most two questions per row and level.
        #[test]
        fn s63_halving_finds_exactly_the_bad_rows(rows in 1usize..200, bad in proptest::collection::btree_set(0usize..200, 1..6)) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|row| *row < rows).collect();
            prop_assume!(!bad.is_empty());
            let mut halving = Halving::new(rows);
            let mut questions = 0;
            while let Some(range) = halving.next() {
                questions += 1;
                halving.answer(range.clone().any(|row| bad.contains(&row)));
            }
            prop_assert_eq!(halving.found(), bad.iter().copied().collect::<Vec<_>>());
            let levels = usize::BITS as usize - rows.leading_zeros() as usize + 1;
            prop_assert!(questions <= 2 * levels * bad.len());
        }
    }
}
