//! Plugins that ask a sink's database (S66, S109).

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::collect::{Collect, Collected};
use tidegate::plugin::{self, Compiler, PluginCollector, Plugins};
use tidegate::sink::{Queries, Query};

use super::*;

const NAMES: &str =
    "CREATE TABLE names (id int PRIMARY KEY, name text); INSERT INTO names VALUES (1, 'one'), (2, 'it''s')";

fn queries(sink: &Arc<PostgresSink>) -> Queries {
    let sink: Arc<dyn Query> = Arc::clone(sink) as _;
    Queries::from([("main".to_owned(), sink)])
}

async fn started(sink: &Arc<PostgresSink>, more: Value) -> Result<PluginCollector, tidegate::model::Fault> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let component = manifest.join("../target/guests/lookups.wasm");
    assert!(component.exists(), "`{}` is missing: run `make setup`", component.display());
    let mut all = json!({ "component": component, "grants": { "postgres": ["main"] } });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let options: plugin::Options = serde_json::from_value(all).unwrap();
    let plugins = Plugins::new(
        Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")),
        Compiler::Child(env!("CARGO_BIN_EXE_tidegate").into()),
    )
    .unwrap();
    let artifact = plugins.load("collect", &options, Path::new("/")).await?;
    PluginCollector::start(artifact, &options, &queries(sink)).await
}

/// What the records yield, each its document or why there is none.
async fn collected(collector: &PluginCollector, records: &[Value]) -> Vec<Result<Value, String>> {
    let records: Vec<String> = records.iter().map(Value::to_string).collect();
    let Collected::Payloads { payloads, failed } = collector.collect(&values(&records)).await.unwrap() else {
        panic!("nothing was yielded")
    };
    let mut all: Vec<_> = failed.into_iter().map(|failure| (failure.index, Err(failure.reason))).collect();
    for (_, list) in payloads {
        all.extend(list.into_iter().map(|it| (it.index, Ok(serde_json::from_slice(&it.value.unwrap()).unwrap()))));
    }
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, what)| what).collect()
}

fn ask(statement: &str, parameters: Value) -> Value {
    json!({ "statement": statement, "parameters": parameters })
}

/// S66, S109: a table is loaded in `on-ready`, after the sinks are connected, and records are enriched with it.
#[tokio::test(flavor = "multi_thread")]
async fn s66_a_collector_loads_a_table_when_it_gets_ready() {
    let place = Place::new("lookups", NAMES);
    let sink = Arc::new(PostgresSink::new("main", &Options { table: String::new(), ..place.options() }).unwrap());
    let fault = started(&sink, json!({ "options": { "early": true } })).await.err().unwrap();
    assert!(fault.to_string().contains("not connected yet"), "{fault}");
    let collector = started(&sink, json!({})).await.unwrap();
    sink.connect().await.unwrap();
    collector.ready().await.unwrap();
    assert_eq!(
        collected(&collector, &[json!({ "id": 1 }), json!({ "id": 3 }), json!({ "id": 2 })]).await,
        [Ok(json!({ "id": 1, "name": "one" })), Err("nobody has id 3".into()), Ok(json!({ "id": 2, "name": "it's" }))]
    );
}

/// S109: without the grant the call is refused, however many sinks there are.
#[tokio::test(flavor = "multi_thread")]
async fn s109_without_the_grant_nothing_is_asked() {
    let place = Place::new("denied", NAMES);
    let sink = Arc::new(place.sink(Options { table: String::new(), ..place.options() }).await);
    let collector = started(&sink, json!({ "grants": {}, "options": { "load": false } })).await.unwrap();
    collector.ready().await.unwrap();
    let told = collected(&collector, &[ask("DELETE FROM names", json!([]))]).await;
    let why = told[0].as_ref().unwrap_err();
    assert!(why.starts_with("denied: ") && why.contains("`collect.grants.postgres`"), "{why}");
    assert_eq!(place.sql("SELECT count(*) FROM names"), "2");
    let fault = started(&sink, json!({ "grants": { "postgres": ["other"] } })).await.err().unwrap();
    assert!(fault.owner == Owner::Config && fault.message.contains("`other`"), "{fault}");
}

