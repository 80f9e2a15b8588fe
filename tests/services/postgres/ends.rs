//! Servers that are unavailable, refuse to let us in, or end half-way.

use std::time::Duration;

use super::*;
use crate::support::child::free_port;

async fn refused(options: &Options) -> tidegate::model::Fault {
    let sink = PostgresSink::new("main", options).unwrap();
    let fault = sink.connect().await.unwrap_err().into_fault();
    let told = format!("{fault} {:?} {sink:?}", fault.hint);
    assert!(!told.contains("secret") && !told.contains("guess") && !told.contains("\"tidegate\""), "{told}");
    assert!(fault.hint.is_some(), "{told}");
    fault
}

/// S124, S85: a start says what is wrong, and whose fault it is, without a secret.
#[tokio::test]
async fn s124_connect_proves_server_table_and_key() {
    let place = Place::new(
        "proof",
        "CREATE TABLE t (id int, a int, b int, UNIQUE (a, b)); CREATE UNIQUE INDEX ON t (id) WHERE a > 0;
        CREATE TABLE later (id int UNIQUE DEFERRABLE); CREATE VIEW v AS SELECT * FROM t",
    );
    let port = free_port();
    let nobody = Options { dsn: format!("postgresql://tidegate:secret@127.0.0.1:{port}/app"), ..options() };
    let fault = refused(&nobody).await;
    assert_eq!(fault.owner, Owner::Destination);
    assert!(
        fault.to_string().contains(&format!("`127.0.0.1:{port}/app`")) && fault.to_string().contains("refused"),
        "{fault}"
    );
    let guess = Options { dsn: place.options().dsn.replace("secret", "guess"), ..options() };
    let fault = refused(&guess).await;
    assert!(fault.owner == Owner::Destination && fault.to_string().contains("28P01"), "{fault}");
    let absent = Options { dsn: place.server.dsn("absent"), ..options() };
    assert!(refused(&absent).await.to_string().contains("3D000"));

    let config = async |options: &Options, part: &str| {
        let fault = refused(options).await;
        assert!(fault.owner == Owner::Config && fault.message.contains(part), "{fault}");
        fault
    };
    config(&Options { table: "absent".into(), ..place.options() }, "`sinks.postgres.main.table`").await;
    config(&keyed(&["nope"], place.options()), "`nope`").await;
    for key in [&["id"][..], &["a"], &["a", "b", "id"]] {
        let fault = config(&keyed(key, place.options()), "no unique index").await;
        assert!(fault.hint.unwrap().contains("CREATE UNIQUE INDEX ON \"t\""));
    }
    config(&keyed(&["id"], Options { table: "later".into(), ..place.options() }), "no unique index").await;
    place.sink(keyed(&["b", "a"], place.options())).await;
    place.sink(Options { table: "v".into(), ..place.options() }).await;
}

