//! Calls that fail as a whole: who is blamed, and who never is.

use std::collections::BTreeSet;

use super::*;

/// A direct sink whose calls fail as a whole where a row or their size makes them.
struct Breaking {
    clock: VirtualClock,
    /// Rows that break a call, and how.
    bad: Vec<(i64, Break)>,
    /// A call of more rows never ends in time.
    slow_above: usize,
    /// Until then every call fails so.
    outage: Option<(Millis, Break)>,
    written: Mutex<Vec<i64>>,
    sizes: Mutex<Vec<usize>>,
}

#[async_trait]
impl Sink for Breaking {
    fn description(&self) -> Description {
        Description::direct(false)
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        self.sizes.lock().unwrap().push(batch.len());
        if let Some((until, error)) = self.outage
            && self.clock.now() < until
        {
            self.clock.sleep(Duration::from_millis(500)).await;
            return Err(error(Fault::destination("gone")));
        }
        if batch.len() > self.slow_above {
            self.clock.sleep(Duration::from_secs(10)).await;
            return Err(CallError::Timeout(Fault::destination("no answer")));
        }
        if let Some((row, error)) = self.bad.iter().find(|(row, _)| batch.offsets.contains(row)) {
            self.clock.sleep(Duration::from_millis(100)).await;
            return Err(error(Fault::plugin(format!("broke on {row}"))));
        }
        self.written.lock().unwrap().extend(&batch.offsets);
        Ok(Vec::new())
    }
}

impl Breaking {
    fn new(bad: &[(i64, Break)]) -> Self {
        Self {
            clock: VirtualClock::start(3),
            bad: bad.to_vec(),
            slow_above: usize::MAX,
            outage: None,
            written: Mutex::default(),
            sizes: Mutex::default(),
        }
    }
}

struct Outcome {
    stopped: Option<Stop>,
    written: Vec<i64>,
    sizes: Vec<usize>,
    /// Offsets of dead letters, with the calls made and the kind.
    dead: Vec<(i64, u32, FailureKind)>,
    lasted: Millis,
}

impl Outcome {
    fn dead_offsets(&self) -> BTreeSet<i64> {
        self.dead.iter().map(|(offset, ..)| *offset).collect()
    }
}

/// Gives windows of so many rows each, one after the other, as one partition does.
async fn give(sink: Breaking, windows: &[usize]) -> Outcome {
    give_with(3, sink, windows).await
}

async fn give_with(max_retries: u32, sink: Breaking, windows: &[usize]) -> Outcome {
    let sink = Arc::new(sink);
    let (mut shared, _, letters) = shared(Given { max_retries, ..Given::answers(Vec::new()) });
    shared.clock = sink.clock.clone();
    shared.sinks = vec![SinkSlot::new(NamedSink::new(SinkKind::Plugin, "breaking", sink.clone()), Arc::default())];
    let (mut state, mut first, mut stopped) = (SinkState::default(), 0, None);
    for rows in windows {
        let mut window = Batch::new(TopicPartition::new("t", 0));
        for offset in (first..).take(*rows) {
            window.push(offset, 1, Some(&offset.to_be_bytes()), Some(b"{}"));
        }
        first += i64::try_from(*rows).unwrap();
        let window = Arc::new(window);
        let rows = Rows::of_group(&Group { sink: 0, batch: window.clone(), origin: None }, &window);
        stopped = Delivery::new(&shared, 0, &window.source, &mut state).give(rows).await.err();
        if stopped.is_some() {
            break;
        }
    }
    let letters = std::mem::take(&mut *letters.0.lock().unwrap());
    let dead = letters.iter().map(|letter| (letter.offset, letter.attempt_count, letter.kind)).collect();
    let written = std::mem::take(&mut *sink.written.lock().unwrap());
    let sizes = std::mem::take(&mut *sink.sizes.lock().unwrap());
    Outcome { stopped, written, sizes, dead, lasted: shared.clock.now() }
}

fn all_but(rows: i64, bad: &[i64]) -> Vec<i64> {
    (0..rows).filter(|row| !bad.contains(row)).collect()
}

const BREAKS: [Break; 5] =
    [CallError::Reject, CallError::Trap, CallError::LimitExceeded, CallError::Timeout, CallError::Unknown];

/// S63, S79b: whatever breaks the call, the row that does it is the only one that is dead-lettered; its neighbours are written, each
/// once and in order.
#[tokio::test(start_paused = true)]
async fn s79b_a_row_that_fails_alone_is_its_own_trouble() {
    for error in BREAKS {
        for bad in [0, 1, 9, 500, 998] {
            let outcome = give(Breaking::new(&[(bad, error)]), &[1_000]).await;
            assert!(outcome.stopped.is_none(), "{bad}: {:?}", outcome.stopped);
            assert_eq!(outcome.written, all_but(1_000, &[bad]), "{bad}");
            assert_eq!(outcome.dead_offsets(), BTreeSet::from([bad]));
        }
    }
}

