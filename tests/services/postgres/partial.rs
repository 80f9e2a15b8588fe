//! Rows that name only some of the columns that a new row has to have (P6).

use super::*;

const ORDERS: &str =
    "CREATE TABLE t (id int PRIMARY KEY, customer text NOT NULL, status text NOT NULL DEFAULT 'new', n int);
    INSERT INTO t VALUES (1, 'ann'), (2, 'bob'), (3, 'cid')";

/// P6: a partial row changes the row that is there; where none is there, it is refused with the column that it lacks.
#[tokio::test]
async fn s76a_a_partial_row_updates_what_is_there() {
    let place = Place::new("partial", ORDERS);
    let sink = place.sink(keyed(&["id"], place.options())).await;
    let paid: Vec<_> = (1..=5).map(|id| format!(r#"{{"id":{id},"status":"paid"}}"#)).collect();
    for _ in 0..2 {
        let told = rejected(sink.deliver(&values(&paid)).await);
        assert_eq!(told.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [3, 4]);
        assert!(told[0].1.contains("column `customer`") && told[0].1.contains("no row of its key"), "{told:?}");
        assert_eq!(place.sql("SELECT * FROM t ORDER BY id"), "1|ann|paid|\n2|bob|paid|\n3|cid|paid|");
    }
    // Only the key: it is there, or it is not.
    let told = rejected(sink.deliver(&values(&[r#"{"id":1}"#, r#"{"id":9}"#])).await);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].0, place.sql("SELECT count(*) FROM t").as_str()), (1, "3"));
    // Null is a value, and none that the column takes.
    assert!(refusal(sink.deliver(&values(&[r#"{"id":1,"customer":null}"#])).await).contains("column `customer`"));
}

/// S76a: whole and partial rows of a key count in the order in which they came, whoever tells that the keys are the same.
#[tokio::test]
async fn s76a_partial_rows_keep_their_order_among_whole_ones() {
    let place = Place::new("partial_order", ORDERS);
    let sink = place.sink(deleting(keyed(&["id"], place.options()))).await;
    let rows = batch(&[
        (None, Some(r#"{"id":7,"n":1}"#), None),
        (None, Some(r#"{"id":7,"customer":"gil","n":2}"#), None),
        (None, Some(r#"{"id":"07","n":3}"#), None),
        (None, Some(r#"{"id":7,"status":"paid"}"#), None),
        (None, Some(r#"{"id":1,"n":1}"#), None),
        (None, Some(r#"{"id":"01","n":2}"#), None),
        (None, Some(r#"{"id":1,"n":3}"#), None),
        (None, Some(r#"{"id":" 1","n":4}"#), None),
        (Some("2"), None, None),
        (None, Some(r#"{"id":2,"n":5}"#), None),
        (None, Some(r#"{"id":3,"n":6}"#), None),
        (None, Some(r#"{"id":3,"n":"bad"}"#), None),
    ]);
    let told = rejected(sink.deliver(&rows).await);
    assert_eq!(told.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 9, 11], "{told:?}");
    assert_eq!(place.sql("SELECT * FROM t ORDER BY id"), "1|ann|new|4\n3|cid|new|6\n7|gil|paid|3");

    // Keys of a type that only the server compares, all in one call.
    place.sql("SET ROLE tidegate; CREATE TABLE p (n numeric PRIMARY KEY, a text NOT NULL, b int); INSERT INTO p VALUES (1, 'x'), (2, 'y')");
    let rows = values(&[
        r#"{"n":1,"b":1}"#,
        r#"{"n":2,"b":7}"#,
        r#"{"n":1.0,"b":2}"#,
        r#"{"n":1,"b":3}"#,
        r#"{"n":1.00,"b":4}"#,
    ]);
    // However the server joins the rows with those that are there: each way meets them in another order.
    for joins in ["hashjoin", "mergejoin", "nestloop"] {
        let others = ["hashjoin", "mergejoin", "nestloop"].into_iter().filter(|other| *other != joins);
        let off: Vec<String> = others.map(|other| format!("-cenable_{other}%3Doff")).collect();
        let dsn = format!("{}?options={}", place.server.dsn(&place.database), off.join("%20"));
        let sink = place.sink(keyed(&["n"], Options { table: "p".into(), dsn, ..place.options() })).await;
        assert_eq!(sink.deliver(&rows).await, Ok(vec![]));
        assert_eq!(place.sql("SELECT b FROM p ORDER BY n"), "4\n7", "{joins}");
        place.sql("UPDATE p SET b = 0");
    }
}

/// S128: a partial row of an older offset changes nothing, and is none that finds no row.
#[tokio::test]
async fn s128_a_partial_row_is_guarded_as_a_whole_one() {
    let place =
        Place::new("partial_guard", "CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL, b int, written_at bigint)");
    place.sql("INSERT INTO t VALUES (1, 'x', 0, 5), (2, 'y', 0, NULL), (3, 'z', 0, 1)");
    let upsert = tidegate::sink::postgres::Upsert { guard: "written_at".into() };
    let sink = place.sink(keyed(&["id"], Options { upsert, ..place.options() })).await;
    let rows = values(&[r#"{"id":4,"b":1}"#, r#"{"id":1,"b":1}"#, r#"{"id":2,"b":1}"#, r#"{"id":3,"b":1}"#]);
    assert_eq!(rejected(sink.deliver(&rows).await).iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0]);
    assert_eq!(place.sql("SELECT b, written_at FROM t ORDER BY id"), "0|5\n1|2\n1|3");
}

/// A trigger may give a new row what it lacks; a domain may demand or give it.
#[tokio::test]
async fn s76a_a_partial_row_that_the_server_completes_is_inserted() {
    let place = Place::new(
        "completed",
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.a := coalesce(NEW.a, ''filled''); RETURN NEW; END';
        CREATE DOMAIN named AS text NOT NULL; CREATE DOMAIN given AS text NOT NULL DEFAULT 'given';
        CREATE TABLE t (id int PRIMARY KEY, a text NOT NULL, b int, c given);
        CREATE TABLE d (id int PRIMARY KEY, a named, b int); INSERT INTO d VALUES (1, 'x');
        CREATE TRIGGER fill BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION fill()",
    );
    let sink = place.sink(keyed(&["id"], place.options())).await;
    let rows = values(&[r#"{"id":1,"b":1}"#, r#"{"id":2,"a":"own","b":1}"#, r#"{"id":1,"b":2}"#]);
    assert_eq!(sink.deliver(&rows).await, Ok(vec![]));
    assert_eq!(place.sql("SELECT * FROM t ORDER BY id"), "1|filled|2|given\n2|own|1|given");
    let sink = place.sink(keyed(&["id"], Options { table: "d".into(), ..place.options() })).await;
    assert_eq!(rejected(sink.deliver(&values(&[r#"{"id":1,"b":3}"#, r#"{"id":2,"b":3}"#])).await).len(), 1);
    assert_eq!(place.sql("SELECT * FROM d"), "1|x|3");
}
