//! Beside brokers that are slow, or do not answer everything: what is asked, and what goes on meanwhile.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use serde_json::json;
use tidegate::source::Reader;
use tidegate::source::kafka::{Brokers, Options};

use super::binary::{Process, Scene, wait};
use super::help::*;
use crate::support::broker::Broker;
use crate::support::child::binary;
use crate::support::proxy::{LIST_OFFSETS, METADATA, OFFSET_FETCH, Proxy};

fn through(proxy: &Proxy, topic: &str, group: &str) -> Options {
    Options { brokers: Brokers::One(proxy.address()), ..options(topic, group) }
}

/// S51: the starts of many partitions take a handful of requests, and not some for each.
#[tokio::test(flavor = "multi_thread")]
async fn s51_starts_of_many_partitions_are_asked_together() {
    let (topic, proxy) = (topic("bulk", 200).await, broker().proxy());
    proxy.delay(Duration::from_millis(50));
    let mut source = start(&through(&proxy, &topic, &unique("g")));
    let readers = assigned(&mut source, 200).await;
    // One for the group's offsets and two for the log's, again when the broker is so busy that no answer comes for seconds; and
    // the client asks for metadata of its own accord as well.
    for kind in [OFFSET_FETCH, LIST_OFFSETS, METADATA] {
        assert!((1..=20).contains(&proxy.requests(kind)), "{:?}", proxy.all_requests());
    }
    finish(source, readers).await;
}

/// S45, S51: a revocation is answered while the leaders have not yet said where its partitions start, and what they say in the
/// end counts for the partitions that are still ours alone.
#[tokio::test(flavor = "multi_thread")]
async fn s45_a_revocation_does_not_wait_for_starts() {
    let (topic, group, proxy) = (topic("unresolved", 4).await, unique("g"), broker().proxy());
    for partition in 0..4 {
        produce(&topic, partition, [Row::value("v")]);
    }
    proxy.hang(LIST_OFFSETS);
    let mut first = start(&through(&proxy, &topic, &group));
    let asked = Instant::now();
    while proxy.requests(LIST_OFFSETS) == 0 {
        assert!(asked.elapsed() < PATIENCE, "the leaders were not asked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut second = start(&options(&topic, &group));
    let theirs = assigned(&mut second, 2).await;
    proxy.forward();
    let mut ours = assigned(&mut first, 2).await;
    let mut all: Vec<i32> = theirs.iter().chain(&ours).map(|reader| reader.partition().partition).collect();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3], "each has one owner");
    for reader in &mut ours {
        assert_eq!(read(reader, 1).await.offsets, [0]);
    }
    finish(second, theirs).await;
    ours.extend(assigned(&mut first, 2).await);
    finish(first, ours).await;
}

/// S45a: a source closes although the leaders never say where its partitions start.
#[tokio::test(flavor = "multi_thread")]
async fn s45a_closing_does_not_wait_for_starts() {
    let (topic, group, proxy) = (topic("unclosed", 2).await, unique("g"), broker().proxy());
    proxy.hang(LIST_OFFSETS);
    let source = start(&through(&proxy, &topic, &group));
    wait("the leaders are asked", || proxy.requests(LIST_OFFSETS) > 0);
    finish(source, Vec::new()).await;
    // The group was left in order: the next member does not wait for a session to end.
    let mut next = start(&options(&topic, &group));
    let readers = assigned(&mut next, 2).await;
    finish(next, readers).await;
    proxy.forward();
}

