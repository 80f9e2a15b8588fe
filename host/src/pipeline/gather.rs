//! Asks the collector for a window's payloads until every record has its answer (S61–S64).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::route::Routed;
use super::shared::{Shared, Stop};
use crate::checkpoint::Abort;
use crate::checkpoint::window::Halving;
use crate::clock::Clock;
use crate::collect::{Collected, Window};
use crate::model::{Batch, CallError, FailureKind, Fault, Payload, SinkKind};

/// Fresh starts of one window's collection, because its instance was retired in between, before the partition is
/// rewound instead.
const MAX_RESTARTS: u32 = 3;

/// What became of a window's records before the first byte is written.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Payloads of the records, or `None` when every record goes to every sink as it is.
    pub round: Option<Routed>,
    /// Payloads of the window hook (S62).
    pub window_round: Routed,
    /// Records to dead-letter as they came, with the reason and the calls made.
    pub dead: BTreeMap<usize, (String, u32)>,
}

/// One pass over the window.
enum Pass {
    Done(Gathered),
    /// The instance was retired: all that it said is void.
    Restart(Fault),
    /// The call breaks, and some records are to blame.
    Broken(CallError),
}

type Payloads = Vec<(SinkKind, Vec<Payload>)>;

impl<C: Clock> Shared<C> {
    /// Collects, and finds the records on which the collector breaks (S63).
    ///
    /// # Errors
    /// [`Stop`] when the window has to come again or the process has to end.
    pub async fn gather(&self, window: &Arc<Batch>) -> Result<Gathered, Stop> {
        let mut poison: BTreeMap<usize, String> = BTreeMap::new();
        let mut restarts = 0;
        loop {
            let rows: Vec<usize> = (0..window.len()).filter(|row| !poison.contains_key(row)).collect();
            match self.pass(window, &rows).await? {
                Pass::Done(mut gathered) => {
                    gathered.dead.extend(poison.into_iter().map(|(row, reason)| (row, (reason, 1))));
                    return Ok(gathered);
                }
                Pass::Restart(fault) => {
                    restarts += 1;
                    if restarts > MAX_RESTARTS {
                        return Err(Stop::abort(fault));
                    }
                    self.back_off(restarts).await;
                }
                Pass::Broken(error) => {
                    let found = self.probe_halves(window, &rows, &error).await?;
                    if found.is_empty() {
                        // Each half holds alone, so it was the whole or chance: try once more, but not for ever.
                        restarts += 1;
                        if restarts > MAX_RESTARTS {
                            let fault = error.fault().cloned();
                            return Err(Stop::abort(fault.unwrap_or_else(|| Fault::plugin("the collector broke"))));
                        }
                        self.back_off(restarts).await;
                    }
                    poison.extend(found);
                    let limit = self.settings.window.max_poison_per_window;
                    if poison.len() > limit && matches!(error, CallError::Trap(_)) {
                        let fault =
                            Fault::plugin(format!("the collector trapped on more than {limit} records of one window"))
                                .because(error);
                        return Err(Stop::abort(fault));
                    }
                }
            }
        }
    }

    /// Asks for the payloads of `rows` of the window, then for the window's own.
    async fn pass(&self, window: &Arc<Batch>, rows: &[usize]) -> Result<Pass, Stop> {
        let mut gathered = Gathered::default();
        let mut payloads = Payloads::new();
        let mut rest = rows;
        let (mut attempt, mut held) = (1u32, false);
        while !rest.is_empty() {
            let part = if rest.len() == window.len() { window.clone() } else { Arc::new(window.select(rest)) };
            match self.collector.collect(&part).await {
                Ok(Collected::Passthrough) => return Ok(Pass::Done(Gathered::default())),
                Ok(Collected::Payloads { payloads: yielded, failed }) => {
                    held = false;
                    let retry_at = failed
                        .iter()
                        .filter(|failure| failure.kind == FailureKind::Retry)
                        .min_by_key(|failure| failure.index);
                    let answered = retry_at.map_or(rest.len(), |failure| failure.index as usize).min(rest.len());
                    let rejected: BTreeSet<u32> = failed
                        .iter()
                        .filter(|failure| failure.kind == FailureKind::Reject && (failure.index as usize) < answered)
                        .map(|failure| {
                            gathered.dead.insert(rest[failure.index as usize], (failure.reason.clone(), 1));
                            failure.index
                        })
                        .collect();
                    keep(&mut payloads, yielded, rest, answered, &rejected)?;
                    let Some(failure) = retry_at else { break };
                    attempt = if answered == 0 { attempt + 1 } else { 2 };
                    rest = &rest[answered..];
                    if attempt > self.settings.executor.max_retries + 1 {
                        if let Some((&first, others)) = rest.split_first() {
                            gathered.dead.insert(first, (failure.reason.clone(), attempt - 1));
                            rest = others;
                        }
                        attempt = 1;
                    } else {
                        self.back_off(attempt - 1).await;
                    }
                }
                Err(CallError::Backpressure(wait)) => {
                    self.hold(wait, held).await;
                    held = true;
                }
                Err(CallError::Unknown(fault) | CallError::Unavailable(fault)) => {
                    attempt += 1;
                    if attempt > self.settings.executor.max_retries + 1 {
                        return Err(Stop::Abort(Abort::Destination, fault));
                    }
                    self.back_off(attempt - 1).await;
                }
                Err(CallError::Fatal(fault)) => return Err(Stop::Fatal(fault)),
                Err(CallError::Timeout(fault)) => return Err(Stop::Abort(Abort::Destination, fault)),
                Err(CallError::BufferLost(fault)) => return Ok(Pass::Restart(fault)),
                Err(error @ (CallError::Trap(_) | CallError::LimitExceeded(_) | CallError::Reject(_))) => {
                    return Ok(Pass::Broken(error));
                }
            }
        }
        let mut routed = self.routes.route(window, payloads).map_err(Stop::abort)?;
        gathered.dead.extend(std::mem::take(&mut routed.refused).into_iter().map(|(row, reason)| (row, (reason, 1))));
        gathered.round = Some(routed);
        if self.collector.has_window_hook()
            && let (Some(&first), Some(&last)) = (rows.first(), rows.last())
        {
            let about = Window {
                source: window.source.clone(),
                first: window.offsets[first],
                last: window.offsets[last],
                records: u32::try_from(rows.len()).unwrap_or(u32::MAX),
            };
            if let Some(restart) = self.window_round(window, rows, &about, &mut gathered).await? {
                return Ok(Pass::Restart(restart));
            }
        }
        Ok(Pass::Done(gathered))
    }

