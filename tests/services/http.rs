//! The HTTP sink on a service that behaves as it is asked to (S111–S113).

mod heads;
mod refusals;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::model::{Answer, Batch, CallError, Failure, FailureKind, Fault, TopicPartition};
use tidegate::sink::http::HttpSink;
use tidegate::sink::{Sink, TOO_LARGE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::help::http;
use crate::support::child::{free_port, output, own_dir, run_dir};
use crate::support::servers::{Http, Request};

fn made(url: &str, options: Value) -> Result<HttpSink, Fault> {
    let mut all = json!({ "url": url });
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    HttpSink::new("hook", &serde_json::from_value(all).unwrap())
}

fn sink(url: &str, options: Value) -> HttpSink {
    made(url, options).unwrap()
}

type Pair<'v> = (Option<&'v str>, Option<&'v str>);

/// Rows with these keys and values.
fn batch<'v>(rows: impl IntoIterator<Item = Pair<'v>>) -> Batch {
    let mut batch = Batch::new(TopicPartition::new("orders", 3));
    for (offset, (key, value)) in (40..).zip(rows) {
        batch.push(offset, 1_700_000_000_000, key.map(str::as_bytes), value.map(str::as_bytes));
    }
    batch
}

/// So many rows without a key, each with its number as value.
fn numbers(count: usize) -> Batch {
    let texts: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    batch(texts.iter().map(|text| (None, Some(text.as_str()))))
}

async fn deliver(sink: &HttpSink, batch: Batch) -> Vec<Failure> {
    answer(sink, batch).await.unwrap()
}

async fn answer(sink: &HttpSink, batch: Batch) -> Answer {
    sink.deliver(&Arc::new(batch)).await
}

fn bodies(requests: &[Request]) -> Vec<String> {
    requests.iter().map(Request::text).collect()
}

fn kinds(failures: &[Failure]) -> Vec<(u32, FailureKind)> {
    failures.iter().map(|failure| (failure.index, failure.kind)).collect()
}

/// The one failure of a call with one row.
async fn failure(url: &str, options: Value) -> Failure {
    let mut failures = deliver(&sink(url, options), numbers(1)).await;
    assert_eq!(failures.len(), 1, "{failures:?}");
    failures.remove(0)
}

/// A service that gives this answer, with `{}` for the request's head, and closes. Its address.
async fn answering(text: impl Into<String>) -> String {
    let text = text.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..length]).replace("\r\n", " ");
            stream.write_all(text.replace("{}", &head).as_bytes()).await.unwrap();
            stream.shutdown().await.ok();
        }
    });
    format!("http://{address}/")
}

#[tokio::test]
async fn s111_a_row_is_a_request_whose_body_is_the_value_as_it_came() {
    let http = http();
    let value = "{\"b\" : 1e400,\n \"a\":\"\\u00e9é\", \"n\": 12345678901234567890123} ";
    for method in ["POST", "PUT", "PATCH"] {
        let test = format!("body_{method}");
        let sink =
            sink(&http.url(&test, "ok?a=b%20c"), json!({ "method": method, "headers": { "X-Source": "tidegate é" } }));
        assert_eq!(deliver(&sink, batch([(Some("k"), Some(value))])).await, []);
        let [request] = &http.requests(&test).await[..] else { panic!() };
        assert_eq!((request.method.as_str(), request.text().as_str()), (method, value));
        assert!(request.path.ends_with("/ok?a=b%20c"), "{}", request.path);
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("content-length"), Some(value.len().to_string().as_str()));
        assert_eq!(request.header("x-source").map(|value| value.starts_with("tidegate ")), Some(true));
        assert_eq!(request.header("user-agent"), Some(concat!("tidegate/", env!("CARGO_PKG_VERSION"))));
        assert_eq!(request.header("idempotency-key"), None);
        assert_eq!(request.header("authorization"), None);
    }
    assert_eq!(serde_json::from_value::<tidegate::sink::http::Options>(json!({ "url": "" })).unwrap().method, "POST");
}

#[tokio::test]
async fn s111_content_type_is_replaced_once_whatever_its_capitals() {
    let http = http();
    let sink =
        sink(&http.url("content_type", "ok"), json!({ "headers": { "content-TYPE": "application/cloudevents+json" } }));
    deliver(&sink, numbers(1)).await;
    let requests = http.requests("content_type").await;
    let sent: Vec<_> = requests[0].headers.iter().filter(|(name, _)| name == "content-type").collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1, "application/cloudevents+json");
}

