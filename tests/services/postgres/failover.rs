//! Servers that are no longer the one that writes, and addresses that change.

use std::time::Duration;

use tidegate::secret::Secret;
use tidegate::sink::Query as _;

use super::*;

const T: &str = "CREATE TABLE t (id int PRIMARY KEY, a int)";

fn numbered(from: usize, count: usize) -> Arc<Batch> {
    values(&(from..from + count).map(|id| format!("{{\"id\":{id}}}")).collect::<Vec<_>>())
}

/// A server that became read-only and hung up on nobody, as after a failover: one refusal has all connections made anew,
/// not only the one that was refused.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_a_failover_without_a_hang_up_has_every_connection_made_anew() {
    const SLOW: &str =
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END';
        CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait()";
    let server = Postgres::start();
    let database = server.database("demoted");
    server.psql(&database, &format!("SET ROLE tidegate; {T}; {SLOW}"));
    let options = keyed(&["id"], Options { dsn: server.dsn(&database), ..options() });
    let sink = Arc::new(PostgresSink::new("main", &options).unwrap());
    sink.connect().await.unwrap();
    let on_all_connections = async |from: usize| {
        let calls: Vec<_> = (from..from + 4)
            .map(|id| {
                let sink = Arc::clone(&sink);
                tokio::spawn(async move { sink.deliver(&numbered(id, 1)).await })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), Ok(vec![]));
        }
        let pids = "SELECT pid FROM pg_stat_activity WHERE usename = 'tidegate' ORDER BY pid";
        server.psql(&database, pids).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = on_all_connections(0).await;
    assert_eq!(before.len(), 4);
    server.psql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on");
    server.psql("postgres", "SELECT pg_reload_conf()");
    // A session takes notice before its next command.
    while server.psql("postgres", "SHOW default_transaction_read_only") != "on" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = unavailable(sink.deliver(&numbered(9, 1)).await);
    assert!(told.contains("25006"), "{told}");
    server.psql("postgres", "ALTER SYSTEM RESET default_transaction_read_only");
    server.psql("postgres", "SELECT pg_reload_conf()");
    while server.psql("postgres", "SHOW default_transaction_read_only") != "off" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = on_all_connections(10).await;
    assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
    assert_eq!(server.psql(&database, "SELECT count(*) FROM t"), "8");
}

/// Connections on which the server says nothing at all any more, as behind a firewall that forgot them: one is waited for,
/// and all are made anew.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_connections_that_went_silent_are_made_anew() {
    let place = Place::new("silent", T);
    let sink = Arc::new(place.sink(keyed(&["id"], place.options())).await);
    let lock = "BEGIN; LOCK t IN SHARE MODE; SELECT pg_sleep(1)";
    let calls: Vec<_> = (0..4)
        .map(|id| {
            let sink = Arc::clone(&sink);
            tokio::spawn(async move { sink.deliver(&numbered(id, 1)).await })
        })
        .collect();
    place.sql(lock);
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(vec![]));
    }
    let pids = place.sql(
        "SELECT pid FROM pg_stat_activity WHERE usename = 'tidegate' AND datname = current_database() AND state = 'idle'",
    );
    let pids: Vec<&str> = pids.lines().collect();
    assert!(pids.len() > 1, "{pids:?}");
    let signal = |signal: &str| {
        assert!(std::process::Command::new("kill").arg(signal).args(&pids).status().unwrap().success());
    };
    signal("-STOP");
    let answer = sink.deliver(&numbered(4, 1)).await;
    signal("-CONT");
    assert_eq!(answer, Ok(vec![]));
    assert_eq!(place.sql("SELECT count(*) FROM t"), "5");
}

