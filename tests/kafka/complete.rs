//! The page's complete example: one record to all six sinks, with HTTP and the file by its number of matches, and every
//! server read back.

use std::fs;
use std::path::Path;
use std::process::Command;

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use super::help::{PATIENCE, Row, broker, committed, contents, produce, topic, unique};
use crate::support::servers::{Http, Mongo, Postgres, Redis};

const TABLE: &str = "CREATE TABLE search_results (request_id text, pattern text, match_count int); \
                     ALTER TABLE search_results OWNER TO tidegate";

/// A request with so many lines that match.
fn request(id: &str, matches: usize) -> Row {
    let lines = vec!["read timeout"; matches];
    Row::value(json!({ "request_id": id, "pattern": "timeout", "lines": lines }).to_string())
}

#[tokio::test]
async fn s67_one_record_reaches_all_six_sinks() {
    let (postgres, redis, mongo, http) = (Postgres::start(), Redis::start(), Mongo::start(), Http::start());
    let database = postgres.database("app");
    postgres.psql(&database, TABLE);
    let folder = tempfile::tempdir().unwrap();
    let (source, results, group) =
        (topic("search-requests", 1).await, topic("search-results", 1).await, unique("complete"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let configuration = json!({
        "kafka": { "brokers": broker().bootstrap(), "source_topic": source, "group": group },
        "collect": {
            "component": root.join("target/guests/search.wasm"),
            "options": {
                "sinks": ["kafka", "postgres", "mongo", "redis", "http", "filesystem"],
                "high_match": 20, "very_high_match": 50, "file_path": "high-match-results.jsonl",
            },
        },
        "sinks": {
            "kafka": { "results": { "topic": results } },
            "postgres": { "main": { "dsn": postgres.dsn(&database) } },
            "mongo": { "archive": { "uri": mongo.uri(), "database": "app" } },
            "http": { "webhook": { "url": http.url("complete", "ok") } },
            "redis": { "cache": { "url": redis.url(0), "key_prefix": "app:" } },
            "filesystem": { "log": { "base_path": folder.path() } },
        },
    });
    let file = folder.path().join("tidegate.yaml");
    fs::write(&file, configuration.to_string()).unwrap();
    produce(&source, 0, [request("few", 3), request("many", 21), request("most", 60)]);

    let mut running = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    running.args(["run", "--until-end"]).arg(&file);
    let output = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || running.output().unwrap()));
    let output = output.await.expect("the run did not end").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(committed(&source, 0, &group), Some(3));

    let records = contents(&results);
    let keys: Vec<&[u8]> = records.iter().map(|(_, _, row)| row.key.as_deref().unwrap()).collect();
    assert_eq!(keys, [&b"few"[..], b"many", b"most"]);
    let result: Value = serde_json::from_slice(records[2].2.value.as_deref().unwrap()).unwrap();
    assert_eq!((result["match_count"].as_i64(), result["matches"].as_array().unwrap().len()), (Some(60), 50));

    let rows =
        postgres.psql(&database, "SELECT request_id, pattern, match_count FROM search_results ORDER BY match_count");
    assert_eq!(rows, "few|timeout|3\nmany|timeout|21\nmost|timeout|60");

    let client = mongodb::Client::with_uri_str(mongo.uri()).await.unwrap();
    let archive = client.database("app").collection::<Document>("search_archive");
    let found = archive.find_one(doc! { "request_id": "most" }).await.unwrap().unwrap();
    assert_eq!(found.get_array("matches").unwrap().len(), 50);
    assert_eq!(archive.count_documents(doc! {}).await.unwrap(), 3);

    let summary: Value = serde_json::from_str(&redis.cli(&["--raw", "GET", "app:search:many"])).unwrap();
    assert_eq!(summary, json!({ "request_id": "many", "pattern": "timeout", "match_count": 21 }));
    let ttl: i64 = redis.cli(&["--raw", "TTL", "app:search:many"]).trim().parse().unwrap();
    assert!((3000..=3600).contains(&ttl), "{ttl}");

    let mut messages: Vec<String> = Vec::new();
    for request in http.requests("complete").await {
        assert_eq!((request.method.as_str(), request.header("content-type")), ("POST", Some("application/json")));
        let body: Value = serde_json::from_str(&request.text()).unwrap();
        messages.push(body["message"].as_str().unwrap().to_owned());
    }
    messages.sort();
    let message = |count: u32| format!("High match count: {count} matches for 'timeout'");
    assert_eq!(messages, [message(21), message(60)]);

    let lines = fs::read_to_string(folder.path().join("high-match-results.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Value>(&lines).unwrap(), result);
}
