//! One partition's whole world, driven at random.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What a worker might meet next; what does not fit the command is left out.
#[derive(Clone, Copy, Debug)]
enum Luck {
    Fine,
    Nothing,
    Fail(Abort),
    Stale,
    Close,
    Abandon,
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        12 => Just(Luck::Fine),
        2 => Just(Luck::Nothing),
        1 => Just(Luck::Fail(Abort::Failure)),
        1 => Just(Luck::Fail(Abort::Destination)),
        1 => Just(Luck::Fail(Abort::Backpressure(50))),
        1 => Just(Luck::Stale),
    ]
}

/// The whole of one partition's world: a log with gaps, what each sink really holds, and what was seen to happen.
struct Model {
    log: BTreeMap<Offset, Vec<usize>>,
    /// Per record, the sinks that have it for good.
    stored: BTreeMap<Offset, BTreeSet<usize>>,
    /// Written by the direct sink and not synced yet.
    unsynced: BTreeSet<Offset>,
    /// Added to a buffering sink and not flushed yet.
    buffers: BTreeMap<usize, Vec<Offset>>,
    /// Records whose window is over: read, answered and delivered.
    answered: BTreeSet<Offset>,
    position: Offset,
    flushed: Vec<usize>,
    now: Millis,
    /// Records that commits have settled for good, as the core says.
    committed_records: u64,
}

impl Model {
    fn new(log: &[(Offset, u8)]) -> Self {
        let mut at = 0;
        let mut records = BTreeMap::new();
        for (gap, sinks) in log {
            at += gap;
            records.insert(at, (0..3).filter(|sink| sinks & (1 << sink) != 0).collect());
        }
        Self {
            log: records,
            stored: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            buffers: BTreeMap::new(),
            answered: BTreeSet::new(),
            position: 0,
            flushed: Vec::new(),
            now: 0,
            committed_records: 0,
        }
    }

    /// Every record below the offset went through its window and is in every sink that it yielded something for.
    fn is_safe_below(&self, offset: Offset) -> bool {
        self.log.range(..offset).all(|(record, sinks)| {
            self.answered.contains(record)
                && sinks.iter().all(|sink| self.stored.get(record).is_some_and(|stored| stored.contains(sink)))
        })
    }

    fn store(&mut self, record: Offset, sink: usize) {
        self.stored.entry(record).or_default().insert(sink);
    }

    /// One window: direct payloads are written at once, the others added.
    fn process(&mut self, core: &mut Partition, window: &[Offset]) {
        for &record in window {
            for &sink in &self.log[&record].clone() {
                core.owe(record, sink);
                if sink == 0 {
                    self.unsynced.insert(record);
                    core.settle(record, sink);
                } else {
                    self.buffers.entry(sink).or_default().push(record);
                    core.set_buffered_bytes(core.buffered_bytes() + 10);
                }
            }
        }
        self.answered.extend(window);
        core.window_done(window.len() as u64);
    }

