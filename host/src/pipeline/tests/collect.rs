//! Collectors that break on records, or wait for a destination of their own.

use std::collections::BTreeSet;

use super::*;
use crate::model::Payload;
use crate::pipeline::collect_window::{CollectState, Collection};

/// Yields a payload for every record, where no record and no outage keeps it from that.
struct Breaking {
    clock: VirtualClock,
    bad: Vec<(i64, Break)>,
    /// Calls of more records never end in time.
    slow_above: usize,
    /// Until then whatever it asks does not answer.
    outage: Millis,
    sizes: Mutex<Vec<usize>>,
}

impl Breaking {
    fn new(bad: &[(i64, Break)]) -> Self {
        let (clock, bad) = (VirtualClock::start(5), bad.to_vec());
        Self { clock, bad, slow_above: usize::MAX, outage: 0, sizes: Mutex::default() }
    }

    async fn enter(&self, batch: &Batch) -> Result<(), CallError> {
        self.sizes.lock().unwrap().push(batch.len());
        if self.clock.now() < self.outage || batch.len() > self.slow_above {
            self.clock.sleep(Duration::from_secs(10)).await;
            return Err(CallError::Timeout(Fault::destination("no answer")));
        }
        match self.bad.iter().find(|(row, _)| batch.offsets.contains(row)) {
            Some((row, error)) => Err(error(Fault::plugin(format!("broke on {row}")))),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Collect for Breaking {
    async fn collect(&self, batch: &Arc<Batch>) -> Result<Collected, CallError> {
        self.enter(batch).await?;
        let payload = |(index, _)| Payload { index, value: Some(b"{}".to_vec()), ..Payload::default() };
        let payloads = (0u32..).zip(&batch.offsets).map(payload).collect();
        Ok(Collected::Payloads { payloads: vec![(SinkKind::Http, payloads)], failed: Vec::new() })
    }

    async fn probe(&self, batch: &Arc<Batch>) -> Result<(), CallError> {
        self.enter(batch).await
    }
}

/// What became of windows of so many records, one after the other: the offsets that yielded, those to dead-letter, and what ended it.
async fn collect(breaking: Breaking, windows: &[usize]) -> (Vec<i64>, BTreeSet<i64>, Option<Stop>, Arc<Breaking>) {
    let collector = Arc::new(breaking);
    let (mut shared, _, _) = shared(Given { collector: Some(collector.clone()), ..Given::answers(Vec::new()) });
    shared.clock = collector.clock.clone();
    let (mut state, mut first) = (CollectState::default(), 0i64);
    let (mut yielded, mut dead) = (Vec::new(), BTreeSet::new());
    for rows in windows {
        let mut window = Batch::new(TopicPartition::new("t", 0));
        for offset in (first..).take(*rows) {
            window.push(offset, 1, None, Some(b"{}"));
        }
        first += i64::try_from(*rows).unwrap();
        let window = Arc::new(window);
        match Collection::new(&shared, &window, &mut state).run().await {
            Ok(collected) => {
                dead.extend(collected.dead.keys().map(|row| window.offsets[*row]));
                let groups = collected.round.unwrap().groups;
                yielded.extend(groups.iter().flat_map(|group| group.batch.offsets.clone()));
            }
            Err(stop) => return (yielded, dead, Some(stop), collector),
        }
    }
    (yielded, dead, None, collector)
}

fn all_but(rows: i64, bad: &BTreeSet<i64>) -> Vec<i64> {
    (0..rows).filter(|row| !bad.contains(row)).collect()
}

/// S63, K5: however many records break the collector, each is dead-lettered as it came, and the others yield.
#[tokio::test(start_paused = true)]
async fn s63_no_number_of_records_that_break_a_collector_stops_it() {
    for error in [CallError::Trap as Break, CallError::LimitExceeded, CallError::Reject] {
        for bad in [vec![7i64], (0..9).collect(), (40..80).collect(), (0..500).filter(|row| *row != 3).collect()] {
            let breaks: Vec<_> = bad.iter().map(|row| (*row, error)).collect();
            let (yielded, dead, stopped, _) = collect(Breaking::new(&breaks), &[500]).await;
            assert!(stopped.is_none(), "{stopped:?}");
            assert_eq!(dead, bad.into_iter().collect());
            assert_eq!(yielded, all_but(500, &dead));
        }
    }
}

/// S63: a collector that breaks on everything is blamed itself; a record that is alone in its window is judged by those before it.
#[tokio::test(start_paused = true)]
async fn s63_a_collector_that_breaks_on_everything_is_blamed_itself() {
    for (error, rows) in [(CallError::Trap as Break, 1), (CallError::LimitExceeded, 40)] {
        let breaks: Vec<_> = (0..40).map(|row| (row, error)).collect();
        let (yielded, dead, stopped, _) = collect(Breaking::new(&breaks), &[rows]).await;
        assert!(matches!(stopped, Some(Stop::Abort(Abort::Failure, _))), "{stopped:?}");
        assert!(yielded.is_empty() && dead.is_empty());
    }
    let (_, dead, stopped, _) = collect(Breaking::new(&[(5, CallError::Trap)]), &[5, 1, 1]).await;
    assert!(stopped.is_none());
    assert_eq!(dead, BTreeSet::from([5]));
}

/// S63, S79b: what the collector waits for may be gone for long, which costs no record.
#[tokio::test(start_paused = true)]
async fn s79b_an_outage_behind_a_collector_costs_no_record() {
    let (yielded, dead, stopped, _) = collect(Breaking { outage: 20 * 60_000, ..Breaking::new(&[]) }, &[1_024]).await;
    assert!(stopped.is_none() && dead.is_empty(), "{stopped:?} {dead:?}");
    assert_eq!(yielded, all_but(1_024, &dead));
}

/// K6: a collector that a window takes too long gets smaller calls, also for the next window.
#[tokio::test(start_paused = true)]
async fn s79b_a_slow_collector_gets_smaller_calls() {
    let (yielded, dead, stopped, told) = collect(Breaking { slow_above: 60, ..Breaking::new(&[]) }, &[500, 500]).await;
    assert!(stopped.is_none() && dead.is_empty());
    assert_eq!(yielded, all_but(1_000, &dead));
    let too_large = told.sizes.lock().unwrap().iter().filter(|size| **size > 60).count();
    assert!(too_large <= 12, "{:?}", told.sizes);
}

/// S80: a record that waits alone until its time is over, while others pass, has its attempts and is given up then.
#[tokio::test(start_paused = true)]
async fn s80_a_record_that_waits_alone_is_given_up_in_the_end() {
    let (yielded, dead, stopped, _) = collect(Breaking::new(&[(3, CallError::Timeout)]), &[10]).await;
    assert!(stopped.is_none(), "{stopped:?}");
    assert_eq!((yielded.len(), dead), (9, BTreeSet::from([3])));
}
