//! An HTTP endpoint as a destination: every row is a request (S111–S113).
//!
//! A row's value is the request's body, byte for byte, with `Content-Type: application/json`; it has to be one JSON document.
//! A status from 200 to 299 means that the row was delivered, whatever the answer's body holds; at most 64 KiB of it are read, for
//! at most a second. Rows of one key are sent one after the other, others at the same time, up to `concurrency`; with
//! `concurrency: 1` every row is settled before the next is sent. A row that has to come again holds back the rows of its
//! key behind it in the same call, which then are not sent. HTTP knows nothing of repetition: after an unknown outcome the
//! endpoint may see a row twice, which it can tell by the `Idempotency-Key` if that is turned on. Rows of the window hook have
//! none, as nothing names them twice in the same way. No proxy is taken from the environment, redirects are not followed,
//! and the metadata services of clouds are never asked, neither by address nor by a name that stands for one.
//!
//! | What goes wrong | Answer for its rows |
//! |---|---|
//! | the value is no JSON document, or null with `on_tombstone: reject` | reject, nothing is sent |
//! | 300 to 399 | reject |
//! | 400 to 499, but for those below | reject, with the beginning of the answer |
//! | 408, 425, 500 to 599 | retry |
//! | 429, and 503 with `Retry-After` | wait as long as it says, at most an hour, 1 s if it does not; nothing else is sent meanwhile |
//! | the name is not found, the connection is refused or takes too long, TLS does not come about | away: waited for |
//! | a reset, a broken answer, none within `timeout_seconds` | retry; whether the request arrived is unknown |
//! | an earlier row of the same key has to come again | waits for it, nothing is sent |

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::header::HeaderValue;
use reqwest::{Client, Request};
use schemars::JsonSchema;
use serde::Deserialize;

use self::answer::{BODY_PATIENCE, Refusal};
use self::client::IDEMPOTENCY_KEY;
use self::secrets::Secrets;
use super::json::{self, Row};
use super::tls::Tls;
use super::{Description, OnTombstone, Sink};
use crate::model::{Answer, Batch, CallError, Failure, FailureKind, Fault, TopicPartition};

mod address;
mod answer;
mod client;
mod secrets;

/// Most requests of one call that may be under way at the same time.
const MOST_CONCURRENCY: usize = 256;
/// Rows wished for in one call, for each request that may be under way.
const ROUNDS: usize = 4;
/// What a call may take beyond its requests.
const SLACK: Duration = Duration::from_secs(5);

/// One endpoint to send to.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HttpSink")]
pub struct Options {
    /// Where the requests go: `http://` or `https://`. A user and password in it are sent as basic authentication.
    pub url: String,
    /// `POST`, `PUT` or `PATCH`.
    #[serde(default = "method")]
    pub method: String,
    /// Seconds that one request may take, 1 or more (S111).
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: f64,
    /// Sent with every request; may replace `Content-Type` (S111). `Host`, `Content-Length` and what else belongs to the
    /// connection is refused.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Requests of one partition that are under way at the same time, from 1 to 256. Rows of one key keep
    /// their order; with 1 all rows do.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// Whether every request has an `Idempotency-Key` made of its record's coordinates (S113).
    #[serde(default)]
    pub idempotency_key: bool,
    /// What happens to a record whose value is null; an endpoint has no keys, so `delete` is refused.
    #[serde(default)]
    pub on_tombstone: OnTombstone,
    /// TLS beyond the system's certificate authorities.
    #[serde(default)]
    pub tls: Tls,
}

fn method() -> String {
    "POST".into()
}

fn timeout_seconds() -> f64 {
    30.0
}

fn concurrency() -> usize {
    8
}

/// An HTTP endpoint as a destination: every row is a request (S111–S113).
pub struct HttpSink {
    /// Whom the texts mean.
    shown: String,
    timeout: Duration,
    concurrency: usize,
    idempotency_key: bool,
    on_tombstone: OnTombstone,
    client: Client,
    /// What every request repeats, without its body.
    template: Request,
    secrets: Secrets,
}

impl HttpSink {
    /// The sink `sinks.http.<name>`, not yet connected.
    ///
    /// # Errors
    /// When an option cannot be right.
    pub fn new(name: &str, options: &Options) -> Result<Self, Fault> {
        let place = format!("sinks.http.{name}");
        let url = address::parse(&place, &options.url)?;
        let timeout = Duration::try_from_secs_f64(options.timeout_seconds).ok().filter(|given| !given.is_zero());
        let Some(timeout) = timeout else {
            return Err(Fault::config(format!("`{place}.timeout_seconds` is no time that one can wait")));
        };
        if !(1..=MOST_CONCURRENCY).contains(&options.concurrency) {
            let message = format!("`{place}.concurrency` is {}", options.concurrency);
            return Err(Fault::config(message).hint(format!("it has to be from 1 to {MOST_CONCURRENCY}")));
        }
        let client = client::client(&place, &url, &options.tls, timeout)?;
        let template = client::template(&place, &client, &url, options)?;
        Ok(Self {
            shown: address::shown(&url),
            timeout,
            concurrency: options.concurrency,
            idempotency_key: options.idempotency_key,
            on_tombstone: options.on_tombstone,
            client,
            secrets: Secrets::of(&template),
            template,
        })
    }

