//! Whether a row, a table or the server is the cause, and that no other row has to suffer for it (S79a–S79c).

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};

use super::*;

/// Rows `{"n": …}` without a table of their own, and one that is `odd`.
fn among(count: usize, odd: &str) -> Arc<Batch> {
    let mut rows: Vec<String> = (0..count).map(|n| format!("{{\"n\":{n}}}")).collect();
    rows.insert(count / 2, odd.to_owned());
    values(&rows)
}

fn kinds(answer: Answer) -> Vec<(u32, FailureKind)> {
    answer.unwrap().into_iter().map(|failure| (failure.index, failure.kind)).collect()
}

fn unavailable(rows: std::ops::Range<u32>) -> Vec<(u32, FailureKind)> {
    rows.map(|row| (row, FailureKind::Unavailable)).collect()
}

/// A session of somebody else, in whose transaction these statements were run. Dropping it ends the transaction.
async fn other(place: &Place, sql: &'static str) -> PgConnection {
    let mut other = PgConnection::connect(&place.server.admin_dsn(&place.database)).await.unwrap();
    other.execute(sqlx::raw_sql(sql)).await.unwrap();
    other
}

/// The sink's address with a setting for its sessions.
fn with(place: &Place, setting: &str) -> Options {
    Options { dsn: format!("{}?options=-c%20{setting}", place.options().dsn), ..place.options() }
}

