//! Dead letters sent through again (S96): a collector that yields what letters keep, and a queue that takes what fails again
//! as a further letter of the same record.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::NamedSink;
use super::dlq::{Content, Opened, open};
use super::policy::{Disposition, Stage, disposition};
use super::route::Routes;
use crate::collect::{Collect, Collected, DeliveryError, Window};
use crate::model::{Action, Batch, CallError, Failure, FailureKind, Fault, Offset, Payload, SinkKind, TopicPartition};

mod again;
mod run;
mod tally;

pub use again::Again;
pub use tally::{Passed, Tally, Totals};

use run::Run;

/// Which letters are meant; what is left out is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `kind/name` of the sink that failed, or `collect/…`.
    pub sink: Option<String>,
    /// A part of the error's text.
    pub error: Option<String>,
    /// Given up at this time or later, in milliseconds since the Unix epoch.
    pub since: Option<i64>,
    /// Given up before this time.
    pub until: Option<i64>,
}

impl Filter {
    /// Whether the letter is meant.
    pub fn takes(&self, opened: &Opened) -> bool {
        let letter = &opened.letter;
        let is_sink = |sink: &String| sink.split_once('/') == Some((&letter.sink_type, &letter.sink_name));
        self.sink.as_ref().is_none_or(is_sink)
            && self.error.as_ref().is_none_or(|text| letter.error.contains(text.as_str()))
            && self.is_in_time(letter.failed_at)
    }

    /// Whether the time is meant.
    pub fn is_in_time(&self, time: i64) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }
}

/// What is done with a letter.
pub enum Verdict {
    /// It is sent through again.
    Take(Box<Opened>),
    /// It stays where it is.
    Pass(Passed),
    /// Its sink, `kind/name`, is not configured. It can neither be sent nor be passed over: the group would go past it.
    NotConfigured(String),
}

/// Which letters are sent through again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Those that are meant,
    pub filter: Filter,
    /// unless they were replayed as often as this
    pub max_replays: u32,
    /// or were taken up by a replay of all letters already.
    pub handled: Handled,
}

/// How far a replay of all letters has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// What it has committed.
    pub below: BTreeMap<TopicPartition, Offset>,
    /// Its own bound: letters that were replayed as often it has left alone.
    pub max_replays: u32,
}

impl Handled {
    fn has(&self, partition: &TopicPartition, offset: Offset, replays: u32) -> bool {
        replays < self.max_replays && self.below.get(partition).is_some_and(|below| offset < *below)
    }
}

impl Choice {
    /// What is done with the letter in that row where there are these sinks.
    pub fn verdict(&self, routes: &Routes, batch: &Batch, row: usize) -> Verdict {
        match open(batch, row) {
            Err(why) => Verdict::Pass(Passed::Unreadable(why)),
            Ok(opened) if !self.filter.takes(&opened) => Verdict::Pass(Passed::NotMeant),
            Ok(opened) if opened.letter.replays >= self.max_replays => Verdict::Pass(Passed::TooOften),
            Ok(opened) if opened.content == Content::Omitted => Verdict::Pass(Passed::Omitted),
            Ok(opened) if self.handled.has(&batch.source, batch.offsets[row], opened.letter.replays) => {
                Verdict::Pass(Passed::Handled)
            }
            Ok(opened) => match opened.sink() {
                Some((kind, name)) if routes.resolve(kind, name).is_err() => {
                    Verdict::NotConfigured(format!("{kind}/{name}"))
                }
                _ => Verdict::Take(Box::new(opened)),
            },
        }
    }
}

/// Letters that are for sinks which are not configured, with how many there are of each.
pub fn not_configured(topic: &str, sinks: &[(String, u64)]) -> Fault {
    let count: u64 = sinks.iter().map(|(_, count)| count).sum();
    let named: Vec<String> = sinks.iter().map(|(sink, count)| format!("`{sink}` ({count})")).collect();
    Fault::config(format!("dead letters of `{topic}` are for sinks that are not configured: {count}"))
        .because(named.join(", "))
        .hint(
            "configure the sinks under these names, or replay the letters of one sink with `--sink`; these letters were not \
             sent, and no replay of theirs was counted",
        )
}

