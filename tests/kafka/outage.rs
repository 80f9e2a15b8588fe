//! What the Kafka sink and the dead letter queue do when a topic does not take all rows: whom they blame, and that nothing of a
//! call that was given up is written later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidegate::model::{Answer, Batch, CallError, Failure, FailureKind, SinkKind};
use tidegate::pipeline::dlq::kafka::KafkaDlq;
use tidegate::pipeline::dlq::{DeadLetters, Letter};
use tidegate::pipeline::options::DlqFormat;
use tidegate::sink::kafka::{Inherited, KafkaSink, Options};
use tidegate::sink::{Description, Sink};
use tidegate::telemetry::{Counter, Counters};

use crate::ensemble::{Ensemble, held};
use crate::help::*;
use crate::support::broker::Broker;

fn sink(bootstrap: &str, topic: &str, properties: &[(&str, &str)]) -> KafkaSink {
    let properties = properties.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let options = Options { topic: topic.into(), brokers: bootstrap.into(), properties };
    KafkaSink::new(options, &Inherited::default()).unwrap()
}

/// Rows of a partition, each with its number as value and every tenth number's key.
fn rows(partition: i32, numbers: std::ops::Range<i64>) -> Batch {
    let mut batch = Batch::new(place("orders", partition));
    for n in numbers {
        batch.push(n, -1, Some(format!("{partition}/{}", n % 10).as_bytes()), Some(format!("{n}").as_bytes()));
    }
    batch
}

fn kinds(failures: &[Failure]) -> BTreeMap<u32, FailureKind> {
    failures.iter().map(|failure| (failure.index, failure.kind)).collect()
}

/// Delivers as the pipeline does: what was not tried, or met an unavailable topic, again. The rejected rows come back.
async fn settle(sink: &KafkaSink, batch: &Batch) -> Vec<usize> {
    let (mut left, mut rejected): (Vec<usize>, Vec<usize>) = ((0..batch.len()).collect(), Vec::new());
    for _ in 0..60 {
        let answer = sink.deliver(&Arc::new(batch.select(&left))).await;
        let failures = match answer {
            Ok(failures) => failures,
            Err(CallError::Unavailable(_)) => continue,
            Err(error) => panic!("{error:?}"),
        };
        let of = |wanted: fn(&FailureKind) -> bool| {
            let rows = failures.iter().filter(move |failure| wanted(&failure.kind));
            rows.map(|failure| left[failure.index as usize]).collect::<Vec<usize>>()
        };
        rejected.extend(of(|kind| *kind == FailureKind::Reject));
        assert!(of(|kind| *kind == FailureKind::Retry).is_empty(), "{failures:?}");
        left = of(|kind| matches!(kind, FailureKind::NotTried | FailureKind::Unavailable));
        if left.is_empty() {
            return rejected;
        }
    }
    panic!("{} rows are not settled", left.len());
}

fn values(rows: &[(i32, i64, Row)]) -> Vec<String> {
    rows.iter().map(|(_, _, row)| String::from_utf8(row.value.clone().unwrap()).unwrap()).collect()
}

/// S79c, K1: of 203 rows a compacted topic refuses the three without a key; the others are sent again and arrive, once and in
/// order.
#[tokio::test(flavor = "multi_thread")]
async fn s79c_a_compacted_topic_refuses_rows_without_a_key_alone() {
    for culprits in [vec![77], vec![40, 41, 150], (10..20).collect()] {
        let topic = unique("compacted");
        broker().create_topic(&topic, 1, &[("cleanup.policy", "compact")]).await;
        let sink = sink(&broker().bootstrap(), &topic, &[]);
        sink.connect().await.unwrap();
        let mut batch = Batch::new(place("orders", 0));
        for n in 0..203 {
            let key = format!("k{}", n % 10);
            let keyless = culprits.contains(&n);
            batch.push(n, -1, (!keyless).then_some(key.as_bytes()), Some(format!("{n}").as_bytes()));
        }
        let failures = sink.deliver(&Arc::new(batch.clone())).await.unwrap();
        let rejected = failures.iter().filter(|failure| failure.kind != FailureKind::NotTried);
        let rejected: Vec<(i64, FailureKind)> = rejected.map(|it| (i64::from(it.index), it.kind)).collect();
        assert_eq!(rejected, culprits.iter().map(|n| (*n, FailureKind::Reject)).collect::<Vec<_>>());
        let not_tried: Vec<usize> = failures
            .iter()
            .filter(|failure| failure.kind == FailureKind::NotTried)
            .map(|failure| failure.index as usize)
            .collect();
        assert!(not_tried.is_empty() || settle(&sink, &batch.select(&not_tried)).await.is_empty());
        let rest = (0..203).filter(|n| !culprits.contains(n));
        let expected: Vec<String> = rest.map(|n| n.to_string()).collect();
        assert_eq!(values(&contents(&topic)), expected);
        sink.close().await.unwrap();
    }
}

