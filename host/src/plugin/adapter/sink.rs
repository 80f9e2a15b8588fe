//! A component as a [`Sink`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wasmtime::Store;
use wasmtime::component::Instance;

use crate::model::{Answer, Batch, CallError, Failure, Fault, TopicPartition};
use crate::plugin::Options;
use crate::plugin::artifact::Artifact;
use crate::plugin::bindings::{sink, types};
use crate::plugin::contract::{Contract, Role};
use crate::plugin::imports::State;
use crate::plugin::instance::slots::{Lease, Mark, Marks, Slots};
use crate::plugin::instance::{Guest, Plan, Stop, fault};
use crate::plugin::limits::{Limits, MEBIBYTE};
use crate::plugin::report::printable;
use crate::sink::{BufferLimit, Description, Queries, Sink, Style};

/// Most bytes of what `close` complains of.
const COMPLAINT_BYTES: usize = 600;
/// A buffering instance is given one part in this many of its memory between two flushes: guests copy and encode what
/// they buffer, and their allocators round up (S15a).
const BUFFER_SHARE: u64 = 4;

struct SinkGuest(sink::Guest);

impl Guest for SinkGuest {
    type Described = Description;
    const ROLE: Role = Role::Sink;
    const PREPARE: &'static str = "connect";

    fn load(store: &mut Store<State>, instance: &Instance, _: &Contract) -> wasmtime::Result<Self> {
        let indices = sink::GuestIndices::new(&instance.instance_pre(&mut *store))?;
        Ok(Self(indices.load(store, instance)?))
    }

    async fn setup(
        &self,
        store: &mut Store<State>,
        context: &types::Context,
    ) -> wasmtime::Result<Result<Description, String>> {
        let answered = self.0.call_setup(store, context).await?;
        Ok(answered.map(|said| Description {
            style: match said.style {
                sink::Style::Buffering => Style::Buffering,
                sink::Style::Direct => Style::Direct,
            },
            idempotent: said.idempotent,
            max_rows: usize::try_from(said.max_rows).unwrap_or(usize::MAX),
            max_bytes: usize::try_from(said.max_bytes).unwrap_or(usize::MAX),
            // A plugin's calls have a deadline of their own.
            patience: Duration::ZERO,
        }))
    }

    async fn prepare(&self, store: &mut Store<State>) -> wasmtime::Result<Result<(), types::Fault>> {
        self.0.call_connect(store).await
    }
}

/// A component as a sink.
pub struct PluginSink {
    slots: Slots<SinkGuest>,
}

impl PluginSink {
    /// Most bytes that one instance with these limits is given between two flushes (S15a).
    pub fn most_buffered_bytes(limits: &Limits) -> u64 {
        limits.memory_mebibytes.saturating_mul(MEBIBYTE) / BUFFER_SHARE
    }

    /// Makes the instances and calls `setup` on each, touching nothing outside; [`Sink::connect`] does that. Of `queries` the
    /// plugin may use what it is granted.
    ///
    /// # Errors
    /// When the component is no sink, a limit or grant is wrong, or `setup` fails.
    pub async fn start(artifact: Artifact, name: &str, options: &Options, queries: &Queries) -> Result<Self, Fault> {
        Ok(Self { slots: Slots::start(Plan::new(artifact, name, options, queries)?).await? })
    }

    fn answer(&self, hook: &str, answered: Result<Vec<Failure>, types::Fault>) -> Answer {
        answered.map_err(|answered| fault(&self.slots.plan.who, hook, Role::Sink, answered))
    }

