//! What becomes of rows.

use super::*;

/// S105: what a value becomes is its column's affair, digit for digit.
#[tokio::test]
async fn s105_types_land() {
    let place = Place::new(
        "types",
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, b text);
         CREATE DOMAIN doc AS jsonb; CREATE DOMAIN named AS text NOT NULL;
         CREATE TABLE t (id serial, n numeric, b bigint, at timestamptz, day date, j json, jb jsonb, d doc, s text, v varchar(3),
            yes bool, u uuid, ints int[], texts text[], docs jsonb[], m mood, p pair, bytes bytea, f float8, c named DEFAULT 'x')",
    );
    let sink = place.sink(place.options()).await;
    let row = r#"{"n":12345678901234567890.1234567890,"b":9223372036854775807,"at":"2026-01-02T03:04:05+02:00","day":"2026-01-02",
        "j":{"z":1.10,  "a":[1e400]},"jb":{"z":1.10,"a":"\u00fc"},"d":[1],"s":"it's \"x\" \\ \u00fc\n","v":"abc","yes":true,
        "u":"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11","ints":[[1,2],[3,4]],"texts":["a",null,"b,c"],"docs":[{"a":1},[2]],
        "m":"glad","p":{"a":1,"b":"x"},"bytes":"\\x00ff","f":"NaN"}"#;
    assert_eq!(sink.deliver(&values(&[row, "{\"s\":1.50}", "{\"n\":null}"])).await, Ok(vec![]));
    assert_eq!(
        place.sql(
            "SELECT n, b, at AT TIME ZONE 'UTC', day, j, jb, d, v, yes, u, ints, texts, docs, m, p, bytes, f, c FROM t WHERE id = 1"
        ),
        "12345678901234567890.1234567890|9223372036854775807|2026-01-02 01:04:05|2026-01-02|{\"z\":1.10,  \"a\":[1e400]}|\
         {\"a\": \"ü\", \"z\": 1.10}|[1]|abc|t|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|{{1,2},{3,4}}|{a,NULL,\"b,c\"}|\
         {\"{\\\"a\\\": 1}\",[2]}|glad|(1,x)|\\x00ff|NaN|x"
    );
    assert_eq!(place.sql("SELECT s = E'it''s \"x\" \\\\ ü\\n' FROM t WHERE id = 1"), "t");
    assert_eq!(place.sql("SELECT id, s, n IS NULL FROM t WHERE id > 1 ORDER BY id"), "2|1.50|t\n3||t");
}

