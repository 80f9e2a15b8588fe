//! What becomes of records that the log loses, hides or gains while a host reads it, or while none does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Message, Offset as Position, TopicPartitionList};
use serde_json::json;
use tidegate::model::Owner;
use tidegate::sink::Style;
use tidegate::source::kafka::OnOffsetGap;

use super::binary::{Process, Scene, wait};
use super::ensemble::{Act, Call, Ensemble, Fact, Plan, Script, What, all, held};
use super::help::{PATIENCE, Row, broker, committed, delete_below, looker, produce, topic, transactions, unique};

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", broker().bootstrap()).create().unwrap()
}

/// Refuses every flush until the gate is opened.
fn gated(gate: &Arc<AtomicBool>) -> Script {
    let gate = gate.clone();
    Arc::new(move |call: &Call<'_>| {
        let refused = call.what == What::Flush && !gate.load(Ordering::Relaxed);
        if refused { Act::Backpressure(Duration::from_millis(200)) } else { Act::Take }
    })
}

fn with_gate(ensemble: &Ensemble, gate: &Arc<AtomicBool>, on_offset_gap: OnOffsetGap) -> Plan {
    let mut plan = ensemble.plan();
    plan.options.on_offset_gap = on_offset_gap;
    plan.sinks = vec![("rows", Style::Buffering, gated(gate))];
    plan
}

fn refused(facts: &[Fact]) -> usize {
    facts.iter().filter(|fact| fact.what == What::Refused).count()
}

/// The first offset from 0 on that a reader gets.
fn first_left(topic: &str) -> i64 {
    let consumer = looker();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Position::Offset(0)).unwrap();
    consumer.assign(&list).unwrap();
    consumer.poll(PATIENCE).expect("the topic is not readable").unwrap().offset()
}

/// A topic whose broker keeps the newest record of each key, and does so at once.
async fn compacted(stem: &str) -> String {
    let name = unique(stem);
    let config = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "300"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("min.compaction.lag.ms", "0"),
        ("max.compaction.lag.ms", "1"),
    ];
    broker().create_topic(&name, 1, &config).await;
    name
}

/// 100 records of ten keys, and then records of another key until only the newest of the ten are left.
async fn compact(topic: &str) -> i64 {
    let mut end = 100;
    let more = || Row { key: Some(b"other".to_vec()), ..Row::value("{}") };
    wait("the log is compacted", || {
        produce(topic, 0, [more()]);
        end += 1;
        std::thread::sleep(Duration::from_millis(400));
        first_left(topic) > 0
    });
    end
}

fn ten_keys() -> impl Iterator<Item = Row> {
    (0..100).map(|n| Row { key: Some(format!("k{}", n % 10).into_bytes()), ..Row::value("{}") })
}

/// S98, S34a: records that compaction has removed are no loss and hold nothing up, neither when they were gone before
/// anybody read them nor when a partition goes back to them: also the very one that it goes back to.
#[tokio::test(flavor = "multi_thread")]
async fn s98_compaction_holds_nothing_up() {
    let mut ensemble = Ensemble::over(compacted("compacted").await);
    produce(&ensemble.topic, 0, ten_keys());
    let gate = Arc::new(AtomicBool::new(false));
    let plan = with_gate(&ensemble, &gate, OnOffsetGap::Continue);
    let first = ensemble.start(plan);
    ensemble.log.until("the flush is refused", |facts| refused(facts) > 0).await;
    let end = compact(&ensemble.topic).await;
    let before = refused(&ensemble.log.facts());
    ensemble.log.until("it went back to what is gone", |facts| refused(facts) > before + 1).await;
    gate.store(true, Ordering::Relaxed);
    ensemble.until_committed(0..1, end).await;
    assert_eq!(first.counters.lost_records.get(), 0, "compaction is no loss");
    first.stop().await.unwrap();
    let written = ensemble.log.written("rows", 0);
    assert_eq!(written[..10], (90..100).collect::<Vec<i64>>(), "{written:?}");

    // A group that comes later starts at what is left.
    let mut later = Ensemble::over(ensemble.topic.clone());
    let second = later.start(later.plan());
    later.until_committed(0..1, end).await;
    second.stop().await.unwrap();
    assert_eq!(later.log.written("rows", 0)[..10], (90..100).collect::<Vec<i64>>());
}

/// S98, S99: aborted records never arrive, and the group ends at the end of the log also when markers are the last thing in
/// it, before and while it is read.
#[tokio::test(flavor = "multi_thread")]
async fn s99_aborted_records_never_arrive_and_the_end_is_committed() {
    let mut ensemble = Ensemble::over(topic("aborted", 1).await);
    transactions(&ensemble.topic, &[(5, true), (7, false), (3, true), (2, false)]);
    let host = ensemble.start(ensemble.plan());
    // 0..=4 and their marker 5; 6..=12 aborted, marker 13; 14..=16 and marker 17; 18..=19 aborted, marker 20.
    ensemble.until_committed(0..1, 21).await;
    transactions(&ensemble.topic, &[(4, false)]);
    ensemble.until_committed(0..1, 26).await;
    transactions(&ensemble.topic, &[(2, true)]);
    ensemble.until_committed(0..1, 29).await;
    assert_eq!(ensemble.log.written("rows", 0), [0, 1, 2, 3, 4, 14, 15, 16, 26, 27]);
    assert_eq!(host.counters.lost_records.get(), 0);
    host.stop().await.unwrap();
}

