//! Asks the collector for a window's payloads until every record has its answer (S61–S64).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::policy::{Disposition, Stage, disposition};
use super::route::Routed;
use super::search::TailPatience;
use super::shared::{Shared, Stop};
use super::waiting::Waiting;
use crate::checkpoint::Abort;
use crate::checkpoint::call_size::CallSize;
use crate::clock::Clock;
use crate::collect::{Collected, Window};
use crate::model::{Batch, Failure, FailureKind, Fault, Payload, SinkKind};

mod isolate;

/// The collector's label in log lines.
const COLLECT: &str = "collect";
/// Fresh starts of one window's collection, because its instance was retired in between, before the partition is
/// rewound instead.
const MAX_RESTARTS: u32 = 3;

/// What became of a window's records before the first byte is written.
#[derive(Debug, Default)]
pub struct CollectedWindow {
    /// Payloads of the records, or `None` when every record goes to every sink as it is.
    pub round: Option<Routed>,
    /// Payloads of the window hook (S62).
    pub window_round: Routed,
    /// Records to dead-letter as they came.
    pub dead: BTreeMap<usize, DeadRecord>,
}

/// Why a record is dead-lettered as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRecord {
    /// The reason, in words.
    pub reason: String,
    /// Calls made.
    pub attempts: u32,
}

impl DeadRecord {
    fn new(reason: impl Into<String>, attempts: u32) -> Self {
        Self { reason: reason.into(), attempts }
    }
}

/// What a partition remembers of the collector from window to window.
#[derive(Debug, Default)]
pub struct CollectState {
    /// Most records of one call.
    size: CallSize,
    /// How often the window came again for its last records.
    tail: TailPatience,
}

/// One pass over the window.
enum Pass {
    Done(CollectedWindow),
    /// The instance was retired: all that it said is void.
    Restart(Fault),
    /// These records break the call, and why.
    Found(BTreeMap<usize, DeadRecord>),
}

type Payloads = Vec<(SinkKind, Vec<Payload>)>;

/// One window on its way through the collector.
pub struct Collection<'a, C> {
    shared: &'a Shared<C>,
    window: &'a Arc<Batch>,
    state: &'a mut CollectState,
    waiting: Waiting,
    /// Calls that single records took because their destination did not answer in time.
    timed_out: BTreeMap<usize, u32>,
    restarts: u32,
}

impl<'a, C: Clock> Collection<'a, C> {
    /// The window, with what the partition knows of the collector's calls.
    pub fn new(shared: &'a Shared<C>, window: &'a Arc<Batch>, state: &'a mut CollectState) -> Self {
        Self { shared, window, state, waiting: Waiting::default(), timed_out: BTreeMap::new(), restarts: 0 }
    }

    /// Collects, and finds the records on which the collector breaks (S63).
    ///
    /// # Errors
    /// [`Stop`] when the window has to come again or the process has to end.
    pub async fn run(mut self) -> Result<CollectedWindow, Stop> {
        let mut dead: BTreeMap<usize, DeadRecord> = BTreeMap::new();
        loop {
            let rows: Vec<usize> = (0..self.window.len()).filter(|row| !dead.contains_key(row)).collect();
            match self.pass(&rows).await? {
                Pass::Done(mut collected) => {
                    collected.dead.extend(dead);
                    self.shared.end_wait(&mut self.waiting, COLLECT, &self.window.source);
                    return Ok(collected);
                }
                Pass::Restart(fault) => self.restart(|_| Stop::Abort(Abort::Destination, fault)).await?,
                Pass::Found(found) => dead.extend(found),
            }
        }
    }

    /// Counts a fresh start and waits before it; after too many, `stop` says what happens instead.
    async fn restart(&mut self, stop: impl FnOnce(u32) -> Stop) -> Result<(), Stop> {
        self.restarts += 1;
        if self.restarts > MAX_RESTARTS {
            return Err(stop(self.restarts));
        }
        self.shared.back_off(self.restarts).await;
        Ok(())
    }

