//! Extended JSON on its way into a collection (M1).

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Binary, DateTime, spec::BinarySubtype};

use super::*;

const ID: &str = "6553f1008d131e84448976ed";

/// M1: what `mongoexport` and change feeds write is stored as what it means, and what is not that is refused alone.
#[tokio::test]
async fn s110_extended_json_lands_with_its_types() {
    let server = help::mongo();
    let (sink, rows) = connected(server, json!({})).await;
    let batch = values(
        0,
        &[
            r#"{"_id":{"$oid":"6553f1008d131e84448976ed"},"at":{"$date":"2023-11-14T22:13:20.123Z"},"n":{"$numberLong":"7"},
                "i":{"$numberInt":"7"},"d":{"$numberDouble":"7"},"raw":{"$binary":{"base64":"aGVsbG8=","subType":"00"}},
                "list":[{"$date":{"$numberLong":"1700000000123"}}],"o":{"at":{"$date":1700000000123}}}"#,
            r#"{"bad":{"$oid":"no id"}}"#,
            r#"{"bad":{"$date":"yesterday"}}"#,
            r#"{"bad":{"$set":1}}"#,
            r#"{"good":1}"#,
        ],
    );
    // Twice: an `_id` of its own that is there already is the document itself.
    for _ in 0..2 {
        let failures = sink.deliver(&batch).await.unwrap();
        assert_eq!(rejected(&failures), [1, 2, 3]);
        assert!(failures[0].reason.contains("`bad` has `$oid`"), "{failures:?}");
    }
    let moment = DateTime::from_millis(1_700_000_000_123);
    let wanted = doc! {
        "_id": ObjectId::parse_str(ID).unwrap(), "at": moment, "n": 7_i64, "i": 7_i32, "d": 7.0,
        "raw": Binary { subtype: BinarySubtype::Generic, bytes: b"hello".to_vec() }, "list": [moment], "o": { "at": moment },
    };
    let found = found(&rows, doc! { "at": { "$lt": DateTime::from_millis(1_700_000_000_124) } }).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].to_vec().unwrap(), wanted.to_vec().unwrap(), "{}", found[0]);
    assert_eq!(rows.count_documents(doc! {}).await.unwrap(), 2);

    let (plain, rows) = connected(server, json!({ "extended_json": false })).await;
    assert_eq!(rejected(&plain.deliver(&batch).await.unwrap()), [0, 1, 2, 3]);
    assert_eq!(rows.count_documents(doc! {}).await.unwrap(), 1);
}

/// An ObjectId as key replaces and deletes its document; a pattern, which would find others, is no key.
#[tokio::test]
async fn s110_a_key_of_extended_json_is_one_value() {
    let server = help::mongo();
    let (sink, rows) = connected(server, json!({ "key": ["_id"], "on_tombstone": "delete" })).await;
    let written = [
        r#"{"_id":{"$oid":"6553f1008d131e84448976ed"},"n":1}"#,
        r#"{"_id":"a","n":1}"#,
        r#"{"_id":{"$oid":"6553f1008d131e84448976ed"},"n":2}"#,
        r#"{"_id":{"$regularExpression":{"pattern":".","options":""}},"n":3}"#,
    ];
    assert_eq!(rejected(&sink.deliver(&values(0, &written)).await.unwrap()), [3]);
    let id = ObjectId::parse_str(ID).unwrap();
    assert_eq!(found(&rows, doc! { "_id": id }).await, [doc! { "_id": id, "n": 2 }]);
    let tombstones = batch(
        10,
        &[
            (Some(r#"{"$regularExpression":{"pattern":".","options":""}}"#), None),
            (Some(r#"{"_id":{"$regex":"."}}"#), None),
            (Some(r#"{"$oid":"6553f1008d131e84448976ed"}"#), None),
        ],
    );
    assert_eq!(rejected(&sink.deliver(&tombstones).await.unwrap()), [0, 1]);
    assert_eq!(found(&rows, doc! {}).await, [doc! { "_id": "a", "n": 1 }]);
}
