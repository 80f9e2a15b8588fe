//! A connection pooler in front of the server: every transaction may have a session that others use as well.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection, Row as _};
use tidegate::sink::Query as _;

use super::*;
use crate::support::servers::{PgBouncer, PoolMode};

/// Tables of the same shape for pipelines of the same user, and one whose rows are guarded and deleted.
const TABLES: &str =
    "CREATE TABLE a (id int PRIMARY KEY, who text NOT NULL); CREATE TABLE b (id int PRIMARY KEY, who text NOT NULL);
    CREATE TABLE c (id int PRIMARY KEY, who text NOT NULL)";

fn behind(pooler: &PgBouncer, place: &Place, table: &str) -> Options {
    keyed(&["id"], Options { dsn: pooler.dsn(&place.database), table: table.into(), ..options() })
}

/// Rows of one call, of which the last is bad, so that isolation and the look at the catalog are behind the pooler too.
fn rows_of(who: &str, round: usize) -> Arc<Batch> {
    let mut rows: Vec<_> = (0..10).map(|n| format!(r#"{{"id":{},"who":"{who}"}}"#, round * 10 + n)).collect();
    rows.push(format!(r#"{{"id":"bad","who":"{who}"}}"#));
    values(&rows)
}

async fn deliver_rounds(sink: &PostgresSink, who: &str, rounds: std::ops::Range<usize>) {
    for round in rounds {
        assert_eq!(rejected(sink.deliver(&rows_of(who, round)).await).len(), 1);
    }
}

fn all_is_where_it_was_sent(place: &Place, tables: &[&str], rows: usize) {
    for table in tables {
        let counted = place.sql(&format!("SELECT count(*), count(*) FILTER (WHERE who = '{table}') FROM {table}"));
        assert_eq!(counted, format!("{rows}|{rows}"), "{table}");
    }
}

/// P7: several pipelines behind one pooler, with one session of the server for all of them and with a few: each row is in
/// the table that it was sent to, and no good row was refused.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_pipelines_behind_one_pooler_write_to_their_own_tables() {
    const ROUNDS: usize = 15;
    for sessions in [1, 3] {
        let place = Place::new("pooled", TABLES);
        let pooler = PgBouncer::start(place.server, PoolMode::Transaction, sessions, "");
        let mut sinks = Vec::new();
        for table in ["a", "b", "c"] {
            sinks.push((table, Arc::new(place.sink(behind(&pooler, &place, table)).await)));
        }
        // Arranged: whoever comes next gets the session that another one just had.
        for round in 0..ROUNDS {
            for (table, sink) in &sinks {
                deliver_rounds(sink, table, round..round + 1).await;
            }
        }
        // By chance.
        let tasks: Vec<_> = sinks
            .into_iter()
            .map(|(table, sink)| tokio::spawn(async move { deliver_rounds(&sink, table, ROUNDS..2 * ROUNDS).await }))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        all_is_where_it_was_sent(&place, &["a", "b", "c"], 2 * ROUNDS * 10);
    }
}

/// P7: what another client of the pooler leaves in a session of the server changes nothing: settings, rights, temporary
/// tables and prepared statements of the same names.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_what_others_leave_in_a_pooled_session_changes_nothing() {
    let place = Place::new("spoiled", TABLES);
    place.sql("CREATE ROLE nobody_here NOLOGIN; GRANT nobody_here TO tidegate; SET ROLE tidegate; CREATE SCHEMA other; CREATE TABLE other.a (LIKE a);
        CREATE TABLE moments (id int PRIMARY KEY, at timestamptz, day date)");
    let pooler = PgBouncer::start(place.server, PoolMode::Transaction, 1, "");
    let sink = place.sink(behind(&pooler, &place, "a")).await;
    deliver_rounds(&sink, "a", 0..1).await;
    let connect: sqlx::postgres::PgConnectOptions = pooler.dsn(&place.database).parse().unwrap();
    let mut client = PgConnection::connect_with(&connect.extra_float_digits(None)).await.unwrap();
    let left_behind = [
        "SET search_path = other",
        "CREATE TEMPORARY TABLE a (id int PRIMARY KEY, who text NOT NULL)",
        "SET statement_timeout = '1ms'",
        "SET lock_timeout = '1ms'",
        "SET DateStyle = 'SQL, DMY'",
        "SET TimeZone = 'Asia/Tokyo'",
        "PREPARE sqlx_s_1 AS SELECT 1",
        "PREPARE tidegate_query AS SELECT 1",
        "SET ROLE nobody_here",
    ];
    for (round, left) in (1..).zip(left_behind) {
        sqlx::raw_sql(left).execute(&mut client).await.unwrap();
        deliver_rounds(&sink, "a", round..round + 1).await;
    }
    all_is_where_it_was_sent(&place, &["a"], 10 * (1 + left_behind.len()));
    // Nor does the sink leave anything there for others.
    sqlx::raw_sql("DISCARD ALL").execute(&mut client).await.unwrap();
    let settings = "SELECT current_setting('lock_timeout') || current_setting('search_path') || current_setting('client_connection_check_interval')";
    let before: String = sqlx::raw_sql(settings).fetch_one(&mut client).await.unwrap().get(0);
    assert_eq!(before, "0\"$user\", public0");
    deliver_rounds(&sink, "a", 9..10).await;
    let after: String = sqlx::raw_sql(settings).fetch_one(&mut client).await.unwrap().get(0);
    assert_eq!(after, before);
    // A table that was never looked at before is found where the role looks, and values mean what they always do.
    let fresh = place.sink(behind(&pooler, &place, "moments")).await;
    let rows = values(&[r#"{"id":1,"at":"2026-02-03 04:05:06","day":"02/03/2026"}"#]);
    assert_eq!(fresh.deliver(&rows).await, Ok(vec![]));
    assert_eq!(place.sql("SELECT at AT TIME ZONE 'UTC', day FROM moments"), "2026-02-03 04:05:06|2026-02-03");
    assert_eq!(fresh.query("SELECT count(*) AS n FROM a", "[]").await.unwrap(), r#"[{"n":100}]"#);
}

/// P7: a pooler in statement mode gives no transactions: said at the start, with what to do.
#[tokio::test]
async fn s124a_a_pooler_in_statement_mode_is_refused_at_the_start() {
    let place = Place::new("statement_mode", TABLES);
    let pooler = PgBouncer::start(place.server, PoolMode::Statement, 2, "");
    let sink = PostgresSink::new("main", &behind(&pooler, &place, "a")).unwrap();
    let fault = sink.connect().await.unwrap_err().into_fault();
    assert!(fault.owner == Owner::Config && fault.message.contains("statement mode"), "{fault}");
    assert!(fault.hint.as_ref().unwrap().contains("pool_mode = transaction"), "{fault:?}");

    let pooler = PgBouncer::start(place.server, PoolMode::Session, 2, "");
    let sink = place.sink(behind(&pooler, &place, "a")).await;
    deliver_rounds(&sink, "a", 0..2).await;
    all_is_where_it_was_sent(&place, &["a"], 20);
}

/// P7: what a pooler says itself, all with the code of a broken protocol, is told with what to do.
#[tokio::test]
async fn s124a_what_a_pooler_refuses_is_said_with_what_to_do() {
    let place = Place::new("refusals", TABLES);
    let pooler = PgBouncer::start(place.server, PoolMode::Transaction, 2, "");
    let refused = async |dsn: String| {
        let sink = PostgresSink::new("main", &Options { dsn, ..behind(&pooler, &place, "a") }).unwrap();
        let fault = sink.connect().await.unwrap_err().into_fault();
        let told = format!("{fault} {:?}", fault.hint);
        assert!(fault.owner == Owner::Destination && !told.contains("secret") && !told.contains("guess"), "{told}");
        told
    };
    let dsn = pooler.dsn(&place.database);
    let told = refused(format!("{dsn}?options=-csearch_path%3Dother")).await;
    assert!(told.contains("ignore_startup_parameters") && told.contains("ALTER ROLE"), "{told}");
    assert!(refused(dsn.replace("secret", "guess")).await.contains("correct user and password"));
    let told = refused(pooler.dsn("absent")).await;
    assert!(told.contains("create the database"), "{told}");
}

/// Everything that a pooler answers in the server's stead keeps rows waiting and refuses none: all its sessions taken, the
/// server gone, the pooler itself gone.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_a_pooler_without_a_server_is_unavailable() {
    let mut server = Postgres::start();
    let database = server.database("pooled");
    server.psql(&database, &format!("SET ROLE tidegate; {TABLES}"));
    let mut pooler = PgBouncer::start(&server, PoolMode::Transaction, 1, "query_wait_timeout = 1");
    let options = keyed(&["id"], Options { dsn: pooler.dsn(&database), table: "a".into(), ..options() });
    let sink = PostgresSink::new("main", &options).unwrap();
    sink.connect().await.unwrap();
    deliver_rounds(&sink, "a", 0..1).await;
    let connect: sqlx::postgres::PgConnectOptions = pooler.dsn(&database).parse().unwrap();
    let mut client = PgConnection::connect_with(&connect.extra_float_digits(None)).await.unwrap();
    sqlx::raw_sql("BEGIN").execute(&mut client).await.unwrap();
    let told = unavailable(sink.deliver(&rows_of("a", 1)).await);
    assert!(told.contains("query_wait_timeout"), "{told}");
    sqlx::raw_sql("COMMIT").execute(&mut client).await.unwrap();
    deliver_rounds(&sink, "a", 1..2).await;
    server.kill();
    unavailable(sink.deliver(&rows_of("a", 2)).await);
    server.restart();
    let mut waited = Duration::ZERO;
    while let Err(error) = sink.deliver(&rows_of("a", 2)).await {
        assert!(matches!(error, CallError::Unavailable(_)) && waited < Duration::from_secs(30), "{error:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        waited += Duration::from_millis(200);
    }
    pooler.kill();
    unavailable(sink.deliver(&rows_of("a", 3)).await);
    pooler.restart();
    deliver_rounds(&sink, "a", 3..4).await;
    assert_eq!(server.psql(&database, "SELECT count(*), count(*) FILTER (WHERE who = 'a') FROM a"), "40|40");
}

/// A pooler that lets no statement take longer than it likes has said nothing about the rows: fewer may be done in time.
#[tokio::test]
async fn s79b_a_poolers_query_timeout_is_one() {
    let place = Place::new(
        "query_timeout",
        "CREATE TABLE a (id int PRIMARY KEY, who text NOT NULL);
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END';
        CREATE TRIGGER wait BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION wait()",
    );
    let pooler = PgBouncer::start(place.server, PoolMode::Transaction, 1, "query_timeout = 1");
    let sink = place.sink(behind(&pooler, &place, "a")).await;
    let answer = sink.deliver(&rows_of("a", 0)).await;
    assert!(matches!(&answer, Err(CallError::Timeout(_))), "{answer:?}");
    let row = values(&[r#"{"id":0,"who":"a"}"#]);
    assert_eq!(sink.deliver(&row).await, Ok(vec![]));
}

/// P8: what a plugin's statement leaves in a session, which behind a pooler anyone may have next, is gone with its
/// transaction, with a pooler and without.
#[tokio::test(flavor = "multi_thread")]
async fn s109_a_plugin_leaves_nothing_in_a_session() {
    let place = Place::new("leftovers", TABLES);
    let pooler = PgBouncer::start(place.server, PoolMode::Transaction, 1, "");
    let spoiling = [
        "DO $$ BEGIN SET search_path = nowhere; SET statement_timeout = 1; SET TimeZone = 'Asia/Tokyo'; END $$",
        "DO $$ BEGIN EXECUTE 'PREPARE mine AS SELECT 1'; EXECUTE 'PREPARE sqlx_s_1 AS SELECT 1'; END $$",
        "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
        "DO $$ BEGIN PERFORM pg_advisory_lock(7); END $$",
        "DO $$ BEGIN EXECUTE 'LISTEN news'; END $$",
        "DO $$ BEGIN EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT 1'; END $$",
        "CREATE TEMPORARY TABLE a (id int PRIMARY KEY, who text NOT NULL)",
        "CREATE TEMPORARY SEQUENCE s",
        "SELECT set_config('tidegate.mine', 'yes', false)",
        "DO $$ BEGIN EXECUTE 'SET SESSION AUTHORIZATION tidegate'; EXECUTE 'SET ROLE tidegate'; END $$",
    ];
    let left = "SELECT (SELECT count(*) FROM pg_prepared_statements WHERE name <> '') AS statements,
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS locks, (SELECT count(*) FROM pg_cursors WHERE name = 'held') AS cursors,
        (SELECT count(*) FROM pg_listening_channels()) AS channels,
        (SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relname IN ('a', 's')) AS temporary,
        current_setting('search_path') = 'nowhere' AS path, coalesce(current_setting('tidegate.mine', true), '') AS mine";
    let nothing = "0|0|0|0|0|f|";
    for dsn in [pooler.dsn(&place.database), place.server.dsn(&place.database)] {
        let sink = place.sink(Options { max_connections: 1, dsn, ..behind(&pooler, &place, "a") }).await;
        place.sql("TRUNCATE a");
        for (round, statement) in (0..).zip(spoiling) {
            let answer = sink.query(statement, "[]").await;
            assert!(answer.is_ok(), "{statement}: {answer:?}");
            // The next one, in the session that the statement had.
            let answer = sink.query(left, "[]").await.unwrap();
            let answer: Vec<serde_json::Value> = serde_json::from_str(&answer).unwrap();
            let shown: Vec<String> = ["statements", "locks", "cursors", "channels", "temporary", "path", "mine"]
                .iter()
                .map(|name| match &answer[0][*name] {
                    serde_json::Value::Bool(true) => "t".to_owned(),
                    serde_json::Value::Bool(false) => "f".to_owned(),
                    serde_json::Value::String(text) => text.clone(),
                    // The statement that asks is a prepared one itself.
                    number if *name == "statements" => (number.as_i64().unwrap() - 1).to_string(),
                    number => number.to_string(),
                })
                .collect();
            assert_eq!(shown.join("|"), nothing, "after {statement}");
            deliver_rounds(&sink, "a", round..round + 1).await;
        }
        all_is_where_it_was_sent(&place, &["a"], 10 * spoiling.len());
        sink.close().await.unwrap();
    }
    // The sink's own connections are none that a plugin had.
    let sink = place
        .sink(Options { max_connections: 1, dsn: place.server.dsn(&place.database), ..behind(&pooler, &place, "a") })
        .await;
    place.sql(
        "CREATE TABLE pids (id int PRIMARY KEY, pid int DEFAULT pg_backend_pid()); ALTER TABLE pids OWNER TO tidegate",
    );
    let pid = sink.query("SELECT pg_backend_pid() AS pid", "[]").await.unwrap();
    let row = batch(&[(None, Some(r#"{"id":1}"#), Some("pids"))]);
    assert_eq!(sink.deliver(&row).await, Ok(vec![]));
    assert_ne!(pid, format!("[{{\"pid\":{}}}]", place.sql("SELECT pid FROM pids")));
}
