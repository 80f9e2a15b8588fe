use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LIMITS: Limits =
    Limits { interval: 5_000, every_records: 0, max_bytes: 1_000, max_records: 1_000, max_consecutive_aborts: 5 };

fn partition(limits: Limits) -> Partition {
    Partition::new(limits, vec![false, true], 0, 0)
}

/// Reads and settles a window of those records, each with a payload for the direct sink.
fn window(partition: &mut Partition, offsets: &[Offset]) {
    assert_eq!(partition.opened(offsets), Ok(()));
    assert_eq!(partition.next(0, false), Command::Process);
    for &offset in offsets {
        partition.owe(offset, 0);
        partition.settle(offset, 0);
    }
    partition.window_done(offsets.len() as u64);
}

fn is_read(command: &Command) -> bool {
    matches!(command, Command::Read { .. })
}

/// Brings a due checkpoint to its commit, and answers what was to be committed.
fn cut(partition: &mut Partition, now: Millis) -> Option<Offset> {
    loop {
        match partition.next(now, false) {
            Command::Flush(sink) => partition.flushed(sink),
            Command::Sync => partition.synced(),
            Command::Commit(offset) => {
                partition.committed_at(offset);
                return Some(offset);
            }
            _ => return None,
        }
    }
}

/// S6, S7, S9: time runs from the checkpoint's creation, and a read never waits past the moment it is due.
#[test]
fn s6_s7_a_checkpoint_is_due_by_its_age() {
    let mut partition = partition(LIMITS);
    assert_eq!(partition.next(0, false), Command::Read { until: LONGEST_READ });
    window(&mut partition, &[0, 1]);
    assert_eq!(partition.next(4_700, false), Command::Read { until: 5_000 });
    assert_eq!(partition.next(5_000, false), Command::Flush(1));
}

/// S7: without an interval every window is its own checkpoint.
#[test]
fn s7_no_interval_means_a_checkpoint_after_every_window() {
    let mut partition = partition(Limits { interval: 0, ..LIMITS });
    assert!(is_read(&partition.next(0, false)));
    window(&mut partition, &[0]);
    assert_eq!(cut(&mut partition, 0), Some(1));
    assert!(is_read(&partition.next(0, false)));
    window(&mut partition, &[1, 2]);
    assert_eq!(cut(&mut partition, 0), Some(3));
}

/// S6, S8: `every_records` counts records, and either limit suffices.
#[test]
fn s6_s8_a_checkpoint_is_due_by_its_records() {
    let mut partition = partition(Limits { every_records: 3, ..LIMITS });
    window(&mut partition, &[0, 1]);
    assert!(is_read(&partition.next(0, false)));
    window(&mut partition, &[2]);
    assert_eq!(cut(&mut partition, 0), Some(3));
}

/// S10: a checkpoint without records ends in silence, and a new one begins.
#[test]
fn s10_an_empty_checkpoint_asks_nobody() {
    let mut partition = partition(LIMITS);
    assert!(is_read(&partition.next(6_000, false)));
    window(&mut partition, &[0]);
    assert!(is_read(&partition.next(10_999, false)), "counted from the new checkpoint's creation");
    assert_eq!(partition.next(11_000, false), Command::Flush(1));
}

/// S99: a position that moved without records is committed in its time, and S22: nothing is flushed for it.
#[test]
fn s22_s99_a_mere_position_is_committed_without_a_flush() {
    let mut partition = partition(LIMITS);
    partition.advanced(4);
    assert!(is_read(&partition.next(4_999, false)));
    assert_eq!(partition.next(5_000, false), Command::Sync);
    partition.synced();
    assert_eq!(partition.next(5_000, false), Command::Commit(4));
}

/// S15, S102: bytes and records that are held make the checkpoint due, for one partition and for all together.
#[test]
fn s15_s102_what_is_held_makes_a_checkpoint_due() {
    let mut by_bytes = partition(LIMITS);
    window(&mut by_bytes, &[0]);
    by_bytes.buffered(1_000);
    assert_eq!(by_bytes.next(0, false), Command::Flush(1));

    let mut by_records = partition(Limits { max_records: 2, ..LIMITS });
    window(&mut by_records, &[0, 1]);
    assert_eq!(by_records.next(0, false), Command::Flush(1));

    let mut by_all = partition(LIMITS);
    window(&mut by_all, &[0]);
    assert!(is_read(&by_all.next(0, true)), "pressed, but not by this partition");
    by_all.buffered(1);
    assert_eq!(by_all.next(0, true), Command::Flush(1));
}

