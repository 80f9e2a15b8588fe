//! Who still owes what, per offset of one partition, and the watermark that follows from it.

use std::collections::VecDeque;

use crate::model::Offset;

/// Most sinks that one pipeline can have: an offset's open obligations are the bits of one word.
pub const MAX_SINKS: usize = 63;

/// What an offset can be waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Obligation(u64);

impl Obligation {
    /// The window that the record is part of: its answer, and all deliveries of its round (S2).
    pub const WINDOW: Self = Self(1);

    /// The payloads that the record yielded for the sink of that index, below [`MAX_SINKS`].
    pub fn sink(index: usize) -> Self {
        assert!(index < MAX_SINKS, "the configuration refuses more sinks");
        Self(1 << (index + 1))
    }
}

/// An offset was read that is not above everything read before in this epoch (S13): the source went back unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WentBack {
    /// The offset that was read.
    pub offset: Offset,
    /// The lowest offset that could have come.
    pub expected: Offset,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: Offset,
    pending: u64,
}

/// Offsets of one partition with their open obligations, in reading order.
///
/// Invariants, checked on every move: offsets ascend; the first entry always has an open obligation; the watermark is the
/// first entry's offset, or the position when there is none, and inside one epoch it never goes back.
#[derive(Clone, Debug)]
pub struct Ledger {
    entries: VecDeque<Entry>,
    /// The next offset to read, as far as is known.
    position: Offset,
    /// Where the last look-up ended: callers walk in offset order, so the next one is nearly always right behind.
    cursor: usize,
    unknown: u64,
    /// How many records lie below the watermark, since the ledger began.
    settled: u64,
}

impl Ledger {
    /// A ledger that starts reading at `position`, everything below being settled.
    pub fn new(position: Offset) -> Self {
        Self { entries: VecDeque::new(), position, cursor: 0, unknown: 0, settled: 0 }
    }

    /// The lowest offset with an open obligation; if there is none, the position (S97). What may be committed.
    pub fn watermark(&self) -> Offset {
        self.entries.front().map_or(self.position, |entry| entry.offset)
    }

    /// The next offset to read.
    pub fn position(&self) -> Offset {
        self.position
    }

    /// How many offsets have an open obligation or wait behind one that has.
    pub fn span(&self) -> usize {
        self.entries.len()
    }

    /// How often something was settled that was not known, or not any more (S100).
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Enters a record that was just read, owing its window. Gaps are fine (S98).
    ///
    /// # Errors
    /// When the offset is not above all earlier ones of this epoch.
    pub fn open(&mut self, offset: Offset) -> Result<(), WentBack> {
        if offset < self.position {
            return Err(WentBack { offset, expected: self.position });
        }
        self.entries.push_back(Entry { offset, pending: Obligation::WINDOW.0 });
        self.position = offset + 1;
        Ok(())
    }

    /// Learns that the offsets below `position` hold no further record, such as a transaction's markers (S99).
    pub fn advance(&mut self, position: Offset) {
        self.position = self.position.max(position);
    }

    /// Adds an obligation to an offset that is open.
    pub fn owe(&mut self, offset: Offset, obligation: Obligation) {
        match self.find(offset) {
            Some(index) => self.entries[index].pending |= obligation.0,
            None => self.unknown += 1,
        }
    }

    /// Settles an obligation. Settling twice changes nothing; an unknown offset is counted (S100).
    pub fn settle(&mut self, offset: Offset, obligation: Obligation) {
        match self.find(offset) {
            Some(index) => {
                self.entries[index].pending &= !obligation.0;
                self.pop_settled();
            }
            None => self.unknown += 1,
        }
    }

    /// Settles an obligation on every offset.
    pub fn settle_all(&mut self, obligation: Obligation) {
        for entry in &mut self.entries {
            entry.pending &= !obligation.0;
        }
        self.pop_settled();
    }

    /// How many records lie below the watermark, since the ledger began.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Goes back to a watermark below which there were so many records (see [`Self::settled`]).
    pub fn reset_to(&mut self, position: Offset, settled: u64) {
        self.reset(position);
        self.settled = settled;
    }

    /// Starts a new epoch at `position`: everything open is forgotten, because it will be read again or is not ours.
    pub fn reset(&mut self, position: Offset) {
        self.entries.clear();
        self.cursor = 0;
        self.position = position;
    }

    fn pop_settled(&mut self) {
        let before = self.watermark();
        while self.entries.front().is_some_and(|entry| entry.pending == 0) {
            self.entries.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
            self.settled += 1;
        }
        assert!(before <= self.watermark(), "a watermark never goes back inside an epoch");
        assert!(self.watermark() <= self.position, "a watermark never passes the position");
    }