/// Nothing is prepared on a connection that a restart, a pooler or a changed table could take away.
#[tokio::test]
async fn s79a_no_statement_is_prepared_by_name() {
    let place = Place::new(
        "unprepared",
        "CREATE FUNCTION prepared() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM pg_prepared_statements';
        CREATE TABLE t (id int PRIMARY KEY, a int, prepared bigint DEFAULT prepared())",
    );
    let sink = place.sink(keyed(&["id"], Options { max_connections: 1, ..place.options() })).await;
    assert_eq!(sink.deliver(&numbered(0, 10)).await, Ok(vec![]));
    assert_eq!(rejected(sink.deliver(&values(&[r#"{"id":10}"#, r#"{"id":"bad"}"#])).await).len(), 1);
    place.sql("ALTER TABLE t ALTER id TYPE bigint");
    assert_eq!(sink.deliver(&numbered(11, 10)).await, Ok(vec![]));
    assert_eq!(place.sql("SELECT count(*), sum(prepared) FROM t"), "21|0");
}

/// S121: a password that is rotated is read again from its file when the server lets nobody in with the old one, by rows and
/// by plugins' statements.
#[tokio::test(flavor = "multi_thread")]
async fn s121_a_rotated_password_is_read_again() {
    let mut server = Postgres::start();
    let database = server.database("rotated");
    server.psql(&database, &format!("SET ROLE tidegate; {T}"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "secret").unwrap();
    let dsn = server.dsn(&database);
    let secret = {
        let (dsn, file) = (dsn.clone(), file.clone());
        Secret::new(move || match std::fs::read_to_string(&file) {
            Ok(password) => Ok(dsn.replace(":secret@", &format!(":{password}@"))),
            Err(error) => Err(tidegate::model::Fault::config("the file cannot be read").because(error)),
        })
    };
    let options = keyed(&["id"], Options { dsn, ..options() });
    let sink = PostgresSink::new("main", &options).unwrap().with_secret(Some(secret));
    sink.connect().await.unwrap();
    assert_eq!(sink.deliver(&numbered(0, 1)).await, Ok(vec![]));
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tidegate'";
    server.psql("postgres", &format!("ALTER ROLE tidegate PASSWORD 'fresh'; {end}"));
    let told = unavailable(sink.deliver(&numbered(1, 1)).await);
    assert!(told.contains("28P01") && !told.contains("fresh"), "{told}");
    std::fs::write(&file, "fresh").unwrap();
    assert_eq!(sink.deliver(&numbered(1, 1)).await, Ok(vec![]));
    // A file that is not there for a moment is waited for.
    server.psql("postgres", &format!("ALTER ROLE tidegate PASSWORD 'third'; {end}"));
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(sink.deliver(&numbered(2, 1)).await, Err(CallError::Unavailable(_))));
    std::fs::write(&file, "third").unwrap();
    assert_eq!(sink.query("SELECT count(*) AS n FROM t", "[]").await.unwrap(), r#"[{"n":2}]"#);
    assert_eq!(sink.deliver(&numbered(2, 1)).await, Ok(vec![]));
    // Rotated while the server was away.
    server.kill();
    unavailable(sink.deliver(&numbered(3, 1)).await);
    server.restart();
    server.psql("postgres", "ALTER ROLE tidegate PASSWORD 'fourth'");
    std::fs::write(&file, "fourth").unwrap();
    assert_eq!(sink.deliver(&numbered(3, 1)).await, Ok(vec![]));
    assert_eq!(server.psql(&database, "SELECT count(*) FROM t"), "4");
}

/// S121: an address in a file that names another server is read again when the one that was named takes no writes, without
/// that it hung up.
#[tokio::test(flavor = "multi_thread")]
async fn s121_an_address_that_moved_is_read_again() {
    let old = Postgres::start();
    let (from, place) = (old.database("moved"), Place::new("moved", T));
    old.psql(&from, &format!("SET ROLE tidegate; {T}"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dsn");
    std::fs::write(&file, old.dsn(&from)).unwrap();
    let secret = {
        let file = file.clone();
        Secret::new(move || {
            std::fs::read_to_string(&file)
                .map_err(|error| tidegate::model::Fault::config("the file cannot be read").because(error))
        })
    };
    let options = keyed(&["id"], Options { dsn: old.dsn(&from), ..options() });
    let sink = PostgresSink::new("main", &options).unwrap().with_secret(Some(secret));
    sink.connect().await.unwrap();
    assert_eq!(sink.deliver(&numbered(0, 1)).await, Ok(vec![]));
    old.psql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on");
    old.psql("postgres", "SELECT pg_reload_conf()");
    while old.psql("postgres", "SHOW default_transaction_read_only") != "on" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(unavailable(sink.deliver(&numbered(1, 1)).await).contains("25006"));
    std::fs::write(&file, place.options().dsn).unwrap();
    let told = sink.deliver(&numbered(1, 1)).await;
    assert_eq!(told, Ok(vec![]));
    assert_eq!(place.sql("SELECT id FROM t"), "1");
    assert_eq!(old.psql(&from, "SELECT id FROM t"), "0");
}

/// P11: an IPv6 address in the DSN, with TLS and without, and a Unix socket.
#[tokio::test]
async fn s124_ipv6_and_unix_sockets_connect() {
    let place = Place::new("sockets", T);
    let (port, database) = (place.server.port(), &place.database);
    let sockets = place.server.sockets().display().to_string();
    let tls = |ca_file| tidegate::sink::tls::Tls { ca_file, ..Default::default() };
    let encoded = sockets.replace('/', "%2F");
    for (number, (dsn, ca_file, how)) in [
        (format!("postgresql://tidegate:secret@[::1]:{port}/{database}?sslmode=disable"), None, "::1|f"),
        (format!("postgresql://tidegate:secret@[::1]:{port}/{database}?sslmode=require"), None, "::1|t"),
        (format!("postgresql://tidegate:secret@[::1]:{port}/{database}"), Some(place.server.ca_file()), "::1|t"),
        (
            format!("postgresql://tidegate:secret@localhost:{port}/{database}?host={sockets}&sslmode=disable"),
            None,
            "|f",
        ),
        (format!("postgresql://tidegate:secret@{encoded}:{port}/{database}"), None, "|f"),
    ]
    .into_iter()
    .enumerate()
    {
        let options = keyed(&["id"], Options { dsn: dsn.clone(), tls: tls(ca_file), ..options() });
        let sink = PostgresSink::new("main", &options).unwrap();
        sink.connect().await.unwrap_or_else(|error| panic!("{dsn}: {error:?}"));
        assert_eq!(sink.deliver(&numbered(number, 1)).await, Ok(vec![]));
        let seen = "SELECT DISTINCT host(client_addr), ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
            WHERE usename = 'tidegate' AND datname = current_database()";
        assert_eq!(place.sql(seen), how, "{dsn}");
        sink.close().await.unwrap();
        while place.sql(&format!("SELECT count(*) FROM ({seen}) AS them")) != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
