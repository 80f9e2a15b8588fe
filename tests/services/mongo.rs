//! Rows as documents of a real server of MongoDB's protocol (S110).

mod ends;
mod extended;
mod start;

use std::sync::Arc;
use std::time::{Duration, Instant};

use mongodb::bson::{Bson, Document, doc};
use mongodb::options::IndexOptions;
use mongodb::{Client, Collection, IndexModel};
use serde_json::{Value, json};
use tidegate::model::{Batch, CallError, Failure, FailureKind, Owner, TopicPartition};
use tidegate::sink::mongo::MongoSink;
use tidegate::sink::{Sink as _, TOO_LARGE};

use super::help;
use crate::support::servers::Mongo;

type Row<'r> = (Option<&'r str>, Option<&'r str>);

fn batch(first: i64, rows: &[Row<'_>]) -> Arc<Batch> {
    let mut batch = Batch::new(TopicPartition::new("orders", 0));
    for (offset, (key, value)) in (first..).zip(rows) {
        batch.push(offset, 1_700_000_000_000, key.map(str::as_bytes), value.map(str::as_bytes));
    }
    Arc::new(batch)
}

fn values(first: i64, values: &[&str]) -> Arc<Batch> {
    batch(first, &values.iter().map(|value| (None, Some(*value))).collect::<Vec<_>>())
}

fn sink(options: Value) -> MongoSink {
    MongoSink::new("archive", &serde_json::from_value(options).unwrap()).unwrap()
}

/// A connected sink that writes to the collection `rows` of a database of its own, and that collection.
async fn connected(server: &Mongo, mut options: Value) -> (MongoSink, Collection<Document>) {
    let database = server.database("rows");
    options["uri"] = server.uri().into();
    options["database"] = database.clone().into();
    if options.get("collection").is_none() {
        options["collection"] = "rows".into();
    }
    let sink = sink(options);
    sink.connect().await.unwrap();
    (sink, reader(server, &database).await)
}

async fn reader(server: &Mongo, database: &str) -> Collection<Document> {
    Client::with_uri_str(server.uri()).await.unwrap().database(database).collection("rows")
}

async fn found(collection: &Collection<Document>, filter: Document) -> Vec<Document> {
    let mut cursor = collection.find(filter).await.unwrap();
    let mut found = Vec::new();
    while cursor.advance().await.unwrap() {
        found.push(cursor.deserialize_current().unwrap());
    }
    found
}

async fn unique(collection: &Collection<Document>, keys: Document, name: &str) {
    let options = IndexOptions::builder().unique(true).name(name.to_owned()).build();
    collection.create_index(IndexModel::builder().keys(keys).options(options).build()).await.unwrap();
}

fn rejected(failures: &[Failure]) -> Vec<u32> {
    assert!(failures.iter().all(|failure| failure.kind == FailureKind::Reject), "{failures:?}");
    failures.iter().map(|failure| failure.index).collect()
}

/// S110: documents land with their types, and those that cannot be documents are refused alone (S76).
#[tokio::test]
async fn documents_land_and_bad_ones_alone_are_refused_s110() {
    let server = help::mongo();
    let (sink, rows) = connected(server, json!({})).await;
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(16 << 20));
    let batch = values(
        0,
        &[
            r#"{"i":1,"l":5000000000,"d":1.0,"s":"ä","t":true,"z":null,"o":{"b":1,"a":[1,{"x":2.5}]}}"#,
            r#"{"big":9223372036854775808}"#,
            r#"{"far":1e400}"#,
            r#"{"nan":NaN}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"$set":{"a":1}}"#,
            r#"{"a.b":1}"#,
            r#"{"a\u0000":1}"#,
            r#"{"o":{"":1}}"#,
            r#"[1]"#,
            r#"{"half":"\ud800"}"#,
            &large,
            r#"{"i":2}"#,
        ],
    );
    let failures = sink.deliver(&batch).await.unwrap();
    assert_eq!(rejected(&failures), (1..=11).collect::<Vec<_>>(), "{failures:?}");
    assert!(failures[0].reason.contains("`big`") && failures[10].reason.starts_with(TOO_LARGE));
    assert_eq!(rows.count_documents(doc! { "i": 2 }).await.unwrap(), 1);
    let mut found = found(&rows, doc! { "i": { "$ne": 2 } }).await;
    assert_eq!(found.len(), 1);
    assert!(matches!(found[0].remove("_id"), Some(Bson::ObjectId(id)) if id.to_hex().starts_with("6553f100")));
    let wanted = doc! {
        "i": 1_i32, "l": 5_000_000_000_i64, "d": 1.0, "s": "ä", "t": true, "z": null,
        "o": { "b": 1_i32, "a": [1_i32, { "x": 2.5 }] },
    };
    assert_eq!(found[0].to_vec().unwrap(), wanted.to_vec().unwrap(), "{}", found[0]);
    assert!(sink.description().idempotent);
    assert_eq!(sink.target(&TopicPartition::new("orders", 0)).as_deref(), Some("rows"));
}

