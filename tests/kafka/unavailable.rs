//! Destinations that do not take rows for a while, or not all of them, with default options: everything else arrives, late, and
//! nothing is dead-lettered that could be written.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::binary::{Process, Scene, wait};
use super::help::{Row, broker, committed, contents, contents_on, produce, topic, unique};
use crate::support::broker::Broker;
use crate::support::servers::Postgres;

/// Longer than a call may take by default (`executor.delivery_timeout_seconds`).
const LONGER_THAN_A_CALL: u32 = 34;

struct Table {
    postgres: Postgres,
    database: String,
    source: String,
    scene: Scene,
}

/// A topic of so many records to one table, keyed or not.
async fn table(name: &str, records: i64, key: bool) -> Table {
    let postgres = Postgres::start();
    let database = postgres.database("app");
    postgres.psql(&database, "CREATE TABLE orders (id int PRIMARY KEY, v text); ALTER TABLE orders OWNER TO tidegate");
    let source = topic(name, 1).await;
    produce(&source, 0, (0..records).map(|id| Row::value(format!("{{\"id\":{id},\"v\":\"x\"}}"))));
    let mut main = json!({ "dsn": postgres.dsn(&database), "table": "orders" });
    if key {
        main["key"] = json!(["id"]);
    }
    let scene = Scene::new(&source, json!({ "sinks": { "postgres": { "main": main } }, "checkpoint": {} }));
    Table { postgres, database, source, scene }
}

impl Table {
    fn rows(&self) -> String {
        self.postgres.psql(&self.database, "SELECT count(*) FROM orders").trim().to_owned()
    }

    /// Takes the table's lock for so many seconds, as a migration does.
    fn lock(&self, seconds: u32) -> Child {
        let sql = format!("BEGIN; LOCK TABLE orders; SELECT pg_sleep({seconds}); COMMIT");
        let dsn = self.postgres.admin_dsn(&self.database);
        let locked = Command::new("psql").args([&dsn, "-c", &sql]).stdout(Stdio::null()).spawn().unwrap();
        let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                    AND relation = 'orders'::regclass";
        wait("the table is locked", || self.postgres.psql(&self.database, held).trim() == "1");
        locked
    }

    fn is_whole(&self, records: i64, told: &str) {
        assert_eq!(contents(&format!("{}_dlq", self.source)).len(), 0, "{told}");
        assert_eq!(self.rows(), records.to_string());
        assert_eq!(committed(&self.source, 0, &self.scene.group), Some(records));
    }
}

/// P3: a table that a migration has locked is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_a_locked_table_is_waited_for() {
    let tables = [table("locked-key", 500, true).await, table("locked", 500, false).await];
    std::thread::scope(|scope| {
        for table in &tables {
            scope.spawn(move || {
                let mut lock = table.lock(LONGER_THAN_A_CALL);
                let mut process = Process::start(&table.scene, &["run", "--until-end"]);
                let ended = process.ended();
                lock.wait().unwrap();
                assert_eq!(ended, Some(0), "{}", process.told());
                assert!(process.told().contains("waiting until it is available"), "{}", process.told());
                table.is_whole(500, &process.told());
            });
        }
    });
}

/// O1: what arrived before a wait is committed while it lasts, so that a kill in a long outage repeats only what is open.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_what_is_settled_is_committed_while_a_partition_waits() {
    let mut table = table("settled", 100, false).await;
    // Without a key a row that is written again is refused, and a letter tells of it.
    table.scene = Scene::new(
        &table.source,
        json!({
            "sinks": { "postgres": { "main": { "dsn": table.postgres.dsn(&table.database), "table": "orders" } } },
            "checkpoint": { "interval_seconds": 6 },
        }),
    );
    let mut process = Process::start(&table.scene, &["run"]);
    wait("the first rows are there", || table.rows() == "100");
    assert_eq!(committed(&table.source, 0, &table.scene.group), None, "{}", process.told());
    let mut lock = table.lock(60);
    produce(&table.source, 0, (100..200).map(|id| Row::value(format!("{{\"id\":{id},\"v\":\"x\"}}"))));
    wait("what is settled is committed", || committed(&table.source, 0, &table.scene.group) == Some(100));
    assert!(lock.try_wait().unwrap().is_none(), "the lock was still held");
    process.signal("-KILL");
    process.ended();
    table
        .postgres
        .psql(&table.database, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = 'AccessExclusiveLock'");
    lock.wait().unwrap();
    let mut process = Process::start(&table.scene, &["run", "--until-end"]);
    assert_eq!(process.ended(), Some(0), "{}", process.told());
    table.is_whole(200, &process.told());
}

