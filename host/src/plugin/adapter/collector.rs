//! A component as a [`Collect`].

use std::sync::Arc;

use async_trait::async_trait;
use wasmtime::Store;
use wasmtime::component::Instance;

use super::addressed::Allowed;
use super::payloads::{Terms, collected};
use crate::collect::{Collect, Collected, DeliveryError, Window};
use crate::model::{Action, Batch, CallError, FailureKind, Fault, TopicPartition};
use crate::plugin::Options;
use crate::plugin::artifact::Artifact;
use crate::plugin::bindings::payloads::CollectResult;
use crate::plugin::bindings::{collector, delivery_hook, ready_hook, types, window_hook};
use crate::plugin::contract::{Contract, Role};
use crate::plugin::imports::State;
use crate::plugin::instance::slots::{Lease, Mark, Marks, Slots};
use crate::plugin::instance::{Abandon, Guest, Live, Plan, Stop, backpressure, fault};
use crate::sink::Queries;

/// The collector's name in its context.
const NAME: &str = "collect";

struct CollectorGuest {
    collector: collector::Guest,
    window: Option<window_hook::Guest>,
    delivery: Option<delivery_hook::Guest>,
    ready: Option<ready_hook::Guest>,
}

impl Guest for CollectorGuest {
    type Described = ();
    const ROLE: Role = Role::Collector;
    const PREPARE: &'static str = "on-ready";

    fn load(store: &mut Store<State>, instance: &Instance, contract: &Contract) -> wasmtime::Result<Self> {
        let pre = instance.instance_pre(&mut *store);
        let collector = collector::GuestIndices::new(&pre)?.load(&mut *store, instance)?;
        let (mut window, mut delivery, mut ready) = (None, None, None);
        if contract.hooks.window {
            window = Some(window_hook::GuestIndices::new(&pre)?.load(&mut *store, instance)?);
        }
        if contract.hooks.delivery {
            delivery = Some(delivery_hook::GuestIndices::new(&pre)?.load(&mut *store, instance)?);
        }
        if contract.hooks.ready {
            ready = Some(ready_hook::GuestIndices::new(&pre)?.load(&mut *store, instance)?);
        }
        Ok(Self { collector, window, delivery, ready })
    }

    async fn setup(&self, store: &mut Store<State>, context: &types::Context) -> wasmtime::Result<Result<(), String>> {
        self.collector.call_setup(store, context).await
    }

    async fn prepare(&self, store: &mut Store<State>) -> wasmtime::Result<Result<(), types::Fault>> {
        match &self.ready {
            Some(ready) => ready.call_on_ready(store).await,
            None => Ok(Ok(())),
        }
    }
}

/// A component as the collector.
pub struct PluginCollector {
    slots: Slots<CollectorGuest>,
    allowed: Arc<Allowed>,
}

impl PluginCollector {
    /// Makes the instances and calls `setup` on each; [`Collect::ready`] calls the ready hook. Of `queries` the plugin may use
    /// what it is granted.
    ///
    /// # Errors
    /// When the component is no collector, a limit or grant is wrong, or `setup` fails.
    pub async fn start(artifact: Artifact, options: &Options, queries: &Queries) -> Result<Self, Fault> {
        let allowed = Arc::new(Allowed::new(options.grants.allowed_sinks.as_deref()));
        Ok(Self { slots: Slots::start(Plan::new(artifact, NAME, options, queries)?).await?, allowed })
    }

    fn answer<T>(&self, hook: &str, answered: Result<T, types::Fault>) -> Result<T, CallError> {
        answered.map_err(|answered| fault(&self.slots.plan.who, hook, Role::Collector, answered))
    }
}

#[async_trait]
impl Collect for PluginCollector {
    async fn ready(&self) -> Result<(), CallError> {
        self.slots.prepare().await
    }

