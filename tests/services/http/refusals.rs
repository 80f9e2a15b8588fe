//! What an answer, or none, means for its row and for the endpoint (S79a–S79c, S112, S113).

use super::*;

#[tokio::test]
async fn s112_s113_the_status_decides() {
    let http = http();
    for code in [200, 201, 204] {
        let sink = sink(&http.url("taken", &format!("status/{code}")), json!({}));
        assert_eq!(deliver(&sink, numbers(3)).await, [], "{code}");
    }
    let one_second = FailureKind::Backpressure(Duration::from_secs(1));
    for (code, kind) in [
        (301, FailureKind::Unavailable),
        (302, FailureKind::Unavailable),
        (307, FailureKind::Unavailable),
        (400, FailureKind::Reject),
        (401, FailureKind::Unavailable),
        (403, FailureKind::Unavailable),
        (404, FailureKind::Reject),
        (407, FailureKind::Unavailable),
        (409, FailureKind::Retry),
        (413, FailureKind::Reject),
        (421, FailureKind::Unavailable),
        (425, FailureKind::Unavailable),
        (431, FailureKind::Unavailable),
        (451, FailureKind::Unavailable),
        (507, FailureKind::Unavailable),
        (511, FailureKind::Unavailable),
        (521, FailureKind::Unavailable),
        (524, FailureKind::Unavailable),
        (530, FailureKind::Unavailable),
        (502, FailureKind::Unavailable),
        (503, FailureKind::Unavailable),
        (504, FailureKind::Unavailable),
        (429, one_second),
    ] {
        let failure = failure(&http.url("refused", &format!("status/{code}")), json!({})).await;
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.reason.contains(&format!("the answer was `{code}")), "{failure:?}");
        assert_eq!(failure.reason.starts_with(TOO_LARGE), code == 413, "{failure:?}");
        let ending = if code < 400 { ", and redirects are not followed" } else { ": {\"ok\":true}" };
        assert!(failure.reason.ends_with(ending), "{failure:?}");
    }
    for code in [408, 499, 500, 501, 520, 700] {
        let answer = answer(&sink(&http.url("failed", &format!("status/{code}")), json!({})), numbers(3)).await;
        let Err(CallError::Unknown(fault)) = answer else { panic!("{code}: {answer:?}") };
        assert!(fault.to_string().contains(&format!("the answer was `{code}")), "{fault}");
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
async fn s79b_after_the_request_was_sent_no_answer_means_unknown() {
    let http = http();
    let begun = Instant::now();
    for url in [
        http.url("unknown", "reset"),
        http.url("unknown", "hang"),
        answering("").await,
        answering("garbage instead of an answer\r\n\r\n").await,
    ] {
        let failure = failure(&url, json!({ "timeout_seconds": 1 })).await;
        assert_eq!(failure.kind, FailureKind::Unavailable, "{failure:?}");
        assert!(failure.reason.contains("whether the request arrived is unknown"), "{failure:?}");
        assert!(failure.reason.contains("`http://127.0.0.1:"), "{failure:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(http.requests("unknown").await.len(), 3, "only what was cut off is sent once more");
}

#[tokio::test]
async fn s41_what_cannot_be_reached_is_unavailable_and_nothing_was_sent() {
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
    assert!(failures.iter().all(|one| one.kind == FailureKind::Unavailable), "{failures:?}");
    own.restart();
    assert_eq!(deliver(&sink, numbers(2)).await, []);
}

/// H1: what is said of the endpoint, its login or a proxy keeps all rows waiting, until they are all delivered.
#[tokio::test]
async fn s79a_an_endpoint_that_refuses_everything_is_unavailable() {
    let http = http();
    for code in [302, 401, 403, 407, 431, 451, 502, 503, 504, 511, 522, 530] {
        let sink = sink(&http.url(&format!("outage_{code}"), &format!("fail/{code}/40")), json!({}));
        let mut calls = 0;
        loop {
            let failures = deliver(&sink, numbers(20)).await;
            if failures.is_empty() {
                break;
            }
            calls += 1;
            // The last of the outage meets the first rows that are taken.
            let waits = failures.iter().all(|one| one.kind == FailureKind::Unavailable);
            assert!(waits || calls > 1, "{code}: {failures:?}");
            assert!(calls < 50, "{code}: {failures:?}");
        }
        assert!(calls > 1, "{code}");
    }
}

/// H1: one row of many that is refused so is refused for what it holds.
#[tokio::test]
async fn s79b_a_row_that_is_forbidden_among_others_is_rejected() {
    let http = http();
    for (code, kind) in [
        (403, FailureKind::Reject),
        (302, FailureKind::Reject),
        (451, FailureKind::Reject),
        (401, FailureKind::Unavailable),
        (530, FailureKind::Unavailable),
        (520, FailureKind::Retry),
        (500, FailureKind::Retry),
        (501, FailureKind::Retry),
    ] {
        let sink = sink(&http.url("forbidden", &format!("poison-with/{code}/bad")), json!({}));
        let rows = [r#""a""#, r#""bad""#, r#""c""#];
        let each = batch(rows.map(|value| (None, Some(value))));
        let failures = deliver(&sink, each.clone()).await;
        assert_eq!(kinds(&failures), [(1, kind)], "{code}");
        // Sent again alone it is no other row.
        if kind == FailureKind::Retry {
            assert_eq!(kinds(&deliver(&sink, each.select(&[1])).await), [(0, kind)], "{code}");
            sink.discard(&each.source).await;
            assert!(matches!(answer(&sink, each.select(&[1])).await, Err(CallError::Unknown(_))), "{code}");
        }
    }
    // Where nothing else is sent, a row behind it does not overtake it.
    let sink = sink(&http.url("forbidden", "poison-with/403/bad"), json!({}));
    let failures = deliver(&sink, batch([(Some("k"), Some(r#""bad""#)), (Some("k"), Some(r#""a""#))])).await;
    assert_eq!(kinds(&failures), [(0, FailureKind::Unavailable), (1, FailureKind::Unavailable)]);
}

/// H3: a server that closes a kept connection when it is used again has not refused anything.
#[tokio::test]
async fn s79b_a_kept_connection_that_is_closed_is_no_failure() {
    let http = http();
    let sink = sink(&http.url("once", "once"), json!({ "concurrency": 2 }));
    for _ in 0..3 {
        assert_eq!(deliver(&sink, numbers(12)).await, []);
    }
    let requests = http.requests("once").await;
    let closed = requests.iter().filter(|request| request.answered.is_none()).count();
    assert!(closed > 0, "no connection was used again");
    assert_eq!(requests.len() - closed, 36);
}

/// A service that refuses a request once so many bytes of it have come, and closes with the rest unread, which resets
/// the
/// connection. Its address.
async fn refusing_after(bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut come, mut part) = (0, vec![0; 16 << 10]);
                while come < bytes {
                    match stream.read(&mut part).await {
                        Ok(0) | Err(_) => return,
                        Ok(length) => come += length,
                    }
                }
                let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
                stream.write_all(answer.as_bytes()).await.ok();
            });
        }
    });
    format!("http://{address}/")
}

/// H4: a body that is refused by its length while it is still being sent, on a connection that is reset then. One
/// endpoint knows
/// the length from the head, one counts what arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s112_a_refusal_while_the_body_is_being_sent_is_understood() {
    let large = format!("\"{}\"", "x".repeat(8 << 20));
    for bytes in [100, 1 << 20] {
        let sink = sink(&refusing_after(bytes).await, json!({}));
        for _ in 0..10 {
            let failures = deliver(&sink, batch([(None, Some(large.as_str()))])).await;
            assert_eq!(kinds(&failures), [(0, FailureKind::Reject)], "{bytes}: {failures:?}");
            assert!(failures[0].reason.starts_with(TOO_LARGE) && failures[0].reason.contains("413"), "{failures:?}");
        }
    }
}

/// A large body that goes out in parts is the same body.
#[tokio::test]
async fn a_body_that_is_sent_again_is_whole() {
    let http = http();
    let sink = sink(&http.url("whole", "once"), json!({ "concurrency": 1 }));
    let large = format!("\"{}\"", "0123456789abcdef".repeat(1 << 16));
    for _ in 0..2 {
        assert_eq!(deliver(&sink, batch([(None, Some(large.as_str()))])).await, []);
    }
    let requests = http.requests("whole").await;
    assert_eq!(requests.len(), 3, "one of them on a connection that was closed");
    for request in &requests {
        assert!(request.text() == large);
        assert_eq!(request.header("content-length"), Some(large.len().to_string().as_str()));
    }
}

/// S79b: an endpoint that hangs is left alone after as many requests as may be under way; a row that hangs alone is its
/// own.
#[tokio::test]
async fn s79b_rows_without_an_answer_are_the_rows_own_only_among_taken_ones() {
    let http = http();
    let options = || json!({ "timeout_seconds": 1, "concurrency": 3 });
    let failures = deliver(&sink(&http.url("hanging", "hang"), options()), numbers(12)).await;
    assert_eq!(kinds(&failures), (0..12).map(|row| (row, FailureKind::Unavailable)).collect::<Vec<_>>());
    assert!(http.requests("hanging").await.len() < 6, "it is left alone");
    let sink = sink(&http.url("hanging_alone", "poison-with/0/bad"), options());
    let each = batch([r#""a""#, r#""bad""#, r#""c""#].map(|value| (None, Some(value))));
    for _ in 0..2 {
        assert_eq!(kinds(&deliver(&sink, each.clone()).await), [(1, FailureKind::Retry)]);
        assert_eq!(kinds(&deliver(&sink, each.select(&[1])).await), [(0, FailureKind::Retry)]);
    }
}