/// S80: a row that may succeed later has its attempts before it is given up; one that never will is given up at once.
#[tokio::test(start_paused = true)]
async fn s80_rows_that_may_succeed_later_have_their_attempts() {
    for (error, attempts, kind) in [
        (CallError::Timeout as Break, 4, FailureKind::Retry),
        (CallError::Unknown, 4, FailureKind::Retry),
        (CallError::Trap, 1, FailureKind::Reject),
        (CallError::Reject, 1, FailureKind::Reject),
    ] {
        let outcome = give(Breaking::new(&[(3, error)]), &[10]).await;
        assert_eq!(outcome.dead, [(3, attempts, kind)]);
    }
}

/// K5: however many rows of a window trap, each is dead-lettered and the rest written once.
#[tokio::test(start_paused = true)]
async fn s63_no_number_of_trapping_rows_stops_the_host() {
    for bad in [vec![9i64; 1], (0..9).collect(), (100..140).collect(), (0..1_000).filter(|row| *row != 777).collect()] {
        let rows: Vec<_> = bad.iter().map(|row| (*row, CallError::Trap as Break)).collect();
        let outcome = give(Breaking::new(&rows), &[1_000]).await;
        assert!(outcome.stopped.is_none(), "{:?}", outcome.stopped);
        assert_eq!(outcome.written, all_but(1_000, &bad));
        assert_eq!(outcome.dead_offsets(), bad.into_iter().collect());
    }
}

/// S63: where nothing passes the plugin is blamed, and no row is given up.
#[tokio::test(start_paused = true)]
async fn s63_a_plugin_that_fails_on_everything_is_blamed_itself() {
    for error in [CallError::Trap as Break, CallError::LimitExceeded] {
        for rows in [1usize, 2, 40] {
            let bad: Vec<_> = (0..40).map(|row| (row, error)).collect();
            let outcome = give(Breaking::new(&bad), &[rows]).await;
            assert!(matches!(outcome.stopped, Some(Stop::Abort(Abort::Failure, _))), "{:?}", outcome.stopped);
            assert!(outcome.dead.is_empty() && outcome.written.is_empty());
        }
    }
    // A row that is alone in its window is judged by those before it.
    let outcome = give(Breaking::new(&[(5, CallError::Trap)]), &[5, 1, 1]).await;
    assert!(outcome.stopped.is_none());
    assert_eq!((&outcome.written, outcome.dead_offsets()), (&all_but(7, &[5]), BTreeSet::from([5])));
}

/// S79a, S79b: an outage of any kind is waited for, however long, and costs neither a row nor a second writing.
#[tokio::test(start_paused = true)]
async fn s79b_an_outage_costs_no_row() {
    for error in [CallError::Unavailable as Break, CallError::Timeout, CallError::Unknown] {
        let outage = Some((20 * 60_000, error));
        let outcome = give_with(0, Breaking { outage, ..Breaking::new(&[]) }, &[1_024]).await;
        assert!(outcome.stopped.is_none(), "{:?}", outcome.stopped);
        let written: BTreeSet<i64> = outcome.written.iter().copied().collect();
        assert_eq!((outcome.written.len(), written.len()), (1_024, 1_024), "each row once");
        assert!(outcome.dead.is_empty());
        assert!(outcome.lasted >= 20 * 60_000);
        assert!(outcome.sizes.len() < 2_000, "an unavailable destination is asked seldom: {}", outcome.sizes.len());
    }
}

/// S79b: rows that fail with none behind them may have met an outage. Their window comes again, so that newer rows can show it.
#[tokio::test(start_paused = true)]
async fn s79b_rows_without_others_behind_them_come_again() {
    for (bad, rows) in [(&[0][..], 1), (&[9], 10), (&[8, 9], 10)] {
        let breaks: Vec<_> = bad.iter().map(|row| (*row, CallError::Unknown as Break)).collect();
        let outcome = give(Breaking::new(&breaks), &[rows]).await;
        assert!(matches!(outcome.stopped, Some(Stop::Abort(Abort::Destination, _))), "{:?}", outcome.stopped);
        assert!(outcome.dead.is_empty());
        let outcome = give(Breaking::new(&breaks), &[rows + 1]).await;
        assert!(outcome.stopped.is_none());
        assert_eq!(outcome.dead_offsets(), bad.iter().copied().collect());
        assert_eq!(outcome.written, all_but(i64::try_from(rows).unwrap() + 1, bad));
    }
    // A window that is full would come again as it is: its last rows are given up when their time is over.
    let outcome = give(Breaking::new(&[(1_023, CallError::Unknown)]), &[1_024]).await;
    assert!(outcome.stopped.is_none() && outcome.lasted > 600_000, "{:?}", outcome.stopped);
    assert_eq!(outcome.dead_offsets(), BTreeSet::from([1_023]));
}

/// S79b, P5, K6: calls that are too large for their time shrink until they fit, stay so, and grow when they may.
#[tokio::test(start_paused = true)]
async fn s79b_calls_shrink_until_they_fit() {
    let outcome = give(Breaking { slow_above: 100, ..Breaking::new(&[]) }, &[1_000, 1_000]).await;
    assert!(outcome.stopped.is_none() && outcome.dead.is_empty());
    assert_eq!(outcome.written, all_but(2_000, &[]));
    let too_large = outcome.sizes.iter().filter(|size| **size > 100).count();
    assert!(too_large < 20, "the second window profits from the first: {:?}", outcome.sizes);
    assert!(outcome.sizes.iter().any(|size| *size > 60), "{:?}", outcome.sizes);
}
