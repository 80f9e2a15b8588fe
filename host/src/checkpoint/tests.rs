use super::*;

mod model;

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
            Command::FlushTogether(sinks) => sinks.into_iter().for_each(|sink| partition.flushed(sink)),
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

/// S6, S99: at a source's end a checkpoint is due at once, for records and for what is none, and once.
#[test]
fn s99_at_the_end_nothing_is_waited_for() {
    let mut partition = partition(LIMITS);
    assert_eq!(partition.opened(&[0, 1]), Ok(()));
    partition.hurry();
    assert_eq!(partition.next(0, false), Command::Process);
    partition.window_done(2);
    assert_eq!(partition.next(0, false), Command::Flush(1));
    assert_eq!(cut(&mut partition, 0), Some(2));
    assert!(is_read(&partition.next(0, false)));
    partition.advanced(4);
    assert!(is_read(&partition.next(0, false)));
    partition.hurry();
    assert_eq!(cut(&mut partition, 0), Some(4));
    assert!(is_read(&partition.next(0, false)));
    window(&mut partition, &[4]);
    assert!(is_read(&partition.next(0, false)));
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
    by_bytes.set_buffered_bytes(1_000);
    assert_eq!(by_bytes.next(0, false), Command::Flush(1));

    let mut by_records = partition(Limits { max_records: 2, ..LIMITS });
    window(&mut by_records, &[0, 1]);
    assert_eq!(by_records.next(0, false), Command::Flush(1));

    let mut by_all = partition(LIMITS);
    window(&mut by_all, &[0]);
    assert!(is_read(&by_all.next(0, true)), "pressed, but not by this partition");
    by_all.set_buffered_bytes(1);
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

/// S29: after backpressure a checkpoint is due at half its size, down to one window, and grows again with each that is taken.
#[test]
fn s29_refused_checkpoints_become_smaller_and_taken_ones_grow() {
    let mut partition = partition(LIMITS);
    let buffer = |partition: &mut Partition, first: Offset| {
        let offsets: Vec<Offset> = (first..first + 4).collect();
        assert_eq!(partition.opened(&offsets), Ok(()));
        offsets.iter().for_each(|offset| partition.owe(*offset, 1));
        partition.set_buffered_bytes(partition.buffered_bytes() + 40);
        partition.window_done(4);
    };
    // The windows that it takes until the checkpoint is due, well before its interval is over.
    let windows = |partition: &mut Partition, now: Millis, from: Offset| {
        let mut count = 0;
        while is_read(&partition.next(now, false)) {
            buffer(partition, from + 4 * count);
            count += 1;
        }
        assert_eq!(partition.next(now, false), Command::Flush(1));
        count
    };
    let refuse = |partition: &mut Partition, now: Millis| {
        assert!(partition.abort(Abort::Backpressure(1)));
        partition.discarded();
        partition.rewound();
        partition.waited(now);
    };
    for window in 0..4 {
        buffer(&mut partition, 4 * window);
    }
    assert_eq!(partition.next(5_000, false), Command::Flush(1));
    refuse(&mut partition, 6_000);
    assert_eq!(windows(&mut partition, 6_100, 0), 2);
    refuse(&mut partition, 7_000);
    assert_eq!(windows(&mut partition, 7_100, 0), 1);
    for _ in 0..3 {
        refuse(&mut partition, 8_000);
        assert_eq!(windows(&mut partition, 8_100, 0), 1, "never less than a window");
    }
    let mut next = 4;
    assert_eq!(cut(&mut partition, 8_100), Some(next));
    let mut grown = Vec::new();
    for _ in 0..4 {
        let count = windows(&mut partition, 8_200, next);
        next += 4 * count;
        assert_eq!(cut(&mut partition, 8_200), Some(next));
        grown.push(count);
    }
    assert_eq!(grown, [1, 2, 4, 8]);
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
    for repeat in 0..10 {
        start_over(&mut partition);
        partition.advanced(5);
        assert_eq!(partition.watermark(), 3, "a position proves nothing while a record is owed");
        assert_eq!(partition.owed_below(4), Some(3));
        assert_eq!(partition.opened(&[4]), Err(Refused::Skipped { expected: 3, found: 4 }), "{repeat}");
    }
    start_over(&mut partition);
    partition.is_gone();
    assert_eq!(partition.opened(&[4]), Ok(()), "proved to be deleted at the source");
}

/// S29, S31: a failure on the way back does not shorten the wait that a destination asked for, and the first one stands.
#[test]
fn s29_a_failure_on_the_way_back_keeps_the_wait() {
    let mut partition = partition(LIMITS);
    window(&mut partition, &[0]);
    assert!(partition.abort(Abort::Backpressure(700)));
    partition.discarded();
    // The rewind fails, and is done again.
    assert!(partition.abort(Abort::Failure));
    assert_eq!(partition.next(0, false), Command::Discard);
    partition.discarded();
    partition.rewound();
    assert_eq!(partition.next(0, false), Command::Pause(700));
    partition.waited(700);
    assert!(partition.abort(Abort::Failure));
    partition.discarded();
    partition.rewound();
    assert_eq!(partition.next(0, false), Command::BackOff { attempt: 2 });
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

/// S46: at the end buffering sinks flush at the same time, before in order of registration (S11).
#[test]
fn s46_sinks_flush_together_at_the_end() {
    let mut partition = Partition::new(LIMITS, vec![true, false, true], 0, 0);
    assert!(is_read(&partition.next(0, false)));
    window(&mut partition, &[0]);
    assert_eq!(partition.next(5_000, false), Command::Flush(0));
    partition.close();
    assert_eq!(partition.next(5_000, false), Command::FlushTogether(vec![0, 2]));
    partition.flushed(0);
    assert_eq!(partition.next(5_000, false), Command::Flush(2));
    partition.flushed(2);
    assert_eq!(cut(&mut partition, 5_000), Some(1));
}