/// S79a, S104, K2: rows that a vanished broker did not acknowledge are not to blame, and arrive once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_a_vanished_broker_blames_no_row() {
    let mut own = Broker::start();
    own.create_topic("t", 1, &[]).await;
    let sink = sink(&own.bootstrap(), "t", &[("message.timeout.ms", "2000")]);
    sink.connect().await.unwrap();
    assert_eq!(sink.deliver(&Arc::new(rows(0, 0..5))).await, Ok(Vec::new()));
    own.stop();
    let failures = sink.deliver(&Arc::new(rows(0, 5..20))).await.unwrap();
    assert_eq!(failures.len(), 15);
    assert!(kinds(&failures).values().all(|kind| *kind == FailureKind::Unavailable), "{:?}", failures[0]);
    own.restart();
    assert_eq!(settle(&sink, &rows(0, 5..20)).await, [0usize; 0]);
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(values(&contents_on(&own.bootstrap(), "t")), expected);
    sink.close().await.unwrap();
}

/// S76: rows that are too large only together all arrive, each once, though the topic's limit was lowered while the sink ran.
#[tokio::test(flavor = "multi_thread")]
async fn s76_rows_too_large_together_all_arrive_once() {
    let topic = topic("shrinks", 1).await;
    let sink = sink(&broker().bootstrap(), &topic, &[("compression.type", "none")]);
    sink.connect().await.unwrap();
    alter(&topic, &[("max.message.bytes", "3000"), ("retention.ms", "-1")]).await;
    let mut batch = Batch::new(place("orders", 0));
    for n in 0..300 {
        let bytes = if n == 120 { 5000 } else { 200 };
        batch.push(n, -1, Some(b"k"), Some(format!("{n:0bytes$}").as_bytes()));
    }
    assert_eq!(settle(&sink, &batch).await, [120]);
    let failures = sink.deliver(&Arc::new(batch.select(&[120]))).await.unwrap();
    assert!(failures[0].too_large, "{failures:?}");
    let mut numbers: Vec<i64> = values(&contents(&topic)).iter().map(|value| value.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..300).filter(|n| *n != 120).collect::<Vec<i64>>());
    sink.close().await.unwrap();
}

