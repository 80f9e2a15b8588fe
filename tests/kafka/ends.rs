//! What `--until-end` calls an end, and groups that cannot be joined.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::json;

use crate::binary::{Process, Scene, wait};
use crate::foreign::Foreign;
use crate::help::{Onlooker, PATIENCE, Row, broker, committed, produce, produce_on, topic, unique};
use crate::support::broker::Broker;

const ASSIGNOR: &str = "cooperative-sticky";

fn rows(count: usize) -> impl Iterator<Item = Row> {
    (0..count).map(|n| Row::value(format!("{{\"n\":{n}}}")))
}

/// S58: a host beside a member that has partitions and delivers nothing does not end with 0: it names what is left and
/// who has it; also where the host has no partition itself. When the other one commits, both are at the end.
#[tokio::test(flavor = "multi_thread")]
async fn s58_an_end_beside_a_member_that_delivers_nothing_is_no_success() {
    let (one, two) = (topic("beside", 1).await, topic("beside", 2).await);
    produce(&one, 0, rows(50));
    (0..2).for_each(|partition| produce(&two, partition, rows(50)));
    let (none, some) = (Scene::new(&one, json!({})), Scene::new(&two, json!({})));
    let of_one = Foreign::join(&broker().bootstrap(), &none.group, &one, ASSIGNOR);
    let of_two = Foreign::join(&broker().bootstrap(), &some.group, &two, ASSIGNOR);
    let mut lives = [&none, &some].map(|scene| Process::start(scene, &["run", "--until-end"]));
    for life in &mut lives {
        assert_eq!(life.ended(), Some(1), "{}", life.told());
        assert!(life.told().contains("50 records before the topics' ends are not committed"), "{}", life.told());
        assert!(life.told().contains("on 127.0.0.1 has") && life.told().contains("hint: "), "{}", life.told());
    }
    assert_eq!(committed(&one, 0, &none.group), None);
    let kept = of_two.held();
    assert!(lives[0].told().contains(&format!("50 of `{one}[0]`")), "{}", lives[0].told());
    // The other partition was this host's, and is committed.
    let ours: Vec<i32> = (0..2).filter(|partition| committed(&two, *partition, &some.group) == Some(50)).collect();
    assert_eq!(ours.len(), 1, "{kept:?}");
    assert!(lives[1].told().contains(&format!("50 of `{two}[{}]`", 1 - ours[0])), "{}", lives[1].told());

    let mut life = Process::start(&none, &["run", "--until-end"]);
    std::thread::sleep(Duration::from_secs(3));
    of_one.commit(&one, 0, 49);
    assert!(!life.has_ended(), "{}", life.told());
    of_one.commit(&one, 0, 50);
    assert_eq!(life.ended(), Some(0), "{}", life.told());
}

/// S58, S98: records of a transaction that is open at the start belong to what there is to deliver: the end waits for
/// its commit or abort, and says so once.
#[tokio::test(flavor = "multi_thread")]
async fn s58_an_end_waits_for_open_transactions() {
    let topic = topic("open", 2).await;
    let begin = |partition: i32| {
        produce(&topic, partition, rows(3));
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", broker().bootstrap())
            .set("transactional.id", unique("open"))
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        for _ in 0..5 {
            let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&topic).partition(partition).payload(b"{\"n\":9}");
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        producer
    };
    let (commits, aborts) = (begin(0), begin(1));
    let scene = Scene::new(&topic, json!({ "checkpoint": { "interval_seconds": 0.2 } }));
    let mut life = Process::start(&scene, &["run", "--until-end"]);
    let said = |life: &Process| life.told().matches("waiting for an open transaction to end").count();
    wait("both are waited for", || said(&life) == 2);
    commits.commit_transaction(PATIENCE).unwrap();
    wait("the first is delivered", || committed(&topic, 0, &scene.group) >= Some(8));
    std::thread::sleep(Duration::from_secs(2));
    assert!(!life.has_ended(), "{}", life.told());
    aborts.abort_transaction(PATIENCE).unwrap();
    assert_eq!(life.ended(), Some(0), "{}", life.told());
    assert_eq!(said(&life), 2, "{}", life.told());
    let lines =
        |partition: i32| scene.file(format!("{topic}-{partition}.jsonl")).split(|byte| *byte == b'\n').count() - 1;
    assert_eq!([lines(0), lines(1)], [8, 3]);
    assert_eq!(committed(&topic, 1, &scene.group), Some(8), "the records before the end");
}

/// S58: a group that a change of the configuration alone lets the host join ends it with that change as its hint.
#[tokio::test(flavor = "multi_thread")]
async fn s58_a_group_that_cannot_be_joined_ends_the_host() {
    let topic = topic("unjoined", 1).await;
    let mut scene = Scene::new(&topic, json!({}));
    let foreign = Foreign::join(&broker().bootstrap(), &scene.group, &topic, "range");
    for arguments in [&["run"][..], &["run", "--until-end"]] {
        let told = scene.run(arguments);
        assert_eq!(told.code, Some(1), "{}", told.err);
        let named = format!("the consumer group `{}` cannot be joined", scene.group);
        assert!(told.err.contains(&named) && told.err.contains("cooperative-sticky"), "{}", told.err);
        assert!(told.err.contains("hint: give `kafka.group` a name that no other program uses"), "{}", told.err);
    }
    drop(foreign);
    let properties = json!({ "session.timeout.ms": "900", "heartbeat.interval.ms": "100" });
    let kafka = json!({
        "brokers": broker().bootstrap(), "source_topic": topic, "group": scene.group, "properties": properties,
    });
    scene.change(json!({ "kafka": kafka }));
    let told = scene.run(&["run"]);
    assert_eq!(told.code, Some(1), "{}", told.err);
    assert!(told.err.contains("the brokers do not allow a `session.timeout.ms` of 900"), "{}", told.err);
    assert!(told.err.contains("hint: set `kafka.properties.session.timeout.ms` between"), "{}", told.err);
}

/// S58: a group that is full may have room later: the host says so once a minute and joins when it has; a part with an
/// end is given up.
#[tokio::test(flavor = "multi_thread")]
async fn s58_a_full_group_is_waited_for() {
    let own = Broker::configured(&[("group.max.size", "1")]);
    own.create_topic("full", 1, &[]).await;
    produce_on(&own.bootstrap(), "full", 0, rows(10));
    let mut scene = Scene::new("full", json!({ "checkpoint": { "interval_seconds": 0.2 } }));
    let properties = json!({ "session.timeout.ms": "1500", "heartbeat.interval.ms": "300" });
    let kafka = json!({
        "brokers": own.bootstrap(), "source_topic": "full", "group": scene.group, "properties": properties,
    });
    scene.change(json!({ "kafka": kafka }));
    let foreign = Foreign::join(&own.bootstrap(), &scene.group, "full", ASSIGNOR);
    let mut stays = Process::start(&scene, &["run"]);
    let ends = scene.run(&["run", "--until-end"]);
    assert_eq!(ends.code, Some(1), "{}", ends.err);
    assert!(ends.err.contains("cannot be joined") && ends.err.contains("group.max.size"), "{}", ends.err);
    assert!(!stays.has_ended(), "{}", stays.told());
    assert_eq!(stays.told().matches("cannot be joined").count(), 1, "{}", stays.told());
    drop(foreign);
    let onlooker = Onlooker::on(&own.bootstrap(), &scene.group);
    wait("it has joined", || onlooker.committed("full", 0) == Some(10));
    stays.signal("-TERM");
    assert_eq!(stays.ended(), Some(0), "{}", stays.told());
}