    async fn collect(&self, batch: &Arc<Batch>) -> Result<Collected, CallError> {
        let rows = Arc::clone(batch);
        let (hooked, allowed) = (self.has_window_hook(), Arc::clone(&self.allowed));
        let job = async move |lease: Lease<'_, CollectorGuest>| {
            if hooked {
                remember(lease.marks, &rows, lease.live.generation);
            }
            let answered = collect(lease.live, lease.abandon, &allowed, &rows).await;
            if !matches!(answered, Ok(Ok(_))) {
                // These rows will be shown again from the first, and to whichever instance is there then.
                lease.marks.remove(&rows.source);
            }
            answered
        };
        let answered = self.slots.call(&batch.source, |_, _| Ok(()), job).await?;
        self.answer("collect", answered)
    }

    async fn probe(&self, batch: &Arc<Batch>) -> Result<(), CallError> {
        let (rows, allowed) = (Arc::clone(batch), Arc::clone(&self.allowed));
        let job =
            async move |lease: Lease<'_, CollectorGuest>| collect(lease.live, lease.abandon, &allowed, &rows).await;
        let answered = self.slots.call_fresh(&batch.source, job).await?;
        self.answer("collect", answered).map(|_| ())
    }

    fn has_window_hook(&self) -> bool {
        self.slots.plan.artifact.contract().hooks.window
    }

    fn has_delivery_hook(&self) -> bool {
        self.slots.plan.artifact.contract().hooks.delivery
    }

    async fn window_complete(&self, window: &Window) -> Result<Option<Collected>, CallError> {
        // The hook speaks for what its instance has seen, so another instance cannot answer for it (S62).
        let look = |marks: &mut Marks, live: Option<u64>| match marks.get(&window.source) {
            Some(mark) if live == Some(mark.generation) && mark.first <= window.last => Ok(()),
            _ => {
                marks.remove(&window.source);
                Err(CallError::BufferLost(
                    Fault::plugin(format!(
                        "`collect` no longer knows the window of `{}`",
                        window.source.at(window.first)
                    ))
                    .because("the instance that had collected it was retired"),
                ))
            }
        };
        let told = window_hook::Window {
            topic: window.source.topic.to_string(),
            partition: window.source.partition,
            first_offset: window.first,
            last_offset: window.last,
            records: window.records,
        };
        let (allowed, source) = (Arc::clone(&self.allowed), window.source.clone());
        let job = async move |lease: Lease<'_, CollectorGuest>| {
            let call = async |guest: &CollectorGuest, store: &mut Store<State>| match &guest.window {
                Some(hook) => hook.call_on_window_complete(store, &told).await,
                None => Ok(Ok(None)),
            };
            let mark = lease.marks.remove(&source);
            match lease.live.call(WINDOW, lease.abandon, call).await? {
                Err(answered @ (types::Fault::Backpressure(_) | types::Fault::Unavailable(_))) => {
                    // The same window is asked about again.
                    lease.marks.extend(mark.map(|mark| (source, mark)));
                    Ok(Err(answered))
                }
                Ok(Some(answered)) => {
                    let rows = u64::from(told.records);
                    judged(lease.live, &allowed, WINDOW, answered, rows).map(|it| Ok(Some(it)))
                }
                Ok(None) => Ok(Ok(None)),
                Err(answered) => Ok(Err(answered)),
            }
        };
        let answered = self.slots.call(&window.source, look, job).await?;
        self.answer(WINDOW, answered)
    }

    async fn delivery_error(&self, error: &DeliveryError) -> Action {
        if !self.slots.plan.artifact.contract().hooks.delivery {
            return Action::Default;
        }
        let told = told(error);
        let job = async move |lease: Lease<'_, CollectorGuest>| {
            let call = async |guest: &CollectorGuest, store: &mut Store<State>| match &guest.delivery {
                Some(hook) => hook.call_on_delivery_error(store, &told).await,
                None => Ok(delivery_hook::DeliveryAction::Default),
            };
            lease.live.call("on-delivery-error", lease.abandon, call).await
        };
        match self.slots.call(&error.source, |_, _| Ok(()), job).await {
            Ok(delivery_hook::DeliveryAction::Default) => Action::Default,
            Ok(delivery_hook::DeliveryAction::Dlq) => Action::Dlq,
            Ok(delivery_hook::DeliveryAction::Retry) => Action::Retry,
            Ok(delivery_hook::DeliveryAction::Skip) => Action::Skip,
            Ok(delivery_hook::DeliveryAction::Abort) => Action::Abort,
            Ok(delivery_hook::DeliveryAction::Backpressure(wait)) => Action::Backpressure(backpressure(wait)),
            Err(failed) => {
                let source: &TopicPartition = &error.source;
                tracing::warn!(
                    "`collect` could not decide about {} payloads of `{source}`, treated as without a hook: {failed}",
                    error.payloads.len()
                );
                Action::Default
            }
        }
    }
}