/// S52: records that retention takes before they are written end the host with a fault that names them, or are counted,
/// each once, however often the partition goes back; while it runs and while it does not.
#[tokio::test(flavor = "multi_thread")]
async fn s52_what_retention_took_stops_the_host_or_is_counted() {
    for gap in [OnOffsetGap::Stop, OnOffsetGap::Continue] {
        let mut ensemble = Ensemble::new("retention", 2, 200).await;
        let gate = Arc::new(AtomicBool::new(false));
        let plan = with_gate(&ensemble, &gate, gap);
        let mut host = ensemble.start(plan);
        ensemble.log.until("the flush is refused", |facts| refused(facts) > 0).await;
        delete_below(&ensemble.topic, 0, 120).await;
        if gap == OnOffsetGap::Stop {
            let fault = host.ended().await.unwrap_err();
            assert_eq!(fault.message, format!("`{}[0]@0` is to be read next and is not there", ensemble.topic));
            assert_eq!(fault.causes, ["120 records were deleted before they were read; the first one left is 120"]);
            assert_eq!(ensemble.onlooker.committed(&ensemble.topic, 0), None);
            continue;
        }
        let before = refused(&ensemble.log.facts());
        ensemble.log.until("it goes back several times", |facts| refused(facts) > before + 6).await;
        gate.store(true, Ordering::Relaxed);
        ensemble.until_committed(0..2, 200).await;
        assert_eq!(host.counters.lost_records.get(), 120);
        host.stop().await.unwrap();
        assert_eq!(ensemble.log.written("rows", 0), (120..200).collect::<Vec<i64>>());
        assert_eq!(ensemble.log.written("rows", 1), all(200));
        // While nobody reads: everything that is left is taken, down to the last record and beyond it.
        ensemble.produce(0, 50);
        delete_below(&ensemble.topic, 0, 240).await;
        let plan = with_gate(&ensemble, &gate, gap);
        let host = ensemble.start(plan);
        ensemble.until_committed(0..1, 250).await;
        assert_eq!(host.counters.lost_records.get(), 40);
        ensemble.produce(1, 10);
        ensemble.until_committed(1..2, 210).await;
        assert_eq!(host.counters.lost_records.get(), 40);
        host.stop().await.unwrap();
    }
}

/// S52, S58: the same through the binary: code 1 and the offsets; told to continue it goes on at what is left and says how
/// much is not.
#[tokio::test(flavor = "multi_thread")]
async fn s52_the_binary_names_what_is_gone() {
    let source = topic("gone", 1).await;
    let row = |n: i64| Row::value(format!("{{\"n\":{n}}}"));
    produce(&source, 0, (0..50).map(row));
    let mut scene = Scene::new(&source, json!({}));
    scene.done(&["run", "--until-end"]);
    produce(&source, 0, (50..100).map(row));
    delete_below(&source, 0, 80).await;
    let told = scene.run(&["run", "--until-end"]);
    assert_eq!(told.code, Some(1), "{}", told.err);
    assert!(told.err.contains(&format!("`{source}[0]@50` is to be read next and is not there")), "{}", told.err);
    assert!(told.err.contains("30 records were deleted before they were read"), "{}", told.err);
    assert!(told.err.contains("hint: set `kafka.on_offset_gap: continue`"), "{}", told.err);
    assert_eq!(committed(&source, 0, &scene.group), Some(50));

    let kafka = json!({
        "brokers": broker().bootstrap(), "source_topic": source, "group": scene.group, "on_offset_gap": "continue",
    });
    scene.change(json!({ "kafka": kafka }));
    let told = scene.done(&["run", "--until-end"]);
    assert!(told.err.contains("records=30"), "{}", told.err);
    assert!(told.err.contains("0 dead letters, 30 lost, 1 of 1 partitions"), "{}", told.err);
    let lines = String::from_utf8(scene.file(format!("{source}-0.jsonl"))).unwrap();
    let expected: String = (0..50).chain(80..100).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    assert_eq!(lines, expected);
}

