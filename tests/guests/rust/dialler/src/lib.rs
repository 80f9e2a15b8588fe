//! A sink that sends the HTTP requests which its rows describe, and rejects each row with what it saw.
//!
//! Scheme, authority and path go to the host as they are written, so that hostile spellings arrive unparsed.

use std::cell::RefCell;
use std::time::Duration;

use serde::Deserialize;
use tidegate_sdk::{Batch, Context, DirectSink, Failure, Fault, export_direct_sink};
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    RequestOptions, Scheme, http_error_code,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

/// Bytes of an answer that are repeated.
const SHOWN: usize = 200;

/// One request, and what to do with it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    method: String,
    scheme: Option<String>,
    authority: Option<String>,
    path: Option<String>,
    headers: Vec<(String, String)>,
    /// Bytes of the body; without it there is none.
    body: Option<u64>,
    /// The body is begun and never finished.
    unfinished: bool,
    /// The request is prepared and its body written, and it is not sent.
    unsent: bool,
    /// The answer is neither read nor let go of, for as long as the instance lives.
    keep: bool,
    /// The answer is not waited for.
    leave: bool,
    /// How often all that is done.
    times: u64,
    /// Where a redirect leads is asked for too.
    follow: bool,
    /// How long to wait before the answer is read.
    pause_milliseconds: u64,
    first_byte_milliseconds: Option<u64>,
    between_bytes_milliseconds: Option<u64>,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            method: "GET".into(),
            scheme: Some("http".into()),
            authority: None,
            path: Some("/".into()),
            headers: Vec::new(),
            body: None,
            unfinished: false,
            unsent: false,
            keep: false,
            leave: false,
            times: 1,
            follow: false,
            pause_milliseconds: 0,
            first_byte_milliseconds: None,
            between_bytes_milliseconds: None,
        }
    }
}

/// What is never let go of.
#[allow(dead_code, reason = "held for the sake of holding it")]
enum Kept {
    Answer(IncomingResponse),
    Coming(FutureIncomingResponse),
    Unsent(OutgoingRequest, OutgoingBody, OutputStream),
    Unfinished(OutgoingBody, OutputStream),
}