/// Beside a broker that takes 5 s over every answer, the host starts, delivers, commits and stops.
#[tokio::test(flavor = "multi_thread")]
async fn s51_a_slow_broker_is_waited_for() {
    let (source, proxy) = (topic("slow", 2).await, broker().proxy());
    broker().create_topic(&format!("{source}-letters"), 1, &[]).await;
    for partition in 0..2 {
        produce(&source, partition, (0..3).map(|n| Row::value(format!("{{\"n\": {n}}}"))));
    }
    proxy.delay(Duration::from_secs(5));
    let group = unique("slow");
    let scene = Scene::new(
        &source,
        json!({
            // Three answers in a row do not always fit into the default on a busy machine.
            "kafka": {
                "brokers": proxy.address(), "source_topic": source, "group": group, "start_timeout_seconds": 60,
            },
            "dlq": { "brokers": broker().bootstrap(), "topic": format!("{source}-letters") },
            "checkpoint": { "interval_seconds": 0.5 },
        }),
    );
    let mut process = Process::start(&scene, &["run"]);
    let watched = Onlooker::new(&group);
    let started = Instant::now();
    while !(0..2).all(|partition| watched.committed(&source, partition) == Some(3)) {
        assert!(started.elapsed() < PATIENCE * 3, "{} {:?}", process.told(), proxy.all_requests());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("committed after {:?}", started.elapsed());
    process.signal("-TERM");
    assert_eq!(process.ended(), Some(0), "{}", process.told());
}

/// Most partitions that the broker makes at once.
const AT_ONCE: i32 = 5_000;

/// A broker takes minutes over ten thousand partitions.
const MANY_PATIENCE: Duration = Duration::from_secs(900);

/// Measures starts and rest with many partitions where `TIDEGATE_MANY_PARTITIONS` asks for it, as `1000,10000`, and prints what it
/// found. `TIDEGATE_BIN` is the binary.
#[tokio::test(flavor = "multi_thread")]
async fn measure_many_partitions() {
    let delay = 50;
    let asked = std::env::var("TIDEGATE_MANY_PARTITIONS").unwrap_or_default();
    for partitions in asked.split(',').filter_map(|count| count.parse::<i32>().ok()) {
        let broker = Broker::large();
        broker.create_topic("many_dlq", 1, &[]).await;
        broker.create_topic("many", partitions.min(AT_ONCE), &[("segment.index.bytes", "1024")]).await;
        if partitions > AT_ONCE {
            let admin: AdminClient<DefaultClientContext> =
                ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().unwrap();
            for count in (2..=partitions / AT_ONCE).map(|times| usize::try_from(times * AT_ONCE).unwrap()) {
                let more = NewPartitions::new("many", count);
                admin.create_partitions([&more], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
            }
        }
        let onlooker = Onlooker::on(&broker.bootstrap(), "looks");
        let made = Instant::now();
        while onlooker.led("many") < usize::try_from(partitions).unwrap() {
            assert!(made.elapsed() < MANY_PATIENCE, "the broker has not made its partitions");
            std::thread::sleep(Duration::from_secs(1));
        }
        println!("the broker made its partitions in {:?}", made.elapsed());
        // A new broker makes the topic of the groups' offsets first.
        let another = Onlooker::on(&broker.bootstrap(), "another");
        while let Err(error) = another.ask_committed("many", 0) {
            assert!(made.elapsed() < MANY_PATIENCE, "the broker has no coordinator: {error}");
        }
        let proxy = broker.proxy();
        proxy.delay(Duration::from_millis(delay));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidegate.yaml");
        let document = json!({
            "kafka": { "brokers": proxy.address(), "source_topic": "many", "group": "many" },
            "dlq": { "brokers": broker.bootstrap() },
            "sinks": { "filesystem": { "log": { "base_path": dir.path() } } },
        });
        std::fs::write(&file, document.to_string()).unwrap();
        let log = std::fs::File::create(dir.path().join("told")).unwrap();
        let began = Instant::now();
        let mut process = std::process::Command::new(binary());
        let mut child = process.arg("run").arg(&file).stdout(std::process::Stdio::null()).stderr(log).spawn().unwrap();
        let told = || std::fs::read_to_string(dir.path().join("told")).unwrap();
        let assigned = || {
            let text = told();
            let lines = text.lines().filter(|line| line.contains(": assigned"));
            lines.count()
        };
        let mut first = None;
        while assigned() < usize::try_from(partitions).unwrap() {
            if first.is_none() && assigned() > 0 {
                first = Some(began.elapsed());
            }
            if began.elapsed() > MANY_PATIENCE || child.try_wait().unwrap().is_some() {
                println!("{}", told().chars().take(3000).collect::<String>());
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let all = began.elapsed();
        std::thread::sleep(Duration::from_secs(3));
        let ticks = || -> Vec<u64> {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            [11, 12].iter().map(|place| fields[*place].parse().unwrap()).collect()
        };
        let (before, since) = (ticks(), Instant::now());
        std::thread::sleep(Duration::from_secs(10));
        let used: u64 = ticks().iter().sum::<u64>() - before.iter().sum::<u64>();
        let share = f64::from(u32::try_from(used).unwrap()) / since.elapsed().as_secs_f64();
        println!(
            "{partitions} partitions, {delay} ms: first {first:?}, all {all:?} after the process began, rest {share:.2} % of a core, requests {:?}",
            proxy.all_requests()
        );
        let _ = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let stopping = Instant::now();
        let _ = child.wait();
        println!("stopped in {:?}", stopping.elapsed());
    }
}