    /// Calls the window hook. What goes wrong in it dead-letters the window's source records, beside their own payloads,
    /// so that no offset is committed in silence (S64). Returns the fault when the instance that collected is gone.
    async fn window_round(
        &self,
        window: &Arc<Batch>,
        rows: &[usize],
        about: &Window,
        gathered: &mut Gathered,
    ) -> Result<Option<Fault>, Stop> {
        let (mut attempt, mut held) = (1u32, false);
        let failed: String = loop {
            match self.collector.window_complete(about).await {
                Ok(None | Some(Collected::Passthrough)) => return Ok(None),
                Ok(Some(Collected::Payloads { payloads: yielded, failed })) => {
                    let mut payloads = Payloads::new();
                    keep(&mut payloads, yielded, rows, rows.len(), &BTreeSet::new())?;
                    let mut routed = self.routes.route(window, payloads).map_err(Stop::abort)?;
                    match (routed.refused.pop_first(), failed.first()) {
                        (Some((_, reason)), _) => break reason,
                        (None, Some(failure)) => break failure.reason.clone(),
                        (None, None) => {}
                    }
                    for group in &mut routed.groups {
                        // S62: the window's payloads belong to its last offset and come after that record's own.
                        let batch = Arc::make_mut(&mut group.batch);
                        batch.offsets.fill(about.last);
                        let own = u32::try_from(window.len()).unwrap_or(u32::MAX);
                        batch.ordinals = (own..).take(batch.offsets.len()).collect();
                        batch.stable = false;
                    }
                    gathered.window_round = routed;
                    return Ok(None);
                }
                Err(CallError::Backpressure(wait)) => {
                    self.hold(wait, held).await;
                    held = true;
                }
                Err(CallError::Unknown(fault) | CallError::Unavailable(fault)) => {
                    if attempt > self.settings.executor.max_retries {
                        break fault.to_string();
                    }
                    self.back_off(attempt).await;
                    attempt += 1;
                }
                Err(CallError::Fatal(fault)) => return Err(Stop::Fatal(fault)),
                Err(CallError::Timeout(fault)) => return Err(Stop::Abort(Abort::Destination, fault)),
                Err(CallError::BufferLost(fault)) => return Ok(Some(fault)),
                Err(CallError::Trap(fault) | CallError::LimitExceeded(fault) | CallError::Reject(fault)) => {
                    break fault.to_string();
                }
            }
        };
        for row in rows {
            gathered.dead.entry(*row).or_insert_with(|| (failed.clone(), attempt));
        }
        Ok(None)
    }

    /// Finds the records that break a call of their own, asking fresh instances whose answers are thrown away (S63).
    async fn probe_halves(
        &self,
        window: &Arc<Batch>,
        rows: &[usize],
        error: &CallError,
    ) -> Result<BTreeMap<usize, String>, Stop> {
        let mut reasons = BTreeMap::new();
        let mut halving = Halving::new(rows.len());
        let mut held = false;
        while let Some(range) = halving.next() {
            let part = Arc::new(window.select(&rows[range.clone()]));
            match self.collector.probe(&part).await {
                Ok(()) => halving.answer(false),
                Err(CallError::Backpressure(wait)) => {
                    self.hold(wait, held).await;
                    held = true;
                }
                Err(broke @ (CallError::Trap(_) | CallError::LimitExceeded(_) | CallError::Reject(_))) => {
                    if range.len() == 1 {
                        reasons.insert(range.start, broke.to_string());
                    }
                    halving.answer(true);
                    if halving.found().len() > self.settings.window.max_poison_per_window
                        && matches!(error, CallError::Trap(_))
                    {
                        break;
                    }
                }
                Err(CallError::Fatal(fault)) => return Err(Stop::Fatal(fault)),
                Err(
                    CallError::Unknown(fault)
                    | CallError::Unavailable(fault)
                    | CallError::Timeout(fault)
                    | CallError::BufferLost(fault),
                ) => {
                    return Err(Stop::Abort(Abort::Destination, fault));
                }
            }
        }
        let reason = |row: &usize| reasons.get(row).cloned().unwrap_or_else(|| error.to_string());
        Ok(halving.found().iter().map(|found| (rows[*found], reason(found))).collect())
    }
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
