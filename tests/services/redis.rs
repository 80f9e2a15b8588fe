//! Rows as keys of a real Redis server (S114, S115).

mod proxies;
mod start;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::model::{Batch, CallError, Failure, FailureKind, Owner, TopicPartition};
use tidegate::sink::redis::RedisSink;
use tidegate::sink::{Sink as _, TOO_LARGE};

use super::help;
use crate::support::servers::Redis;

type Row<'r> = (Option<&'r [u8]>, Option<&'r [u8]>, Option<u32>);

fn batch(rows: &[Row<'_>]) -> Arc<Batch> {
    let mut batch = Batch::new(TopicPartition::new("orders", 0));
    for (offset, (key, value, ttl)) in (100..).zip(rows) {
        batch.push(offset, 1_700_000_000_000, *key, *value);
        batch.ttls.push(*ttl);
    }
    Arc::new(batch)
}

fn set<'r>(key: &'r str, value: &'r str) -> Row<'r> {
    (Some(key.as_bytes()), Some(value.as_bytes()), None)
}

fn sink(options: Value) -> RedisSink {
    RedisSink::new("cache", &serde_json::from_value(options).unwrap()).unwrap()
}

async fn connected(options: Value) -> RedisSink {
    let sink = sink(options);
    sink.connect().await.unwrap();
    sink
}

/// What stands under a key, byte for byte.
async fn get(url: &str, key: &[u8]) -> Option<Vec<u8>> {
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    redis::cmd("GET").arg(key).query_async(&mut connection).await.unwrap()
}

fn kinds(failures: &[Failure]) -> Vec<(u32, FailureKind)> {
    failures.iter().map(|failure| (failure.index, failure.kind)).collect()
}

/// Delivers until the destination is back.
async fn until_there(sink: &RedisSink, batch: &Arc<Batch>) -> Vec<Failure> {
    let start = Instant::now();
    loop {
        match sink.deliver(batch).await {
            Ok(failures) if failures.iter().all(|failure| failure.kind != FailureKind::Unavailable) => return failures,
            Ok(_) | Err(CallError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(start.elapsed() < Duration::from_secs(30), "it never came back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// S114: `SET {prefix}{key} <json>`, byte for byte, and one bad row takes no other with it (S76).
#[tokio::test]
async fn rows_land_byte_for_byte_and_bad_ones_alone_are_refused_s114() {
    let server = help::redis();
    let url = server.url(server.database());
    let sink = connected(json!({ "url": url, "key_prefix": "app:" })).await;
    let rows: [Row<'_>; 9] = [
        set("plain", "{ \"b\": 1,  \"a\": 1e400 }"),
        (None, Some(b"1"), None),
        (Some(b"nul\0\xff"), Some(b" \"\xc3\xa4\"\n"), None),
        set("no json", "{\"a\":NaN}"),
        (Some(b"not utf-8"), Some(b"\"\xff\""), None),
        (Some(b"tombstone"), None, None),
        (Some(b"ttl"), Some(b"1"), Some(0)),
        set("", "null"),
        set("last", "[1,2]"),
    ];
    let failures = sink.deliver(&batch(&rows)).await.unwrap();
    assert_eq!(kinds(&failures), [1, 3, 4, 5, 6].map(|row| (row, FailureKind::Reject)), "{failures:?}");
    for (key, value) in [
        (&b"app:plain"[..], &b"{ \"b\": 1,  \"a\": 1e400 }"[..]),
        (b"app:nul\0\xff", b" \"\xc3\xa4\"\n"),
        (b"app:", b"null"),
        (b"app:last", b"[1,2]"),
    ] {
        assert_eq!(get(&url, key).await.as_deref(), Some(value), "{key:?}");
    }
    assert_eq!(get(&url, b"app:ttl").await, None);
    assert!(sink.description().idempotent);
    assert!(sink.deliver(&batch(&rows)).await.unwrap().len() == 5, "again is as once");
}

/// S114, S115: a time to live is set in the command itself; a row without one removes it again.
#[tokio::test]
async fn a_time_to_live_is_set_and_removed_s115() {
    let server = help::redis();
    let database = server.database();
    let number = database.to_string();
    let ttl = |key: &str| server.cli(&["-n", &number, "TTL", key]).parse::<i64>().unwrap();
    let own = connected(json!({ "url": server.url(database) })).await;
    let of_all = connected(json!({ "url": server.url(database), "ttl_seconds": 500 })).await;
    let rows = batch(&[(Some(b"short"), Some(b"1"), Some(100)), set("ever", "1")]);
    assert_eq!(own.deliver(&rows).await.unwrap(), []);
    assert!((90..=100).contains(&ttl("short")));
    assert_eq!(ttl("ever"), -1);
    assert_eq!(of_all.deliver(&rows).await.unwrap(), []);
    assert!((90..=100).contains(&ttl("short")));
    assert!((490..=500).contains(&ttl("ever")));
    assert_eq!(own.deliver(&batch(&[set("short", "2"), set("ever", "2")])).await.unwrap(), []);
    assert_eq!((ttl("short"), ttl("ever")), (-1, -1));
}

/// Rows are carried out in their order, deletions too.
#[tokio::test]
async fn tombstones_delete_in_their_order() {
    let server = help::redis();
    let url = server.url(server.database());
    let sink = connected(json!({ "url": url, "on_tombstone": "delete" })).await;
    let delete = |key: &'static str| (Some(key.as_bytes()), None, None);
    let rows = [set("a", "1"), delete("a"), set("b", "1"), delete("b"), set("b", "2"), delete("never")];
    assert_eq!(sink.deliver(&batch(&rows)).await.unwrap(), []);
    assert_eq!((get(&url, b"a").await, get(&url, b"b").await.as_deref()), (None, Some(&b"2"[..])));
    let nobody = sink.deliver(&batch(&[(None, None, None)])).await.unwrap();
    assert_eq!(kinds(&nobody), [(0, FailureKind::Reject)]);
}

/// S115, S76: of commands in one pipeline each has its own answer.
#[tokio::test]
async fn a_refused_key_takes_no_other_with_it_s115() {
    let server = help::redis();
    let database = server.database();
    server.cli(&["ACL", "SETUSER", "writer", "on", ">hunter2", "~mine:*", "+@all"]);
    let url = server.url(database).replace("redis://", "redis://writer:hunter2@");
    let sink = connected(json!({ "url": url })).await;
    let failures = sink.deliver(&batch(&[set("mine:a", "1"), set("yours:a", "1"), set("mine:b", "1")])).await.unwrap();
    assert_eq!(kinds(&failures), [(1, FailureKind::Reject)]);
    assert!(failures[0].reason.contains("NOPERM"), "{failures:?}");
    assert!(get(&url, b"mine:a").await.is_some() && get(&url, b"mine:b").await.is_some());

    // Who may not write at all is for the operator to allow.
    server.cli(&["ACL", "SETUSER", "reader", "on", ">hunter2", "~*", "-@all", "+set", "+ping", "+select"]);
    let reader = connected(json!({ "url": url.replace("writer", "reader") })).await;
    server.cli(&["ACL", "SETUSER", "reader", "-set"]);
    let failures = reader.deliver(&batch(&[set("mine:a", "1"), set("mine:b", "1")])).await.unwrap();
    assert_eq!(kinds(&failures), [(0, FailureKind::Unavailable), (1, FailureKind::Unavailable)], "{failures:?}");

    // Who may only write is not asked for more.
    server.cli(&["ACL", "SETUSER", "narrow", "on", ">hunter2", "~*", "-@all", "+set", "+ping", "+select"]);
    let url = url.replace("writer", "narrow");
    let sink = connected(json!({ "url": url })).await;
    assert_eq!(sink.deliver(&batch(&[set("narrow", "1")])).await.unwrap(), []);
}

/// A server without room takes nothing for now; with room again it takes the same rows.
#[tokio::test]
async fn s79a_a_full_server_is_unavailable() {
    let server = Redis::start();
    let sink = connected(json!({ "url": server.url(0), "on_tombstone": "delete" })).await;
    assert_eq!(sink.deliver(&batch(&[set("old", "1")])).await.unwrap(), []);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let rows = batch(&[set("a", "1"), (Some(b"old"), None, None), (None, Some(b"1"), None)]);
    let failures = sink.deliver(&rows).await.unwrap();
    assert_eq!(kinds(&failures), [(0, FailureKind::Unavailable), (2, FailureKind::Reject)]);
    assert!(failures[0].reason.starts_with("OOM"), "{failures:?}");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(kinds(&sink.deliver(&rows).await.unwrap()), [(2, FailureKind::Reject)]);

    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let failures = sink.deliver(&batch(&[set("b", "1")])).await.unwrap();
    assert!(failures[0].kind == FailureKind::Unavailable && failures[0].reason.starts_with("READONLY"), "{failures:?}");
}

/// A server that was killed is unavailable until it is back, and all rows arrive; the same for one that changed its
/// password.
#[tokio::test]
async fn s79a_a_killed_server_and_a_changed_password_are_unavailable() {
    let mut server = Redis::start();
    let url = server.url(0).replace("redis://", "redis://:hunter2@");
    server.cli(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let sink = Arc::new(connected(json!({ "url": url })).await);
    let rows: Vec<_> = (0..500).map(|number| format!("key-{number}")).collect();
    let rows = batch(&rows.iter().map(|key| set(key, "1")).collect::<Vec<_>>());
    assert_eq!(sink.deliver(&rows).await.unwrap(), []);

    server.kill();
    let start = Instant::now();
    for _ in 0..3 {
        let Err(CallError::Unavailable(fault)) = sink.deliver(&rows).await else { panic!("a dead server took rows") };
        assert!(fault.owner == Owner::Destination && !format!("{fault:?}").contains("hunter2"), "{fault:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "refused connections are no reason to wait");
    // Comes back with nothing, and without a password: it refuses a login that it does not know as well.
    server.restart();
    server.cli(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (sink, rows) = (Arc::clone(&sink), Arc::clone(&rows));
            tokio::spawn(async move { until_there(&sink, &rows).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), []);
    }
    assert_eq!(server.cli(&["-a", "hunter2", "DBSIZE"]), "500");

    server.cli(&["-a", "hunter2", "CONFIG", "SET", "requirepass", "other"]);
    server.cli(&["-a", "other", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    server.cli(&["-a", "other", "FLUSHALL"]);
    for _ in 0..3 {
        let Err(CallError::Unavailable(fault)) = sink.deliver(&rows).await else {
            panic!("a wrong password took rows")
        };
        assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
    }
    assert_eq!(server.cli(&["-a", "other", "DBSIZE"]), "0");
    server.cli(&["-a", "other", "CONFIG", "SET", "requirepass", "hunter2"]);
    assert_eq!(until_there(&sink, &rows).await, []);
    assert_eq!(server.cli(&["-a", "hunter2", "DBSIZE"]), "500");
}

/// One client too many is no fault of the rows.
#[tokio::test]
async fn s79a_a_server_with_too_many_clients_is_unavailable() {
    let server = Redis::start();
    let sink = connected(json!({ "url": server.url(0) })).await;
    let rows = batch(&[set("a", "1")]);
    let mut others =
        vec![redis::Client::open(server.url(0)).unwrap().get_multiplexed_async_connection().await.unwrap()];
    let mut admin = others[0].clone();
    // Our connection goes, and its place with it.
    redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(2).exec_async(&mut admin).await.unwrap();
    redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .arg("SKIPME")
        .arg("yes")
        .exec_async(&mut admin)
        .await
        .unwrap();
    others.push(redis::Client::open(server.url(0)).unwrap().get_multiplexed_async_connection().await.unwrap());
    for _ in 0..3 {
        assert!(matches!(sink.deliver(&rows).await, Err(CallError::Unavailable(_))));
    }
    redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(100).exec_async(&mut admin).await.unwrap();
    assert_eq!(until_there(&sink, &rows).await, []);
}

/// A row that the server finds too large is found, though the server hangs up on it, and its neighbours arrive.
#[tokio::test]
async fn a_row_beyond_the_servers_limit_is_found() {
    let server = Redis::start();
    server.cli(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]);
    let sink = connected(json!({ "url": server.url(0) })).await;
    let large = format!("\"{}\"", "x".repeat(3 << 20));
    let fits = format!("\"{}\"", "x".repeat((1 << 20) - 2));
    let rows = batch(&[set("a", "1"), set("large", &large), set("b", &fits), set("c", "1")]);
    let failures = until_there(&sink, &rows).await;
    assert_eq!(kinds(&failures), [(1, FailureKind::Reject)]);
    assert!(failures[0].reason.starts_with(TOO_LARGE));
    assert_eq!(server.cli(&["DBSIZE"]), "3");
    assert_eq!(server.cli(&["EXISTS", "large"]), "0");
}

/// A call that is cut short while the server sleeps leaves the sink usable, and its older value does not come last.
#[tokio::test]
async fn a_cancelled_call_does_not_overtake_s78() {
    let server = Redis::start();
    let sink = connected(json!({ "url": server.url(0) })).await;
    for mode in ["WRITE", "ALL"] {
        server.cli(&["CLIENT", "PAUSE", "3000", mode]);
        let old = batch(&[set("a", "1"), set("a", "2")]);
        tokio::time::timeout(Duration::from_millis(300), sink.deliver(&old)).await.unwrap_err();
        assert_eq!(until_there(&sink, &batch(&[set("a", "3")])).await, []);
        assert_eq!(get(&server.url(0), b"a").await.as_deref(), Some(&b"3"[..]), "{mode}");
    }
}

/// TLS: the named authority is believed, another one and a plain port are not.
#[tokio::test]
async fn tls_believes_the_named_authority_only() {
    let server = help::redis();
    let url = server.tls_url(server.database());
    let sink = connected(json!({ "url": url, "tls": { "ca_file": server.ca_file() } })).await;
    assert_eq!(sink.deliver(&batch(&[set("a", "1")])).await.unwrap(), []);

    let other = server.ca_file().with_file_name("server.pem");
    for options in [json!({ "url": url, "tls": { "ca_file": other } }), json!({ "url": url })] {
        let Err(CallError::Unavailable(fault)) = self::sink(options.clone()).connect().await else {
            panic!("{options}")
        };
        assert!(fault.owner == Owner::Destination && fault.to_string().contains("ertificate"), "{fault}");
    }
    let plain = server.url(0).replace("redis://", "rediss://");
    assert!(self::sink(json!({ "url": plain })).connect().await.is_err());

    for (options, words) in [
        (json!({ "url": server.url(0), "tls": { "ca_file": server.ca_file() } }), "speaks no TLS"),
        (json!({ "url": url, "tls": { "ca_file": "/nowhere.pem" } }), "tls.ca_file"),
        (json!({ "url": url, "tls": { "certificate_file": other } }), "tls.key_file"),
    ] {
        let fault = RedisSink::new("cache", &serde_json::from_value(options).unwrap()).unwrap_err();
        assert!(fault.owner == Owner::Config && fault.message.contains(words), "{fault}");
    }
}

/// S124: connecting proves the server, the login and the database, in ten seconds, and shows no secret (S85).
#[tokio::test]
async fn connecting_proves_the_destination_s124() {
    let server = help::redis();
    let asleep = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let asleep_url = format!("redis://:hunter2@{}/0", asleep.local_addr().unwrap());
    for (url, words) in [
        (server.url(0).replace("/0", "/9999"), "9999"),
        ("redis://:hunter2@127.0.0.1:1/0".to_owned(), "refused"),
        (server.url(0).replace("redis://", "redis://nobody:hunter2@"), "authentication failed"),
        (asleep_url, "timed out"),
    ] {
        let start = Instant::now();
        let sink = sink(json!({ "url": url }));
        let Err(CallError::Unavailable(fault)) = sink.connect().await else { panic!("{words}: connected") };
        assert!(start.elapsed() < Duration::from_secs(11), "{fault}");
        assert!(fault.owner == Owner::Destination && fault.hint.is_some(), "{fault}");
        assert!(fault.to_string().contains(words), "{words}: {fault}");
        assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
        // S78: still unconnected.
        assert!(matches!(sink.deliver(&batch(&[set("a", "1")])).await, Err(CallError::Fatal(_))));
    }
}