/// S109: parameters become what the server expects, rows become objects, and nothing leaves its transaction.
#[tokio::test(flavor = "multi_thread")]
async fn s109_statements_and_their_limits() {
    let place = Place::new("statements", NAMES);
    let sink = Arc::new(place.sink(Options { table: String::new(), max_connections: 1, ..place.options() }).await);
    let collector = started(&sink, json!({})).await.unwrap();
    collector.ready().await.unwrap();
    let good = [
        (ask("SELECT name FROM names WHERE id = $1;", json!([1])), json!([{ "name": "one" }])),
        (ask("select $1::numeric + 1 AS n -- why", json!(["1.50"])), json!([{ "n": 2.50 }])),
        (
            ask(
                "SELECT $1::text AS t, $2::jsonb AS j, $3::bool AS b, $4::int AS i",
                json!(["'\\; DROP", { "a": [1] }, true, null]),
            ),
            json!([{ "t": "'\\; DROP", "j": { "a": [1] }, "b": true, "i": null }]),
        ),
        (ask("INSERT INTO names VALUES ($1, $2)", json!([3, "three"])), json!([])),
        (
            ask("UPDATE names SET name = upper(name) WHERE id = $1 RETURNING *", json!([3])),
            json!([{ "id": 3, "name": "THREE" }]),
        ),
        (
            ask("WITH gone AS (DELETE FROM names WHERE id = 3) INSERT INTO names VALUES (4, 'four')", json!([])),
            json!([]),
        ),
        (ask("CREATE TABLE made (n int)", json!([])), json!([])),
        (ask("SELECT set_config('search_path', 'nowhere', false) AS path", json!([])), json!([{ "path": "nowhere" }])),
        (ask("SELECT count(*) FROM names", json!([])), json!([{ "count": 3 }])),
    ];
    for (record, expected) in good {
        assert_eq!(collected(&collector, std::slice::from_ref(&record)).await, [Ok(expected)], "{record}");
    }
    let bad = [
        (ask("SELECT 1; DELETE FROM names", json!([])), "multiple commands"),
        (ask("SELECT 1) SELECT 1; DELETE FROM names; --", json!([])), "syntax error"),
        (ask("CREATE TABLE a (n int); COMMIT", json!([])), "multiple commands"),
        (ask("COMMIT", json!([])), "is no query"),
        (ask("COPY names TO STDOUT", json!([])), "is no query"),
        (ask("SELECT $1::int", json!(["x"])), "22P02"),
        (ask("SELECT $1::int", json!([])), "42601"),
        (ask("SELECT * FROM secrets", json!([])), "42P01"),
        (ask("DELETE FROM names WHERE 1 / (id - 4) = 0", json!([])), "22012"),
        (ask("WITH gone AS (DELETE FROM names RETURNING id) SELECT id FROM gone", json!([])), "cannot be returned"),
        (ask("SELECT n FROM generate_series(1, 10001) AS n", json!([])), "more than 10000 rows"),
        (ask("SELECT repeat('x', 1000000) FROM generate_series(1, 20)", json!([])), "16777216 bytes"),
    ];
    for (record, part) in bad {
        let told = collected(&collector, std::slice::from_ref(&record)).await;
        let why = told[0].as_ref().unwrap_err();
        assert!(why.starts_with("failed: ") && why.contains(part) && !why.contains("secret:"), "{record}: {why}");
    }
    assert_eq!(place.sql("SELECT string_agg(name, ',' ORDER BY id) FROM names"), "one,it's,four");
    let begun = Instant::now();
    let told = collected(&collector, &[ask("SELECT pg_sleep(60)", json!([]))]).await;
    assert!(
        told[0].as_ref().unwrap_err().contains("57014") || told[0].as_ref().unwrap_err().contains("5 s"),
        "{told:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert!(collected(&collector, &[json!({ "id": 1 }), ask("SELECT 1 AS n", json!([]))]).await[1].is_ok());
}

/// S63: a guest that waits for the database past its deadline is not to blame for it.
#[tokio::test(flavor = "multi_thread")]
async fn s63_waiting_for_the_database_is_not_the_guests_fault() {
    let place = Place::new("waiting", NAMES);
    let sink = Arc::new(place.sink(Options { table: String::new(), ..place.options() }).await);
    let collector = started(&sink, json!({ "limits": { "call_timeout_seconds": 0.5 } })).await.unwrap();
    collector.ready().await.unwrap();
    let record = ask("SELECT pg_sleep(3)", json!([])).to_string();
    let answer = collector.collect(&values(&[record])).await;
    assert!(matches!(&answer, Err(CallError::Timeout(_))), "{answer:?}");
    assert_eq!(collected(&collector, &[json!({ "id": 1 })]).await, [Ok(json!({ "id": 1, "name": "one" }))]);
}