const WINDOW: &str = "on-window-complete";

async fn collect(
    live: &mut Live<CollectorGuest>,
    abandon: &Arc<Abandon>,
    allowed: &Allowed,
    rows: &Batch,
) -> Result<Result<Collected, types::Fault>, Stop> {
    let crossing = super::batch(rows);
    let call =
        async |guest: &CollectorGuest, store: &mut Store<State>| guest.collector.call_collect(store, &crossing).await;
    match live.call("collect", abandon, call).await? {
        Ok(answered) => judged(live, allowed, "collect", answered, rows.len() as u64).map(Ok),
        Err(answered) => Ok(Err(answered)),
    }
}

/// The answer as the host has it, once it is proved; the log tells of sinks that it may not write to.
fn judged(
    live: &Live<CollectorGuest>,
    allowed: &Allowed,
    hook: &'static str,
    answered: CollectResult,
    rows: u64,
) -> Result<Collected, Stop> {
    let (collected, barred) =
        collected(answered, &Terms { rows, limits: live.limits(), allowed }).map_err(|void| void.of(hook))?;
    for sink in barred {
        live.refused(&format!(
            "payloads for {sink}: `collect.grants.allowed_sinks` would have to name it, as `type/name`"
        ));
    }
    Ok(collected)
}

/// Which instance has seen the window so far. A call that goes on with a window which another instance began leaves the
/// older mark, so that the hook is not asked; one that begins anew replaces it.
fn remember(marks: &mut Marks, rows: &Batch, generation: u64) {
    let Some(&first) = rows.offsets.first() else { return };
    let began = marks.get(&rows.source).copied();
    if began.is_none_or(|mark| first <= mark.first) {
        marks.insert(rows.source.clone(), Mark { generation, rows: 0, first });
    }
}

fn told(error: &DeliveryError) -> delivery_hook::DeliveryError {
    delivery_hook::DeliveryError {
        sink_type: error.kind.name().to_owned(),
        sink_name: error.name.clone(),
        topic: error.source.topic.to_string(),
        partition: error.source.partition,
        offsets: error.offsets.clone(),
        payloads: error.payloads.clone(),
        kind: match error.failure {
            FailureKind::Retry | FailureKind::NotTried => delivery_hook::DeliveryErrorKind::Retry,
            FailureKind::Reject => delivery_hook::DeliveryErrorKind::Reject,
            FailureKind::Unavailable | FailureKind::Backpressure(_) => delivery_hook::DeliveryErrorKind::Unavailable,
        },
        error: error.error.clone(),
        attempt: error.attempt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S62: the mark tells a window that goes on from one that begins anew.
    #[test]
    fn a_window_belongs_to_the_instance_that_saw_it_from_the_start() {
        let mut marks = Marks::new();
        let rows = |first: i64| {
            let mut rows = Batch::new(TopicPartition::new("orders", 0));
            rows.push(first, -1, None, None);
            rows
        };
        let seen = |marks: &Marks| marks.values().map(|mark| (mark.first, mark.generation)).next();
        remember(&mut marks, &rows(10), 1);
        remember(&mut marks, &rows(12), 2);
        assert_eq!(seen(&marks), Some((10, 1)), "gone on with by another instance");
        remember(&mut marks, &rows(10), 2);
        assert_eq!(seen(&marks), Some((10, 2)), "begun anew");
    }
}
