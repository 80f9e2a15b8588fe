//! A stop has one deadline in all (S54–S57), on sinks and a source that never answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Letters, *};
use crate::collect::Passthrough;
use crate::memory::Account;
use crate::model::Offset;
use crate::pipeline::{Parts, run};
use crate::source::{CommitError, Event, Read, Reader, Source};

const SINKS: usize = 20;

/// A sink whose `close` never returns.
struct NeverCloses;

#[async_trait]
impl Sink for NeverCloses {
    fn description(&self) -> Description {
        Description::direct(false)
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, _batch: &Arc<Batch>) -> Answer {
        Ok(Vec::new())
    }

    async fn close(&self) -> Result<(), Fault> {
        std::future::pending().await
    }
}

/// Reads nothing, and notes when its partition's last cut came.
struct Idle {
    partition: TopicPartition,
    clock: VirtualClock,
    dropped: Arc<AtomicU64>,
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.dropped.store(self.clock.now(), Ordering::Relaxed);
    }
}

#[async_trait]
impl Reader for Idle {
    fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    fn start(&self) -> Offset {
        0
    }

    async fn read(&mut self) -> Result<Read, Fault> {
        std::future::pending().await
    }

    async fn rewind(&mut self, _to: Offset) -> Result<(), Fault> {
        Ok(())
    }

    async fn first_from(&mut self, _from: Offset) -> Result<Option<Offset>, Fault> {
        Ok(None)
    }

    async fn set_paused(&mut self, _paused: bool) -> Result<(), Fault> {
        Ok(())
    }

    async fn commit(&mut self, _offset: Offset) -> Result<(), CommitError> {
        Ok(())
    }
}

/// Gives its partitions, takes what `revoked` names, and takes `release` long over a release.
struct Scripted {
    events: VecDeque<Event<Idle>>,
    clock: VirtualClock,
    release: Duration,
}

#[async_trait]
impl Source for Scripted {
    type Reader = Idle;

    async fn next(&mut self) -> Event<Idle> {
        match self.events.pop_front() {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    async fn release(&mut self, _partitions: Vec<TopicPartition>) {
        self.clock.sleep(self.release).await;
    }

    async fn close(&mut self, patience: Duration) {
        self.clock.sleep(patience).await;
    }
}

/// Runs two partitions, of which the first is revoked at once, and stops after a second. When the second partition's worker ended,
/// and when everything did, in milliseconds.
async fn stop_after_a_second(release: Duration) -> (u64, u64) {
    let clock = VirtualClock::start(1);
    let reader = |number| {
        let dropped = Arc::new(AtomicU64::new(0));
        let partition = TopicPartition::new("t", number);
        (Arc::clone(&dropped), Idle { partition, clock: clock.clone(), dropped })
    };
    let ((_, revoked), (ended, kept)) = (reader(0), reader(1));
    let partition = revoked.partition.clone();
    let events = VecDeque::from([Event::Assigned(vec![revoked, kept]), Event::Revoked(vec![partition])]);
    let parts = Parts {
        sinks: (0..SINKS).map(|n| NamedSink::new(SinkKind::Http, &n.to_string(), Arc::new(NeverCloses))).collect(),
        collector: Arc::new(Passthrough),
        collector_name: String::new(),
        dlq: Arc::new(Letters::default()),
        settings: Settings { revoke_budget: Duration::from_secs(1), ..Settings::default() },
        counters: Arc::default(),
        memory: Account::new(u64::MAX),
    };
    let stop = tokio::time::sleep(Duration::from_secs(1));
    run(parts, Scripted { events, clock: clock.clone(), release }, clock.clone(), stop).await.unwrap();
    (ended.load(Ordering::Relaxed), clock.now())
}

/// S55, S57: twenty sinks and a source that never close take no longer together than the deadline.
#[tokio::test(start_paused = true)]
async fn s57_everything_closes_within_one_deadline() {
    let (_, ended) = stop_after_a_second(Duration::ZERO).await;
    let drain = ExecutorOptions::default().drain_timeout_seconds * 1_000.0;
    assert!(ended <= 1_000 + drain as u64, "{ended}");
}

/// S54: a stop is heard while the source takes its time over a release.
#[tokio::test(start_paused = true)]
async fn s54_a_stop_is_heard_during_a_release() {
    let (ended, _) = stop_after_a_second(Duration::from_secs(10)).await;
    assert_eq!(ended, 1_000);
}