/// S78: nothing is taken before the sink is connected, nor after it was closed.
#[tokio::test]
async fn s78_an_unconnected_sink_takes_nothing() {
    let place = Place::new("early", "CREATE TABLE t (n int)");
    let sink = PostgresSink::new("main", &place.options()).unwrap();
    assert!(matches!(sink.deliver(&values(&[r#"{"n":1}"#])).await, Err(CallError::Fatal(_))));
    sink.connect().await.unwrap();
    assert_eq!(sink.deliver(&values(&[r#"{"n":1}"#])).await, Ok(vec![]));
    sink.close().await.unwrap();
    assert!(sink.deliver(&values(&[r#"{"n":1}"#])).await.is_err());
    assert_eq!(place.sql("SELECT count(*) FROM t"), "1");
}

/// TLS as configured: the authority is believed, and no other.
#[tokio::test]
async fn tls_believes_the_configured_authority_only() {
    let place = Place::new("tls", "CREATE TABLE t (pid int DEFAULT pg_backend_pid(), n int)");
    let tls = |file| tidegate::sink::tls::Tls { ca_file: Some(file), ..Default::default() };
    let sink = place.sink(Options { tls: tls(place.server.ca_file()), ..place.options() }).await;
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'tidegate' AND datname = current_database()";
    assert_eq!(sink.deliver(&values(&[r#"{"n":1}"#])).await, Ok(vec![]));
    assert_eq!(place.sql(encrypted), "t");

    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.pem");
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=other",
            "-keyout",
            "/dev/null",
            "-out",
        ])
        .arg(&other)
        .output()
        .unwrap();
    assert!(made.status.success());
    let fault = refused(&Options { tls: tls(other), ..place.options() }).await;
    assert_eq!(fault.owner, Owner::Destination, "{fault}");
}

fn numbered(from: usize, count: usize) -> Arc<Batch> {
    values(&(from..from + count).map(|n| format!("{{\"n\":{n}}}")).collect::<Vec<_>>())
}

/// A server that is killed and comes back, between and during calls: unavailable as long as it is, and then all rows
/// arrive.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_a_killed_server_is_unavailable_and_loses_nothing() {
    let mut server = Postgres::start();
    let database = server.database("killed");
    server.psql(&database, "SET ROLE tidegate; CREATE TABLE t (n int PRIMARY KEY, once int DEFAULT 1)");
    let options = keyed(&["n"], Options { dsn: server.dsn(&database), ..options() });
    let sink = Arc::new(PostgresSink::new("main", &options).unwrap());
    sink.connect().await.unwrap();
    assert_eq!(sink.deliver(&numbered(0, 10)).await, Ok(vec![]));
    server.kill();
    let told = unavailable(sink.deliver(&numbered(10, 10)).await);
    assert!(told.contains(&format!("127.0.0.1:{}/{database}", server.port())), "{told}");
    server.restart();
    assert_eq!(sink.deliver(&numbered(10, 10)).await, Ok(vec![]));

    // During a call: a lock holds its statement until the server goes.
    server.psql(
        &database,
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.02); RETURN NEW; END';
        CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait()",
    );
    let slow = {
        let sink = Arc::clone(&sink);
        tokio::spawn(async move { sink.deliver(&numbered(20, 200)).await })
    };
    tokio::time::sleep(Duration::from_millis(1000)).await;
    server.kill();
    unavailable(slow.await.unwrap());
    server.restart();
    server.psql(&database, "DROP TRIGGER wait ON t");
    assert_eq!(server.psql(&database, "SELECT count(*) FROM t"), "20");
    assert_eq!(sink.deliver(&numbered(20, 200)).await, Ok(vec![]));
    assert_eq!(server.psql(&database, "SELECT count(*), sum(n) FROM t"), "220|24090");
}

/// Whether a transaction was written whose COMMIT was never answered, nobody knows. With a key that makes no
/// difference.
#[tokio::test(flavor = "multi_thread")]
async fn s28_a_commit_without_an_answer_is_unknown() {
    let sql = "CREATE TABLE t (n int PRIMARY KEY);
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NEW; END';
        CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()";
    let place = Place::new("unknown", sql);
    for key in [&[][..], &["n"]] {
        let sink = Arc::new(place.sink(keyed(key, place.options())).await);
        let call = {
            let sink = Arc::clone(&sink);
            tokio::spawn(async move { sink.deliver(&numbered(0, 2)).await })
        };
        let waiting =
            "FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active' AND datname = current_database()";
        while place.sql(&format!("SELECT count(*) {waiting}")) != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        place.sql(&format!("SELECT pg_terminate_backend(pid) {waiting}"));
        let answer = call.await.unwrap();
        if key.is_empty() {
            let Err(CallError::Unknown(fault)) = answer else { panic!("{answer:?}") };
            assert!(fault.to_string().contains("did not say whether the rows were written"), "{fault}");
        } else {
            unavailable(answer);
        }
    }
}

/// An operator who ends a connection in the middle of a statement says nothing about its rows.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_a_connection_that_is_ended_is_unavailable() {
    let sql = "CREATE TABLE t (n int);
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NEW; END';
        CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait()";
    let place = Place::new("ended", sql);
    let sink = Arc::new(place.sink(place.options()).await);
    let call = {
        let sink = Arc::clone(&sink);
        tokio::spawn(async move { sink.deliver(&numbered(0, 2)).await })
    };
    let waiting =
        "FROM pg_stat_activity WHERE query LIKE 'INSERT%' AND state = 'active' AND datname = current_database()";
    while place.sql(&format!("SELECT count(*) {waiting}")) != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    place.sql(&format!("SELECT pg_terminate_backend(pid) {waiting}"));
    assert!(unavailable(call.await.unwrap()).contains("57P01"));
    place.sql("DROP TRIGGER wait ON t");
    assert_eq!(sink.deliver(&numbered(0, 2)).await, Ok(vec![]));
    assert_eq!(place.sql("SELECT count(*) FROM t"), "2");
}

/// A password that changed, and a role that may have no more connections, keep rows waiting and refuse none.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_a_refused_login_is_unavailable() {
    let server = Postgres::start();
    let database = server.database("login");
    server.psql(&database, "SET ROLE tidegate; CREATE TABLE t (n int)");
    let options = Options { dsn: server.dsn(&database), ..options() };
    let sink = PostgresSink::new("main", &options).unwrap();
    sink.connect().await.unwrap();
    assert_eq!(sink.deliver(&numbered(0, 1)).await, Ok(vec![]));
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tidegate'";
    server.psql("postgres", &format!("ALTER ROLE tidegate PASSWORD 'other'; {end}"));
    let told = unavailable(sink.deliver(&numbered(1, 1)).await);
    assert!(told.contains("28P01") && !told.contains("\"tidegate\""), "{told}");
    server.psql("postgres", &format!("ALTER ROLE tidegate PASSWORD 'secret' CONNECTION LIMIT 0; {end}"));
    let told = unavailable(sink.deliver(&numbered(1, 1)).await);
    assert!(told.contains("53300") && !told.contains("\"tidegate\""), "{told}");
    server.psql("postgres", "ALTER ROLE tidegate CONNECTION LIMIT -1");
    assert_eq!(sink.deliver(&numbered(1, 1)).await, Ok(vec![]));
    server.psql("postgres", &format!("ALTER ROLE tidegate SET default_transaction_read_only = on; {end}"));
    assert!(unavailable(sink.deliver(&numbered(2, 1)).await).contains("25006"));
    assert_eq!(server.psql(&database, "SELECT count(*) FROM t"), "2");
}

/// A call that is given up leaves nothing behind: no row, no lock, and a sink that goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_leaves_nothing_behind() {
    let place = Place::new("given_up", "CREATE TABLE t (n int)");
    let sink = place.sink(Options { max_connections: 1, ..place.options() }).await;
    assert_eq!(sink.deliver(&numbered(0, 1)).await, Ok(vec![]));
    place.sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';
        CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait()",
    );
    for wait in [1, 50, 300] {
        let given_up = tokio::time::timeout(Duration::from_millis(wait), sink.deliver(&numbered(1, 1))).await;
        assert!(given_up.is_err());
    }
    // The server notices by itself that nobody waits any more.
    let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'tidegate' AND state = 'active'";
    while place.sql(running) != "0" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    place.sql("DROP TRIGGER wait ON t");
    assert_eq!(sink.deliver(&numbered(2, 1)).await, Ok(vec![]));
    assert_eq!(place.sql("SELECT n FROM t ORDER BY n"), "0\n2");
}

/// Others in the way: a deadlock is tried again, a lock that stays keeps the rows waiting.
#[tokio::test(flavor = "multi_thread")]
async fn contention_is_tried_again_a_bounded_number_of_times() {
    let place = Place::new("contended", "CREATE TABLE t (n int PRIMARY KEY, v int)");
    let sink = Arc::new(place.sink(keyed(&["n"], place.options())).await);
    let calls = (0..4).map(|round| {
        let sink = Arc::clone(&sink);
        tokio::spawn(async move {
            for _ in 0..10 {
                let mut rows: Vec<_> = (0..200).map(|n| format!("{{\"n\":{n},\"v\":{round}}}")).collect();
                if round % 2 == 1 {
                    rows.reverse();
                }
                assert_eq!(sink.deliver(&values(&rows)).await, Ok(vec![]));
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    let options =
        Options { dsn: format!("{}?options=-c%20lock_timeout%3D50ms", place.options().dsn), ..place.options() };
    let sink = place.sink(options).await;
    let lock = "BEGIN; LOCK TABLE t; SELECT pg_sleep(6); COMMIT";
    let (server, database) = (place.server, place.database.clone());
    let locked = std::thread::spawn(move || server.psql(&database, lock));
    while place.sql(
        "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'AccessExclusiveLock' AND granted",
    ) != "1"
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let failures = sink.deliver(&numbered(1000, 3)).await.unwrap();
    assert_eq!(failures.len(), 3);
    assert!(
        failures.iter().all(|failure| failure.kind == FailureKind::Unavailable && failure.reason.contains("55P03")),
        "{failures:?}"
    );
    locked.join().unwrap();
}
