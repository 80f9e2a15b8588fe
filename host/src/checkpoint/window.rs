//! How the records of a window on which a call breaks are found.

use std::ops::Range;

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
