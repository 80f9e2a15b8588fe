//! Partitions without a leader, and topics and destinations that are not there yet.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;

use super::binary::{Process, Scene, wait};
use super::help::*;
use crate::support::cluster::Cluster;
use crate::support::proxy::Proxy;
use crate::support::servers::Redis;

/// K8, S51: a partition without a leader is named once while the others are read; no end is reached without it; when its leader
/// is back it starts, and everything is delivered.
#[tokio::test(flavor = "multi_thread")]
async fn s51_a_partition_without_a_leader_delays_no_other() {
    let cluster = Cluster::start();
    let bootstrap = cluster.bootstrap();
    crate::support::broker::create_topic(&bootstrap, "orders", 3, 1, &[]).await;
    cluster.create_topic("letters", 1).await;
    for partition in 0..3 {
        produce_on(&bootstrap, "orders", partition, (0..5).map(|n| Row::value(format!("{{\"n\": {n}}}"))));
    }
    let onlooker = Onlooker::on(&bootstrap, "orders-group");
    // Copied everywhere before a broker goes: the group's offsets are what remains.
    assert_eq!(onlooker.committed("orders", 0), None);
    cluster.is_in_sync(&["letters"]).unwrap();
    let leader = onlooker.leader("orders", 2).unwrap();
    cluster.kill(usize::try_from(leader).unwrap() - 1);
    wait("the partition has no leader", || onlooker.leader("orders", 2).is_none());

    let scene = Scene::new(
        "orders",
        json!({
            "kafka": {
                "brokers": bootstrap,
                "source_topic": "orders",
                "group": "orders-group",
                "properties": { "session.timeout.ms": "6000", "heartbeat.interval.ms": "300" },
            },
            "dlq": { "topic": "letters" },
            "checkpoint": { "interval_seconds": 0.5 },
        }),
    );
    let mut process = Process::start(&scene, &["run", "--until-end"]);
    wait("the others are committed", || {
        [0, 1].iter().all(|partition| onlooker.committed("orders", *partition) == Some(5))
    });
    let named = || process.told().matches("orders[2] cannot be read yet").count();
    wait("the partition is named", || named() == 1);
    // Longer than a member without partitions would wait, and several questions long.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(named(), 1, "{}", process.told());
    assert_eq!(onlooker.committed("orders", 2), None);
    cluster.restart(usize::try_from(leader).unwrap() - 1);
    assert_eq!(process.ended(), Some(0), "{}", process.told());
    assert_eq!(onlooker.committed("orders", 2), Some(5));
}

/// K13, S124a: a topic that is made while the host starts is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn s124a_a_topic_may_come_a_moment_later() {
    let source = unique("later");
    let scene = Scene::new(&source, json!({}));
    let mut process = Process::start(&scene, &["run"]);
    wait("it asks again", || process.told().contains(&format!("topic `{source}` does not exist; asked again")));
    broker().create_topic(&source, 1, &[]).await;
    wait("it serves", || process.told().contains(": assigned"));
    process.signal("-TERM");
    assert_eq!(process.ended(), Some(0), "{}", process.told());
}

/// K13, S124a: topics that stay missing are all named, and only they; a check asks once.
#[tokio::test(flavor = "multi_thread")]
async fn s124a_every_missing_topic_is_named() {
    let there = topic("there", 1).await;
    let (gone, lost) = (unique("gone"), unique("lost"));
    let scene = Scene::new(
        &there,
        json!({ "kafka": {
            "brokers": broker().bootstrap(),
            "source_topics": [gone, there, lost],
            "group": unique("g"),
            "start_timeout_seconds": 1,
        } }),
    );
    for (command, repeats) in [(&["run"][..], true), (&["check", "--connect"], false)] {
        let told = scene.run(command);
        assert_eq!(told.code, Some(2), "{told:?}");
        let said = told.out + &told.err;
        assert!(said.contains(&format!("topics `{gone}`, `{lost}` do not exist")), "{said}");
        assert_eq!(said.contains("asked again"), repeats, "{said}");
    }
}

/// S124a: a destination that refuses the connection while it starts is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn s124a_a_destination_may_listen_a_moment_later() {
    let (redis, source) = (Redis::start(), topic("refused", 1).await);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let sinks = json!({ "redis": { "cache": { "url": format!("redis://127.0.0.1:{port}/0") } } });
    let scene = Scene::new(&source, json!({ "sinks": sinks }));
    let mut process = Process::start(&scene, &["run"]);
    wait("it tries again", || process.told().contains("tried again for 10 s"));
    let _proxy = Proxy::at(port, redis.port());
    wait("it serves", || process.told().contains(": assigned"));
    process.signal("-TERM");
    assert_eq!(process.ended(), Some(0), "{}", process.told());
}