/// S51: partitions that a topic gains are read from their first record, also where a first start begins behind the last
/// one; and where that was is decided once, so that a restart passes over nothing.
#[tokio::test(flavor = "multi_thread")]
async fn s51_new_partitions_are_read_from_their_first_record() {
    let mut ensemble = Ensemble::new("growing", 1, 20).await;
    let latest = |ensemble: &Ensemble| {
        let mut plan = ensemble.plan();
        plan.options.properties.insert("auto.offset.reset".into(), "latest".into());
        plan.options.properties.insert("topic.metadata.refresh.interval.ms".into(), "1500".into());
        plan
    };
    let plan = latest(&ensemble);
    let host = ensemble.start(plan);
    ensemble.until_committed(0..1, 20).await;
    admin().create_partitions([&NewPartitions::new(&ensemble.topic, 3)], &AdminOptions::new()).await.unwrap();
    // Before the host has heard of them.
    wait("the new partitions are there", || ensemble.onlooker.partitions(&ensemble.topic) == 3);
    assert_eq!(ensemble.log.held(0).len(), 1, "the host would have to be faster than it is");
    for partition in 0..3 {
        produce(&ensemble.topic, partition, (0..30).map(|_| Row::value("{}")));
    }
    ensemble.until_committed(0..1, 50).await;
    ensemble.until_committed(1..3, 30).await;
    assert_eq!(ensemble.log.written("rows", 0), (20..50).collect::<Vec<i64>>());
    for partition in 1..3 {
        assert_eq!(ensemble.log.written("rows", partition), all(30));
    }
    host.stop().await.unwrap();

    // Nothing was read of this one, and what comes while no host runs is not passed over.
    let mut quiet = Ensemble::new("latest-once", 1, 20).await;
    let plan = latest(&quiet);
    let host = quiet.start(plan);
    quiet.until_committed(0..1, 20).await;
    host.stop().await.unwrap();
    quiet.produce(0, 5);
    let plan = latest(&quiet);
    let host = quiet.start(plan);
    quiet.until_committed(0..1, 25).await;
    assert_eq!(quiet.log.written("rows", 0), (20..25).collect::<Vec<i64>>());
    host.stop().await.unwrap();
}

/// S58: a topic that is deleted under a running host ends it with its name and code 1; so does one that is created again at
/// once, whose offsets mean something else.
#[tokio::test(flavor = "multi_thread")]
async fn s58_a_deleted_topic_ends_the_host() {
    let source = topic("deleted", 2).await;
    produce(&source, 0, (0..10).map(|_| Row::value("{}")));
    let mut scene = Scene::new(&source, json!({}));
    // For its first half minute the client library takes a missing topic for one that is still being created.
    let (name, value) = ("topic.metadata.propagation.max.ms", "100");
    let kafka = json!({
        "brokers": broker().bootstrap(), "source_topic": source, "group": scene.group, "properties": { name: value },
    });
    scene.change(json!({ "kafka": kafka }));
    let mut process = Process::start(&scene, &["run"]);
    wait("records are written", || scene.file(format!("{source}-0.jsonl")).len() >= 30);
    admin().delete_topics(&[&source], &AdminOptions::new()).await.unwrap();
    assert_eq!(process.ended(), Some(1), "{}", process.told());
    assert!(process.told().contains(&format!("error: topic `{source}` does not exist")), "{}", process.told());

    let mut ensemble = Ensemble::new("recreated", 1, 100).await;
    let mut host = ensemble.start(ensemble.plan());
    ensemble.until_committed(0..1, 100).await;
    admin().delete_topics(&[&ensemble.topic], &AdminOptions::new()).await.unwrap();
    wait("the topic is gone", || ensemble.onlooker.partitions(&ensemble.topic) == 0);
    broker().create_topic(&ensemble.topic, 1, &[]).await;
    ensemble.produce(0, 5);
    let fault = host.ended().await.unwrap_err();
    let (gone, moved) = (fault.message.contains("does not exist"), fault.to_string().contains("created again"));
    assert!(gone || moved, "{fault}");
    assert!(gone == (fault.owner == Owner::Config) && fault.hint.is_some(), "{fault}");
}

/// S51: offsets that an operator sets while no host runs are where the next one starts, earlier or later; while one runs Kafka
/// refuses them.
#[tokio::test(flavor = "multi_thread")]
async fn s51_an_operator_sets_the_offsets_of_a_stopped_group() {
    let mut ensemble = Ensemble::new("reset", 1, 100).await;
    let host = ensemble.start(ensemble.plan());
    ensemble.until_committed(0..1, 100).await;
    let error = set(&ensemble, 40).unwrap_err();
    assert!(error.to_string().to_lowercase().contains("member"), "{error}");
    assert_eq!(ensemble.committed(0), 100);
    host.stop().await.unwrap();

    set(&ensemble, 40).unwrap();
    let host = ensemble.start(ensemble.plan());
    ensemble.until_committed(0..1, 100).await;
    assert!(host.is_running());
    host.stop().await.unwrap();
    let again: Vec<i64> = all(100).into_iter().chain(40..100).collect();
    assert_eq!(ensemble.log.written("rows", 0), again);

    ensemble.produce(0, 20);
    set(&ensemble, 110).unwrap();
    let host = ensemble.start(ensemble.plan());
    ensemble.until_committed(0..1, 120).await;
    host.stop().await.unwrap();
    let skipped: Vec<i64> = again.into_iter().chain(110..120).collect();
    assert_eq!(ensemble.log.written("rows", 0), skipped);
    assert_eq!(held(&ensemble.log.facts(), 2).len(), 1);
}

/// What `kafka-consumer-groups --reset-offsets` does.
fn set(ensemble: &Ensemble, offset: i64) -> Result<(), rdkafka::error::KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker().bootstrap())
        .set("group.id", &ensemble.group)
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&ensemble.topic, 0, Position::Offset(offset)).unwrap();
    consumer.commit(&list, CommitMode::Sync)
}