/// P1: row-level security refuses one row with the code of a missing privilege.
#[tokio::test]
async fn s79c_row_level_security_refuses_its_row_only() {
    let place = Place::new(
        "security",
        "CREATE TABLE t (n int); ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
         CREATE POLICY p ON t USING (true) WITH CHECK (n >= 0)",
    );
    let sink = place.sink(place.options()).await;
    let told = rejected(sink.deliver(&among(200, r#"{"n":-1}"#)).await);
    assert!(told.len() == 1 && told[0].0 == 100 && told[0].1.contains("42501"), "{told:?}");
    assert_eq!(place.sql("SELECT count(*), sum(n) FROM t"), "200|19900");
}

/// A privilege that was taken away from the configured table is for the operator to give back; a table that the rows
/// name is their
/// choice. Neither costs the other table's rows.
#[tokio::test]
async fn s79a_a_missing_privilege_is_of_its_table() {
    let place = Place::new("privilege", "CREATE TABLE t (n int); CREATE TABLE named (n int)");
    let sink = place.sink(place.options()).await;
    let row = |table| (None, Some(r#"{"n":1}"#), table);
    let rows = batch(&[row(None), row(Some("named")), row(None), row(Some("named"))]);
    place.sql("ALTER TABLE named OWNER TO postgres");
    assert_eq!(rejected(sink.deliver(&rows).await).iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(place.sql("SELECT count(*) FROM t"), "2");
    place.sql("ALTER TABLE named OWNER TO tidegate; ALTER TABLE t OWNER TO postgres");
    for rows in [&rows, &batch(&[row(None)])] {
        let failures = sink.deliver(rows).await.unwrap();
        assert!(failures.iter().all(|failure| failure.kind == FailureKind::Unavailable), "{failures:?}");
        assert!(failures.iter().all(|failure| failure.index % 2 == 0 && failure.reason.contains("42501")));
        assert_eq!(failures.len(), rows.len().div_ceil(2));
    }
    assert_eq!(place.sql("SELECT (SELECT count(*) FROM t), count(*) FROM named"), "2|2");
}

/// P2: an extension's type says with an internal error what it cannot read.
#[tokio::test]
async fn s79b_an_internal_error_is_of_the_row_where_others_pass() {
    let place = Place::new("extension", "CREATE EXTENSION hstore; CREATE TABLE t (n int, h hstore)");
    let sink = place.sink(place.options()).await;
    let odd = r#"{"n":-1,"h":"a=>"}"#;
    let mut rows = vec![r#"{"n":1,"h":"a=>b"}"#; 200];
    rows.insert(77, odd);
    let rows = values(&rows);
    let failures = sink.deliver(&rows).await.unwrap();
    assert_eq!(failures.len(), 1, "{failures:?}");
    // Later versions of the extension give it a code of its own, by which it never will be written.
    let expected = if failures[0].reason.contains("XX000") { FailureKind::Retry } else { FailureKind::Reject };
    assert_eq!((failures[0].index, failures[0].kind), (77, expected));
    assert!(failures[0].reason.contains("column `h` of table `t`"), "{failures:?}");
    assert_eq!(place.sql("SELECT count(*), count(h) FROM t"), "200|200");
    // Alone it is still the row that fails.
    assert_eq!(kinds(sink.deliver(&Arc::new(rows.select(&[77]))).await), [(0, expected)]);
    // Where nothing passes, it may as well be the server.
    if expected == FailureKind::Retry {
        for rows in [vec![odd], vec![odd; 100]] {
            assert!(
                matches!(sink.deliver(&values(&rows)).await, Err(CallError::Unknown(fault)) if fault.to_string().contains("XX000"))
            );
        }
    }
    assert_eq!(place.sql("SELECT count(*) FROM t"), "200");
}

/// P3: a table that a migration locks keeps its rows waiting, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_a_locked_table_is_unavailable() {
    let place = Place::new("migration", "CREATE TABLE t (n int PRIMARY KEY); CREATE TABLE free (n int PRIMARY KEY)");
    let mut rows: Vec<_> = (0..200).map(|n| (format!("{{\"n\":{n}}}"), None)).collect();
    rows.extend((200..210).map(|n| (format!("{{\"n\":{n}}}"), Some("free"))));
    let rows = batch(&rows.iter().map(|(row, table)| (None, Some(row.as_str()), *table)).collect::<Vec<_>>());
    for options in [place.options(), keyed(&["n"], place.options()), keyed(&["n"], with(&place, "lock_timeout%3D50ms"))]
    {
        let sink = place.sink(options).await;
        let locked = other(&place, "BEGIN; LOCK TABLE t").await;
        let failures = sink.deliver(&rows).await.unwrap();
        assert!(failures.iter().all(|failure| failure.reason.contains("55P03")), "{failures:?}");
        assert_eq!(kinds(Ok(failures)), unavailable(0..200));
        assert_eq!(place.sql("SELECT count(*) FROM free"), "10");
        locked.close().await.unwrap();
        let open = Arc::new(rows.select(&(0..200).collect::<Vec<_>>()));
        assert_eq!(sink.deliver(&open).await, Ok(vec![]));
        assert_eq!(place.sql("SELECT count(*), sum(n) FROM t"), "200|19900");
        place.sql("TRUNCATE t, free");
    }
}

/// The wait for a lock is bounded by the transaction's own setting, which a role's replaces.
#[tokio::test]
async fn s77_a_lock_is_waited_for_within_a_call() {
    let place = Place::new("patience", "CREATE TABLE t (n int, wait text DEFAULT current_setting('lock_timeout'))");
    for options in [place.options(), with(&place, "lock_timeout%3D9s")] {
        let sink = place.sink(Options { max_connections: 1, ..options }).await;
        assert_eq!(sink.deliver(&values(&[r#"{"n":1}"#])).await, Ok(vec![]));
    }
    assert_eq!(place.sql("SELECT string_agg(wait, ',' ORDER BY wait) FROM t"), "5s,9s");
}

/// Calls that are given up while a table is locked leave no process of the server behind that waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn s77_calls_that_are_given_up_do_not_pile_up_behind_a_lock() {
    let place = Place::new("pile", "CREATE TABLE t (n int)");
    let sink = place.sink(place.options()).await;
    let locked = other(&place, "BEGIN; LOCK TABLE t").await;
    let one = values(&[r#"{"n":1}"#]);
    let waiting = "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
        WHERE NOT granted AND datname = current_database()";
    for _ in 0..4 {
        assert!(tokio::time::timeout(Duration::from_millis(200), sink.deliver(&one)).await.is_err());
    }
    assert_ne!(place.sql(waiting), "0");
    // The lock is held on.
    while place.sql(waiting) != "0" {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    locked.close().await.unwrap();
    assert_eq!(place.sql("SELECT count(*) FROM t"), "0");
}

/// P4: one row that another session holds keeps itself waiting, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn s79a_a_locked_row_is_unavailable_alone() {
    let place =
        Place::new("row", "CREATE TABLE t (n int PRIMARY KEY, v int); INSERT INTO t SELECT generate_series(0, 199)");
    let sink = place.sink(keyed(&["n"], with(&place, "lock_timeout%3D100ms"))).await;
    let locked = other(&place, "BEGIN; SELECT FROM t WHERE n = 77 FOR UPDATE").await;
    let rows: Vec<_> = (0..200).map(|n| format!("{{\"n\":{n},\"v\":1}}")).collect();
    let failures = sink.deliver(&values(&rows)).await.unwrap();
    assert!(failures.len() == 1 && failures[0].reason.contains("55P03"), "{failures:?}");
    assert_eq!(kinds(Ok(failures)), unavailable(77..78));
    assert_eq!(place.sql("SELECT count(v) FROM t"), "199");
    assert_eq!(kinds(sink.deliver(&values(&rows[77..78])).await), unavailable(0..1));
    locked.close().await.unwrap();
    assert_eq!(sink.deliver(&values(&rows[77..78])).await, Ok(vec![]));
    assert_eq!(place.sql("SELECT count(v) FROM t"), "200");
}

/// S76a: rows of a locked key that stand behind its first one wait with it, in whatever statement they are.
#[tokio::test(flavor = "multi_thread")]
async fn s76a_rows_of_a_key_do_not_overtake_one_that_is_locked() {
    let place = Place::new(
        "behind",
        "CREATE TABLE t (n int PRIMARY KEY, v int, w int); INSERT INTO t SELECT generate_series(0, 9);
         CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.v = -1 THEN RAISE 'odd' USING ERRCODE = 'XX000'; END IF; RETURN NEW; END $$;
         CREATE TRIGGER odd BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION odd()",
    );
    let sink = place.sink(deleting(keyed(&["n"], with(&place, "lock_timeout%3D50ms")))).await;
    let locked = other(&place, "BEGIN; SELECT FROM t WHERE n = 3 FOR UPDATE").await;
    let write = |value| (None, Some(value), None);
    let rows = batch(&[
        write(r#"{"n":1,"v":1}"#),
        write(r#"{"n":3,"v":1}"#),
        write(r#"{"n":3,"w":2}"#),
        (Some("3"), None, None),
        write(r#"{"n":5,"v":-1}"#),
        write(r#"{"n":5,"w":2}"#),
        (Some("1"), None, None),
    ]);
    let expected = [(1, FailureKind::Unavailable), (2, FailureKind::Unavailable), (3, FailureKind::Unavailable)];
    let behind = [(4, FailureKind::Retry), (5, FailureKind::NotTried)];
    let mut told = kinds(sink.deliver(&rows).await);
    told.sort_by_key(|(row, _)| *row);
    assert_eq!(told, [&expected[..], &behind].concat());
    assert_eq!(place.sql("SELECT count(*), count(w), count(v) FROM t"), "9|0|0");
    locked.close().await.unwrap();
    assert_eq!(sink.deliver(&Arc::new(rows.select(&[1, 2, 3]))).await, Ok(vec![]));
    assert_eq!(place.sql("SELECT count(*) FROM t"), "8");
}

/// So many locked rows that looking for each would take longer than a call: those that are not looked for wait as well.
#[tokio::test(flavor = "multi_thread")]
async fn s79c_the_search_for_locked_rows_has_an_end() {
    let place =
        Place::new("rows", "CREATE TABLE t (n int PRIMARY KEY, v int); INSERT INTO t SELECT generate_series(0, 399)");
    let sink = place.sink(keyed(&["n"], with(&place, "lock_timeout%3D20ms"))).await;
    let locked = other(&place, "BEGIN; SELECT FROM t WHERE n % 4 = 0 FOR UPDATE").await;
    let rows: Vec<_> = (0..400).map(|n| format!("{{\"n\":{n},\"v\":1}}")).collect();
    let failures = sink.deliver(&values(&rows)).await.unwrap();
    assert!(failures.iter().all(|failure| failure.kind == FailureKind::Unavailable), "{failures:?}");
    assert!(failures.len() >= 100 && failures.len() < 400, "{}", failures.len());
    let written: usize = place.sql("SELECT count(v) FROM t").parse().unwrap();
    assert_eq!(written + failures.len(), 400);
    locked.close().await.unwrap();
}

/// P5: a statement that runs out of time, or is cancelled, is no refusal: fewer rows may fit.
#[tokio::test(flavor = "multi_thread")]
async fn s79b_a_statement_out_of_time_is_a_timeout() {
    let place = Place::new(
        "slow",
        "CREATE TABLE t (n int);
         CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.04); RETURN NEW; END';
         CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait()",
    );
    let rows: Vec<_> = (0..60).map(|n| format!("{{\"n\":{n}}}")).collect();
    let sink = place.sink(Options { max_connections: 1, ..with(&place, "statement_timeout%3D1200ms") }).await;
    let Err(CallError::Timeout(fault)) = sink.deliver(&values(&rows)).await else { panic!("it had not the time") };
    assert!(fault.owner == Owner::Destination && fault.to_string().contains("57014"), "{fault}");
    for part in rows.chunks(10) {
        assert_eq!(sink.deliver(&values(part)).await, Ok(vec![]));
    }
    assert_eq!(place.sql("SELECT count(*), sum(n) FROM t"), "60|1770");

    let sink = Arc::new(place.sink(place.options()).await);
    let call = {
        let (sink, rows) = (Arc::clone(&sink), values(&rows));
        tokio::spawn(async move { sink.deliver(&rows).await })
    };
    let running =
        "FROM pg_stat_activity WHERE query LIKE 'INSERT%' AND state = 'active' AND datname = current_database()";
    while place.sql(&format!("SELECT count(*) {running}")) != "1" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    place.sql(&format!("SELECT pg_cancel_backend(pid) {running}"));
    assert!(matches!(call.await.unwrap(), Err(CallError::Timeout(_))));
    assert_eq!(place.sql("SELECT count(*) FROM t"), "60");
}

/// P10: a table that refuses by its nature does not cost another table's rows.
#[tokio::test]
async fn s79c_a_table_that_refuses_costs_no_other() {
    let place = Place::new(
        "nature",
        "CREATE TABLE t (n int PRIMARY KEY); CREATE TABLE published (n int UNIQUE); INSERT INTO published VALUES (1), (2);
         CREATE PUBLICATION p FOR TABLE published",
    );
    let sink = place.sink(deleting(keyed(&["n"], place.options()))).await;
    let rows = batch(&[
        (None, Some(r#"{"n":1}"#), None),
        (Some("1"), None, Some("published")),
        (Some("2"), None, Some("published")),
        (None, Some(r#"{"n":2}"#), None),
    ]);
    let told = rejected(sink.deliver(&rows).await);
    assert_eq!(told.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [1, 2]);
    assert!(told.iter().all(|(_, reason)| reason.contains("55000") && reason.contains("`published`")), "{told:?}");
    assert_eq!(place.sql("SELECT (SELECT count(*) FROM t), count(*) FROM published"), "2|2");
}

/// What the server did not expect of a whole table: the other table's rows are written, and each row is judged alone.
#[tokio::test]
async fn s79b_rows_that_all_fail_unexpectedly_are_unknown_unless_others_pass() {
    let place = Place::new(
        "unexpected",
        "CREATE TABLE t (n int); CREATE TABLE sound (n int);
         CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'odd' USING ERRCODE = TG_ARGV[0]; END $$;
         CREATE TRIGGER odd BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION odd('XX000')",
    );
    let sink = place.sink(place.options()).await;
    let row = |table| (None, Some(r#"{"n":1}"#), table);
    let both = batch(&[row(Some("sound")), row(None), row(None), row(Some("sound"))]);
    assert_eq!(kinds(sink.deliver(&both).await), [(1, FailureKind::Retry), (2, FailureKind::Retry)]);
    assert_eq!(place.sql("SELECT count(*) FROM sound"), "2");
    assert!(matches!(sink.deliver(&batch(&[row(None); 3])).await, Err(CallError::Unknown(_))));
    // A disk that is full, a file that cannot be read, a server behind a foreign table.
    for code in ["53100", "58030", "08001", "HV00N"] {
        place.sql(&format!(
            "DROP TRIGGER odd ON t; CREATE TRIGGER odd BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION odd('{code}'); TRUNCATE sound"
        ));
        assert_eq!(kinds(sink.deliver(&both).await), unavailable(1..3), "{code}");
        assert_eq!(place.sql("SELECT count(*) FROM sound"), "2", "{code}");
    }
    for (code, unknown) in [("53200", true), ("57P03", false), ("40001", false)] {
        place.sql(&format!(
            "DROP TRIGGER odd ON t; CREATE TRIGGER odd BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION odd('{code}')"
        ));
        let answer = sink.deliver(&both).await;
        assert!(
            if unknown {
                matches!(answer, Err(CallError::Unknown(_)))
            } else {
                matches!(answer, Err(CallError::Unavailable(_)))
            },
            "{code}: {answer:?}"
        );
    }
}
