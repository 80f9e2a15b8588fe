//! The HTTP sink on a service that behaves as it is asked to (S111–S113).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate::model::{Answer, Batch, Failure, FailureKind, Fault, TopicPartition};
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
        let reason = failure(&url, options).await.reason;
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
    assert_eq!(kinds(&failures), [(first, FailureKind::Retry), (first + 1, FailureKind::Backpressure(Duration::ZERO))]);
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
async fn s112_s113_the_status_decides() {
    let http = http();
    for code in [200, 201, 204] {
        let sink = sink(&http.url("taken", &format!("status/{code}")), json!({}));
        assert_eq!(deliver(&sink, numbers(3)).await, [], "{code}");
    }
    let one_second = FailureKind::Backpressure(Duration::from_secs(1));
    for (code, kind) in [
        (301, FailureKind::Reject),
        (302, FailureKind::Reject),
        (307, FailureKind::Reject),
        (400, FailureKind::Reject),
        (401, FailureKind::Reject),
        (404, FailureKind::Reject),
        (413, FailureKind::Reject),
        (408, FailureKind::Retry),
        (500, FailureKind::Retry),
        (503, FailureKind::Retry),
        (429, one_second),
    ] {
        let failure = failure(&http.url("refused", &format!("status/{code}")), json!({})).await;
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.reason.contains(&format!("the answer was `{code} ")), "{failure:?}");
        assert_eq!(failure.reason.starts_with(TOO_LARGE), code == 413, "{failure:?}");
        let ending = if code < 400 { ", and redirects are not followed" } else { ": {\"ok\":true}" };
        assert!(failure.reason.ends_with(ending), "{failure:?}");
    }
}

#[tokio::test]
async fn s112_a_redirect_is_not_followed() {
    let http = http();
    let failure = failure(&http.url("moved_away", "redirect"), json!({})).await;
    assert_eq!(failure.reason, "the answer was `302 Found`, and redirects are not followed");
    assert_eq!(http.requests("moved_away").await.len(), 1);
}