    /// What had been added is gone with the instance that had it: only `discard` makes the partition usable again (S27).
    fn kept(&self, source: &TopicPartition, marks: &Marks, live: Option<u64>) -> Result<(), CallError> {
        match marks.get(source) {
            Some(mark) if live != Some(mark.generation) => Err(CallError::BufferLost(
                Fault::plugin(format!("`{}` lost what it had buffered of `{source}`", self.slots.plan.who.label))
                    .because("the instance that held it was retired"),
            )),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Sink for PluginSink {
    fn description(&self) -> Description {
        self.slots.described
    }

    fn buffer_limit(&self, source: &TopicPartition) -> Option<BufferLimit> {
        let limits = &self.slots.plan.who.limits;
        (self.slots.described.style == Style::Buffering)
            .then(|| BufferLimit { instance: self.slots.slot_of(source), max_bytes: Self::most_buffered_bytes(limits) })
    }

    async fn connect(&self) -> Result<(), CallError> {
        self.slots.prepare().await
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        let rows = Arc::clone(batch);
        let job = async move |lease: Lease<'_, SinkGuest>| {
            let crossing = super::batch(&rows);
            let call = async |guest: &SinkGuest, store: &mut Store<State>| guest.0.call_deliver(store, &crossing).await;
            let answered = lease.live.call("deliver", lease.abandon, call).await?;
            proved("deliver", answered, rows.len() as u64)
        };
        let answered = self.slots.call(&batch.source, |_, _| Ok(()), job).await?;
        self.answer("deliver", answered)
    }

    async fn add(&self, batch: &Arc<Batch>) -> Answer {
        let rows = Arc::clone(batch);
        let look = |marks: &mut Marks, live| self.kept(&batch.source, marks, live);
        let job = async move |lease: Lease<'_, SinkGuest>| {
            let count = rows.len() as u64;
            let generation = lease.live.generation;
            // The mark is set before the call: whatever becomes of it, the instance may hold something from now on.
            lease.marks.entry(rows.source.clone()).or_insert(Mark { generation, rows: 0, first: 0 });
            let crossing = super::batch(&rows);
            let call = async |guest: &SinkGuest, store: &mut Store<State>| guest.0.call_add(store, &crossing).await;
            let answered = lease.live.call("add", lease.abandon, call).await?;
            let answered = proved("add", answered, count)?;
            if let (Ok(_), Some(mark)) = (&answered, lease.marks.get_mut(&rows.source)) {
                // Only the rows of accepted calls have an index in the answer of `flush` (S27).
                mark.rows += count;
            }
            Ok(answered)
        };
        let answered = self.slots.call(&batch.source, look, job).await?;
        self.answer("add", answered)
    }

    async fn flush(&self, source: &TopicPartition) -> Answer {
        let look = |marks: &mut Marks, live| self.kept(source, marks, live);
        let flushed = source.clone();
        let job = async move |lease: Lease<'_, SinkGuest>| {
            let rows = lease.marks.get(&flushed).map_or(0, |mark| mark.rows);
            let crossing = super::source(&flushed);
            let call = async |guest: &SinkGuest, store: &mut Store<State>| guest.0.call_flush(store, &crossing).await;
            let answered = lease.live.call("flush", lease.abandon, call).await?;
            let answered = proved("flush", answered, rows)?;
            // The buffer is empty now, whatever was answered.
            lease.marks.remove(&flushed);
            Ok(answered)
        };
        let answered = self.slots.call(source, look, job).await?;
        self.answer("flush", answered)
    }

    async fn discard(&self, source: &TopicPartition) {
        let mut gone = false;
        let look = |marks: &mut Marks, live: Option<u64>| {
            let held = marks.remove(source).map(|mark| mark.generation);
            gone = live.is_none() || held.is_some_and(|held| live != Some(held));
            // A retired instance has taken its buffer with it: there is nothing to forget but the mark, and nobody to ask.
            if gone { Err(CallError::Backpressure(Duration::ZERO)) } else { Ok(()) }
        };
        let crossing = super::source(source);
        let job = async move |lease: Lease<'_, SinkGuest>| {
            let call = async |guest: &SinkGuest, store: &mut Store<State>| guest.0.call_discard(store, &crossing).await;
            lease.live.call("discard", lease.abandon, call).await
        };
        let answer = self.slots.call(source, look, job).await;
        if let Err(error) = answer
            && !gone
        {
            // Its instance is retired, which discards as well.
            tracing::warn!("`{}` could not discard `{source}`: {error}", self.slots.plan.who.label);
        }
    }

    async fn close(&self) -> Result<(), Fault> {
        let job = async |lease: Lease<'_, SinkGuest>| {
            let call = async |guest: &SinkGuest, store: &mut Store<State>| guest.0.call_close(store).await;
            lease.live.call("close", lease.abandon, call).await
        };
        let label = &self.slots.plan.who.label;
        for answer in self.slots.each_live(job).await {
            match answer {
                Ok(Ok(())) => {}
                Ok(Err(words)) => {
                    return Err(Fault::destination(format!("`{label}` failed in `close`"))
                        .because(printable(&words, COMPLAINT_BYTES)));
                }
                Err(error) => {
                    return Err(error
                        .fault()
                        .cloned()
                        .unwrap_or_else(|| Fault::plugin(format!("`{label}` did not close"))));
                }
            }
        }
        Ok(())
    }
}

type Typed = Result<Vec<Failure>, types::Fault>;

/// An answer whose rows are there; any other retires the instance, and nothing of the call counts.
fn proved(hook: &'static str, answered: Result<Vec<types::Failure>, types::Fault>, rows: u64) -> Result<Typed, Stop> {
    match answered {
        Ok(failed) => super::failures(failed, rows).map(Ok).map_err(|how| Stop::Broke { hook, how }),
        Err(answered) => Ok(Err(answered)),
    }
}
