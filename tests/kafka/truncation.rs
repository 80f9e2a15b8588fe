//! A log that loses its end and is written again, as after an unclean leader election, while a host reads it and while
//! none does.

use std::fs::{self, File};

use serde_json::json;

use crate::binary::{Process, Scene, wait};
use crate::help::{Onlooker, Row, end_on, produce_on};
use crate::support::broker::{Broker, create_topic};
use crate::support::cluster::Cluster;

/// Records that the cut leaves.
const CUT: i64 = 600;
/// Records that were written, read and committed before.
const READ: i64 = 1000;
/// The log's end when it has been written again.
const END: i64 = 1200;
const TOPICS: [&str; 3] = ["stopped", "running", "goes-on"];

fn rows(life: u32, offsets: std::ops::Range<i64>) -> impl Iterator<Item = Row> {
    offsets.map(move |n| Row::value(line(life, n)))
}

fn line(life: u32, offset: i64) -> String {
    format!("{{\"n\":{offset},\"life\":{life}}}")
}

fn scene(brokers: &str, topic: &str, on_offset_gap: &str) -> Scene {
    let mut scene = Scene::new(topic, json!({ "checkpoint": { "interval_seconds": 0.2 } }));
    point_at(&mut scene, brokers, topic, on_offset_gap);
    scene
}

fn point_at(scene: &mut Scene, brokers: &str, topic: &str, on_offset_gap: &str) {
    let properties = json!({ "session.timeout.ms": "6000", "heartbeat.interval.ms": "300" });
    let kafka = json!({
        "brokers": brokers, "source_topic": topic, "group": scene.group, "properties": properties,
        "on_offset_gap": on_offset_gap,
    });
    scene.change(json!({ "kafka": kafka }));
}

/// What a host says of a cut that it must not pass over.
fn named(topic: &str) -> [String; 3] {
    [
        format!("the log of `{topic}[0]` was cut below `{topic}[0]@{READ}`, which is to be read next"),
        format!("it was cut at {CUT} and written again"),
        "hint: set `kafka.on_offset_gap: continue`".to_owned(),
    ]
}