#[test]
fn s111_what_cannot_be_sent_is_refused_at_the_start_without_a_value() {
    for (options, place) in [
        (
            json!({ "headers": { "Content-Type": "secret", "content-type": "secret" } }),
            "headers.content-type` stands twice",
        ),
        (json!({ "headers": { "Host": "secret" } }), "headers.Host` is not"),
        (json!({ "headers": { "CONTENT-LENGTH": "secret" } }), "headers.CONTENT-LENGTH` is not"),
        (json!({ "headers": { "Transfer-Encoding": "secret" } }), "headers.Transfer-Encoding` is not"),
        (json!({ "headers": { "Connection": "secret" } }), "headers.Connection` is not"),
        (json!({ "headers": { "no name": "secret" } }), "headers.no name` is not a header's name"),
        (json!({ "headers": { "": "secret" } }), "headers.` is not a header's name"),
        (json!({ "headers": { "X-Token": "secret\n" } }), "headers.X-Token` has a value with a control character"),
        (json!({ "headers": { "Authorization": "secret" } }), "has credentials in `url` and in `headers`"),
        (
            json!({ "idempotency_key": true, "headers": { "IDEMPOTENCY-key": "secret" } }),
            "headers.IDEMPOTENCY-key` is what",
        ),
        (json!({ "method": "post" }), "method` is `post`"),
        (json!({ "method": "GET" }), "method` is `GET`"),
        (json!({ "concurrency": 0 }), "concurrency` is 0"),
        (json!({ "concurrency": 257 }), "concurrency` is 257"),
        (json!({ "tls": { "ca_file": "/nowhere/ca.pem" } }), "tls.ca_file` names `/nowhere/ca.pem`"),
        (json!({ "tls": { "certificate_file": "/nowhere/c.pem" } }), "tls.key_file` is missing"),
    ] {
        let fault = made("https://user:hunter2@127.0.0.1/", options.clone()).unwrap_err();
        assert_eq!(fault.owner, tidegate::model::Owner::Config);
        assert!(fault.message.contains("`sinks.http.hook"), "{fault}");
        assert!(fault.message.contains(place), "{options}: {fault}");
        assert!(!format!("{fault:?}").contains("secret") && !format!("{fault:?}").contains("hunter2"), "{fault:?}");
    }
    let fault = made("http://127.0.0.1/", json!({ "tls": { "ca_file": "/nowhere/ca.pem" } })).unwrap_err();
    assert!(fault.message.contains("`sinks.http.hook.tls` has no meaning"), "{fault}");
}

#[tokio::test]
async fn s113_metadata_services_are_refused_at_the_start() {
    for host in [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "metadata.google.internal",
        "[fd00:ec2::254]",
        "[::ffff:a9fe:a9fe]",
    ] {
        let fault = made(&format!("http://{host}/latest/meta-data"), json!({})).unwrap_err();
        assert!(fault.message.contains("metadata service"), "{fault}");
    }
}

#[tokio::test]
async fn s85_credentials_of_the_address_are_sent_and_never_shown() {
    let http = http();
    let with_user = |url: String| url.replace("http://", "http://worker:hunter%402@");
    let sink = sink(&with_user(http.url("credentials", "ok")), json!({}));
    assert_eq!(deliver(&sink, numbers(1)).await, []);
    assert!(!format!("{sink:?}").contains("hunter"), "{sink:?}");
    let requests = http.requests("credentials").await;
    // worker:hunter@2
    assert_eq!(requests[0].header("authorization"), Some("Basic d29ya2VyOmh1bnRlckAy"));
    assert_eq!(requests[0].path, "/t/credentials/ok");

    // Not by an answer that repeats the request, nor by any way not to answer.
    let body = "HTTP/1.1 400 Bad Request\r\n\r\nI got: {}";
    let unheard = format!("http://127.0.0.1:{}/", free_port());
    let echo = answering(body).await;
    let others = ["reset", "hang", "redirect", "status/500"].map(|behaviour| http.url("unshown", behaviour));
    for url in others.into_iter().chain([echo, unheard, answering("nonsense").await]) {
        let url = with_user(url) + "?key=0123456789";
        let options = json!({ "timeout_seconds": 1, "headers": { "X-Token": "Bearer abcdefghij" } });
        let reason = format!("{:?}", answer(&self::sink(&url, options), numbers(1)).await);
        for secret in ["hunter", "worker", "d29ya2Vy", "0123456789", "abcdefghij"] {
            assert!(!reason.contains(secret), "{reason}");
        }
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let http = http();
    let sink = sink(&http.url("kept", "ok"), json!({ "concurrency": 4 }));
    for _ in 0..10 {
        assert_eq!(deliver(&sink, numbers(20)).await, []);
    }
    let requests = http.requests("kept").await;
    let ports: BTreeSet<u16> = requests.iter().map(|request| request.client_port).collect();
    assert_eq!(requests.len(), 200);
    assert!(ports.len() <= 8, "{ports:?}");
}

#[tokio::test]
async fn so_many_requests_are_under_way_and_no_more() {
    let http = http();
    let (count, pause) = (24, Duration::from_millis(60));
    let sink = sink(&http.url("bound", "slow/60"), json!({ "concurrency": 3 }));
    assert_eq!(sink.description().max_rows, 12);
    assert_eq!(deliver(&sink, numbers(count)).await, []);
    let arrived: Vec<Duration> = http.requests("bound").await.iter().map(|request| request.arrived).collect();
    assert_eq!(arrived.len(), count);
    // None is answered before its pause is over.
    let under_way = |now: &Duration| arrived.iter().filter(|begun| *begun <= now && *now < **begun + pause).count();
    assert_eq!(arrived.iter().map(under_way).max(), Some(3));
}

#[tokio::test]
async fn one_at_a_time_keeps_the_order_of_all_rows() {
    let http = http();
    let sink = sink(&http.url("in_order", "ok"), json!({ "concurrency": 1 }));
    assert_eq!(sink.description().max_rows, 1, "the host settles each row before the next");
    assert_eq!(deliver(&sink, numbers(30)).await, []);
    let expected: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&http.requests("in_order").await), expected);
}