    fn max_rows(&self) -> usize {
        if self.concurrency == 1 { 1 } else { ROUNDS * self.concurrency }
    }

    /// One request, and what its answer says.
    async fn send(&self, batch: &Batch, row: usize) -> Result<(), Refusal> {
        let Some(mut request) = self.template.try_clone() else {
            let reason = "the request could not be repeated".to_owned();
            return Err(Refusal { kind: FailureKind::Retry, reason });
        };
        if self.idempotency_key && batch.stable {
            let key = idempotency_key(batch, row)
                .map_err(|reason| Refusal { kind: FailureKind::Reject, reason: reason.to_owned() })?;
            request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        }
        let value = batch.row(row).value.unwrap_or_default();
        *request.body_mut() = Some(Bytes::copy_from_slice(value).into());
        match self.client.execute(request).await {
            Ok(answer) => answer::judge(answer, &self.secrets).await,
            Err(error) => Err(answer::unanswered(error, &self.shown, self.timeout)),
        }
    }

    /// Rows of one key, one after the other. `over` is why the whole call sends nothing more.
    async fn send_in_order(&self, batch: &Batch, rows: Vec<usize>, over: &OnceLock<Over>) -> Vec<Failure> {
        let mut failures = Vec::new();
        // S76a: those behind a row that comes again must not overtake it, and who is asked to wait sends nothing more.
        let mut held_by: Option<Over> = None;
        for row in rows {
            held_by = held_by.or_else(|| over.get().cloned());
            if let Some(held_by) = &held_by {
                failures.push(held_by.unsent(row));
                continue;
            }
            let Err(Refusal { kind, reason }) = self.send(batch, row).await else { continue };
            failures.push(Failure::new(index(row), kind, reason.clone()));
            let over_kind = match kind {
                // Not sent is not failed: those behind it come again whatever becomes of it, and it is no attempt of theirs.
                FailureKind::Retry => FailureKind::Backpressure(Duration::ZERO),
                kind => kind,
            };
            let this = Over { kind: over_kind, row: batch.source.at(batch.row(row).offset), reason };
            if matches!(kind, FailureKind::Unavailable | FailureKind::Backpressure(_)) {
                over.get_or_init(|| this.clone());
            }
            held_by = (kind != FailureKind::Reject).then_some(this);
        }
        failures
    }
}

/// Why rows are not sent in this call.
#[derive(Clone, Debug)]
struct Over {
    kind: FailureKind,
    /// The record that they wait for, as it is written.
    row: String,
    reason: String,
}

impl Over {
    fn unsent(&self, row: usize) -> Failure {
        let reason = format!("not sent, because it waits for {}: {}", self.row, self.reason);
        Failure::new(index(row), self.kind, reason)
    }
}

/// The same on every repetition. The time of the record tells a topic from an earlier one of its name.
fn idempotency_key(batch: &Batch, row: usize) -> Result<HeaderValue, &'static str> {
    let TopicPartition { topic, partition } = &batch.source;
    let record = batch.row(row);
    HeaderValue::try_from(format!("{topic}-{partition}-{}-{}-{}", record.offset, record.ordinal, record.timestamp))
        .map_err(|_| "the topic's name cannot stand in a header")
}

/// Row numbers cross as `u32`; a call never has so many rows that one is cut off.
fn index(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}

impl fmt::Debug for HttpSink {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSink").field("shown", &self.shown).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for HttpSink {
    fn description(&self) -> Description {
        let max_rows = self.max_rows();
        // Every request is bounded by itself. In the worst case all rows of a call have one key and go one after the other,
        // each just in time: a deadline for the call as a whole that is shorter would make an unknown outcome of rows that
        // were delivered.
        let one = self.timeout.saturating_add(BODY_PATIENCE);
        let patience = one.saturating_mul(u32::try_from(max_rows).unwrap_or(u32::MAX)).saturating_add(SLACK);
        Description { max_rows, patience, ..Description::direct(false) }
    }

    /// Asks nothing: a request would be a delivery (S124).
    async fn connect(&self) -> Result<(), CallError> {
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        let mut failures = Vec::new();
        let mut lanes: Vec<Vec<usize>> = Vec::new();
        let mut lane_of: HashMap<&[u8], usize> = HashMap::new();
        for (row, record) in batch.rows().enumerate() {
            match json::row(record.value, self.on_tombstone) {
                Ok(Row::Write(_)) => {}
                Ok(Row::Skip) => continue,
                Ok(Row::Delete) => {
                    failures
                        .push(Failure::reject(index(row), "the value is null, and an endpoint has no keys to delete"));
                    continue;
                }
                Err(reason) => {
                    failures.push(Failure::reject(index(row), reason));
                    continue;
                }
            }
            let lane = record.key.map_or(lanes.len(), |key| *lane_of.entry(key).or_insert(lanes.len()));
            match lanes.get_mut(lane) {
                Some(rows) => rows.push(row),
                None => lanes.push(vec![row]),
            }
        }
        let over = OnceLock::new();
        let sending: Vec<_> = lanes.into_iter().map(|rows| self.send_in_order(batch, rows, &over)).collect();
        let mut sending = stream::iter(sending).buffer_unordered(self.concurrency);
        while let Some(failed) = sending.next().await {
            failures.extend(failed);
        }
        failures.sort_by_key(|failure| failure.index);
        Ok(failures)
    }
}