/// S110: rows written again leave one document each, in whole batches and in parts, also those of a window's hook
/// (S62).
#[tokio::test]
async fn rows_written_again_leave_one_document_each_s110() {
    let server = help::mongo();
    let (sink, rows) = connected(server, json!({})).await;
    // Equal values at different offsets are different rows.
    let batch = values(10, &[r#"{"a":1}"#, r#"{"a":1}"#, r#"{"a":2}"#]);
    for _ in 0..3 {
        assert_eq!(sink.deliver(&batch).await.unwrap(), []);
    }
    assert_eq!(sink.deliver(&Arc::new(batch.select(&[1]))).await.unwrap(), []);
    let longer = values(10, &[r#"{"a":1}"#, r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#]);
    assert_eq!(sink.deliver(&longer).await.unwrap(), []);
    assert_eq!(rows.count_documents(doc! {}).await.unwrap(), 4);
    assert_eq!(rows.count_documents(doc! { "a": 1 }).await.unwrap(), 2);

    // The window's own payload has a number that one of the record's payloads had: another document all the same.
    for value in [r#"{"own":1}"#, r#"{"window":1}"#] {
        let mut batch = Batch::clone(&values(20, &[value]));
        batch.ordinals = vec![1];
        assert_eq!(sink.deliver(&Arc::new(batch)).await.unwrap(), []);
    }
    assert_eq!(rows.count_documents(doc! {}).await.unwrap(), 6);
}

/// S110: a document with an `_id` of its own is written once; another one with that `_id` is refused.
#[tokio::test]
async fn an_id_of_its_own_is_kept_s110() {
    let server = help::mongo();
    let (sink, rows) = connected(server, json!({})).await;
    let batch = values(0, &[r#"{"a":1,"_id":"x"}"#, r#"{"_id":7,"b":{"z":1,"y":[2.5]}}"#, r#"{"_id":{"a":1}}"#]);
    for _ in 0..2 {
        assert_eq!(sink.deliver(&batch).await.unwrap(), []);
    }
    let others =
        values(50, &[r#"{"n":1}"#, r#"{"_id":"x","a":2}"#, r#"{"_id":7,"b":{"z":1,"y":[2.5]}}"#, r#"{"n":2}"#]);
    let failures = sink.deliver(&others).await.unwrap();
    assert_eq!(rejected(&failures), [1]);
    assert!(failures[0].reason.contains("another document in `rows` has its `_id`"), "{failures:?}");
    assert_eq!(rows.count_documents(doc! {}).await.unwrap(), 5);
    assert_eq!(found(&rows, doc! { "_id": "x" }).await, [doc! { "_id": "x", "a": 1 }]);
    // Twice in one call: the first stays.
    let failures = sink.deliver(&values(90, &[r#"{"_id":1,"a":1}"#, r#"{"_id":1,"a":2}"#])).await.unwrap();
    assert_eq!(rejected(&failures), [1]);
}

/// A unique index refuses the one row and is named; the row that has the value is not refused for being there.
#[tokio::test]
async fn a_unique_index_refuses_one_row() {
    let server = help::mongo();
    let (sink, rows) = connected(server, json!({})).await;
    unique(&rows, doc! { "email": 1 }, "one_email").await;
    let batch = values(0, &[r#"{"email":"a"}"#, r#"{"email":"a","n":1}"#, r#"{"email":"b"}"#]);
    for round in 0..2 {
        let failures = sink.deliver(&batch).await.unwrap();
        assert_eq!(rejected(&failures), [1], "round {round}");
        assert!(failures[0].reason.contains("one_email"), "{failures:?}");
    }
    assert_eq!(rows.count_documents(doc! {}).await.unwrap(), 2);
}

/// With a key the last row of it stays, within a call and over calls, whatever else is refused.
#[tokio::test]
async fn a_key_replaces_in_order() {
    let server = help::mongo();
    let (sink, rows) = connected(server, json!({ "key": ["k"] })).await;
    unique(&rows, doc! { "k": 1 }, "one_k").await;
    unique(&rows, doc! { "email": 1 }, "one_email").await;
    let mut first: Vec<String> =
        (0..200).map(|row| format!(r#"{{"k":{},"n":{row},"email":"{row}"}}"#, row % 20)).collect();
    first.push(r#"{"n":1}"#.into());
    first.push(r#"{"k":null}"#.into());
    first.push(r#"{"k":{"$gt":1}}"#.into());
    first.push(r#"{"k":[1]}"#.into());
    // One key to the server, in three clothes.
    first.extend([r#"{"k":500,"n":0}"#.into(), r#"{"k":5e2,"n":1}"#.into(), r#"{"k":500.0,"n":2}"#.into()]);
    let texts: Vec<_> = first.iter().map(String::as_str).collect();
    for _ in 0..2 {
        assert_eq!(rejected(&sink.deliver(&values(0, &texts)).await.unwrap()), [200, 201, 202, 203]);
        assert_eq!(rows.count_documents(doc! {}).await.unwrap(), 21);
        for k in 0..20 {
            assert_eq!(found(&rows, doc! { "k": k }).await[0].get_i32("n").unwrap(), 180 + k);
        }
        assert_eq!(found(&rows, doc! { "k": 500 }).await[0].get_i32("n").unwrap(), 2);
    }
    // The last of the key is refused by the server: the one before it is written, and the fields left out are gone.
    let failures = sink
        .deliver(&values(
            900,
            &[r#"{"k":1,"email":"own","x":1}"#, r#"{"k":1,"email":"own","x":2}"#, r#"{"k":1,"email":"180"}"#],
        ))
        .await
        .unwrap();
    assert_eq!(rejected(&failures), [2]);
    assert!(failures[0].reason.contains("one_email"), "{failures:?}");
    let mut one = found(&rows, doc! { "k": 1 }).await.remove(0);
    one.remove("_id");
    assert_eq!(one, doc! { "k": 1, "email": "own", "x": 2 });
}

/// Several partitions that write the same new keys at once leave one document each, thanks to the unique index.
#[tokio::test]
async fn replacing_at_once_leaves_one_document_each() {
    let server = help::mongo();
    let (sink, rows) = connected(server, json!({ "key": ["a", "b"] })).await;
    unique(&rows, doc! { "b": 1, "a": 1 }, "one").await;
    let sink = Arc::new(sink);
    let calls: Vec<_> = (0..4)
        .map(|call| {
            let sink = Arc::clone(&sink);
            tokio::spawn(async move {
                let texts: Vec<_> = (0..100).map(|row| format!(r#"{{"a":{row},"b":"x","call":{call}}}"#)).collect();
                sink.deliver(&values(0, &texts.iter().map(String::as_str).collect::<Vec<_>>())).await
            })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), []);
    }
    assert_eq!(rows.count_documents(doc! {}).await.unwrap(), 100);
    // The start asks for the index.
    sink.connect().await.unwrap();
}

/// Tombstones delete by the record's key, in order with the rows around them.
#[tokio::test]
async fn tombstones_delete_by_key() {
    let server = help::mongo();
    let (sink, rows) = connected(server, json!({ "key": ["k"], "on_tombstone": "delete" })).await;
    let written = values(0, &[r#"{"k":1}"#, r#"{"k":"1"}"#, r#"{"k":"order-7"}"#, r#"{"k":"x"}"#, r#"{"k":"y"}"#]);
    assert_eq!(sink.deliver(&written).await.unwrap(), []);
    let mixed = batch(
        10,
        &[
            (Some("1"), None),
            (Some("order-7"), None),
            (Some(r#"{"k":"x","more":1}"#), None),
            (Some("y"), None),
            (None, Some(r#"{"k":"y","again":true}"#)),
            (None, Some(r#"{"k":"z"}"#)),
            (Some("\"z\""), None),
            (None, None),
            (Some("never there"), None),
        ],
    );
    for _ in 0..2 {
        assert_eq!(rejected(&sink.deliver(&mixed).await.unwrap()), [7]);
        let mut left: Vec<_> =
            found(&rows, doc! {}).await.iter().map(|row| row.get_str("k").unwrap().to_owned()).collect();
        left.sort();
        assert_eq!(left, ["1", "y"]);
    }
    assert_eq!(rows.count_documents(doc! { "again": true }).await.unwrap(), 1);
}

/// S110: a payload's own collection, and names that are refused before the server sees them.
#[tokio::test]
async fn collections_are_chosen_and_checked_s110() {
    let server = help::mongo();
    let (sink, rows) = connected(server, json!({ "collection": "" })).await;
    assert_eq!(sink.target(&TopicPartition::new("orders", 0)), None);
    let long = "x".repeat(300);
    let names =
        [Some("rows"), None, Some(""), Some("a$b"), Some("a\0b"), Some("system.users"), Some(&*long), Some("rows")];
    let mut batch = Batch::clone(&values(0, &[r#"{"a":1}"#; 8]));
    for name in names {
        batch.targets.push(name.map(str::as_bytes));
    }
    assert_eq!(rejected(&sink.deliver(&Arc::new(batch)).await.unwrap()), [1, 2, 3, 4, 5, 6]);
    assert_eq!(rows.count_documents(doc! {}).await.unwrap(), 2);
}

/// A server that was killed is unavailable until it is back; then all rows arrive, once.
#[tokio::test]
async fn s79a_a_killed_server_is_unavailable() {
    let mut server = Mongo::start();
    let (inserting, rows) = connected(&server, json!({})).await;
    let (replacing, keyed) = connected(&server, json!({ "key": ["n"] })).await;
    let texts: Vec<_> = (0..300).map(|row| format!(r#"{{"n":{row}}}"#)).collect();
    let batch = values(0, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(inserting.deliver(&Arc::new(batch.select(&[0, 1, 2]))).await.unwrap(), []);
    assert_eq!(replacing.deliver(&Arc::new(batch.select(&[0, 1, 2]))).await.unwrap(), []);
    server.kill();
    for sink in [&inserting, &replacing] {
        let start = Instant::now();
        let Err(CallError::Unavailable(fault)) = sink.deliver(&batch).await else { panic!("a dead server took rows") };
        assert!(start.elapsed() < Duration::from_secs(25) && fault.owner == Owner::Destination, "{fault}");
    }
    server.restart();
    for (sink, rows) in [(&inserting, rows), (&replacing, keyed)] {
        let start = Instant::now();
        while sink.deliver(&batch).await != Ok(Vec::new()) {
            assert!(start.elapsed() < Duration::from_secs(60), "it never came back");
        }
        assert_eq!(rows.count_documents(doc! {}).await.unwrap(), 300);
    }
    inserting.close().await.unwrap();
    assert!(matches!(inserting.deliver(&batch).await, Err(CallError::Fatal(_))), "S78");
}

/// S124: connecting proves the server, in ten seconds, and shows no secret (S85).
#[tokio::test]
async fn connecting_proves_the_destination_s124() {
    let server = help::mongo();
    let asleep = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let asleep = format!("mongodb://user:hunter2@{}/", asleep.local_addr().unwrap());
    let login = server.uri().replace("mongodb://", "mongodb://user:hunter2@");
    for uri in ["mongodb://user:hunter2@127.0.0.1:1/", &asleep, &login] {
        let start = Instant::now();
        let sink = sink(json!({ "uri": uri, "database": "app" }));
        let Err(CallError::Unavailable(fault)) = sink.connect().await else { panic!("connected") };
        assert!(start.elapsed() < Duration::from_secs(12), "{fault}");
        assert!(
            fault.owner == Owner::Destination && fault.hint.is_some() && fault.message.contains("/app`"),
            "{fault}"
        );
        assert!(!format!("{fault:?} {sink:?}").contains("hunter2"), "{fault:?}");
        // S78: still unconnected.
        assert!(matches!(sink.deliver(&values(0, &["{}"])).await, Err(CallError::Fatal(_))));
    }
}

#[tokio::test]
async fn tls_believes_the_named_authority_only() {
    let server = help::mongo();
    let (uri, database) = (server.tls_uri(), server.database("rows"));
    let options = |tls: Value| json!({ "uri": uri, "database": database, "collection": "rows", "tls": tls });
    let sound = sink(options(json!({ "ca_file": server.ca_file() })));
    sound.connect().await.unwrap();
    assert_eq!(sound.deliver(&values(0, &[r#"{"a":1}"#])).await.unwrap(), []);
    assert_eq!(found(&reader(server, &database).await, doc! { "a": 1 }).await.len(), 1);
    let other = server.ca_file().with_file_name("server.pem");
    for tls in [json!({ "ca_file": other }), json!({})] {
        let Err(CallError::Unavailable(fault)) = sink(options(tls.clone())).connect().await else { panic!("{tls}") };
        assert!(fault.owner == Owner::Destination && fault.to_string().contains("ertificate"), "{fault}");
    }
}

/// What cannot be right is said before anything is connected, without a secret (S85).
#[test]
fn options_that_cannot_be_right_are_refused() {
    let certificates = crate::support::certificates::Certificates::shared();
    let uri = "mongodb://user:hunter2@localhost/";
    for (options, words) in [
        (json!({ "uri": "hunter2", "database": "app" }), "archive.uri"),
        (json!({ "uri": "mongodb://user:hunter2@:x@localhost", "database": "app" }), "archive.uri"),
        (json!({ "uri": format!("{uri}?hunter2=1&w=hunter2&tls=hunter2"), "database": "app" }), "archive.uri"),
        (json!({ "uri": format!("{uri}?w=0"), "database": "app" }), "without an answer"),
        (json!({ "uri": uri, "database": "" }), "archive.database"),
        (json!({ "uri": uri, "database": "a.b" }), "archive.database"),
        (json!({ "uri": uri, "database": "app", "collection": "system.x" }), "archive.collection"),
        (json!({ "uri": uri, "database": "app", "key": ["a", "$b"] }), "archive.key"),
        (json!({ "uri": uri, "database": "app", "key": ["a", "a"] }), "archive.key"),
        (json!({ "uri": uri, "database": "app", "on_tombstone": "delete" }), "delete by key"),
        (json!({ "uri": uri, "database": "app", "tls": { "ca_file": "/nowhere.pem" } }), "tls.ca_file"),
        (json!({ "uri": uri, "database": "app", "tls": { "ca_file": certificates.key() } }), "tls.ca_file"),
        (
            json!({ "uri": uri, "database": "app",
                "tls": { "certificate_file": certificates.certificate(), "key_file": certificates.key() } }),
            "two files",
        ),
        (
            json!({ "uri": format!("{uri}?tls=false"), "database": "app", "tls": { "ca_file": certificates.authority() } }),
            "turns TLS off",
        ),
    ] {
        let fault = MongoSink::new("archive", &serde_json::from_value(options).unwrap()).unwrap_err();
        assert!(fault.owner == Owner::Config && fault.message.contains(words), "{words}: {fault}");
        assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
    }
}
