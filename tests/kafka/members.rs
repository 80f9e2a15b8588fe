//! Members with a name of their own: a restart moves nobody's partitions, and two of one name are one too many.

use std::time::Duration;

use tidegate::model::Owner;

use super::ensemble::{Ensemble, Fact, Plan, What, all, held};

/// A session long enough for a restart, of a member with a name.
fn named(ensemble: &Ensemble, name: &str, session_ms: u32) -> Plan {
    let mut plan = ensemble.plan();
    plan.options.instance_id = name.into();
    plan.options.properties.insert("session.timeout.ms".into(), session_ms.to_string());
    plan
}

/// A named host that is stopped and started again within its session gets the partitions that it had; the other host sees
/// nothing of it and keeps reading.
#[tokio::test(flavor = "multi_thread")]
async fn s50_a_named_host_restarts_without_a_rebalance() {
    let mut ensemble = Ensemble::new("named", 4, 20).await;
    let plan = named(&ensemble, "a", 20_000);
    let first = ensemble.start(plan);
    ensemble.log.until("the first host has all", |facts| held(facts, 0).len() == 4).await;
    let plan = named(&ensemble, "b", 20_000);
    let second = ensemble.start(plan);
    ensemble.log.until("the second host has its share", |facts| held(facts, 1).len() == 2).await;
    ensemble.until_committed(0..4, 20).await;
    let seen = |host: usize| {
        move |fact: &Fact| fact.host == host && matches!(fact.what, What::Assigned | What::Revoked | What::Lost)
    };
    let (theirs, before) = (ensemble.log.held(1), ensemble.log.count(seen(0)));

    second.stop().await.unwrap();
    for partition in 0..4 {
        ensemble.produce(partition, 20);
    }
    // Longer than a heartbeat: a group that had been told of a departure would be rebalancing by now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let plan = named(&ensemble, "b", 20_000);
    let again = ensemble.start(plan);
    ensemble.until_committed(0..4, 40).await;
    assert_eq!(ensemble.log.held(2), theirs, "the same partitions");
    assert_eq!(ensemble.log.count(seen(0)), before, "nothing was taken from the other host, and nothing given to it");
    for partition in 0..4 {
        assert_eq!(ensemble.log.written("rows", partition), all(40));
    }
    again.stop().await.unwrap();
    first.stop().await.unwrap();
}

/// A named host that does not come back keeps its partitions for the rest of its session; then the others get them.
#[tokio::test(flavor = "multi_thread")]
async fn s50_the_partitions_of_a_named_host_wait_for_its_session() {
    let mut ensemble = Ensemble::new("named-gone", 2, 20).await;
    let plan = named(&ensemble, "a", 3000);
    let first = ensemble.start(plan);
    let plan = named(&ensemble, "b", 3000);
    let second = ensemble.start(plan);
    ensemble.log.until("each has one", |facts| held(facts, 0).len() == 1 && held(facts, 1).len() == 1).await;
    ensemble.until_committed(0..2, 20).await;
    second.stop().await.unwrap();
    assert_eq!(ensemble.log.held(0).len(), 1, "the other host got nothing at the stop");
    for partition in 0..2 {
        ensemble.produce(partition, 20);
    }
    ensemble.until_committed(0..2, 40).await;
    assert_eq!(ensemble.log.held(0).len(), 2);
    for partition in 0..2 {
        assert_eq!(ensemble.log.written("rows", partition), all(40));
    }
    first.stop().await.unwrap();
}

/// Two hosts of one name: the one that was there first stops with a fault that says so, and the other one takes over.
#[tokio::test(flavor = "multi_thread")]
async fn s58_a_second_host_of_the_same_name_stops_the_first() {
    let mut ensemble = Ensemble::new("twins", 2, 50).await;
    let mut plan = named(&ensemble, "a", 6000);
    plan.settings.checkpoint.interval_seconds = 300.0;
    let mut first = ensemble.start(plan);
    ensemble
        .log
        .until("rows wait for a flush", |facts| facts.iter().filter(|fact| fact.what == What::Add).count() >= 2)
        .await;
    let plan = named(&ensemble, "a", 6000);
    let second = ensemble.start(plan);
    let fault = first.ended().await.unwrap_err();
    assert_eq!(fault.owner, Owner::Config, "{fault}");
    assert!(fault.message.contains("kafka.instance_id") && fault.hint.is_some(), "{fault}");
    ensemble.until_committed(0..2, 50).await;
    for partition in 0..2 {
        let mut written = ensemble.log.written("rows", partition);
        written.sort_unstable();
        written.dedup();
        assert_eq!(written, all(50));
    }
    second.stop().await.unwrap();
}
