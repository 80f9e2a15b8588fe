//! Partitions change hands: in order, too slowly, without notice, and back again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use serde_json::json;
use tidegate::sink::Style;

use super::binary::{Process, Scene, wait};
use super::ensemble::{Act, Call, Ensemble, Fact, Host, What, all, held};

/// Longer than any of these tests.
const LONG: Duration = Duration::from_secs(600);

fn begins(host: usize, what: What, partition: i32) -> impl Fn(&Fact) -> bool + Copy {
    move |fact| fact.host == host && fact.what == what && fact.partition == partition
}

/// A first host that has buffered all records of two partitions and flushes slowly, a second one, and the partition that moved.
async fn moves(ensemble: &mut Ensemble, flush: Duration, budget: Option<Duration>) -> (Host, Host, i32) {
    let mut plan = ensemble.plan();
    plan.settings.revoke_budget = budget.unwrap_or(plan.settings.revoke_budget);
    plan.settings.checkpoint.interval_seconds = 300.0;
    let act = move |call: &Call<'_>| if call.what == What::Flush { Act::Slow(flush) } else { Act::Take };
    plan.sinks = vec![("rows", Style::Buffering, Arc::new(act))];
    let first = ensemble.start(plan);
    let added = |facts: &[Fact]| {
        facts.iter().filter(|fact| fact.what == What::Add).map(|fact| fact.offsets.len()).sum::<usize>() == 200
    };
    ensemble.log.until("everything is buffered", added).await;
    let second = ensemble.start(ensemble.plan());
    ensemble.log.until("one has moved", |facts| !held(facts, 1).is_empty()).await;
    let moved = *ensemble.log.held(1).first().unwrap();
    (first, second, moved)
}

/// S45, S46: what is in flight when a partition is taken is settled, flushed and committed before anybody else gets it: the
/// new owner starts behind it, and nothing is written twice.
#[tokio::test(flavor = "multi_thread")]
async fn s45_what_is_in_flight_is_settled_before_the_hand_over() {
    let mut ensemble = Ensemble::new("in-order", 2, 100).await;
    let (first, second, moved) = moves(&mut ensemble, Duration::from_secs(2), None).await;
    let facts = ensemble.log.facts();
    let at = |holds: &dyn Fn(&Fact) -> bool| facts.iter().position(holds).unwrap();
    let given = at(&begins(1, What::Assigned, moved));
    assert!(at(&begins(0, What::Revoked, moved)) < at(&begins(0, What::Flush, moved)));
    assert!(at(&begins(0, What::Flushed, moved)) < given, "{}", ensemble.log.tail());
    assert_eq!(facts[given].offsets, [100], "the new owner starts behind the last commit");
    for partition in 0..2 {
        ensemble.produce(partition, 20);
    }
    ensemble.until_committed(moved..moved + 1, 120).await;
    first.stop().await.unwrap();
    ensemble.until_committed(0..2, 120).await;
    for partition in 0..2 {
        assert_eq!(ensemble.log.written("rows", partition), all(120));
    }
    second.stop().await.unwrap();
}

/// S46, S47: a flush that takes longer than the budget is cut off. The partition is handed over without a commit, its rows
/// come again at the new owner, and the old one writes nothing of it any more.
#[tokio::test(flavor = "multi_thread")]
async fn s47_a_flush_beyond_the_budget_is_left_to_the_new_owner() {
    let mut ensemble = Ensemble::new("too-slow", 2, 100).await;
    let (first, second, moved) = moves(&mut ensemble, Duration::from_secs(4), Some(Duration::from_secs(1))).await;
    ensemble.until_committed(moved..moved + 1, 100).await;
    // Until well after the moment at which the flush would have been done.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let facts = ensemble.log.facts();
    let given = facts.iter().position(begins(1, What::Assigned, moved)).unwrap();
    assert_eq!(facts[given].offsets, [0], "nothing was committed");
    assert!(facts[..given].iter().any(begins(0, What::Flush, moved)));
    assert!(facts[..given].iter().any(begins(0, What::Discard, moved)), "its buffer was let go before the hand-over");
    let late = facts[given..].iter().filter(|fact| fact.host == 0 && fact.partition == moved).count();
    assert_eq!((late, facts.iter().filter(|fact| begins(0, What::Flushed, moved)(fact)).count()), (0, 0));
    assert_eq!(ensemble.log.written("rows", moved), all(100));
    // What the first one kept is flushed in its own time.
    first.stop().await.unwrap();
    ensemble.until_committed(0..2, 100).await;
    assert_eq!(ensemble.log.written("rows", 1 - moved), all(100));
    second.stop().await.unwrap();
}

