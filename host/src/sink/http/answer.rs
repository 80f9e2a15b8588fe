//! What an answer, or its absence, says of the row that was sent.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::secrets::Secrets;
use crate::clock;
use crate::model::FailureKind;
use crate::sink::TOO_LARGE;

/// The longest wait that an endpoint may ask for.
const LONGEST_HOLD: Duration = Duration::from_secs(60 * 60);
/// The wait for an endpoint that says "too many requests" and not for how long.
const DEFAULT_HOLD: Duration = Duration::from_secs(1);
/// Most bytes of an answer's body that are read so that the connection can be used again.
const MOST_BODY: usize = 64 << 10;
/// The longest time that is spent on it.
pub(super) const BODY_PATIENCE: Duration = Duration::from_secs(1);
/// Most bytes of a body that a reason shows.
const SHOWN: usize = 300;

/// A row that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: FailureKind,
    pub(super) reason: String,
}

/// Judges an answer by its status and reads the rest of it, within bounds, for the connection's sake.
pub(super) async fn judge(mut answer: Response, secrets: &Secrets) -> Result<(), Refusal> {
    let status = answer.status();
    let refused = kind(status, answer.headers());
    let body = body(&mut answer).await;
    let Some(kind) = refused else { return Ok(()) };
    let mut reason = format!("the answer was `{}`", named(status));
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        reason = format!("{TOO_LARGE}: {reason}");
    }
    if status.is_redirection() {
        // Where to is not said: it may carry a secret.
        reason.push_str(", and redirects are not followed");
    } else {
        let text = printable(&secrets.hide(&String::from_utf8_lossy(&body)));
        if !text.is_empty() {
            reason.push_str(": ");
            reason.push_str(&text);
        }
    }
    Err(Refusal { kind, reason })
}

/// Judges a request that got no answer.
pub(super) fn unanswered(error: reqwest::Error, shown: &str, timeout: Duration) -> Refusal {
    let error = error.without_url();
    let mut causes = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes = format!(": {cause}");
        next = cause.source();
    }
    // The innermost cause alone: those around it only say that a request failed.
    if error.is_connect() {
        Refusal { kind: FailureKind::Unavailable, reason: format!("`{shown}` cannot be reached{causes}") }
    } else if error.is_timeout() {
        let seconds = timeout.as_secs_f64();
        let reason = format!("`{shown}` did not answer within {seconds} s, so whether the request arrived is unknown");
        Refusal { kind: FailureKind::Retry, reason }
    } else {
        let reason = format!("`{shown}` broke off, so whether the request arrived is unknown{causes}");
        Refusal { kind: FailureKind::Retry, reason }
    }
}

/// What the status makes of the row; `None` when it is delivered.
fn kind(status: StatusCode, headers: &HeaderMap) -> Option<FailureKind> {
    Some(match status {
        status if status.is_success() => return None,
        StatusCode::TOO_MANY_REQUESTS => FailureKind::Backpressure(asked(headers).unwrap_or(DEFAULT_HOLD)),
        StatusCode::SERVICE_UNAVAILABLE => asked(headers).map_or(FailureKind::Retry, FailureKind::Backpressure),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => FailureKind::Retry,
        status if status.is_server_error() => FailureKind::Retry,
        _ => FailureKind::Reject,
    })
}

/// The wait that the endpoint asks for: seconds, or the time of day until which to wait.
fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // So many digits that no number holds them ask for more than the longest wait.
        text.parse().map_or(LONGEST_HOLD, Duration::from_secs)
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(clock::time_of_day()).unwrap_or_default()
    };
    Some(wait.min(LONGEST_HOLD))
}

/// The beginning of the body. What comes late, breaks off or is too much is let go, and the connection with it.
async fn body(answer: &mut Response) -> Vec<u8> {
    let mut body = Vec::new();
    let reading = async {
        while body.len() < MOST_BODY {
            let Ok(Some(part)) = answer.chunk().await else { break };
            body.extend_from_slice(&part);
        }
    };
    let _ = tokio::time::timeout(BODY_PATIENCE, reading).await;
    body
}

fn named(status: StatusCode) -> String {
    status.canonical_reason().map_or_else(|| status.as_str().to_owned(), |name| format!("{} {name}", status.as_str()))
}

/// One line of at most [`SHOWN`] bytes.
fn printable(text: &str) -> String {
    let words: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    let words = words.trim();
    words[..words.floor_char_boundary(SHOWN)].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use reqwest::header::HeaderValue;

    use super::*;

    fn after(code: u16, text: &str) -> Option<FailureKind> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
        kind(StatusCode::from_u16(code).unwrap(), &headers)
    }

    #[test]
    fn s112_s113_the_status_decides() {
        use FailureKind::{Backpressure, Reject, Retry};
        let told: Vec<(u16, Option<FailureKind>)> = [200, 201, 204, 226, 299]
            .map(|code| (code, None))
            .into_iter()
            .chain([101, 300, 301, 304, 307, 308, 400, 401, 404, 409, 413, 418, 422].map(|code| (code, Some(Reject))))
            .chain([408, 425, 500, 501, 502, 503, 504, 599].map(|code| (code, Some(Retry))))
            .chain([(429, Some(Backpressure(DEFAULT_HOLD)))])
            .collect();
        for (code, expected) in told {
            assert_eq!(kind(StatusCode::from_u16(code).unwrap(), &HeaderMap::new()), expected, "{code}");
        }
    }

    #[test]
    fn s113_an_endpoint_says_how_long_to_wait() {
        let hold = |wait| Some(FailureKind::Backpressure(wait));
        for code in [429, 503] {
            assert_eq!(after(code, "7"), hold(Duration::from_secs(7)));
            assert_eq!(after(code, "0"), hold(Duration::ZERO));
            assert_eq!(after(code, "86400"), hold(LONGEST_HOLD));
            assert_eq!(after(code, "99999999999999999999999"), hold(LONGEST_HOLD));
            assert_eq!(after(code, "Sun, 06 Nov 1994 08:49:37 GMT"), hold(Duration::ZERO));
            let soon = httpdate::fmt_http_date(clock::time_of_day() + Duration::from_secs(90));
            let Some(FailureKind::Backpressure(wait)) = after(code, &soon) else { panic!("{soon}") };
            assert!(wait > Duration::from_secs(60) && wait <= Duration::from_secs(90), "{wait:?}");
        }
        for senseless in ["", "-1", "soon", "1.5"] {
            assert_eq!(after(429, senseless), hold(DEFAULT_HOLD), "{senseless}");
            assert_eq!(after(503, senseless), Some(FailureKind::Retry), "{senseless}");
        }
        assert_eq!(after(500, "7"), Some(FailureKind::Retry));
        assert_eq!(after(400, "7"), Some(FailureKind::Reject));
    }

    #[test]
    fn a_body_is_shown_on_one_line_and_not_at_length() {
        assert_eq!(printable("\n{\"error\":\r\n\u{1b}[31m\"no\"}\0"), "{\"error\":   [31m\"no\"}");
        assert_eq!(printable(&"€".repeat(200)).len(), 300);
        assert_eq!(printable(&format!("a{}", "€".repeat(200))).len(), 298);
    }
}