/// Payloads, each with the kind of its sink.
type Addressed = Vec<(SinkKind, Payload)>;

/// Turns letters into the payloads that they keep, and asks the configured collector again for the records that they keep.
///
/// A letter about a sink goes to that sink alone. What the collector's window hook yields belongs to the records that no
/// collector took, so that it is asked about them too, by their own coordinates.
pub struct Replay {
    inner: Arc<dyn Collect>,
    sinks: Vec<NamedSink>,
    routes: Routes,
    choice: Choice,
    tally: Arc<Tally>,
}

impl Replay {
    /// Replays through `inner` into `sinks`, and counts.
    pub fn new(inner: Arc<dyn Collect>, sinks: Vec<NamedSink>, choice: Choice, tally: Arc<Tally>) -> Self {
        let routes = Routes::new(sinks.iter().map(|sink| (sink.kind, sink.name.as_str())));
        Self { inner, sinks, routes, choice, tally }
    }

    /// What the letters of the batch keep: payloads, and runs of records.
    ///
    /// # Errors
    /// A letter whose sink is not configured (S72): what comes behind it must not be committed either.
    fn sort(&self, batch: &Batch, counted: bool) -> Result<(Addressed, Vec<Run>), CallError> {
        let (mut payloads, mut runs) = (Vec::new(), Vec::<Run>::new());
        for row in 0..batch.len() {
            let opened = match self.choice.verdict(&self.routes, batch, row) {
                Verdict::NotConfigured(sink) => {
                    return Err(CallError::Fatal(not_configured(&batch.source.topic, &[(sink, 1)])));
                }
                Verdict::Pass(passed) => {
                    if counted {
                        self.tally.pass(&batch.source, batch.offsets[row], passed);
                    }
                    continue;
                }
                Verdict::Take(opened) => opened,
            };
            if counted {
                self.tally.take(&batch.source, batch.offsets[row]);
            }
            let index = u32::try_from(row).unwrap_or(u32::MAX);
            let sink = opened.sink().map(|(kind, name)| (kind, name.to_owned()));
            let Opened { letter, content, .. } = *opened;
            match content {
                Content::Payloads(kind, kept) => {
                    let sink = letter.sink_name.clone();
                    let addressed = kept.into_iter().map(|one| Payload { index, sink: sink.clone(), ..one });
                    let own = addressed.map(|one| Payload {
                        timestamp: Some(letter.timestamp),
                        version: Some(letter.offset),
                        ..one
                    });
                    payloads.extend(own.map(|one| (kind, self.placed(kind, one, &letter.source))));
                }
                Content::Record => match runs.last_mut().filter(|run| run.goes_on_with(&letter, sink.as_ref())) {
                    Some(run) => run.push(&letter, index),
                    None => runs.push(Run::new(&letter, index, sink)),
                },
                Content::Omitted => {}
            }
        }
        Ok((payloads, runs))
    }

    /// A payload that names no place goes where its own record would have gone, not where the letter would.
    fn placed(&self, kind: SinkKind, mut payload: Payload, source: &TopicPartition) -> Payload {
        if payload.target.is_none()
            && let Ok(sink) = self.routes.resolve(kind, &payload.sink)
        {
            payload.target = self.sinks.get(sink).and_then(|sink| sink.sink.target(source));
        }
        payload
    }

    /// Whether a payload is for that sink.
    fn is_for(&self, kind: SinkKind, payload: &Payload, sink: &(SinkKind, String)) -> bool {
        kind == sink.0
            && self
                .routes
                .resolve(kind, &payload.sink)
                .ok()
                .and_then(|index| self.sinks.get(index))
                .is_some_and(|named| named.name == sink.1)
    }