/// S107: the server would store the text of a nested value; a column that takes none refuses it, by name.
#[tokio::test]
async fn s107_nested_values_go_into_documents_only() {
    let place = Place::new(
        "nested",
        "CREATE TYPE pair AS (a int, b text);
         CREATE TABLE t (s text, n int, j json, jb jsonb, ints int[], texts text[], p pair)",
    );
    let sink = place.sink(place.options()).await;
    let bad = [
        (r#"{"s":{"a":1}}"#, "s"),
        (r#"{"s":[1]}"#, "s"),
        (r#"{"n":[]}"#, "n"),
        (r#"{"ints":{"a":1}}"#, "ints"),
        (r#"{"texts":[{"a":1}]}"#, "texts"),
        (r#"{"texts":[["a",[{"a":1}]]]}"#, "texts"),
        (r#"{"p":[1,"x"]}"#, "p"),
    ];
    for (row, column) in bad {
        let reason = refusal(sink.deliver(&values(&[row])).await);
        assert!(reason.contains(&format!("column `{column}` of table `t` is of type")), "{reason}");
    }
    let good = r#"{"j":{"a":[{}]},"jb":[[{}]],"ints":[[1],[2]],"texts":["{\"a\":1}"],"p":{"a":1}}"#;
    assert_eq!(sink.deliver(&values(&[good])).await, Ok(vec![]));
    assert_eq!(place.sql("SELECT * FROM t"), "||{\"a\":[{}]}|[[{}]]|{{1},{2}}|{\"{\\\"a\\\":1}\"}|(1,)");
    // S107: no field, no column; and what cannot be told from outside.
    assert!(refusal(sink.deliver(&values(&["{}"])).await).contains("no field"));
    assert!(refusal(sink.deliver(&values(&[r#"{"n":1,"n":2}"#])).await).contains("`n` twice"));
    assert!(refusal(sink.deliver(&values(&[r#"{"x":1}"#])).await).contains("no column `x`"));
    assert!(refusal(sink.deliver(&batch(&[(None, None, None)])).await).contains("null"));
}

/// S76, S108: good rows land exactly once, in their order, and each bad one says which column and why.
#[tokio::test]
async fn s108_bad_rows_do_not_take_their_neighbours_with_them() {
    let place = Place::new(
        "bad",
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1);
         CREATE TABLE t (place serial, id int UNIQUE, n int, big bigint, d date, s text, jb jsonb, must text NOT NULL DEFAULT 'x',
            small varchar(3), pos int CHECK (pos > 0), parent int REFERENCES parent,
            later int REFERENCES parent DEFERRABLE INITIALLY DEFERRED, made int GENERATED ALWAYS AS (n + 1) STORED,
            own int GENERATED ALWAYS AS IDENTITY);
         CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.s = 'no' THEN RAISE 'never %', NEW.s; END IF;
            IF NEW.s = 'code' THEN RAISE 'own' USING ERRCODE = 'TG001'; END IF; RETURN NEW; END $$;
         CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION no()",
    );
    let sink = place.sink(place.options()).await;
    let bad = [
        (r#"{"s":"x","n":"NaN"}"#, "column `n` of table `t`", "22P02"),
        (r#"{"s":"x","n":1.5}"#, "column `n` of table `t`", "22P02"),
        (r#"{"s":"x","big":9223372036854775808}"#, "column `big` of table `t`", "22003"),
        (r#"{"s":"x","d":"2026-02-30"}"#, "column `d` of table `t`", "22008"),
        (r#"{"n":1,"s":"a\u0000b"}"#, "column `s` of table `t`", "22P05"),
        (r#"{"n":1,"jb":{"a":"\u0000"}}"#, "column `jb` of table `t`", "22P05"),
        (r#"{"n":1,"s":"\ud800"}"#, "hex escape", ""),
        (r#"{"n":1,"small":"abcd"}"#, "column `small` of table `t`", "22001"),
        (r#"{"n":1,"must":null}"#, "column `must` of table `t`", "23502"),
        (r#"{"n":1,"pos":-1}"#, "t_pos_check", "23514"),
        (r#"{"n":1,"parent":7}"#, "column `parent` of table `t`", "23503"),
        (r#"{"n":1,"later":8}"#, "column `later` of table `t`", "23503"),
        (r#"{"n":1,"id":100}"#, "column `id` of table `t`", "23505"),
        (r#"{"n":1,"s":"no"}"#, "never no", "P0001"),
        (r#"{"n":1,"s":"code"}"#, "own", "TG001"),
        (r#"{"n":1,"made":1}"#, "column `made` of table `t` is filled by the server itself", ""),
        (r#"{"n":1,"own":1}"#, "column `own` of table `t` is filled by the server itself", ""),
    ];
    place.sql("INSERT INTO t (id) VALUES (100)");
    let mut rows = Vec::new();
    for (number, (row, ..)) in bad.iter().enumerate() {
        rows.push(format!(r#"{{"id":{number},"s":"good"}}"#));
        rows.push((*row).to_owned());
        rows.push(format!(r#"{{"n":{number},"s":"good"}}"#));
    }
    let told = rejected(sink.deliver(&values(&rows)).await);
    assert_eq!(told.len(), bad.len(), "{told:#?}");
    for ((index, reason), (number, (row, part, code))) in told.iter().zip(bad.iter().enumerate()) {
        assert_eq!(*index as usize, number * 3 + 1, "{row}");
        assert!(reason.contains(part) && reason.contains(code), "{row}: {reason}");
    }
    assert_eq!(place.sql("SELECT count(*), count(DISTINCT id), count(n) FROM t WHERE s = 'good'"), "34|17|17");
    assert_eq!(
        place.sql("SELECT string_agg(id::text, ',' ORDER BY place) FROM t WHERE s = 'good' AND id IS NOT NULL"),
        (0..17).map(|n| n.to_string()).collect::<Vec<_>>().join(",")
    );
    // Numbers of any length fit where the column says so.
    place.sql("ALTER TABLE t ADD wide numeric");
    assert_eq!(sink.deliver(&values(&[r#"{"wide":123456789012345678901234567890}"#])).await, Ok(vec![]));
}

/// S108: a constraint that only COMMIT looks at counts per row too.
#[tokio::test]
async fn s108_a_deferred_constraint_refuses_its_rows_only() {
    let place = Place::new(
        "deferred",
        "CREATE TABLE p (id int PRIMARY KEY);
         CREATE TABLE t (id int, up int REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
    );
    let sink = place.sink(place.options()).await;
    let rows = batch(&[
        (None, Some(r#"{"id":1,"up":5}"#), None),
        (None, Some(r#"{"id":2,"up":6}"#), None),
        (None, Some(r#"{"id":5}"#), Some("p")),
    ]);
    // Among themselves the rows of a call may come in any order, as long as none is bad.
    place.sql("INSERT INTO p VALUES (6)");
    assert_eq!(sink.deliver(&rows).await, Ok(vec![]));
    assert!(refusal(sink.deliver(&values(&[r#"{"id":3,"up":5}"#, r#"{"id":4,"up":9}"#])).await).contains("23503"));
    assert_eq!(place.sql("SELECT string_agg(id::text, ',' ORDER BY id) FROM t"), "1,2,3");
}

/// S106: names are ASCII identifiers in full, whatever the server would do with others.
#[tokio::test]
async fn s106_identifiers() {
    let place = Place::new(
        "names",
        "CREATE TABLE \"select\" (\"from\" int, \"Case\" int); CREATE TABLE t (n int); CREATE SCHEMA app; CREATE TABLE app.t (n int);
         CREATE TABLE \"users\n\" (n int); CREATE TABLE \"üsers\" (n int); CREATE TABLE \"app.t\" (n int)",
    );
    let sink = place.sink(place.options()).await;
    let long = "x".repeat(64);
    let tables = ["users\n", "üsers", "usеrs", "t\"", "t; DROP TABLE t", "app.t", "1t", " t", "t ", &long];
    for table in tables {
        let reason = refusal(sink.deliver(&batch(&[(None, Some(r#"{"n":1}"#), Some(table))])).await);
        assert!(reason.contains("cannot be a table's name"), "{reason}");
        let field = serde_json::to_string(table).unwrap();
        let reason = refusal(sink.deliver(&values(&[format!("{{{field}:1}}")])).await);
        assert!(reason.contains("cannot be a column's name"), "{reason}");
    }
    assert!(refusal(sink.deliver(&batch(&[(None, Some(r#"{"n":1}"#), Some("absent"))])).await).contains("`absent`"));
    let legal = batch(&[
        (None, Some(r#"{"from":1,"Case":2}"#), Some("select")),
        (None, Some(r#"{"n":1}"#), Some("")),
        (None, Some(r#"{"case":1}"#), Some("select")),
    ]);
    assert!(refusal(sink.deliver(&legal).await).contains("no column `case`"));
    assert_eq!(place.sql("SELECT * FROM \"select\", t"), "1|2|1");
    // A missing table is looked for again.
    place.sql("SET ROLE tidegate; CREATE TABLE absent (n int)");
    assert_eq!(sink.deliver(&batch(&[(None, Some(r#"{"n":1}"#), Some("absent"))])).await, Ok(vec![]));

    let sink = place.sink(Options { qualified_tables: true, table: "app.t".into(), ..place.options() }).await;
    let qualified = |table| batch(&[(None, Some(r#"{"n":7}"#), table)]);
    assert_eq!(sink.deliver(&qualified(None)).await, Ok(vec![]));
    assert_eq!(sink.deliver(&qualified(Some("public.t"))).await, Ok(vec![]));
    for table in ["app.t\n", "a.b.c", "app.", ".t", "app.\"t\""] {
        assert!(refusal(sink.deliver(&qualified(Some(table))).await).contains("cannot be a table's name"), "{table}");
    }
    assert_eq!(
        place.sql("SELECT sum(n) FROM app.t UNION ALL SELECT sum(n) FROM t UNION ALL SELECT sum(n) FROM \"app.t\""),
        "7\n8"
    );
    for (table, key) in [("t\n", "id"), ("t", "id\n"), ("t", "id\"")] {
        assert!(PostgresSink::new("main", &keyed(&[key], Options { table: table.into(), ..place.options() })).is_err());
    }
}

/// A column that came later is no reason to refuse a row, and one that went is.
#[tokio::test]
async fn a_table_may_change_while_rows_arrive() {
    let place = Place::new("changing", "CREATE TABLE t (a int, b int)");
    let sink = place.sink(place.options()).await;
    assert_eq!(sink.deliver(&values(&[r#"{"a":1,"b":1}"#])).await, Ok(vec![]));
    place.sql("ALTER TABLE t ADD c int; ALTER TABLE t ALTER a TYPE bigint");
    assert_eq!(sink.deliver(&values(&[r#"{"a":1,"c":1}"#, r#"{"a":4294967296,"b":1}"#])).await, Ok(vec![]));
    place.sql("ALTER TABLE t DROP b");
    assert!(refusal(sink.deliver(&values(&[r#"{"a":1}"#, r#"{"a":1,"b":1}"#])).await).contains("no column `b`"));
    place.sql("DROP TABLE t; CREATE TABLE t (b text, a text)");
    place.sql("ALTER TABLE t OWNER TO tidegate");
    assert_eq!(sink.deliver(&values(&[r#"{"a":"x","b":1}"#])).await, Ok(vec![]));
    place.sql("DROP TABLE t");
    assert!(refusal(sink.deliver(&values(&[r#"{"a":"x","b":1}"#])).await).contains("there is no table `t`"));
    place.sql("CREATE TABLE t (a text)");
    let told = sink.deliver(&values(&vec![r#"{"a":"x"}"#; 100])).await.unwrap();
    assert!(told.len() == 100 && told[0].reason.contains("permission denied"), "{:?}", told[0]);
}

/// With `key` the later row wins, whatever columns it has and however its key is written, and twice is as once.
#[tokio::test]
async fn s76a_upserts_keep_their_order() {
    let place = Place::new("upserts", "CREATE TABLE t (id int PRIMARY KEY, a int, b int, count int DEFAULT 0)");
    let sink = place.sink(keyed(&["id"], place.options())).await;
    assert!(sink.description().idempotent);
    let rows = values(&[
        r#"{"id":1,"a":1,"b":1}"#,
        r#"{"id":2,"a":1,"b":1}"#,
        r#"{"id":1,"a":2}"#,
        r#"{"id":1,"a":3,"b":3}"#,
        r#"{"b":4,"id":1,"a":4}"#,
        r#"{"id":2,"b":2}"#,
        r#"{"id":"2","b":3}"#,
        r#"{"id":3}"#,
        r#"{"id":" 3","a":5}"#,
        r#"{"id":3,"a":6}"#,
        r#"{"id":"03","a":7}"#,
        r#"{"id":3,"b":8}"#,
    ]);
    for _ in 0..2 {
        assert_eq!(sink.deliver(&rows).await, Ok(vec![]));
        assert_eq!(place.sql("SELECT id, a, b FROM t ORDER BY id"), "1|4|4\n2|1|3\n3|7|8");
    }
    // The last of a key may be bad: then the one before it counts.
    let rows = values(&[r#"{"id":1,"a":10}"#, r#"{"id":1,"a":11}"#, r#"{"id":1,"a":"x"}"#, r#"{"id":4,"a":1}"#]);
    let told = rejected(sink.deliver(&rows).await);
    assert!(told.len() == 1 && told[0].0 == 2 && told[0].1.contains("column `a`"), "{told:?}");
    assert_eq!(place.sql("SELECT id, a FROM t WHERE id IN (1, 4) ORDER BY id"), "1|11\n4|1");
    for row in [r#"{"a":1}"#, r#"{"id":null,"a":1}"#] {
        assert!(refusal(sink.deliver(&values(&[row])).await).contains("the key column `id`"));
    }
}

/// Keys that only the server knows to be the same.
#[tokio::test]
async fn s76a_keys_that_are_the_same_only_to_the_server() {
    let place = Place::new(
        "same",
        "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE t (k text COLLATE nocase, n numeric, a int, b int, PRIMARY KEY (k, n))",
    );
    let sink = place.sink(keyed(&["n", "k"], place.options())).await;
    let rows = values(&[
        r#"{"k":"x","n":1,"a":1}"#,
        r#"{"k":"X","n":1.0,"a":2}"#,
        r#"{"k":"x","n":1,"b":3}"#,
        r#"{"k":"X","n":1e0,"a":4}"#,
        r#"{"k":"y","n":1,"a":9}"#,
    ]);
    assert_eq!(sink.deliver(&rows).await, Ok(vec![]));
    assert_eq!(place.sql("SELECT lower(k), a, b FROM t ORDER BY 1"), "x|4|3\ny|9|");
}

/// A seeded comparison with writing row by row.
#[tokio::test]
async fn s76a_any_mixture_ends_as_row_by_row() {
    let place = Place::new("mixture", "CREATE TABLE t (id int PRIMARY KEY, a int, b int)");
    let sink = place.sink(deleting(keyed(&["id"], place.options()))).await;
    let mut dice = tidegate::clock::dice(7);
    for _ in 0..30 {
        let mut expected = std::collections::BTreeMap::<u32, (Option<u32>, Option<u32>)>::new();
        let mut rows = Vec::new();
        for number in 0..40_u32 {
            let id = dice.u32(0..4);
            let row = expected.get(&id).copied().unwrap_or_default();
            let written =
                if dice.bool() { id.to_string() } else { format!("\"{}{id}\"", if dice.bool() { "0" } else { "" }) };
            let (value, after) = match dice.u32(0..5) {
                0 => (Some(format!(r#"{{"id":{written},"a":{number}}}"#)), Some((Some(number), row.1))),
                1 => (Some(format!(r#"{{"b":{number},"id":{written}}}"#)), Some((row.0, Some(number)))),
                2 => (
                    Some(format!(r#"{{"id":{written},"a":{number},"b":{number}}}"#)),
                    Some((Some(number), Some(number))),
                ),
                3 => (None, None),
                _ => (Some(format!(r#"{{"id":{written},"a":"bad"}}"#)), expected.get(&id).copied()),
            };
            match after {
                Some(after) => expected.insert(id, after),
                None => expected.remove(&id),
            };
            rows.push((id.to_string(), value));
        }
        let rows: Vec<_> = rows.iter().map(|(key, value)| (Some(key.as_str()), value.as_deref(), None)).collect();
        place.sql("TRUNCATE t");
        for (index, reason) in rejected(sink.deliver(&batch(&rows)).await) {
            assert!(rows[index as usize].1.is_some_and(|value| value.contains("bad")), "{reason}");
        }
        let shown = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
        let lines: Vec<_> = expected.iter().map(|(id, (a, b))| format!("{id}|{}|{}", shown(*a), shown(*b))).collect();
        assert_eq!(place.sql("SELECT id, a, b FROM t ORDER BY id"), lines.join("\n"), "{rows:?}");
    }
}

#[tokio::test]
async fn tombstones_delete_what_their_key_says() {
    let place = Place::new(
        "deletes",
        "CREATE TABLE t (id text PRIMARY KEY, a int); CREATE TABLE two (x int, y text, PRIMARY KEY (x, y));
         INSERT INTO t VALUES ('7'), ('a'), ('b'), ('c'), ('kept'); INSERT INTO two VALUES (1, 'a'), (1, 'b')",
    );
    let sink = place.sink(deleting(keyed(&["id"], place.options()))).await;
    let rows = batch(&[
        (Some("7"), None, None),
        (Some("a"), None, None),
        (Some("\"b\""), None, None),
        (Some(r#"{"id":"c"}"#), None, None),
        (Some("absent"), None, None),
        (None, None, None),
        (Some("a"), Some(r#"{"id":"a","a":2}"#), None),
        (Some("kept"), Some(r#"{"id":"kept","a":1}"#), None),
        (Some("gone"), Some(r#"{"id":"gone","a":1}"#), None),
        (Some("gone"), None, None),
        (Some("a\0"), None, None),
    ]);
    let told = rejected(sink.deliver(&rows).await);
    assert_eq!(told.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [5, 10], "{told:?}");
    assert!(told[1].1.contains("column `id`"), "{told:?}");
    assert_eq!(place.sql("SELECT * FROM t ORDER BY id"), "a|2\nkept|1");
    let two = Options { table: "two".into(), ..place.options() };
    let sink = place.sink(deleting(keyed(&["y", "x"], two))).await;
    let rows = batch(&[(Some(r#"{"x":1,"y":"a"}"#), None, None), (Some("1"), None, None)]);
    assert!(refusal(sink.deliver(&rows).await).contains("no JSON object"));
    assert_eq!(place.sql("SELECT * FROM two"), "1|b");
}