thread_local! {
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

fn keep(kept: Kept) {
    KEPT.with_borrow_mut(|all| all.push(kept));
}

fn code(error: &ErrorCode) -> String {
    format!("error {error:?}")
}

fn scheme(name: &str) -> Scheme {
    match name {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "CONNECT" => Method::Connect,
        other => Method::Other(other.to_owned()),
    }
}

/// The request, or which part of it the host does not take.
fn prepared(asked: &Asked) -> Result<OutgoingRequest, String> {
    let headers = Fields::new();
    for (name, value) in &asked.headers {
        headers.append(name, value.as_bytes()).map_err(|error| format!("header {error:?}"))?;
    }
    let request = OutgoingRequest::new(headers);
    request.set_method(&method(&asked.method)).map_err(|()| "method refused")?;
    request.set_scheme(asked.scheme.as_deref().map(scheme).as_ref()).map_err(|()| "scheme refused")?;
    request.set_authority(asked.authority.as_deref()).map_err(|()| "authority refused")?;
    request.set_path_with_query(asked.path.as_deref()).map_err(|()| "path refused")?;
    Ok(request)
}

/// Writes that many bytes; says at which byte the host stopped taking them.
fn write(stream: &OutputStream, bytes: u64) -> Result<(), String> {
    let chunk = [b'x'; 4096];
    let mut sent = 0;
    while sent < bytes {
        let next = (bytes - sent).min(chunk.len() as u64);
        let part = &chunk[..usize::try_from(next).unwrap_or(0)];
        stream.blocking_write_and_flush(part).map_err(|error| match error {
            StreamError::Closed => format!("closed after {sent} bytes"),
            StreamError::LastOperationFailed(error) => format!("{} after {sent} bytes", error.to_debug_string()),
        })?;
        sent += next;
    }
    Ok(())
}

fn sent(asked: &Asked) -> Result<FutureIncomingResponse, String> {
    let request = prepared(asked)?;
    let options = RequestOptions::new();
    let nanoseconds = |milliseconds: Option<u64>| milliseconds.map(|wait| wait.saturating_mul(1_000_000));
    let _ = options.set_first_byte_timeout(nanoseconds(asked.first_byte_milliseconds));
    let _ = options.set_between_bytes_timeout(nanoseconds(asked.between_bytes_milliseconds));
    let body = match asked.body {
        None => None,
        Some(_) => Some(request.body().map_err(|()| "no body")?),
    };
    let future = handle(request, Some(options)).map_err(|error| code(&error))?;
    if let Some(body) = body {
        let stream = body.write().map_err(|()| "no stream")?;
        // What the answer says counts, not where the writing ended.
        let _ = write(&stream, asked.body.unwrap_or_default());
        if asked.unfinished {
            keep(Kept::Unfinished(body, stream));
        } else {
            drop(stream);
            let _ = OutgoingBody::finish(body, None);
        }
    }
    Ok(future)
}

fn answered(future: &FutureIncomingResponse) -> Result<IncomingResponse, String> {
    future.subscribe().block();
    match future.get() {
        Some(Ok(Ok(response))) => Ok(response),
        Some(Ok(Err(error))) => Err(code(&error)),
        other => Err(format!("no answer: {other:?}")),
    }
}

/// The body's length and beginning, and what ended it.
fn read(response: &IncomingResponse) -> String {
    let Ok(body) = response.consume() else { return "no body".into() };
    let (mut total, mut shown, mut end) = (0, Vec::new(), String::new());
    {
        let Ok(stream) = body.stream() else { return "no stream".into() };
        loop {
            match next(&stream) {
                Ok(bytes) => {
                    total += bytes.len();
                    shown.extend(bytes.into_iter().take(SHOWN.saturating_sub(shown.len())));
                }
                Err(StreamError::Closed) => break,
                Err(StreamError::LastOperationFailed(error)) => {
                    end = match http_error_code(&error) {
                        Some(error) => format!(", then {}", code(&error)),
                        None => format!(", then {}", error.to_debug_string()),
                    };
                    break;
                }
            }
        }
    }
    let _ = IncomingBody::finish(body);
    format!("{total} bytes {:?}{end}", String::from_utf8_lossy(&shown))
}

fn next(stream: &InputStream) -> Result<Vec<u8>, StreamError> {
    stream.blocking_read(64 << 10)
}

fn location(response: &IncomingResponse) -> Option<String> {
    let values = response.headers().get("location");
    values.into_iter().next().map(|value| String::from_utf8_lossy(&value).into_owned())
}

fn once(asked: &Asked) -> Result<String, String> {
    if asked.unsent {
        let request = prepared(asked)?;
        let body = request.body().map_err(|()| "no body")?;
        let stream = body.write().map_err(|()| "no stream")?;
        let mut written = 0;
        // As much as the host takes without anybody reading it.
        while written < asked.body.unwrap_or_default() {
            let most = stream.check_write().unwrap_or_default().min(1 << 20);
            if most == 0 {
                break;
            }
            let _ = stream.write(&vec![b'x'; usize::try_from(most).unwrap_or(0)]);
            written += most;
        }
        keep(Kept::Unsent(request, body, stream));
        return Ok(format!("held {written}"));
    }
    let future = sent(asked)?;
    if asked.leave {
        keep(Kept::Coming(future));
        return Ok("left".into());
    }
    let response = answered(&future)?;
    std::thread::sleep(Duration::from_millis(asked.pause_milliseconds));
    let status = response.status();
    if asked.keep {
        keep(Kept::Answer(response));
        return Ok(format!("status {status}, kept"));
    }
    let place = location(&response).map(|place| format!(" to {place}")).unwrap_or_default();
    let seen = format!("status {status}{place}, {}", read(&response));
    match location(&response) {
        Some(place) if asked.follow => {
            let (scheme, rest) = place.split_once("://").unwrap_or(("http", &place));
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let next = Asked {
                scheme: Some(scheme.to_owned()),
                authority: Some(authority.to_owned()),
                path: Some(format!("/{path}")),
                ..Asked::default()
            };
            drop(response);
            Ok(format!("{seen}; followed: {}", once(&next).unwrap_or_else(|error| error)))
        }
        _ => Ok(seen),
    }
}

/// What every time brought, the same things counted.
fn all(asked: &Asked) -> String {
    let mut seen: Vec<(String, u64)> = Vec::new();
    for _ in 0..asked.times {
        let one = once(asked).unwrap_or_else(|error| error);
        match seen.iter_mut().find(|(known, _)| *known == one) {
            Some((_, times)) => *times += 1,
            None => seen.push((one, 1)),
        }
    }
    if asked.times == 1 {
        return seen.pop().map(|(one, _)| one).unwrap_or_default();
    }
    let seen: Vec<_> = seen.into_iter().map(|(one, times)| format!("{times} times {one}")).collect();
    seen.join("; ")
}

/// The sink.
#[derive(Debug)]
pub struct Dialler;

impl DirectSink for Dialler {
    fn new(_: &Context) -> Result<Self, String> {
        Ok(Self)
    }

    fn connect(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn deliver(&mut self, batch: &Batch) -> Result<Vec<Failure>, Fault> {
        let told = batch.iter().enumerate().map(|(row, record)| {
            let seen = match record.json::<Asked>() {
                Ok(asked) => all(&asked),
                Err(error) => format!("not understood: {error:?}"),
            };
            Failure::reject(row, seen)
        });
        Ok(told.collect())
    }
}

export_direct_sink!(Dialler);
