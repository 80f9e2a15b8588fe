//! What an answer, or its absence, says of the row that was sent.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::secrets::Secrets;
use crate::clock;
use crate::sink::TOO_LARGE;

/// The longest wait that an endpoint may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);
/// The wait for an endpoint that says "too many requests" and not for how long.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);
/// Most bytes of an answer's body that are read so that the connection can be used again.
const MOST_BODY: usize = 64 << 10;
/// The longest time that is spent on it.
pub(super) const BODY_PATIENCE: Duration = Duration::from_secs(1);
/// Most bytes of a body that a reason shows.
const SHOWN: usize = 300;

/// What a refusal says of its row, as far as one answer can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The row never will be taken.
    Reject,
    /// The row may be taken later.
    Retry,
    /// The endpoint, or a proxy before it, takes nothing for now.
    Unavailable,
    /// It wants to be asked later.
    Backpressure(Duration),
    /// It is about the endpoint or the login, unless other rows are taken meanwhile: then the row never will be.
    Forbidden,
    /// The endpoint failed. The row may be the cause where others are taken meanwhile.
    Failed,
    /// There was no answer, or not a whole one. The same.
    Unanswered,
}

/// A row that was not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) class: Class,
    pub(super) reason: String,
}

/// Classifies an answer by its status and reads the rest of it, within bounds, for the connection's sake.
pub(super) async fn taken(mut answer: Response, secrets: &Secrets) -> Result<(), Refusal> {
    let status = answer.status();
    let refused = classify(status, answer.headers());
    let body = body(&mut answer).await;
    let Some(class) = refused else { return Ok(()) };
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
    Err(Refusal { class, reason })
}

/// Classifies a request that got no answer.
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
        Refusal { class: Class::Unavailable, reason: format!("`{shown}` cannot be reached{causes}") }
    } else if error.is_timeout() {
        let seconds = timeout.as_secs_f64();
        let reason = format!("`{shown}` did not answer within {seconds} s, so whether the request arrived is unknown");
        Refusal { class: Class::Unanswered, reason }
    } else {
        let reason = format!("`{shown}` broke off, so whether the request arrived is unknown{causes}");
        Refusal { class: Class::Unanswered, reason }
    }
}

/// What the client says of a connection that ended without a byte of an answer.
const NO_ANSWER: &str = "connection closed before message completed";

/// Whether the connection ended before an answer came, as one does that the server closes just when it is used again.
pub(super) fn broke_off(error: &reqwest::Error) -> bool {
    if error.is_connect() || error.is_timeout() {
        return false;
    }
    let mut next = error.source();
    while let Some(cause) = next {
        if cause.is::<std::io::Error>() || cause.to_string() == NO_ANSWER {
            return true;
        }
        next = cause.source();
    }
    false
}

/// What the status says of the row; `None` when it is delivered.
fn classify(status: StatusCode, headers: &HeaderMap) -> Option<Class> {
    Some(match status.as_u16() {
        200..=299 => return None,
        429 => Class::Backpressure(asked(headers).unwrap_or(DEFAULT_WAIT)),
        503 => asked(headers).map_or(Class::Unavailable, Class::Backpressure),
        // Redirects, payment, privileges, the protocol, headers, what a country forbids: the same for all rows, for all
        // that is known.
        300..=399 | 402 | 403 | 419 | 426 | 431 | 451 | 463 | 464 | 494 | 505 => Class::Forbidden,
        // Logins here, at a proxy and at a network; the connection and its certificates; locked; a gateway; room; what
        // services in front of others say of those.
        401 | 407 | 421 | 423 | 425 | 440 | 495..=498 => Class::Unavailable,
        502 | 504 | 507..=509 | 511 | 521..=527 | 529 | 530 | 540 | 561 | 598 | 599 => Class::Unavailable,
        // A conflict ends, above all the one with a request of the same `Idempotency-Key` that is still being worked
        // on.
        409 => Class::Retry,
        // 499: a proxy in front of another one gave that up. What is no status is read as 5xx (RFC 9110, 15).
        408 | 499 | 500..=599 | 100..=199 | 600.. => Class::Failed,
        _ => Class::Reject,
    })
}

/// The wait that the endpoint asks for: seconds, or the time of day until which to wait.
fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // So many digits that no number holds them ask for more than the longest wait.
        text.parse().map_or(LONGEST_WAIT, Duration::from_secs)
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(clock::time_of_day()).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
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

    fn after(code: u16, text: &str) -> Option<Class> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
        classify(StatusCode::from_u16(code).unwrap(), &headers)
    }

    /// S79a, S79b: every status, whatever it is called.
    #[test]
    fn s79a_s112_s113_the_status_decides() {
        for code in 100..=999 {
            let expected = match code {
                200..=299 => None,
                429 => Some(Class::Backpressure(DEFAULT_WAIT)),
                300..=399 | 402 | 403 | 419 | 426 | 431 | 451 | 463 | 464 | 494 | 505 => Some(Class::Forbidden),
                401 | 407 | 421 | 423 | 425 | 440 | 495 | 496 | 497 | 498 => Some(Class::Unavailable),
                502 | 503 | 504 | 507 | 508 | 509 | 511 | 540 | 561 => Some(Class::Unavailable),
                521 | 522 | 523 | 524 | 525 | 526 | 527 | 529 | 530 | 598 | 599 => Some(Class::Unavailable),
                409 => Some(Class::Retry),
                100..=199 | 408 | 499 | 500 | 501 | 506 | 510 | 512..=520 | 528 | 531..=597 => Some(Class::Failed),
                600.. => Some(Class::Failed),
                400..=499 => Some(Class::Reject),
                _ => unreachable!("{code}"),
            };
            assert_eq!(classify(StatusCode::from_u16(code).unwrap(), &HeaderMap::new()), expected, "{code}");
        }
    }

    #[test]
    fn s113_an_endpoint_says_how_long_to_wait() {
        let hold = |wait| Some(Class::Backpressure(wait));
        for code in [429, 503] {
            assert_eq!(after(code, "7"), hold(Duration::from_secs(7)));
            assert_eq!(after(code, "0"), hold(Duration::ZERO));
            assert_eq!(after(code, "86400"), hold(LONGEST_WAIT));
            assert_eq!(after(code, "99999999999999999999999"), hold(LONGEST_WAIT));
            assert_eq!(after(code, "Sun, 06 Nov 1994 08:49:37 GMT"), hold(Duration::ZERO));
            let soon = httpdate::fmt_http_date(clock::time_of_day() + Duration::from_secs(90));
            let Some(Class::Backpressure(wait)) = after(code, &soon) else { panic!("{soon}") };
            assert!(wait > Duration::from_secs(60) && wait <= Duration::from_secs(90), "{wait:?}");
        }
        for senseless in ["", "-1", "soon", "1.5"] {
            assert_eq!(after(429, senseless), hold(DEFAULT_WAIT), "{senseless}");
            assert_eq!(after(503, senseless), Some(Class::Unavailable), "{senseless}");
        }
        assert_eq!(after(500, "7"), Some(Class::Failed));
        assert_eq!(after(400, "7"), Some(Class::Reject));
    }

    #[test]
    fn a_body_is_shown_on_one_line_and_not_at_length() {
        assert_eq!(printable("\n{\"error\":\r\n\u{1b}[31m\"no\"}\0"), "{\"error\":   [31m\"no\"}");
        assert_eq!(printable(&"€".repeat(200)).len(), 300);
        assert_eq!(printable(&format!("a{}", "€".repeat(200))).len(), 298);
    }
}