/// S76: neighbours of a row that is refused arrive.
#[tokio::test]
async fn s76_a_refused_row_takes_no_neighbour_with_it() {
    let http = http();
    let sink = sink(&http.url("neighbours", "poison/bad"), json!({ "concurrency": 2 }));
    let rows = [r#""a""#, r#""bad""#, "no json", r#""b""#, r#""so bad""#, r#""c""#];
    let failures = deliver(&sink, batch(rows.map(|value| (Some("k"), Some(value))))).await;
    assert_eq!(kinds(&failures), [1, 2, 4].map(|row| (row, FailureKind::Reject)));
    assert!(failures[1].reason.contains("not valid JSON"), "{failures:?}");
    assert_eq!(bodies(&http.requests("neighbours").await), [rows[0], rows[1], rows[3], rows[4], rows[5]]);
}

/// S113, S37: whoever is asked to wait sends nothing more.
#[tokio::test]
async fn s113_retry_after_is_a_wait_for_all_that_is_not_sent_yet() {
    let http = http();
    for code in [429, 503] {
        let test = format!("wait_{code}");
        let sink = sink(&http.url(&test, &format!("retry-after/{code}/2/7")), json!({ "concurrency": 2 }));
        let failures = deliver(&sink, numbers(20)).await;
        assert_eq!(failures.len(), 20);
        assert!(
            failures.iter().all(|one| one.kind == FailureKind::Backpressure(Duration::from_secs(7))),
            "{failures:?}"
        );
        assert_eq!(http.requests(&test).await.len(), 2);
        assert_eq!(deliver(&sink, numbers(20)).await, []);
    }
    let date = httpdate_in(Duration::from_secs(120));
    let url = answering(format!("HTTP/1.1 503 Busy\r\nRetry-After: {date}\r\nContent-Length: 0\r\n\r\n")).await;
    let FailureKind::Backpressure(wait) = failure(&url, json!({})).await.kind else { panic!() };
    assert!(wait > Duration::from_secs(100) && wait <= Duration::from_secs(120), "{wait:?}");
}

/// The time of day so much later, as headers write it.
fn httpdate_in(wait: Duration) -> String {
    httpdate::fmt_http_date(std::time::SystemTime::now() + wait)
}

#[tokio::test]
async fn a_body_that_drips_or_means_nothing_is_let_go() {
    let http = http();
    let begun = Instant::now();
    let drip = sink(&http.url("dripping", "drip"), json!({}));
    assert_eq!(deliver(&drip, numbers(2)).await, []);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let garbage = sink(&http.url("garbage", "garbage"), json!({}));
    assert_eq!(deliver(&garbage, numbers(2)).await, []);
    // Promised more than came, and a body without an end.
    let cut = answering("HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\nshort").await;
    assert_eq!(deliver(&sink(&cut, json!({})), numbers(1)).await, []);
    let long = answering(format!("HTTP/1.1 422 No\r\n\r\n\u{7}{}", "long ".repeat(100_000))).await;
    let failure = failure(&long, json!({})).await;
    assert_eq!(failure.kind, FailureKind::Reject);
    assert!(failure.reason.len() < 400 && failure.reason.contains(": long long"), "{failure:?}");
}

#[tokio::test]
async fn after_the_request_was_sent_no_answer_means_unknown() {
    let http = http();
    let begun = Instant::now();
    for url in [
        http.url("unknown", "reset"),
        http.url("unknown", "hang"),
        answering("").await,
        answering("garbage instead of an answer\r\n\r\n").await,
    ] {
        let failure = failure(&url, json!({ "timeout_seconds": 1 })).await;
        assert_eq!(failure.kind, FailureKind::Retry, "{failure:?}");
        assert!(failure.reason.contains("whether the request arrived is unknown"), "{failure:?}");
        assert!(failure.reason.contains("`http://127.0.0.1:"), "{failure:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(http.requests("unknown").await.len(), 2, "nothing is repeated unasked");
}

#[tokio::test]
async fn s41_what_cannot_be_reached_is_away_and_nothing_was_sent() {
    let refused = failure(&format!("http://127.0.0.1:{}/x", free_port()), json!({})).await;
    assert_eq!(refused.kind, FailureKind::Unavailable);
    assert!(refused.reason.contains("cannot be reached") && refused.reason.contains("refused"), "{refused:?}");
    let unknown = failure("http://no-such-host.invalid/x", json!({})).await;
    assert_eq!(unknown.kind, FailureKind::Unavailable, "{unknown:?}");
    // Taken by the system, but never by a program: TLS cannot begin.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let silent = failure(&format!("https://{address}/"), json!({ "timeout_seconds": 1 })).await;
    assert_eq!(silent.kind, FailureKind::Unavailable, "{silent:?}");

    let mut own = Http::start();
    let sink = sink(&own.url("restarted", "ok"), json!({}));
    assert_eq!(deliver(&sink, numbers(2)).await, []);
    own.kill();
    let failures = deliver(&sink, numbers(40)).await;
    assert_eq!(failures.len(), 40);
    // A connection that was kept may be noticed as gone only while a request is written to it.
    assert!(failures.iter().any(|one| one.kind == FailureKind::Unavailable), "{failures:?}");
    assert!(
        failures.iter().all(|one| matches!(one.kind, FailureKind::Unavailable | FailureKind::Retry)),
        "{failures:?}"
    );
    own.restart();
    assert_eq!(deliver(&sink, numbers(2)).await, []);
}

#[tokio::test]
async fn s113_every_repetition_has_the_same_idempotency_key() {
    let http = http();
    let sink = sink(&http.url("keys", "fail/500/2"), json!({ "idempotency_key": true, "concurrency": 1 }));
    let mut rows = batch([(Some("k"), Some("1"))]);
    rows.ordinals.push(5);
    for expected in [1, 1, 0] {
        assert_eq!(deliver(&sink, rows.clone()).await.len(), expected);
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

#[tokio::test]
async fn tls_believes_the_named_authority_and_no_other() {
    let http = http();
    let url = http.https_url("tls", "ok");
    let believing = |file: &Path| json!({ "tls": { "ca_file": file } });
    assert_eq!(deliver(&sink(&url, believing(&http.ca_file())), numbers(1)).await, []);
    assert!(http.requests("tls").await[0].tls);
    let (stranger, _) = self_signed("stranger");
    for options in [believing(&stranger), json!({})] {
        let failure = failure(&url, options).await;
        assert_eq!(failure.kind, FailureKind::Unavailable, "{failure:?}");
        assert!(failure.reason.contains("certificate"), "{failure:?}");
    }
    assert_eq!(http.requests("tls").await.len(), 1);
    let named = url.replace("127.0.0.1", "localhost");
    assert_eq!(deliver(&sink(&named, believing(&http.ca_file())), numbers(1)).await, []);
    let empty = stranger.with_file_name("empty.pem");
    fs::write(&empty, "nothing").unwrap();
    assert!(made(&url, believing(&empty)).unwrap_err().message.contains("holds no certificate"));
}

#[tokio::test]
async fn tls_shows_the_configured_certificate() {
    let (certificate, key) = self_signed("client");
    let (server, port) = demanding(&certificate);
    let url = format!("https://127.0.0.1:{port}/");
    let mut tls = json!({ "ca_file": http().ca_file(), "certificate_file": certificate, "key_file": key });
    assert_eq!(deliver(&sink(&url, json!({ "tls": tls })), numbers(1)).await, []);
    let without = json!({ "tls": { "ca_file": http().ca_file() } });
    let refused = failure(&url, without).await;
    assert!(matches!(refused.kind, FailureKind::Retry | FailureKind::Unavailable), "{refused:?}");
    tls["key_file"] = json!(certificate);
    let fault = made(&url, json!({ "tls": tls })).unwrap_err();
    assert!(fault.message.contains("cannot be read as such"), "{fault}");
    drop(server);
}

/// A certificate that signs itself, and its key.
fn self_signed(name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let dir = own_dir(&run_dir(), name);
    let arguments =
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 10 -keyout key.pem -out own.pem";
    output(
        Command::new("openssl").current_dir(&dir).args(arguments.split(' ')).args(["-subj", &format!("/CN={name}")]),
    );
    (dir.join("own.pem"), dir.join("key.pem"))
}

/// Ends with its owner.
struct Demanding(Child);

impl Drop for Demanding {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A service that answers 200 to whoever shows this certificate, and its port.
fn demanding(client: &Path) -> (Demanding, u16) {
    let program = r#"
import http.server, ssl, sys
class Taken(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
secure = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=sys.argv[1])
secure.load_cert_chain(sys.argv[2], sys.argv[3])
secure.verify_mode = ssl.CERT_REQUIRED
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taken)
server.socket = secure.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.handle_error = lambda *_: None
print(server.server_port, flush=True)
server.serve_forever()
"#;
    let own = crate::support::certificates::Certificates::shared();
    let mut child = Command::new("python3")
        .args(["-c", program])
        .args([client.to_path_buf(), own.certificate(), own.key()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Demanding(child), line.trim().parse().unwrap())
}