/// S48, S49: a process that stands still past its session has lost its partitions when it wakes: it commits nothing, drops
/// what it had buffered, goes on as a member, and ends in order.
#[tokio::test(flavor = "multi_thread")]
async fn s48_a_process_that_stood_still_drops_what_it_lost() {
    const ROWS: i64 = 100;
    let mut ensemble = Ensemble::new("stalled", 2, ROWS as usize).await;
    let mut scene = Scene::new(&ensemble.topic, json!({}));
    let directory = json!({ "host": scene.files(), "guest": "/out", "access": "write" });
    let faulty = json!({
        "component": guest("faulty-sink.wasm"), "options": { "log": "/out/log" },
        "grants": { "directories": [directory] },
    });
    scene.group = ensemble.group.clone();
    scene.change(json!({
        "kafka": {
            "brokers": super::help::broker().bootstrap(), "source_topic": ensemble.topic, "group": ensemble.group,
            "properties": { "session.timeout.ms": "1500", "heartbeat.interval.ms": "300" },
        },
        "sinks": { "plugin": { "faulty": faulty } },
    }));
    let mut process = Process::start(&scene, &["run"]);
    let lines = |scene: &Scene, word: &str| {
        let log = String::from_utf8_lossy(&scene.file("log")).into_owned();
        log.lines().filter(|line| line.starts_with(word)).map(str::to_owned).collect::<Vec<_>>()
    };
    let added = |scene: &Scene| {
        lines(scene, "add ").iter().map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum::<i64>()
    };
    wait("everything is buffered", || added(&scene) == 2 * ROWS);
    process.signal("-STOP");
    let other = ensemble.start(ensemble.plan());
    ensemble.until_committed(0..2, ROWS).await;
    process.signal("-CONT");
    wait("the loss is noticed", || process.told().contains("lost=true"));
    wait("it is a member again", || process.told().matches(": assigned").count() > 2);
    wait("what was buffered is dropped", || lines(&scene, "discard ").len() >= 2);
    assert!(lines(&scene, "wrote ").is_empty() && lines(&scene, "flush ").is_empty(), "nothing of it was written");
    for partition in 0..2 {
        assert_eq!(ensemble.committed(partition), ROWS, "nothing was committed in the new owner's name");
        ensemble.produce(partition, 20);
    }
    wait("it reads on", || added(&scene) > 2 * ROWS);
    process.signal("-TERM");
    assert_eq!(process.ended(), Some(0), "{}", process.told());
    ensemble.until_committed(0..2, ROWS + 20).await;
    let of_process: Vec<String> = lines(&scene, "wrote ");
    assert_eq!(of_process.len(), 20, "{of_process:?}");
    let by_other: usize = (0..2).map(|partition| ensemble.log.written("rows", partition).len()).sum();
    assert_eq!(by_other, 2 * ROWS as usize + 20, "all others, each once");
    other.stop().await.unwrap();
}

pub fn guest(component: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/guests").join(component)
}