fn lines(scene: &Scene, topic: &str) -> Vec<String> {
    let text = String::from_utf8(scene.file(format!("{topic}-0.jsonl"))).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// What is delivered when reading goes on at the cut: each record of both lives once.
fn both() -> Vec<String> {
    (0..READ).map(|n| line(1, n)).chain((CUT..END).map(|n| line(2, n))).collect()
}

/// S52: records that were written again below the committed offset are never passed over: by default the host stops and
/// names the cut, while it runs, at a start, and at every start after it; told to go on, it reads on from the cut and
/// says so.
#[tokio::test(flavor = "multi_thread")]
async fn s52_a_log_that_was_cut_is_never_passed_over() {
    let mut own = Broker::start();
    let mut sizes = Vec::new();
    for topic in TOPICS {
        own.create_topic(topic, 1, &[]).await;
        produce_on(&own.bootstrap(), topic, 0, rows(1, 0..CUT));
        let log = own.log_dir(topic, 0).join("00000000000000000000.log");
        sizes.push((fs::metadata(&log).unwrap().len(), log));
        produce_on(&own.bootstrap(), topic, 0, rows(1, CUT..READ));
    }
    let [mut stopped, running, goes_on] = [("stop"), ("stop"), ("continue")]
        .into_iter()
        .zip(TOPICS)
        .map(|(on_offset_gap, topic)| scene(&own.bootstrap(), topic, on_offset_gap))
        .collect::<Vec<Scene>>()
        .try_into()
        .ok()
        .unwrap();
    stopped.done(&["run", "--until-end"]);
    let mut stops = Process::start(&running, &["run"]);
    let mut goes = Process::start(&goes_on, &["run"]);
    for (topic, scene) in TOPICS.iter().zip([&stopped, &running, &goes_on]) {
        wait("everything is delivered", || lines(scene, topic).len() >= usize::try_from(READ).unwrap());
        let onlooker = Onlooker::on(&own.bootstrap(), &scene.group);
        wait("everything is committed", || onlooker.committed(topic, 0) == Some(READ));
    }

    own.kill();
    for (size, log) in &sizes {
        // What a replica that was behind has of the log when it becomes the leader.
        File::options().write(true).open(log).unwrap().set_len(*size).unwrap();
    }
    own.restart();
    for topic in TOPICS {
        assert_eq!(end_on(&own.bootstrap(), topic, 0), CUT, "the log was cut");
        produce_on(&own.bootstrap(), topic, 0, rows(2, CUT..END));
        assert_eq!(end_on(&own.bootstrap(), topic, 0), END);
    }

    assert_eq!(stops.ended(), Some(1), "{}", stops.told());
    for part in named("running") {
        assert!(stops.told().contains(&part), "{part}: {}", stops.told());
    }
    for (topic, scene) in [("running", &running), ("stopped", &stopped), ("stopped", &stopped)] {
        let told = scene.run(&["run", "--until-end"]);
        assert_eq!(told.code, Some(1), "{}", told.err);
        for part in named(topic) {
            assert!(told.err.contains(&part), "{part}: {}", told.err);
        }
        assert_eq!(Onlooker::on(&own.bootstrap(), &scene.group).committed(topic, 0), Some(READ));
        assert_eq!(lines(scene, topic).len(), usize::try_from(READ).unwrap(), "nothing was passed over");
    }

    let onlooker = Onlooker::on(&own.bootstrap(), &goes_on.group);
    wait("it has read on from the cut", || onlooker.committed("goes-on", 0) == Some(END));
    goes.signal("-TERM");
    assert_eq!(goes.ended(), Some(0), "{}", goes.told());
    assert!(goes.told().contains("the log was cut and written again"), "{}", goes.told());
    assert_eq!(lines(&goes_on, "goes-on"), both());

    // Told to go on after a stop: from the cut, not from what was committed.
    point_at(&mut stopped, &own.bootstrap(), "stopped", "continue");
    let told = stopped.done(&["run", "--until-end"]);
    assert!(told.err.contains("the log was cut and written again"), "{}", told.err);
    assert_eq!(lines(&stopped, "stopped"), both());
    assert_eq!(Onlooker::on(&own.bootstrap(), &stopped.group).committed("stopped", 0), Some(END));
}

/// S52: an unclean leader election between real brokers: the replica that was behind becomes the leader, and new records take the
/// offsets of those that were read and committed. The host that ran meanwhile stops and names the cut, and so does the next start.
#[tokio::test(flavor = "multi_thread")]
async fn s52_an_unclean_leader_election_is_noticed() {
    let cluster = Cluster::start();
    let bootstrap = cluster.bootstrap();
    let unclean = [("unclean.leader.election.enable", "true"), ("min.insync.replicas", "1")];
    create_topic(&bootstrap, "orders", 1, 2, &unclean).await;
    cluster.create_topic("orders_dlq", 1).await;
    let onlooker = Onlooker::on(&bootstrap, "looks");
    // Copied everywhere before brokers go: the group's offsets are what remains.
    assert_eq!(onlooker.committed("orders", 0), None);
    cluster.is_in_sync(&["orders_dlq"]).unwrap();
    let replicas = onlooker.replicas("orders", 0);
    let leader = onlooker.leader("orders", 0).unwrap();
    let follower = *replicas.iter().find(|replica| **replica != leader).unwrap();
    let broker = |id: i32| usize::try_from(id).unwrap() - 1;

    produce_on(&bootstrap, "orders", 0, rows(1, 0..CUT));
    wait("both replicas have it", || onlooker.in_sync("orders", 0).len() == 2);
    cluster.kill(broker(follower));
    wait("the leader is alone", || onlooker.in_sync("orders", 0) == [leader]);
    produce_on(&bootstrap, "orders", 0, rows(1, CUT..READ));
    let scene = scene(&bootstrap, "orders", "stop");
    let mut stops = Process::start(&scene, &["run"]);
    let group = Onlooker::on(&bootstrap, &scene.group);
    wait("everything is committed", || group.committed("orders", 0) == Some(READ));

    cluster.kill(broker(leader));
    cluster.restart(broker(follower));
    wait("the replica that was behind leads", || onlooker.leader("orders", 0) == Some(follower));
    assert_eq!(end_on(&bootstrap, "orders", 0), CUT, "the election was unclean");
    produce_on(&bootstrap, "orders", 0, rows(2, CUT..END));
    assert_eq!(stops.ended(), Some(1), "{}", stops.told());
    // It may have looked before the new records came, when the log was only shorter.
    let told = stops.told();
    assert!(told.contains("`orders[0]@1000`") && told.contains("it was cut"), "{told}");
    let told = scene.run(&["run", "--until-end"]);
    assert_eq!(told.code, Some(1), "{}", told.err);
    for part in named("orders") {
        assert!(told.err.contains(&part), "{part}: {}", told.err);
    }
    assert_eq!(lines(&scene, "orders").len(), usize::try_from(READ).unwrap(), "nothing was passed over");
}