    /// Asks the collector about a run's records.
    async fn collect_run(&self, run: &Run) -> Result<(Addressed, Vec<Failure>), CallError> {
        let (mut payloads, mut failed) = match self.inner.collect(&run.batch).await? {
            Collected::Passthrough => (run.passed_through(&self.sinks), Vec::new()),
            Collected::Payloads { payloads, failed } => (flat(payloads), failed),
        };
        // Asked again for its last records anyway: the window is complete only then.
        let complete = failed.iter().all(|failure| failure.kind != FailureKind::Retry);
        if complete && run.sink.is_none() && self.inner.has_window_hook() {
            match self.window_round(run).await? {
                Ok(more) => payloads.extend(more),
                // S64: nothing of the window is committed in silence.
                Err(reason) => {
                    let named: Vec<u32> = failed.iter().map(|failure| failure.index).collect();
                    let rows = (0u32..).take(run.batch.len()).filter(|row| !named.contains(row));
                    failed.extend(rows.map(|row| Failure::reject(row, reason.clone())));
                }
            }
        }
        if let Some(sink) = &run.sink {
            payloads.retain(|(kind, payload)| self.is_for(*kind, payload, sink));
        }
        let payloads = payloads.into_iter().map(|(kind, mut payload)| {
            payload.timestamp = payload.timestamp.or_else(|| run.timestamp(payload.index));
            payload.version = run.version(payload.index);
            payload.index = run.index(payload.index);
            (kind, self.placed(kind, payload, &run.batch.source))
        });
        let failed = failed.into_iter().map(|failure| Failure { index: run.index(failure.index), ..failure });
        Ok((payloads.collect(), failed.collect()))
    }

    /// What the window hook makes of a run's records, or why it makes nothing.
    async fn window_round(&self, run: &Run) -> Result<Result<Addressed, String>, CallError> {
        let Some(window) = run.window() else { return Ok(Ok(Vec::new())) };
        match self.inner.window_complete(&window).await {
            Ok(None | Some(Collected::Passthrough)) => Ok(Ok(Vec::new())),
            Ok(Some(Collected::Payloads { payloads, failed })) => Ok(match failed.into_iter().next() {
                None => Ok(flat(payloads)),
                Some(failure) => Err(failure.reason),
            }),
            Err(error) => match disposition(Stage::WindowHook, error.clone()) {
                Disposition::RejectWindow(fault) => Ok(Err(fault.to_string())),
                _ => Err(error),
            },
        }
    }
}

fn flat(payloads: Vec<(SinkKind, Vec<Payload>)>) -> Addressed {
    payloads.into_iter().flat_map(|(kind, list)| list.into_iter().map(move |one| (kind, one))).collect()
}

#[async_trait]
impl Collect for Replay {
    async fn ready(&self) -> Result<(), CallError> {
        self.inner.ready().await
    }

    async fn collect(&self, batch: &Arc<Batch>) -> Result<Collected, CallError> {
        let (mut all, runs) = self.sort(batch, true)?;
        let mut failed = Vec::new();
        for run in &runs {
            let (payloads, failures) = self.collect_run(run).await?;
            all.extend(payloads);
            let again = failures.iter().any(|failure| failure.kind == FailureKind::Retry);
            failed.extend(failures);
            if again {
                // Everything from that row on is asked for again.
                break;
            }
        }
        // Letters of one key stay in order, whatever they keep.
        all.sort_by_key(|(_, payload)| payload.index);
        let mut payloads: Vec<(SinkKind, Vec<Payload>)> = Vec::new();
        for (kind, payload) in all {
            match payloads.iter_mut().find(|(other, _)| *other == kind) {
                Some((_, list)) => list.push(payload),
                None => payloads.push((kind, vec![payload])),
            }
        }
        Ok(Collected::Payloads { payloads, failed })
    }

    async fn probe(&self, batch: &Arc<Batch>) -> Result<(), CallError> {
        let (_, runs) = self.sort(batch, false)?;
        for run in &runs {
            self.inner.probe(&run.batch).await?;
        }
        Ok(())
    }

    fn has_delivery_hook(&self) -> bool {
        self.inner.has_delivery_hook()
    }

    async fn delivery_error(&self, error: &DeliveryError) -> Action {
        self.inner.delivery_error(error).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
#[path = "replay/tests.rs"]
mod tests;