/// S50: members come and go while rows wait for their flush and one partition waits in backpressure. What a member keeps it
/// keeps whole, with its buffer and its pause; what moves is flushed first. Nothing is lost and nothing written twice.
#[tokio::test(flavor = "multi_thread")]
async fn s50_kept_partitions_keep_their_buffers_and_pauses() {
    const PARTITIONS: i32 = 10;
    let mut ensemble = Ensemble::new("cooperative", PARTITIONS, 60).await;
    // Partition 0 alone has enough for a checkpoint, and the host that has it first may not flush it.
    ensemble.produce(0, 60);
    let first_owner = Arc::new(AtomicI32::new(-1));
    let plan = |ensemble: &Ensemble| {
        let mut plan = ensemble.plan();
        plan.settings.checkpoint.interval_seconds = 300.0;
        plan.settings.checkpoint.every_records = 120;
        let owner = first_owner.clone();
        plan.sinks = vec![(
            "rows",
            Style::Buffering,
            Arc::new(move |call: &Call<'_>| {
                let host = i32::try_from(call.host).unwrap();
                if call.what != What::Flush || call.partition != 0 {
                    return Act::Take;
                }
                let _ = owner.compare_exchange(-1, host, Ordering::Relaxed, Ordering::Relaxed);
                if owner.load(Ordering::Relaxed) == host { Act::Backpressure(LONG) } else { Act::Take }
            }),
        )];
        plan
    };
    let first = plan(&ensemble);
    let mut hosts = vec![ensemble.start(first)];
    ensemble.log.until("one has all", |facts| held(facts, 0).len() == PARTITIONS as usize).await;
    let mut produced = 60;
    for number in 1..5 {
        let next = plan(&ensemble);
        hosts.push(ensemble.start(next));
        let share = PARTITIONS as usize / (number + 1);
        ensemble.log.until("all have their share", |facts| balanced(facts, number + 1, share)).await;
        if number == 1 {
            ensemble
                .log
                .until("the flush is refused", |facts| facts.iter().any(|fact| fact.what == What::Refused))
                .await;
        }
        for partition in 0..PARTITIONS {
            ensemble.produce(partition, 10);
        }
        produced += 10;
    }
    // Whoever waits leaves first, so that the last one is free to write.
    let waiting = usize::try_from(first_owner.load(Ordering::Relaxed)).unwrap();
    let at = hosts.iter().position(|host| host.number == waiting).unwrap();
    hosts.swap(0, at);
    let mut numbers: Vec<usize> = hosts.iter().map(|host| host.number).collect();
    for host in hosts {
        let number = numbers.remove(0);
        host.stop().await.unwrap();
        if !numbers.is_empty() {
            let left = numbers.clone();
            let whole = move |facts: &[Fact]| {
                left.iter().map(|number| held(facts, *number).len()).sum::<usize>() == PARTITIONS as usize
            };
            ensemble.log.until(&format!("the partitions of host {number} are served"), whole).await;
        }
    }
    ensemble.until_committed(0..1, produced + 60).await;
    ensemble.until_committed(1..PARTITIONS, produced).await;
    let facts = ensemble.log.facts();
    for partition in 0..PARTITIONS {
        let rows = if partition == 0 { produced + 60 } else { produced };
        assert_eq!(ensemble.log.written("rows", partition), all(rows), "[{partition}]: {}", ensemble.log.tail());
        kept_whole(&facts, partition);
    }
}

/// Each of the first hosts holds so many partitions at least, and all are held.
fn balanced(facts: &[Fact], hosts: usize, share: usize) -> bool {
    let held: Vec<BTreeSet<i32>> = (0..hosts).map(|host| held(facts, host)).collect();
    held.iter().all(|held| held.len() >= share) && held.iter().map(BTreeSet::len).sum::<usize>() == 10
}

/// From an assignment to its end the rows that a host is given go on where they were, whatever happens to other partitions;
/// and once a flush was refused nothing comes at all.
fn kept_whole(facts: &[Fact], partition: i32) {
    for host in 0..5 {
        let mut next = None;
        let mut paused = false;
        for fact in facts.iter().filter(|fact| fact.host == host && fact.partition == partition) {
            match fact.what {
                What::Assigned => (next, paused) = (Some(fact.offsets[0]), false),
                What::Refused => paused = true,
                What::Add => {
                    assert!(!paused, "host {host} was given rows of [{partition}] in its pause");
                    assert_eq!(Some(fact.offsets[0]), next, "host {host} read [{partition}] again, or left rows out");
                    next = fact.offsets.last().map(|last| last + 1);
                }
                _ => {}
            }
        }
    }
}