/// S76a.
#[tokio::test]
async fn s76a_rows_of_one_key_go_one_after_the_other_and_others_meanwhile() {
    let http = http();
    let sink = sink(&http.url("by_key", "slow/80"), json!({ "concurrency": 8 }));
    let texts: Vec<String> = (0..15).map(|number| number.to_string()).collect();
    let rows =
        texts.iter().zip(["a", "b", "c"].into_iter().cycle()).map(|(text, key)| (Some(key), Some(text.as_str())));
    let begun = Instant::now();
    assert_eq!(deliver(&sink, batch(rows)).await, []);
    assert!(begun.elapsed() < Duration::from_millis(15 * 80), "keys do not wait for each other");
    let mut seen: BTreeMap<u32, (u32, Duration)> = BTreeMap::new();
    for request in http.requests("by_key").await {
        let number: u32 = request.text().parse().unwrap();
        if let Some((before, arrived)) = seen.insert(number % 3, (number, request.arrived)) {
            assert_eq!(number, before + 3);
            assert!(request.arrived >= arrived + Duration::from_millis(80), "the one before was not answered yet");
        }
    }
}

/// S76a: what stands behind a row that comes again is not sent; a row that never will be written holds nothing back.
#[tokio::test]
async fn s76a_a_row_that_comes_again_holds_back_its_key_and_no_other() {
    let http = http();
    let rows = [(Some("k"), Some("1")), (Some("k"), Some("2")), (Some("l"), Some("3")), (Some("l"), Some("4"))];
    let sink = sink(&http.url("held", "fail/500/1"), json!({}));
    let failures = deliver(&sink, batch(rows)).await;
    let first = failures[0].index;
    assert!(first == 0 || first == 2, "{failures:?}");
    assert_eq!(kinds(&failures), [(first, FailureKind::Retry), (first + 1, FailureKind::NotTried)]);
    assert!(failures[0].reason.contains("`500 Internal Server Error`"), "{failures:?}");
    let waits = format!("not sent, because it waits for orders[3]@{}: ", 40 + first);
    assert!(failures[1].reason.starts_with(&waits), "{failures:?}");
    let mut sent = bodies(&http.requests("held").await);
    sent.sort_unstable();
    assert_eq!(sent, if first == 0 { ["1", "3", "4"] } else { ["1", "2", "3"] });

    let sink = self::sink(&http.url("not_held", "poison/1"), json!({}));
    assert_eq!(kinds(&deliver(&sink, batch(rows)).await), [(0, FailureKind::Reject)]);
    assert_eq!(http.requests("not_held").await.len(), 4);
}

#[tokio::test]
async fn s113_every_repetition_has_the_same_idempotency_key() {
    let http = http();
    let sink = sink(&http.url("keys", "fail/500/2"), json!({ "idempotency_key": true, "concurrency": 1 }));
    let mut rows = batch([(Some("k"), Some("1"))]);
    rows.ordinals.push(5);
    for fails in [true, true, false] {
        let answer = answer(&sink, rows.clone()).await;
        assert!(if fails { matches!(answer, Err(CallError::Unknown(_))) } else { answer == Ok(vec![]) }, "{answer:?}");
    }
    let keys: Vec<_> =
        http.requests("keys").await.iter().map(|one| one.header("idempotency-key").map(String::from)).collect();
    assert_eq!(keys, vec![Some("orders-3-40-5-1700000000000".to_owned()); 3]);
    // S62: what has no stable name gets none.
    rows.stable = false;
    assert_eq!(deliver(&sink, rows).await, []);
    assert_eq!(http.requests("keys").await[3].header("idempotency-key"), None);
}

#[tokio::test]
async fn a_tombstone_is_rejected_or_passed_over() {
    let http = http();
    let rows = || batch([(Some("k"), Some("1")), (Some("k"), None), (Some("k"), Some("2"))]);
    let failures = deliver(&sink(&http.url("tombstone", "ok"), json!({})), rows()).await;
    assert_eq!(kinds(&failures), [(1, FailureKind::Reject)]);
    assert_eq!(deliver(&sink(&http.url("tombstone", "ok"), json!({ "on_tombstone": "skip" })), rows()).await, []);
    assert_eq!(bodies(&http.requests("tombstone").await), ["1", "2", "1", "2"]);
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_the_sink_usable() {
    let http = http();
    let sink = sink(&http.url("given_up", "slow/700"), json!({ "concurrency": 4 }));
    let given_up = tokio::time::timeout(Duration::from_millis(400), deliver(&sink, numbers(16))).await;
    given_up.unwrap_err();
    assert_eq!(deliver(&sink, numbers(4)).await, []);
    assert_eq!(http.requests("given_up").await.len(), 8, "what was not sent yet is not sent");
}
