#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::model::{FailureKind, TopicPartition};

fn segment(first: i64, rows: usize) -> Segment {
    let mut batch = Batch::new(TopicPartition::new("orders", 0));
    for offset in (first..).take(rows) {
        batch.push(offset, -1, None, Some(b"v"));
    }
    let batch = Arc::new(batch);
    Segment { batch: Arc::clone(&batch), origin: None, window: batch }
}

fn offsets(rows: &Rows) -> Vec<i64> {
    rows.segments().iter().flat_map(|segment| segment.batch.offsets.clone()).collect()
}

/// F1: a flush's answer names rows as the sink counts them: those that its `add` refused by index are counted, and those of a call
/// that failed as a whole, which is never accepted, are not.
#[test]
fn s27_flush_indices_count_accepted_calls_alone() {
    let mut buffered = BufferedRows::default();
    buffered.accept(segment(0, 1), &[]);
    // Row 1 was rejected by a call of its own, which is in no count.
    buffered.accept(segment(2, 3), &[Failure::reject(1, "no")]);
    buffered.accept(segment(5, 2), &[]);
    assert_eq!((buffered.counted(), buffered.held()), (6, 5));
    assert_eq!(offsets(&buffered.rows()), [0, 2, 4, 5, 6]);
    let told = [1, 2, 3, 5].map(|index| Failure::retry(index, "later")).to_vec();
    let renumbered: Vec<i64> =
        buffered.renumber(told).iter().map(|failure| offsets(&buffered.rows())[failure.index as usize]).collect();
    assert_eq!(renumbered, [2, 4, 6], "what it says of row 3, which it had refused, means nothing");
}

/// F4: what is buffered is shared with whoever else holds it: nothing is copied until single rows are chosen.
#[test]
fn s15_windows_are_shared() {
    let mut buffered = BufferedRows::default();
    let window = segment(0, 1_000);
    for row in 0..1_000 {
        let mut rows = Rows::default();
        rows.push(window.clone());
        buffered.accept(rows.slice(row..row + 1).segments()[0].clone(), &[]);
    }
    let rows = buffered.rows();
    assert_eq!((rows.len(), rows.segments().len()), (1_000, 1_000));
    assert!(rows.segments().iter().all(|segment| Arc::ptr_eq(&segment.window, &window.window)));
    assert_eq!(rows.find(999).0.origin(rows.find(999).1), 999);
    let mut whole = BufferedRows::default();
    whole.accept(window.clone(), &[]);
    assert!(Arc::ptr_eq(&whole.rows().segments()[0].batch, &window.batch));
}

proptest! {
    /// S27: against a plain list of what a sink counts and holds.
    #[test]
    fn s27_rows_and_indices_are_those_of_a_plain_list(
        calls in proptest::collection::vec(proptest::collection::vec(any::<bool>(), 1..6), 0..8),
        failed in proptest::collection::btree_set(0usize..40, 0..10),
    ) {
        let mut buffered = BufferedRows::default();
        // Per counted row its offset, and whether it is held.
        let mut plain: Vec<(i64, bool)> = Vec::new();
        for taken in &calls {
            let first = i64::try_from(plain.len()).unwrap();
            let refused: Vec<Failure> = (0u32..)
                .zip(taken)
                .filter(|(_, taken)| !**taken)
                .map(|(row, _)| Failure::reject(row, "no"))
                .collect();
            buffered.accept(segment(first, taken.len()), &refused);
            plain.extend((first..).zip(taken.iter().copied()));
        }
        let held: Vec<i64> = plain.iter().filter(|(_, held)| *held).map(|(offset, _)| *offset).collect();
        prop_assert_eq!((buffered.counted(), buffered.held()), (plain.len(), held.len()));
        let rows = buffered.rows();
        prop_assert_eq!(offsets(&rows), held);
        let failed: Vec<usize> = failed.into_iter().filter(|row| *row < plain.len()).collect();
        let answer = failed.iter().map(|row| Failure::reject(u32::try_from(*row).unwrap(), "no")).collect();
        let found: Vec<i64> =
            buffered.renumber(answer).iter().map(|failure| offsets(&rows)[failure.index as usize]).collect();
        let expected: Vec<i64> = failed.iter().map(|row| plain[*row]).filter(|(_, held)| *held).map(|it| it.0).collect();
        prop_assert_eq!(found, expected);
    }

    /// Slices and choices are those of a plain list, and calls cover every row once, within their bounds.
    #[test]
    fn rows_are_cut_as_a_plain_list_is(
        runs in proptest::collection::vec(1usize..6, 1..6),
        chosen in proptest::collection::btree_set(0usize..30, 0..12),
        most in 1usize..5,
    ) {
        let mut rows = Rows::default();
        let mut plain: Vec<i64> = Vec::new();
        for run in runs {
            let first = i64::try_from(plain.len()).unwrap() * 10;
            rows.push(segment(first, run));
            plain.extend((first..).take(run));
        }
        let chosen: Vec<usize> = chosen.into_iter().filter(|row| *row < plain.len()).collect();
        let expected: Vec<i64> = chosen.iter().map(|row| plain[*row]).collect();
        prop_assert_eq!(offsets(&rows.select(&chosen)), expected);
        let (mut start, mut covered) = (0, Vec::new());
        while start < rows.len() {
            let call = rows.next_call(start, most, 2, u64::MAX);
            prop_assert!(!call.is_empty() && call.len() <= most.min(2), "{:?}", call);
            covered.extend(offsets(&rows.slice(call.clone())));
            prop_assert_eq!(rows.slice(call.clone()).segments().len(), 1, "a call is of one run");
            start = call.end;
        }
        prop_assert_eq!(covered, plain);
    }

    /// A failure keeps its kind and reason when it is numbered anew.
    #[test]
    fn renumbered_failures_keep_what_they_say(index in 0u32..3) {
        let mut buffered = BufferedRows::default();
        buffered.accept(segment(0, 3), &[]);
        let failure = Failure::new(index, FailureKind::Retry, "why");
        prop_assert_eq!(buffered.renumber(vec![failure.clone()]), vec![failure]);
    }
}