/// S47, K3: what lies in the queue of a call that was given up is not sent when the broker is back; rows of other calls in the
/// same queue are sent again, and newer rows of the partition come behind nothing.
#[tokio::test(flavor = "multi_thread")]
async fn s47_rows_of_a_call_that_was_given_up_are_not_sent_later() {
    let mut own = Broker::start();
    own.create_topic("t", 1, &[]).await;
    let late = Arc::new(Counter::default());
    let sink = Arc::new(sink(&own.bootstrap(), "t", &[]).counting_late(late.clone()));
    sink.connect().await.unwrap();
    assert_eq!(sink.deliver(&Arc::new(rows(0, 0..10))).await, Ok(Vec::new()));
    own.stop();
    let neighbour = tokio::spawn({
        let sink = sink.clone();
        async move { settle(&sink, &rows(1, 0..50)).await }
    });
    let lost = Arc::new(rows(0, 1000..2000));
    assert!(
        tokio::time::timeout(Duration::from_secs(1), sink.deliver(&lost)).await.is_err(),
        "nothing can be answered"
    );
    own.restart();
    assert_eq!(settle(&sink, &rows(0, 10..20)).await, [0usize; 0]);
    assert_eq!(neighbour.await.unwrap(), [0usize; 0]);
    let found = contents_on(&own.bootstrap(), "t");
    let of = |partition: &str| {
        let of = |(_, _, row): &&(i32, i64, Row)| row.key.as_deref().unwrap().starts_with(partition.as_bytes());
        values(&found.iter().filter(of).cloned().collect::<Vec<_>>())
    };
    assert_eq!(of("0/"), (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(of("1/"), (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(late.get(), 0);
    sink.close().await.unwrap();
}

/// S47, K3: rows that were on their way to a broker when their call was given up are waited for and counted, and newer rows of
/// their partition stand behind them.
#[tokio::test(flavor = "multi_thread")]
async fn s47_rows_under_way_are_counted_and_stand_before_newer_ones() {
    let own = Broker::start();
    own.create_topic("t", 1, &[]).await;
    let counters = Counters::default();
    let late = counters.late_letters.clone();
    let sink = sink(&own.bootstrap(), "t", &[("linger.ms", "0")]).counting_late(late.clone());
    sink.connect().await.unwrap();
    assert_eq!(sink.deliver(&Arc::new(rows(0, 0..10))).await, Ok(Vec::new()));
    // It reads nothing more, but its machine still takes what is sent.
    own.signal("-STOP");
    let lost = Arc::new(rows(0, 10..15));
    assert!(
        tokio::time::timeout(Duration::from_secs(2), sink.deliver(&lost)).await.is_err(),
        "nothing can be answered"
    );
    own.signal("-CONT");
    assert_eq!(settle(&sink, &rows(0, 15..25)).await, [0usize; 0]);
    let found = values(&contents_on(&own.bootstrap(), "t"));
    let written: Vec<String> = (10..15).map(|n| n.to_string()).filter(|value| found.contains(value)).collect();
    let expected = (0..10).map(|n| n.to_string()).chain(written.clone()).chain((15..25).map(|n| n.to_string()));
    assert_eq!(found, expected.collect::<Vec<_>>());
    // As letters they are counted with all others.
    assert_eq!((late.get(), counters.dead_letters()), (written.len() as u64, written.len() as u64));
    assert!(!written.is_empty(), "the broker had been sent some");
    sink.close().await.unwrap();
}

fn letters(offsets: std::ops::Range<i64>) -> Vec<Letter> {
    let batch = rows(0, offsets);
    let letter = |row| Letter { failed_at: 1_700_000_000_250, error: "no".into(), ..Letter::of_record(&batch, row) };
    (0..batch.len()).map(letter).collect()
}

/// S93, K3: letters whose sending was given up are not written later, so that those of the records that come again stand there
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn s93_letters_that_were_given_up_are_not_written_later() {
    let mut own = Broker::start();
    own.create_topic("dead", 1, &[("retention.ms", "-1")]).await;
    let late = Arc::new(Counter::default());
    let sink = sink(&own.bootstrap(), "dead", &[]).keeping_every_record().counting_late(late.clone());
    let dlq = KafkaDlq::new(Arc::new(sink), "dead", DlqFormat::Json);
    dlq.connect().await.unwrap();
    own.stop();
    let given_up = letters(0..1024);
    assert!(tokio::time::timeout(Duration::from_secs(1), dlq.send(&given_up)).await.is_err());
    own.restart();
    while dlq.send(&letters(0..100)).await.is_err() {}
    dlq.close().await;
    assert_eq!((contents_on(&own.bootstrap(), "dead").len(), late.get()), (100, 0));
}

/// Takes nothing or everything.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    refused: AtomicUsize,
}

#[async_trait]
impl Sink for Gate {
    fn description(&self) -> Description {
        Description::direct(true)
    }

    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        if self.open.load(Ordering::SeqCst) {
            return Ok(Vec::new());
        }
        self.refused.fetch_add(batch.len(), Ordering::SeqCst);
        Ok((0..u32::try_from(batch.len()).unwrap()).map(|row| Failure::reject(row, "refused")).collect())
    }
}

/// S47, S93, K3: a host whose dead letter topic is gone loses a partition; when the topic is back it has the letters of the
/// partition that the host kept, as many as are counted, and none of the other's rows, which the new owner delivered.
#[tokio::test(flavor = "multi_thread")]
async fn s93_a_lost_partition_leaves_no_letters_behind() {
    const RECORDS: usize = 40;
    let mut own = Broker::start();
    own.create_topic("dead", 1, &[("retention.ms", "-1")]).await;
    let late = Arc::new(Counter::default());
    let to_dead = sink(&own.bootstrap(), "dead", &[]).keeping_every_record().counting_late(late.clone());
    let dlq = KafkaDlq::new(Arc::new(to_dead), "dead", DlqFormat::Json);
    dlq.connect().await.unwrap();
    own.stop();

    let mut ensemble = Ensemble::new("loses", 2, RECORDS).await;
    let (closed, open) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    open.open.store(true, Ordering::SeqCst);
    let mut plan = ensemble.plan();
    (plan.sinks, plan.native, plan.dlq) = (
        Vec::new(),
        Some((SinkKind::Http, closed.clone() as Arc<dyn Sink>)),
        Some(Arc::new(dlq) as Arc<dyn DeadLetters>),
    );
    plan.settings.revoke_budget = Duration::from_secs(1);
    let first = ensemble.start(plan);
    ensemble.log.until("it has both", |facts| held(facts, 0).len() == 2).await;
    let started = std::time::Instant::now();
    while closed.refused.load(Ordering::SeqCst) < 2 * RECORDS {
        assert!(started.elapsed() < PATIENCE, "no letters were made");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut plan = ensemble.plan();
    (plan.sinks, plan.native) = (Vec::new(), Some((SinkKind::Http, open as Arc<dyn Sink>)));
    let second = ensemble.start(plan);
    ensemble.log.until("one has moved", |facts| held(facts, 1).len() == 1).await;
    let moved = *ensemble.log.held(1).first().unwrap();
    let end = i64::try_from(RECORDS).unwrap();
    ensemble.until_committed(moved..moved + 1, end).await;
    own.restart();
    ensemble.until_committed(0..2, end).await;
    let counted = first.counters.dead_letters() + late.get();
    second.stop().await.unwrap();
    first.stop().await.unwrap();
    let found = contents_on(&own.bootstrap(), "dead");
    let kept = (1 - moved).to_string();
    for (_, _, letter) in &found {
        let of = letter.headers.iter().find(|(name, _)| name == "tidegate-source-partition").unwrap();
        assert_eq!(of.1.as_deref(), Some(kept.as_bytes()));
    }
    assert_eq!((found.len(), counted), (RECORDS, RECORDS as u64));
}
