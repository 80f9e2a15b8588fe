//! An HTTP endpoint as a destination: every row is a request (S111–S113).
//!
//! A row's value is the request's body, byte for byte, with `Content-Type: application/json`; it has to be one JSON
//! document.
//! A status from 200 to 299 means that the row was delivered, whatever the answer's body holds; at most 64 KiB of it
//! are read, for
//! at most a second. Rows of one key are sent one after the other, others at the same time, up to `concurrency`; with
//! `concurrency: 1` every row is settled before the next is sent. A row that has to come again holds back the rows of
//! its
//! key behind it in the same call, which then are not sent. HTTP knows nothing of repetition: after an unknown outcome
//! the
//! endpoint may see a row twice, which it can tell by the `Idempotency-Key` if that is turned on. Rows of the window
//! hook have
//! none, as nothing names them twice in the same way. No proxy is taken from the environment, redirects are not
//! followed,
//! and the metadata services of clouds are never asked, neither by address nor by a name that stands for one.
//!
//! | What goes wrong | Answer for its rows |
//! |---|---|
//! | the value is no JSON document, or null with `on_tombstone: reject` | reject, nothing is sent |
//! | 400 to 499, but for those below | reject, with the beginning of the answer |
//! | 409, such as for a request of the same `Idempotency-Key` that is still under way | retry |
//! | 403, and 300 to 399, 402, 419, 426, 431, 451, 463, 464, 494, 505 | reject where the endpoint took other rows of the call; else unavailable, as it is the login or the address |
//! | 401, 407, 421, 423, 425, 440, 495 to 498, 502, 503, 504, 507, 508, 509, 511, 521 to 527, 529, 530, 540, 561, 598, 599 | unavailable: the endpoint, its login or a proxy |
//! | 429, and 503 with `Retry-After` | wait as long as it says, at most an hour, 1 s if it does not; nothing else is sent meanwhile |
//! | 408, 499, 500, 501, 520 and all other 500 to 599; what is no final status: 101, 600 to 999 | retry where the endpoint took other rows of the call, else unknown: asked again in parts |
//! | the name is not found, the connection is refused or takes too long, TLS does not come about | unavailable; nothing else is sent meanwhile |
//! | a reset or a connection that ends without an answer, twice; none within `timeout_seconds`; an answer that is not HTTP, has more than 1,000 headers or 400 KiB of them, a NUL character in one, or two different lengths | retry where the endpoint took other rows of the call, else unavailable; whether the request arrived is unknown |
//! | an earlier row of the same key was refused, and not for good | not tried; unavailable if that row is |
//!
//! A connection that ends before an answer has come, as when a server closes it just as it is used again, is no failure
//! yet: the request is sent once more, on a fresh connection, and a large body goes out in parts with pauses between
//! them, so that an endpoint which refuses it by its length is understood. A row that failed while others were taken is
//! remembered: when it is sent again alone, it is still the row that fails, and not the endpoint.
//!
//! Of an answer the status decides, and `Retry-After`. Headers that are not as the standard has them are passed over,
//! and informational answers (100, 103) before it, as curl and browsers do.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::header::HeaderValue;
use reqwest::{Body, Client, Request};
use schemars::JsonSchema;
use serde::Deserialize;

use self::answer::{BODY_PATIENCE, Class, Refusal};
use self::client::IDEMPOTENCY_KEY;
use self::paced::Paced;
use self::secrets::Secrets;
use self::verdict::{Undelivered, index};
use super::json::{self, Row};
use super::suspects::Suspects;
use super::tls::Tls;
use super::{Description, OnTombstone, Sink};
use crate::blocking::compute;
use crate::model::{Answer, Batch, CallError, Failure, Fault, TopicPartition};