/// P5: a table with a trigger of 40 ms a row, into which a window never fits within one call's time, gets smaller calls.
#[tokio::test(flavor = "multi_thread")]
async fn s79b_a_slow_table_gets_all_rows() {
    let table = table("slow-table", 900, true).await;
    table.postgres.psql(
        &table.database,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.04); RETURN NEW; END $$; \
         CREATE TRIGGER slow BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let mut process = Process::start(&table.scene, &["run"]);
    let started = std::time::Instant::now();
    while committed(&table.source, 0, &table.scene.group) != Some(900) {
        assert!(started.elapsed() < Duration::from_secs(300), "{}", process.told());
        std::thread::sleep(Duration::from_millis(200));
    }
    process.signal("-TERM");
    assert_eq!(process.ended(), Some(0), "{}", process.told());
    table.is_whole(900, &process.told());
}

/// The values of a topic, each once, in the order in which they came first.
fn firsts(rows: Vec<(i32, i64, Row)>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    let values = rows.into_iter().map(|(_, _, row)| String::from_utf8(row.value.unwrap()).unwrap());
    values.filter(|value| seen.insert(value.clone())).collect()
}

/// K2: a Kafka destination that is gone for longer than its producer's time limit is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_a_kafka_destination_that_is_gone_is_waited_for() {
    let mut own = Broker::start();
    own.create_topic("results", 1, &[]).await;
    let source = topic("to-another-cluster", 1).await;
    let record = |n: i64| Row { key: Some((n % 7).to_string().into_bytes()), ..Row::value(n.to_string()) };
    produce(&source, 0, (0..200).map(record));
    let results = json!({ "topic": "results", "brokers": own.bootstrap() });
    let checkpoint = json!({ "interval_seconds": 0.5 });
    let scene = Scene::new(&source, json!({ "sinks": { "kafka": { "results": results } }, "checkpoint": checkpoint }));
    let mut process = Process::start(&scene, &["run"]);
    // The group has a coordinator then, which can be asked.
    wait("the partition is assigned", || process.told().contains(": assigned partition="));
    wait("the first records are committed", || committed(&source, 0, &scene.group) == Some(200));
    own.kill();
    produce(&source, 0, (200..900).map(record));
    std::thread::sleep(Duration::from_secs(LONGER_THAN_A_CALL.into()));
    assert!(process.told().contains("waiting until it is available"), "{}", process.told());
    own.restart();
    wait("everything is committed", || committed(&source, 0, &scene.group) == Some(900));
    process.signal("-TERM");
    assert_eq!(process.ended(), Some(0), "{}", process.told());
    assert_eq!(contents(&format!("{source}_dlq")).len(), 0, "{}", process.told());
    let expected: Vec<String> = (0..900).map(|n| n.to_string()).collect();
    assert_eq!(firsts(contents_on(&own.bootstrap(), "results")), expected);
}

/// K1: of 203 records a compacted topic refuses the three without a key, and those alone become dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn s79c_a_compacted_destination_costs_the_records_without_a_key() {
    let results = unique("compacted");
    broker().create_topic(&results, 1, &[("cleanup.policy", "compact")]).await;
    let source = topic("some-without-key", 1).await;
    let record = |n: i64| Row { key: (n % 90 != 7).then(|| n.to_string().into_bytes()), ..Row::value(n.to_string()) };
    produce(&source, 0, (0..203).map(record));
    let scene =
        Scene::new(&source, json!({ "sinks": { "kafka": { "results": { "topic": results } } }, "checkpoint": {} }));
    let told = scene.done(&["run", "--until-end"]);
    assert_eq!(contents(&format!("{source}_dlq")).len(), 3, "{}", told.err);
    let expected: Vec<String> = (0..203).filter(|n| n % 90 != 7).map(|n| n.to_string()).collect();
    let mut written = firsts(contents(&results));
    written.sort_by_key(|value| value.parse::<i64>().unwrap());
    assert_eq!(written, expected);
}