/// S2, S18: a record settled for its sinks still waits for its window; one that yielded nothing holds nothing back.
#[test]
fn s2_s18_no_part_of_a_window_is_committable() {
    let mut partition = partition(LIMITS);
    assert_eq!(partition.opened(&[0, 1]), Ok(()));
    partition.owe(0, 0);
    partition.settle(0, 0);
    assert_eq!(partition.watermark(), 0);
    partition.window_done(2);
    assert_eq!(partition.watermark(), 2);
}

/// S20: only the flush settles what a buffering sink was given.
#[test]
fn s20_added_is_not_settled() {
    let mut partition = partition(LIMITS);
    assert_eq!(partition.opened(&[0]), Ok(()));
    partition.owe(0, 1);
    partition.window_done(1);
    assert_eq!(partition.watermark(), 0);
    assert_eq!(cut(&mut partition, 5_000), Some(1));
}

/// S12: a commit is tried again after a wait, and not for ever.
#[test]
fn s12_a_commit_is_tried_so_often() {
    let mut partition = partition(LIMITS);
    window(&mut partition, &[0]);
    assert_eq!(partition.next(5_000, false), Command::Flush(1));
    partition.flushed(1);
    assert_eq!(partition.next(5_000, false), Command::Sync);
    partition.synced();
    for attempt in 1..=MAX_COMMIT_ATTEMPTS {
        assert_eq!(partition.next(5_000, false), Command::Commit(1));
        assert_eq!(partition.commit_failed(), attempt < MAX_COMMIT_ATTEMPTS);
        assert_eq!(partition.next(5_000, false), Command::BackOff { attempt });
        partition.waited(5_000);
    }
}

/// S41: failures without progress end the partition; the destination's never do; progress starts the count again.
#[test]
fn s41_only_failures_without_progress_count() {
    let mut partition = partition(Limits { max_consecutive_aborts: 2, ..LIMITS });
    let fail = |partition: &mut Partition, abort| {
        let goes_on = partition.abort(abort);
        partition.discarded();
        partition.rewound();
        partition.waited(0);
        goes_on
    };
    assert!(fail(&mut partition, Abort::Failure));
    for _ in 0..20 {
        assert!(fail(&mut partition, Abort::Destination));
        assert!(fail(&mut partition, Abort::Backpressure(1)));
    }
    window(&mut partition, &[0]);
    assert!(fail(&mut partition, Abort::Failure), "counted anew after progress");
    assert!(!fail(&mut partition, Abort::Failure));
    let mut strict = Partition::new(Limits { max_consecutive_aborts: 0, ..LIMITS }, vec![], 0, 0);
    assert!(!strict.abort(Abort::Failure), "0: the first one ends it");
}

/// S34a: a record that is owed after a rewind has to come again, until it is missing so often that it must be gone.
#[test]
fn s34a_a_rewind_that_skips_is_noticed() {
    let mut partition = partition(LIMITS);
    assert_eq!(partition.opened(&[3, 4]), Ok(()));
    let start_over = |partition: &mut Partition| {
        assert!(partition.abort(Abort::Destination));
        assert_eq!(partition.watermark(), 3);
        partition.discarded();
        partition.rewound();
        partition.waited(0);
    };
    for repeat in 0..MAX_REPEATED_REWINDS {
        start_over(&mut partition);
        partition.advanced(5);
        assert_eq!(partition.watermark(), 3, "a position proves nothing while a record is owed");
        assert_eq!(partition.opened(&[4]), Err(Refused::Skipped { expected: 3, found: 4 }), "{repeat}");
    }
    start_over(&mut partition);
    assert_eq!(partition.opened(&[4]), Ok(()), "deleted at the source, then");
}

/// S55: what is given up is not committed, what was settled before is.
#[test]
fn s55_giving_up_commits_the_watermark() {
    let mut partition = partition(LIMITS);
    window(&mut partition, &[0, 1]);
    assert_eq!(partition.opened(&[2]), Ok(()));
    partition.abandon();
    assert_eq!(partition.next(0, false), Command::Discard);
    partition.discarded();
    assert_eq!(cut(&mut partition, 0), Some(2));
    assert_eq!(partition.next(0, false), Command::End);
}

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
                    core.buffered(10);
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
                    _ => core.committed_at(*offset),
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
