//! Destinations that are there and do not take rows for a while, with default options: everything arrives, late, and nothing is
//! dead-lettered.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::binary::{Process, Scene, wait};
use super::help::{Row, committed, contents, produce, topic};
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
