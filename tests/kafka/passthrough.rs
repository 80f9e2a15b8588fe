//! No collector and no code: topics to tables, collections, keys and files, with all that topics hold.

use std::collections::BTreeMap;

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use super::binary::Scene;
use super::help::{Row, committed, contents, produce, topic};
use crate::support::servers::{Mongo, Postgres, Redis};

const TABLE: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, total numeric, placed timestamptz, items jsonb); \
                     ALTER TABLE orders OWNER TO tidegate";

fn row(key: &str, value: Option<&str>) -> Row {
    Row { key: Some(key.into()), value: value.map(Into::into), ..Row::default() }
}

/// S67, S89, `topics`, `on_tombstone`, `on_error`: each sink takes what it can of its topics, and says of each record that it
/// cannot take why, alone.
#[tokio::test]
async fn records_go_to_the_sinks_of_their_topics() {
    let (postgres, redis, mongo) = (Postgres::start(), Redis::start(), Mongo::start());
    let database = postgres.database("app");
    postgres.psql(&database, TABLE);
    let (orders, views) = (topic("orders", 1).await, topic("views", 1).await);
    let copies = topic("copies", 1).await;
    let first = r#"{"id":1,"total":19.90,"placed":"2026-01-31T12:00:00+01:00","items":[{"sku":"a"}]}"#;
    let second = r#"{"id": 2, "total": 12345678901234567890.5}"#;
    produce(
        &orders,
        0,
        [
            row("1", Some(first)),
            row("2", Some(second)),
            row("3", Some("no json")),
            row("4", Some(r#"{"id":4,"total":"much"}"#)),
            row("1", None),
            row("5", Some(r#"{"id":5,"colour":"red"}"#)),
            row("6", Some(r#"{"id":6,"id":7}"#)),
            row("2", Some(r#"{"id":2,"total":3}"#)),
        ],
    );
    produce(&views, 0, [row("v", Some(r#"{"page":"/"}"#))]);
    let scene = Scene::new(
        &orders,
        json!({
            "dlq": { "topic": topic("letters", 1).await },
            "sinks": {
                "postgres": { "main": {
                    "dsn": postgres.dsn(&database), "table": "orders", "key": ["id"], "on_tombstone": "delete", "topics": [orders],
                } },
                "mongo": { "archive": {
                    "uri": mongo.uri(), "database": "app", "collection": "orders", "on_tombstone": "skip", "topics": [orders],
                } },
                "redis": { "cache": {
                    "url": redis.url(0), "key_prefix": "order:", "on_tombstone": "delete", "on_error": "skip", "topics": [orders],
                } },
                "filesystem": { "log": { "base_path": "files", "topics": [views] } },
                "kafka": { "copies": { "topic": copies } },
            },
        }),
    );
    let mut scene = scene;
    scene.change(json!({ "kafka": {
        "brokers": super::help::broker().bootstrap(), "group": scene.group, "source_topics": [orders, views],
    } }));
    scene.done(&["run", "--until-end"]);
    assert_eq!((committed(&orders, 0, &scene.group), committed(&views, 0, &scene.group)), (Some(8), Some(1)));

    // The tombstone took the first order away; the second one's new total left the rest of its row alone.
    let rows = postgres.psql(&database, "SELECT id, total, placed, items FROM orders ORDER BY id");
    assert_eq!(rows, "2|3||");
    let client = mongodb::Client::with_uri_str(mongo.uri()).await.unwrap();
    let archive = client.database("app").collection::<Document>("orders");
    assert_eq!(archive.count_documents(doc! {}).await.unwrap(), 5);
    assert_eq!(archive.count_documents(doc! { "colour": "red" }).await.unwrap(), 1);
    let mut keys: Vec<String> = redis.cli(&["--raw", "KEYS", "*"]).lines().map(str::to_owned).collect();
    keys.sort();
    assert_eq!(keys, ["order:2", "order:4", "order:5", "order:6"]);
    assert_eq!(redis.cli(&["--raw", "GET", "order:6"]).trim_end(), r#"{"id":6,"id":7}"#);
    assert_eq!(scene.file(format!("{views}-0.jsonl")), b"{\"page\":\"/\"}\n");
    assert!(scene.file(format!("{orders}-0.jsonl")).is_empty());
    let copied = contents(&copies);
    assert_eq!(copied.len(), 9);
    assert!(copied.iter().any(|(_, _, row)| row.key.as_deref() == Some(b"1") && row.value.is_none()));

    // What was refused, by sink: Redis gave up its one, Kafka takes everything.
    let mut refused: BTreeMap<String, Vec<(Value, String)>> = BTreeMap::new();
    let letters = scene.done(&["dlq", "list", "--json"]);
    let letters: Value = serde_json::from_str(&letters.out).unwrap();
    for letter in letters["letters"].as_array().unwrap_or_else(|| panic!("{letters}")) {
        let text = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
        refused.entry(text("sink")).or_default().push((letter["record"].clone(), text("error")));
    }
    let told: Vec<(String, usize)> = refused.iter().map(|(sink, letters)| (sink.clone(), letters.len())).collect();
    assert_eq!(told, [("mongo/archive".to_owned(), 2), ("postgres/main".to_owned(), 4)], "{letters}");
    let why = |sink: &str, what: &str| {
        assert!(refused[sink].iter().any(|(_, error)| error.contains(what)), "{sink}: `{what}` is missing: {letters}");
    };
    why("postgres/main", "not valid JSON");
    why("postgres/main", "`total`");
    why("postgres/main", "`colour`");
    why("postgres/main", "`id` twice");
    why("mongo/archive", "not valid JSON");
    why("mongo/archive", "`id` twice");

    // S90: the letter says the table although the record named none, and a replay after the cause is mended brings it there.
    postgres.psql(&database, "ALTER TABLE orders ADD COLUMN colour text");
    let replayed = scene.run(&["dlq", "replay", "--sink", "postgres/main", "--error", "colour"]);
    assert_eq!(replayed.code, Some(0), "{}{}", replayed.out, replayed.err);
    assert_eq!(postgres.psql(&database, "SELECT colour FROM orders WHERE id = 5"), "red");
}