    /// Asks for the payloads of `rows` of the window, then for the window's own.
    async fn pass(&mut self, rows: &[usize]) -> Result<Pass, Stop> {
        let mut collected = CollectedWindow::default();
        let mut payloads = Payloads::new();
        let mut rest = rows;
        let mut attempt = 1u32;
        while !rest.is_empty() {
            let call = &rest[..rest.len().min(self.state.size.max_rows())];
            let begun = self.shared.clock.now();
            let error = match self.shared.collector.collect(&self.select(call)).await {
                Ok(Collected::Passthrough) => return Ok(Pass::Done(CollectedWindow::default())),
                Ok(Collected::Payloads { payloads: yielded, failed }) => {
                    self.note_success(call.len(), begun);
                    let answered = keep_answered(&mut payloads, &mut collected.dead, yielded, failed, call)?;
                    rest = &rest[answered.rows..];
                    let Some(reason) = answered.retry else {
                        attempt = 1;
                        continue;
                    };
                    attempt = if answered.rows == 0 { attempt + 1 } else { 2 };
                    if attempt > self.shared.settings.executor.max_retries + 1 {
                        if let Some((&first, others)) = rest.split_first() {
                            collected.dead.insert(first, DeadRecord::new(reason, attempt - 1));
                            rest = others;
                        }
                        attempt = 1;
                    } else {
                        self.shared.back_off(attempt - 1).await;
                    }
                    continue;
                }
                Err(error) => error,
            };
            match disposition(Stage::Collect, error) {
                Disposition::WaitAndRepeat(asked) => self.wait_as_asked(asked).await,
                Disposition::WaitForDestination(fault) => self.wait_until_available(&fault).await,
                Disposition::CollectAgain(fault) => return Ok(Pass::Restart(fault)),
                Disposition::Isolate(suspicion, fault) => {
                    let took = self.elapsed(begun);
                    if suspicion.is_slow() && call.len() > 1 {
                        // Fewer records may fit into the time or the limit.
                        self.state.size.shrink(call.len(), call.len() / 2, Some(took));
                        continue;
                    }
                    let passed = rest.len() < rows.len() || self.shared.settings.is_replay;
                    let found = self.isolate(call, rows, passed, suspicion, fault).await?;
                    if !found.is_empty() {
                        return Ok(Pass::Found(found));
                    }
                }
                other => return Err(stop(other)),
            }
        }
        let mut routed = self.shared.routes.route(self.window, payloads).map_err(Stop::abort)?;
        let refused = std::mem::take(&mut routed.refused).into_iter();
        collected.dead.extend(refused.map(|(row, reason)| (row, DeadRecord::new(reason, 1))));
        collected.round = Some(routed);
        if self.shared.collector.has_window_hook()
            && let (Some(&first), Some(&last)) = (rows.first(), rows.last())
        {
            let about = Window {
                source: self.window.source.clone(),
                first: self.window.offsets[first],
                last: self.window.offsets[last],
                records: u32::try_from(rows.len()).unwrap_or(u32::MAX),
            };
            if let Some(restart) = self.window_round(rows, &about, &mut collected).await? {
                return Ok(Pass::Restart(restart));
            }
        }
        Ok(Pass::Done(collected))
    }

    /// Calls the window hook. What goes wrong in it dead-letters the window's source records, beside their own payloads,
    /// so that no offset is committed in silence (S64). Returns the fault when the instance that collected is gone.
    async fn window_round(
        &mut self,
        rows: &[usize],
        about: &Window,
        collected: &mut CollectedWindow,
    ) -> Result<Option<Fault>, Stop> {
        let failed: String = loop {
            let error = match self.shared.collector.window_complete(about).await {
                Ok(None | Some(Collected::Passthrough)) => return Ok(None),
                Ok(Some(Collected::Payloads { payloads: yielded, failed })) => {
                    let mut payloads = Payloads::new();
                    keep(&mut payloads, yielded, rows, rows.len(), &BTreeSet::new())?;
                    let mut routed = self.shared.routes.route(self.window, payloads).map_err(Stop::abort)?;
                    match (routed.refused.pop_first(), failed.first()) {
                        (Some((_, reason)), _) => break reason,
                        (None, Some(failure)) => break failure.reason.clone(),
                        (None, None) => {}
                    }
                    self.number_window_payloads(&mut routed, about);
                    collected.window_round = routed;
                    return Ok(None);
                }
                Err(error) => error,
            };
            match disposition(Stage::WindowHook, error) {
                Disposition::WaitAndRepeat(asked) => self.wait_as_asked(asked).await,
                Disposition::WaitForDestination(fault) => self.wait_until_available(&fault).await,
                Disposition::CollectAgain(fault) => return Ok(Some(fault)),
                Disposition::RejectWindow(fault) => break fault.to_string(),
                other => return Err(stop(other)),
            }
        };
        for row in rows {
            collected.dead.entry(*row).or_insert_with(|| DeadRecord::new(failed.clone(), 1));
        }
        Ok(None)
    }

