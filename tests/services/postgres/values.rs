//! What becomes of each kind of JSON value in each type of column (S107, D1). The table on the sink's page is what the server
//! did here; `TIDEGATE_DOCS=update` writes it.

use super::*;

/// The page, and where the table stands in it.
const PAGE: &str = "docs/sinks/postgres.md";
const BEGIN: &str = "<!-- values: postgres -->\n";
const END: &str = "<!-- end -->";

/// What is written into a column of each type, in the order of the table's columns; a value of the type's own form comes after
/// these.
const VALUES: [(&str, &str); 9] = [
    ("`null`", "null"),
    ("`true`", "true"),
    ("`7`", "7"),
    ("`1.5`", "1.5"),
    ("`12345678901234567890.5`", "12345678901234567890.5"),
    ("`\"7\"`", "\"7\""),
    ("`\"text\"`", "\"text\""),
    ("`{\"a\": 1}`", "{\"a\": 1}"),
    ("`[1, 2]`", "[1, 2]"),
];

/// Types that people use, each with a string in its own form.
const TYPES: [(&str, &str); 27] = [
    ("boolean", "yes"),
    ("smallint", "32767"),
    ("integer", "-7"),
    ("bigint", "9223372036854775807"),
    ("numeric", "1e-7"),
    ("numeric(6,2)", "7.005"),
    ("real", "NaN"),
    ("double precision", "1e300"),
    ("text", "a\\nb"),
    ("varchar(4)", "long  "),
    ("char(4)", "ab"),
    ("json", "[1]"),
    ("jsonb", "[1]"),
    ("bytea", "\\\\x00ff"),
    ("date", "2026-11-25"),
    ("timestamp", "2026-11-25T01:02:03.5+02:00"),
    ("timestamptz", "2026-11-25T01:02:03.5+02:00"),
    ("time", "01:02:03"),
    ("interval", "P1DT2H"),
    ("uuid", "0B0E9F2A-1C7D-4B52-9C0D-3A8C1C8B6F11"),
    ("inet", "::1"),
    ("integer[]", "{3,4}"),
    ("text[]", "{a,NULL}"),
    ("jsonb[]", "{}"),
    ("mood (enum)", "happy"),
    ("hstore", "a=>1"),
    ("point", "(1,2)"),
];

/// A cell of the table: what the server stored, or that it refused the row.
fn cell(stored: &str) -> String {
    match stored {
        "∅" => "NULL".to_owned(),
        stored => format!("`{}`", stored.replace('\n', "⏎").replace('|', "\\|")),
    }
}