mod address;
mod answer;
mod client;
mod paced;
mod secrets;
mod verdict;

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
    /// Sent with every request; may replace `Content-Type` (S111). `Host`, `Content-Length` and what else belongs to
    /// the connection is refused.
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
    /// Makes a connection for every request.
    fresh: Client,
    /// What every request repeats, without its body.
    template: Request,
    secrets: Secrets,
    suspects: Suspects,
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
        let client = client::client(&place, &url, &options.tls, timeout, client::MOST_IDLE)?;
        let fresh = client::client(&place, &url, &options.tls, timeout, 0)?;
        let template = client::template(&place, &client, &url, options)?;
        Ok(Self {
            shown: address::shown(&url),
            timeout,
            concurrency: options.concurrency,
            idempotency_key: options.idempotency_key,
            on_tombstone: options.on_tombstone,
            client,
            fresh,
            secrets: Secrets::of(&template),
            template,
            suspects: Suspects::default(),
        })
    }

    fn max_rows(&self) -> usize {
        if self.concurrency == 1 { 1 } else { ROUNDS * self.concurrency }
    }

    /// One request, and what its answer says.
    async fn send(&self, batch: &Batch, row: usize) -> Result<(), Refusal> {
        let value = Bytes::copy_from_slice(batch.row(row).value.unwrap_or_default());
        let request = self.request(batch, row, value.clone().into(), self.timeout)?;
        let begun = tokio::time::Instant::now();
        let mut answered = self.client.execute(request).await;
        // No byte of an answer came: the server may have closed the connection just as it was used again, or refuse the
        // body
        // by its length.
        let left = self.timeout.saturating_sub(begun.elapsed());
        if answered.as_ref().is_err_and(answer::broke_off) && !left.is_zero() {
            let request = self.request(batch, row, Body::wrap(Paced::new(value)), left)?;
            answered = self.fresh.execute(request).await;
        }
        match answered {
            Ok(answer) => answer::taken(answer, &self.secrets).await,
            Err(error) => Err(answer::unanswered(error, &self.shown, self.timeout)),
        }
    }

    fn request(&self, batch: &Batch, row: usize, body: Body, patience: Duration) -> Result<Request, Refusal> {
        let refused = |class, reason: &str| Refusal { class, reason: reason.to_owned() };
        let request = self.template.try_clone();
        let mut request = request.ok_or_else(|| refused(Class::Retry, "the request could not be repeated"))?;
        if self.idempotency_key && batch.stable {
            let key = idempotency_key(batch, row).map_err(|reason| refused(Class::Reject, reason))?;
            request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        }
        *request.body_mut() = Some(body);
        *request.timeout_mut() = Some(patience);
        Ok(request)
    }

    /// Rows of one key, one after the other.
    async fn send_in_order(&self, batch: &Batch, rows: Vec<usize>, call: &Call) -> Vec<(usize, Undelivered)> {
        let mut undelivered = Vec::new();
        // S76a: those behind a row that comes again must not overtake it, and who is asked to wait sends nothing more.
        let mut behind: Option<usize> = None;
        for row in rows {
            behind = behind.or_else(|| call.over.get().copied());
            if let Some(behind) = behind {
                undelivered.push((row, Undelivered::Unsent { behind }));
                continue;
            }
            let Err(refusal) = self.send(batch, row).await else {
                call.taken.store(true, Ordering::Relaxed);
                continue;
            };
            if call.is_over(refusal.class, self.concurrency) {
                call.over.get_or_init(|| row);
            }
            behind = (refusal.class != Class::Reject).then_some(row);
            undelivered.push((row, Undelivered::Refused(refusal)));
        }
        undelivered
    }

    /// The rows of each key, in their order, and the rows that are refused.
    fn lanes(&self, batch: &Batch) -> (Vec<Vec<usize>>, Vec<Failure>) {
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
        (lanes, failures)
    }
}

/// What the rows of a call have to know of each other.
#[derive(Debug, Default)]
struct Call {
    /// The endpoint took a row.
    taken: AtomicBool,
    /// Rows that got no answer.
    unanswered: AtomicUsize,
    /// The row after whose refusal nothing more is sent.
    over: OnceLock<usize>,
}

impl Call {
    /// Whether nothing more is to be sent: the endpoint takes nothing for now, or as many requests as may be under way
    /// got no
    /// answer, and no other one any.
    fn is_over(&self, class: Class, concurrency: usize) -> bool {
        match class {
            Class::Unavailable | Class::Backpressure(_) => true,
            Class::Unanswered => {
                let unanswered = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
                unanswered >= concurrency && !self.taken.load(Ordering::Relaxed)
            }
            Class::Reject | Class::Retry | Class::Forbidden | Class::Failed => false,
        }
    }
}

/// The same on every repetition. The time of the record tells a topic from an earlier one of its name.
fn idempotency_key(batch: &Batch, row: usize) -> Result<HeaderValue, &'static str> {
    let TopicPartition { topic, partition } = &batch.source;
    let record = batch.row(row);
    HeaderValue::try_from(format!("{topic}-{partition}-{}-{}-{}", record.offset, record.ordinal, record.timestamp))
        .map_err(|_| "the topic's name cannot stand in a header")
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
        // Every request is bounded by itself. In the worst case all rows of a call have one key and go one after the
        // other,
        // each just in time: a deadline for the call as a whole that is shorter would make an unknown outcome of rows
        // that
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
        let (lanes, mut failures) = compute(batch.size_bytes(), || self.lanes(batch));
        let call = Call::default();
        let sending: Vec<_> = lanes.into_iter().map(|rows| self.send_in_order(batch, rows, &call)).collect();
        let mut sending = stream::iter(sending).buffer_unordered(self.concurrency);
        let mut undelivered = BTreeMap::new();
        while let Some(rows) = sending.next().await {
            undelivered.extend(rows);
        }
        let taken = call.taken.load(Ordering::Relaxed);
        failures.extend(verdict::answer(batch, &undelivered, taken, &self.suspects, &self.shown)?);
        failures.sort_by_key(|failure| failure.index);
        Ok(failures)
    }
    async fn discard(&self, source: &TopicPartition) {
        self.suspects.forget(source);
    }
}