    /// The entry's index. Amortised constant time for callers that walk upwards; logarithmic otherwise.
    fn find(&mut self, offset: Offset) -> Option<usize> {
        let hit = |index: usize| self.entries.get(index).is_some_and(|entry| entry.offset == offset);
        let index = if hit(self.cursor + 1) {
            self.cursor + 1
        } else if hit(self.cursor) {
            self.cursor
        } else {
            self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok()?
        };
        self.cursor = index;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// S97, S98: the watermark stops at the first open offset, and gaps do not hold it back.
    #[test]
    fn s97_s98_watermark_passes_gaps_and_stops_at_the_first_open_offset() {
        let mut ledger = Ledger::new(10);
        for offset in [10, 13, 14, 20] {
            assert_eq!(ledger.open(offset), Ok(()));
        }
        ledger.settle(13, Obligation::WINDOW);
        assert_eq!(ledger.watermark(), 10);
        ledger.settle(10, Obligation::WINDOW);
        assert_eq!(ledger.watermark(), 14);
        ledger.settle(20, Obligation::WINDOW);
        ledger.settle(14, Obligation::WINDOW);
        assert_eq!(ledger.watermark(), 21);
        ledger.advance(23);
        assert_eq!(ledger.watermark(), 23, "S99: everything settled, so the position counts");
    }

    /// S13: in one epoch offsets only go up; in the next one they may start lower.
    #[test]
    fn s13_an_offset_that_went_back_is_refused_within_its_epoch() {
        let mut ledger = Ledger::new(5);
        assert_eq!(ledger.open(7), Ok(()));
        assert_eq!(ledger.open(7), Err(WentBack { offset: 7, expected: 8 }));
        ledger.reset(5);
        assert_eq!(ledger.open(5), Ok(()));
    }

    /// S100: settling twice or settling the unknown moves nothing.
    #[test]
    fn s100_settling_twice_or_the_unknown_moves_nothing() {
        let mut ledger = Ledger::new(0);
        assert_eq!(ledger.open(0), Ok(()));
        assert_eq!(ledger.open(1), Ok(()));
        ledger.owe(0, Obligation::sink(0));
        ledger.settle(0, Obligation::WINDOW);
        ledger.settle(0, Obligation::WINDOW);
        ledger.settle(99, Obligation::WINDOW);
        assert_eq!((ledger.watermark(), ledger.unknown()), (0, 1));
    }

    #[derive(Clone, Debug)]
    enum Move {
        Open(i64),
        Owe(usize, usize),
        Settle(usize, usize),
        SettleAll(usize),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            3 => (1i64..4).prop_map(Move::Open),
            2 => (0usize..64, 0usize..3).prop_map(|(at, sink)| Move::Owe(at, sink)),
            4 => (0usize..64, 0usize..4).prop_map(|(at, what)| Move::Settle(at, what)),
            1 => (0usize..3).prop_map(Move::SettleAll),
        ];
        proptest::collection::vec(one, 0..200)
    }

    proptest! {
        /// S1, S97: whatever happens in whatever order, the watermark is what a plain map of obligations says it is.
        #[test]
        fn s97_watermark_equals_the_models(moves in moves()) {
            let mut ledger = Ledger::new(0);
            let mut model: BTreeMap<i64, Vec<Obligation>> = BTreeMap::new();
            let mut position = 0;
            let mut seen: Vec<i64> = Vec::new();
            let what = |index: usize| if index == 3 { Obligation::WINDOW } else { Obligation::sink(index) };
            for step in moves {
                match step {
                    Move::Open(gap) => {
                        let offset = position + gap - 1;
                        prop_assert_eq!(ledger.open(offset), Ok(()));
                        model.insert(offset, vec![Obligation::WINDOW]);
                        seen.push(offset);
                        position = offset + 1;
                    }
                    Move::Owe(at, sink) if !seen.is_empty() => {
                        let offset = seen[at % seen.len()];
                        // An obligation is only ever added while the record's window is open.
                        if model.get(&offset).is_some_and(|owed| owed.contains(&Obligation::WINDOW)) {
                            ledger.owe(offset, Obligation::sink(sink));
                            model.entry(offset).or_default().push(Obligation::sink(sink));
                        }
                    }
                    Move::Settle(at, index) if !seen.is_empty() => {
                        let offset = seen[at % seen.len()];
                        ledger.settle(offset, what(index));
                        if let Some(owed) = model.get_mut(&offset) {
                            owed.retain(|one| *one != what(index));
                        }
                    }
                    Move::SettleAll(sink) => {
                        ledger.settle_all(Obligation::sink(sink));
                        for owed in model.values_mut() {
                            owed.retain(|one| *one != Obligation::sink(sink));
                        }
                    }
                    _ => {}
                }
                let expected = model.iter().find(|(_, owed)| !owed.is_empty()).map_or(position, |(offset, _)| *offset);
                prop_assert_eq!(ledger.watermark(), expected);
            }
        }
    }
}