#[tokio::test]
async fn s107_every_value_in_every_type_is_as_the_page_says() {
    let place = Place::new("values", "CREATE TYPE mood AS ENUM ('happy', 'sad')");
    place.sql("CREATE EXTENSION hstore");
    let kinds: Vec<&str> = VALUES.iter().map(|(shown, _)| *shown).collect();
    let mut table = format!("| Column | {} | a string of its own form |\n", kinds.join(" | "));
    table.push_str(&"|---".repeat(kinds.len() + 2));
    table.push_str("|\n");
    for (number, (type_name, own)) in TYPES.iter().enumerate() {
        let sql_type = type_name.split(" (").next().unwrap();
        place.sql(&format!("SET ROLE tidegate; CREATE TABLE t{number} (n int, v {sql_type})"));
        let sink = place.sink(Options { table: format!("t{number}"), max_connections: 1, ..place.options() }).await;
        let own = format!("\"{own}\"");
        let rows: Vec<String> = VALUES
            .iter()
            .map(|(_, value)| *value)
            .chain([own.as_str()])
            .enumerate()
            .map(|(n, value)| format!("{{\"n\":{n},\"v\":{value}}}"))
            .collect();
        let failed = sink.deliver(&values(&rows)).await.unwrap();
        let mut line = format!("| `{sql_type}`{} |", type_name.strip_prefix(sql_type).unwrap());
        for n in 0..rows.len() {
            let what = match failed.iter().find(|failure| failure.index as usize == n).map(|failure| failure.kind) {
                Some(FailureKind::Reject) => "reject".to_owned(),
                Some(FailureKind::Retry) => "retry".to_owned(),
                Some(other) => panic!("{other:?}"),
                None => cell(&place.sql(&format!("SELECT coalesce(v::text, '∅') FROM t{number} WHERE n = {n}"))),
            };
            let last = n + 1 == rows.len();
            let shown = if last { format!("`{}` → {what}", own.replace("\\\\", "\\")) } else { what };
            line.push_str(&format!(" {shown} |"));
        }
        table.push_str(&line);
        table.push('\n');
        sink.close().await.unwrap();
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(PAGE);
    let page = std::fs::read_to_string(&file).unwrap();
    let start = page.find(BEGIN).expect("the page has no table of values") + BEGIN.len();
    let end = start + page[start..].find(END).unwrap();
    if std::env::var("TIDEGATE_DOCS").is_ok_and(|what| what == "update") {
        std::fs::write(&file, format!("{}{table}{}", &page[..start], &page[end..])).unwrap();
    } else {
        assert_eq!(&page[start..end], table, "the page is not what the server does: TIDEGATE_DOCS=update writes it");
    }
}

/// D1: values as change feeds encode them, by the column's name, in rows and in keys.
#[tokio::test]
async fn s107_encoded_values_are_decoded() {
    use tidegate::sink::postgres::Encoding::{Base64, EpochDays, EpochMicros, EpochMillis, Json};
    let place = Place::new(
        "encoded",
        "CREATE TABLE t (id bytea PRIMARY KEY, day date, at timestamptz, moment timestamp, body jsonb, plain jsonb, n int)",
    );
    let encodings = [("id", Base64), ("day", EpochDays), ("at", EpochMicros), ("moment", EpochMillis), ("body", Json)];
    let encodings = encodings.map(|(column, encoding)| (column.to_owned(), encoding)).into();
    let options = deleting(keyed(&["id"], Options { encodings, ..place.options() }));
    let sink = place.sink(options.clone()).await;
    let rows = values(&[
        r#"{"id":"AP8=","day":20782,"at":1795568523123456,"moment":-1500,"body":"{\"a\": [1]}","plain":"{}","n":1}"#,
        r#"{"id":"AQ==","day":null,"at":"0","moment":null,"body":{"b":2}}"#,
        r#"{"id":"*","n":3}"#,
        r#"{"id":"Ag==","body":"no JSON"}"#,
        r#"{"id":"Ag==","at":"2026-11-25"}"#,
        r#"{"id":"Ag==","at":9223372036854775807}"#,
        r#"{"id":"AP8=","body":null,"n":2}"#,
    ]);
    let told = rejected(sink.deliver(&rows).await);
    assert_eq!(told.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [2, 3, 4, 5], "{told:?}");
    assert!(told[0].1.contains("column `id`") && told[1].1.contains("column `body`"), "{told:?}");
    assert_eq!(
        place.sql("SET TimeZone = 'UTC'; SELECT * FROM t ORDER BY id"),
        "\\x00ff|2026-11-25|2026-11-25 01:02:03.123456+00|1969-12-31 23:59:58.5||\"{}\"|2\n\\x01||1970-01-01 00:00:00+00||{\"b\": 2}||"
    );
    assert_eq!(sink.deliver(&batch(&[(Some("AQ=="), None, None)])).await, Ok(vec![]));
    assert_eq!(place.sql("SELECT count(*) FROM t"), "1");

    // What cannot be is told at the start.
    for (column, encoding, part) in [("n", Base64, "42846"), ("day", Base64, "42846"), ("gone", Json, "no column")] {
        let encodings = [(column.to_owned(), encoding)].into();
        let sink = PostgresSink::new("main", &Options { encodings, ..options.clone() }).unwrap();
        let fault = sink.connect().await.unwrap_err().into_fault();
        assert!(fault.owner == Owner::Config && fault.to_string().contains(part), "{fault}");
    }
}
