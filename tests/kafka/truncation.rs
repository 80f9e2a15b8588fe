//! A log that loses its end and is written again, as after an unclean leader election, while a host reads it and while
//! none does.

use std::fs::{self, File};

use serde_json::json;

use crate::binary::{Process, Scene, wait};
use crate::help::{Onlooker, Row, end_on, produce_on};
use crate::support::broker::Broker;

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

fn scene(own: &Broker, topic: &str, on_offset_gap: &str) -> Scene {
    let mut scene = Scene::new(topic, json!({ "checkpoint": { "interval_seconds": 0.2 } }));
    point_at(&mut scene, own, topic, on_offset_gap);
    scene
}

fn point_at(scene: &mut Scene, own: &Broker, topic: &str, on_offset_gap: &str) {
    let properties = json!({ "session.timeout.ms": "6000", "heartbeat.interval.ms": "300" });
    let kafka = json!({
        "brokers": own.bootstrap(), "source_topic": topic, "group": scene.group, "properties": properties,
        "on_offset_gap": on_offset_gap,
    });
    scene.change(json!({ "kafka": kafka }));
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
        .map(|(on_offset_gap, topic)| scene(&own, topic, on_offset_gap))
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

    let named = |topic: &str| {
        [
            format!("the log of `{topic}[0]` was cut below `{topic}[0]@{READ}`, which is to be read next"),
            format!("it was cut at {CUT} and written again"),
            "hint: set `kafka.on_offset_gap: continue`".to_owned(),
        ]
    };
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
    point_at(&mut stopped, &own, "stopped", "continue");
    let told = stopped.done(&["run", "--until-end"]);
    assert!(told.err.contains("the log was cut and written again"), "{}", told.err);
    assert_eq!(lines(&stopped, "stopped"), both());
    assert_eq!(Onlooker::on(&own.bootstrap(), &stopped.group).committed("stopped", 0), Some(END));
}