    /// Does one command as a worker does. `Err` ends the partition.
    fn step(&mut self, core: &mut Partition, window: &mut Vec<Offset>, luck: Luck) -> Result<bool, TestCaseError> {
        let before = core.committed();
        let command = core.next(self.now, false);
        match (&command, luck) {
            (_, Luck::Close) => core.close(),
            (_, Luck::Abandon) => {
                window.clear();
                core.abandon();
            }
            (Command::Read { until }, Luck::Nothing) => self.now = self.now.max(*until),
            (Command::Read { .. }, _) => {
                *window = self.log.range(self.position..).map(|(offset, _)| *offset).take(3).collect();
                match window.last() {
                    None => self.now += LONGEST_READ,
                    Some(last) => {
                        self.position = last + 1;
                        prop_assert_eq!(core.opened(window), Ok(()));
                    }
                }
            }
            (Command::Process | Command::Flush(_), Luck::Fail(abort)) => {
                window.clear();
                prop_assert!(core.abort(abort) || abort == Abort::Failure);
            }
            (Command::FlushTogether(sinks), luck) => {
                prop_assert!(core.closing && sinks.len() > 1, "S46: only where time is short");
                let failing = matches!(luck, Luck::Fail(_)).then(|| sinks[0]);
                for &sink in sinks.iter().filter(|sink| Some(**sink) != failing) {
                    for record in self.buffers.remove(&sink).unwrap_or_default() {
                        self.store(record, sink);
                    }
                    core.flushed(sink);
                }
                if let Luck::Fail(abort) = luck {
                    window.clear();
                    prop_assert!(core.abort(abort) || abort == Abort::Failure);
                }
            }
            (Command::Process, _) => {
                self.process(core, &std::mem::take(window));
                self.flushed.clear();
            }
            (Command::Flush(sink), _) => {
                prop_assert!(self.flushed.iter().all(|earlier| earlier < sink), "S11: in order of registration");
                self.flushed.push(*sink);
                for record in self.buffers.remove(sink).unwrap_or_default() {
                    self.store(record, *sink);
                }
                core.flushed(*sink);
            }
            (Command::Sync, Luck::Fail(_)) => {
                // What was written since the last sync may be gone.
                self.unsynced.clear();
                prop_assert!(core.abort(Abort::Unsynced));
            }
            (Command::Sync, _) => {
                for record in std::mem::take(&mut self.unsynced) {
                    self.store(record, 0);
                }
                core.synced();
            }
            (Command::Commit(offset), luck) => {
                prop_assert_eq!(*offset, core.watermark(), "S1: the watermark and nothing else");
                prop_assert!(*offset > before, "S16: only forwards");
                prop_assert!(self.is_safe_below(*offset), "committed {} past an unsettled record", offset);
                match luck {
                    Luck::Fail(_) => prop_assert!(core.commit_failed()),
                    Luck::Stale => core.commit_stale(self.now),
                    _ => {
                        self.committed_records += core.committed_at(*offset);
                        let below = self.log.range(..*offset).count() as u64;
                        prop_assert_eq!(self.committed_records, below, "S58: each record is counted once");
                    }
                }
            }
            (Command::Discard, _) => {
                self.buffers.clear();
                core.discarded();
            }
            (Command::Rewind(to), _) => {
                prop_assert_eq!(*to, core.watermark());
                prop_assert!(self.buffers.is_empty(), "S26: discarded before anything comes again");
                self.position = *to;
                core.rewound();
            }
            (Command::BackOff { .. }, _) => core.waited(self.now),
            (Command::Pause(wait), _) => {
                self.now += wait;
                core.waited(self.now);
            }
            (Command::End, _) => return Ok(false),
        }
        prop_assert!(core.watermark() <= core.position());
        Ok(true)
    }
}

proptest! {
    /// S1, S2, S4, S11, S16, S22, S26, S40, S55: whatever fails, a commit covers only what arrived; once nothing fails
    /// any more everything arrives and is committed; and a partition that is told to end does end.
    #[test]
    fn s1_only_what_arrived_is_committed_and_all_of_it_at_last(
        log in proptest::collection::vec((1i64..4, 0u8..8), 0..40),
        fate in proptest::collection::vec(luck(), 0..200),
        every_records in 0u64..4,
        last in prop_oneof![3 => Just(None), 1 => Just(Some(Luck::Abandon)), 1 => Just(Some(Luck::Close))],
    ) {
        let limits = Limits { every_records, max_bytes: 60, max_records: 10, max_consecutive_aborts: u32::MAX, ..LIMITS };
        let mut core = Partition::new(limits, vec![false, true, true], 0, 0);
        let mut model = Model::new(&log);
        let mut window = Vec::new();
        for luck in fate {
            model.step(&mut core, &mut window, luck)?;
        }
        let end = model.log.keys().last().map_or(0, |last| last + 1);
        // A commit that failed ten times is the caller's business, so here none fails that often in a row.
        let mut steps = 0;
        match last {
            Some(order) => {
                model.step(&mut core, &mut window, order)?;
                while model.step(&mut core, &mut window, Luck::Fine)? {
                    steps += 1;
                    prop_assert!(steps < 50, "told to end, and did not");
                }
                prop_assert_eq!(core.committed(), core.watermark());
            }
            None => {
                while core.committed() < end {
                    model.step(&mut core, &mut window, Luck::Fine)?;
                    steps += 1;
                    prop_assert!(steps < 2_000, "stuck at {} of {}", core.committed(), end);
                }
                prop_assert!(model.is_safe_below(end));
            }
        }
    }
}
