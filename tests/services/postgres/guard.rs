//! `upsert.guard`: the newest row of a key stays, whoever writes.

use tidegate::sink::postgres::Upsert;

use super::*;

fn guarded(options: Options) -> Options {
    keyed(&["id"], Options { upsert: Upsert { guard: "written_at".into() }, ..options })
}

fn place(stem: &str) -> Place {
    Place::new(stem, "CREATE TABLE t (id int PRIMARY KEY, v text, written_at bigint)")
}

/// Rows of one key each, made of the records at these offsets; without a value a tombstone.
fn made(rows: &[(i64, i32, Option<&str>)]) -> Arc<Batch> {
    let mut batch = Batch::new(TopicPartition::new("orders", 0));
    for (offset, id, value) in rows {
        let value = value.map(|value| format!("{{\"id\":{id},\"v\":\"{value}\"}}"));
        batch.push(*offset, -1, Some(id.to_string().as_bytes()), value.as_deref().map(str::as_bytes));
    }
    Arc::new(batch)
}

/// S128: what an owner writes that was replaced long ago changes nothing, and counts as written.
#[tokio::test]
async fn s128_an_older_row_replaces_none() {
    let place = place("guard");
    place.sql("INSERT INTO t VALUES (9, 'from before there was a guard', NULL)");
    let sink = place.sink(deleting(guarded(place.options()))).await;
    let rows = [(5, 1, Some("new")), (6, 2, Some("new")), (7, 9, Some("new"))];
    assert_eq!(sink.deliver(&made(&rows)).await, Ok(vec![]));
    // A repetition, an older row, a newer one; and in one call several of a key, the newest first.
    let again = [(5, 1, Some("again")), (4, 2, Some("old")), (8, 9, Some("newer")), (7, 9, Some("older"))];
    assert_eq!(sink.deliver(&made(&again)).await, Ok(vec![]));
    let all = "SELECT id, v, written_at FROM t ORDER BY id";
    assert_eq!(place.sql(all), "1|again|5\n2|new|6\n9|newer|8");
    // A tombstone deletes what is not newer than itself.
    assert_eq!(sink.deliver(&made(&[(4, 1, None), (6, 2, None), (9, 9, None)])).await, Ok(vec![]));
    assert_eq!(place.sql(all), "1|again|5");
    // A replayed dead letter counts by the record that it is about and not by its own offset.
    let mut replayed = Batch::clone(&made(&[(100, 1, Some("replayed")), (101, 3, Some("replayed"))]));
    replayed.versions = vec![3, 4];
    assert_eq!(sink.deliver(&Arc::new(replayed)).await, Ok(vec![]));
    assert_eq!(place.sql(all), "1|again|5\n3|replayed|4");
}

/// S128: the owner writes the log, and beside it one that does not know that it is none any more writes parts of it, the last
/// of them when the owner is done. The newest of every key stays, also through rows that the server refuses.
#[tokio::test(flavor = "multi_thread")]
async fn s128_two_owners_leave_the_newest_of_every_key() {
    let place = place("owners");
    place.sql("ALTER TABLE t ADD CHECK (v <> 'bad')");
    let log: Vec<(i64, i32, Option<&str>)> = (0..400)
        .map(|n| (n, i32::try_from(n * 7 % 23).unwrap(), Some(if n % 50 == 3 { "bad" } else { "v" })))
        .collect();
    let sinks = [place.sink(guarded(place.options())).await, place.sink(guarded(place.options())).await];
    let done = std::sync::atomic::AtomicBool::new(false);
    let write = async |sink: &PostgresSink, part: std::ops::Range<usize>| {
        let bad = rejected(sink.deliver(&made(&log[part])).await);
        assert!(bad.len() <= 1, "{bad:?}");
    };
    let owner = async {
        for at in (0..log.len()).step_by(20) {
            write(&sinks[0], at..at + 20).await;
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let zombie = async {
        let mut random = fastrand::Rng::with_seed(7);
        let mut last = false;
        while !last {
            last = done.load(std::sync::atomic::Ordering::Relaxed);
            let at = random.usize(0..300);
            write(&sinks[1], at..at + random.usize(1..40)).await;
        }
    };
    tokio::join!(owner, zombie);
    let newest = |id| log.iter().rev().find(|row| row.1 == id && row.2 != Some("bad")).unwrap().0;
    let expected: Vec<String> = (0..23).map(|id| format!("{id}|{}", newest(id))).collect();
    assert_eq!(place.sql("SELECT id, written_at FROM t ORDER BY id"), expected.join("\n"));
}

/// S106, S124: a guard that cannot be one is told at start, and where a payload names its own table, by its row.
#[tokio::test]
async fn a_guard_that_cannot_be_one_is_told() {
    let place = Place::new(
        "noguard",
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE small (id int PRIMARY KEY, v text, written_at int)",
    );
    let refused = |options: Options| PostgresSink::new("main", &options).unwrap_err();
    let keyless = refused(Options { key: Vec::new(), ..guarded(place.options()) });
    assert!(keyless.message.contains("guards nothing") && keyless.hint.is_some(), "{keyless}");
    let both = refused(keyed(&["written_at"], guarded(place.options())));
    assert!(both.message.contains("a column of the key"), "{both}");
    let odd = Upsert { guard: "a b".into() };
    assert!(refused(Options { upsert: odd, ..guarded(place.options()) }).message.contains("cannot be a column"));
    let sink = PostgresSink::new("main", &guarded(place.options())).unwrap();
    let Err(CallError::Fatal(fault)) = sink.connect().await else { panic!("it connects") };
    assert_eq!(fault.owner, Owner::Config);
    assert_eq!(fault.hint.unwrap(), "add it: ALTER TABLE \"t\" ADD COLUMN \"written_at\" bigint");
    place.sql("ALTER TABLE t ADD COLUMN written_at bigint");
    sink.connect().await.unwrap();
    let elsewhere = batch(&[(None, Some(r#"{"id":1,"v":"x"}"#), Some("small"))]);
    assert!(refusal(sink.deliver(&elsewhere).await).contains("no column `written_at` of type `bigint`"));
    let own = refusal(sink.deliver(&values(&[r#"{"id":1,"written_at":5}"#])).await);
    assert!(own.contains("Tidegate fills itself"), "{own}");
}