    /// S62: the window's payloads belong to its last offset and come after that record's own.
    fn number_window_payloads(&self, routed: &mut Routed, about: &Window) {
        for group in &mut routed.groups {
            let batch = Arc::make_mut(&mut group.batch);
            batch.offsets.fill(about.last);
            let own = u32::try_from(self.window.len()).unwrap_or(u32::MAX);
            batch.ordinals = (own..).take(batch.offsets.len()).collect();
            batch.stable = false;
        }
    }

    /// The rows as a batch; all of them are the window itself.
    fn select(&self, rows: &[usize]) -> Arc<Batch> {
        if rows.len() == self.window.len() { Arc::clone(self.window) } else { Arc::new(self.window.select(rows)) }
    }

    async fn wait_as_asked(&mut self, asked: Duration) {
        self.shared.wait_as_asked(&mut self.waiting, COLLECT, &self.window.source, asked).await;
    }

    async fn wait_until_available(&mut self, fault: &Fault) {
        let reason = fault.with_hint().to_string();
        self.shared.wait_until_available(&mut self.waiting, COLLECT, &self.window.source, &reason).await;
    }

    fn elapsed(&self, begun: u64) -> Duration {
        Duration::from_millis(self.shared.clock.now().saturating_sub(begun))
    }

    /// The collector has answered a call row by row.
    fn note_success(&mut self, rows: usize, begun: u64) {
        self.shared.note_collected();
        self.shared.end_wait(&mut self.waiting, COLLECT, &self.window.source);
        let took = self.elapsed(begun);
        self.state.size.succeeded(rows, took);
    }
}

/// The dispositions that end a collection.
fn stop(disposition: Disposition) -> Stop {
    match disposition {
        Disposition::Stop(fault) => Stop::Fatal(fault),
        Disposition::Abort(fault) => Stop::Abort(Abort::Failure, fault),
        other => Stop::abort(Fault::host(format!("no collection ends with {other:?}, which is a bug"))),
    }
}

/// What an answer says of a call's rows.
struct AnsweredRows {
    /// How many of them, from the first, are answered.
    rows: usize,
    /// Why the row behind them has to be asked about again.
    retry: Option<String>,
}

/// Keeps what the collector yielded for the rows of a call, and notes those that it rejected.
fn keep_answered(
    payloads: &mut Payloads,
    dead: &mut BTreeMap<usize, DeadRecord>,
    yielded: Payloads,
    failed: Vec<Failure>,
    call: &[usize],
) -> Result<AnsweredRows, Stop> {
    let retry = failed.iter().filter(|failure| failure.kind == FailureKind::Retry).min_by_key(|failure| failure.index);
    let rows = retry.map_or(call.len(), |failure| failure.index as usize).min(call.len());
    let retry = retry.map(|failure| failure.reason.clone());
    let mut rejected = BTreeSet::new();
    for failure in failed {
        if failure.kind == FailureKind::Reject && (failure.index as usize) < rows {
            dead.insert(call[failure.index as usize], DeadRecord::new(failure.reason, 1));
            rejected.insert(failure.index);
        }
    }
    keep(payloads, yielded, call, rows, &rejected)?;
    Ok(AnsweredRows { rows, retry })
}

/// Keeps the payloads of answered rows that were not rejected, with their rows' numbers in the window.
fn keep(
    kept: &mut Payloads,
    yielded: Payloads,
    rows: &[usize],
    answered: usize,
    rejected: &BTreeSet<u32>,
) -> Result<(), Stop> {
    for (kind, payloads) in yielded {
        let mut list = Vec::with_capacity(payloads.len());
        for mut payload in payloads {
            let Some(&row) = rows.get(payload.index as usize) else {
                return Err(Stop::abort(Fault::plugin(format!(
                    "the collector yielded a payload for row {} of a call with {} rows",
                    payload.index,
                    rows.len()
                ))));
            };
            if (payload.index as usize) < answered && !rejected.contains(&payload.index) {
                payload.index = u32::try_from(row).unwrap_or(u32::MAX);
                list.push(payload);
            }
        }
        match kept.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, all)) => all.append(&mut list),
            None => kept.push((kind, list)),
        }
    }
    Ok(())
}
