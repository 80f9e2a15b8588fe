//! What one instance may call: its own WASI context, and the contract's imports beyond WASI.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime::{Error, ResourceLimiter};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::bindings::tidegate::plugin::{log, metrics, postgres};
use super::grants::http::Requests;
use super::instance::Spent;
use super::limits::{Limits, bytes, count};
use super::report::{Output, printable};
use crate::sink::Queries;

/// Most core instances, tables and memories that one component may be made of.
const CORE_INSTANCES: usize = 1000;
/// Most bytes of one line that a guest sends to the log, the metrics or the refusals.
const TEXT_BYTES: usize = 4096;

/// What one instance owns on the host's side.
pub(crate) struct State {
    pub(crate) table: ResourceTable,
    pub(crate) wasi: WasiCtx,
    pub(crate) http: WasiHttpCtx,
    pub(crate) requests: Requests,
    /// What its present call's time is spent on.
    pub(crate) spent: Arc<Spent>,
    pub(crate) limiter: Limiter,
    pub(crate) output: Arc<Output>,
    /// The sinks that it may ask.
    pub(crate) queries: Arc<Queries>,
    /// Where the plugin stands in the configuration, such as `sinks.plugin.csv`.
    pub(crate) place: Arc<str>,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.requests, table: &mut self.table, ctx: &mut self.http }
    }
}

impl log::Host for State {
    fn log(&mut self, level: log::Level, message: String) {
        let level = match level {
            log::Level::Trace => tracing::Level::TRACE,
            log::Level::Debug => tracing::Level::DEBUG,
            log::Level::Info => tracing::Level::INFO,
            log::Level::Warn => tracing::Level::WARN,
            log::Level::Error => tracing::Level::ERROR,
        };
        self.output.say(level, &printable(&message, TEXT_BYTES));
    }
}

impl metrics::Host for State {
    fn count(&mut self, name: String, by: u64) {
        self.output.say(tracing::Level::DEBUG, &format!("count {} {by}", printable(&name, TEXT_BYTES)));
    }

    fn gauge(&mut self, name: String, value: f64) {
        self.output.say(tracing::Level::DEBUG, &format!("gauge {} {value}", printable(&name, TEXT_BYTES)));
    }
}

impl postgres::Host for State {
    async fn query(&mut self, sink: String, statement: String, parameters: String) -> Result<String, postgres::Error> {
        if let Some(granted) = self.queries.get(&sink) {
            let _under_way = self.spent.request();
            return granted.query(&statement, &parameters).await.map_err(postgres::Error::Failed);
        }
        let refusal = format!(
            "no statement on `{}`: no grant covers it; `{}.grants.postgres` would have to name the sink",
            printable(&sink, TEXT_BYTES),
            self.place
        );
        self.output.refused(&refusal);
        Err(postgres::Error::Denied(refusal))
    }
}

/// What a guest asked for beyond its limit; ends the call.
#[derive(Debug, thiserror::Error)]
#[error("{} would have grown to {wanted}, the limit is {limit}", if *.memory { "memory in bytes" } else { "table elements" })]
pub(crate) struct Exceeded {
    /// Whether it was memory; tables otherwise.
    pub(crate) memory: bool,
    wanted: usize,
    limit: usize,
}

/// Keeps all memories of an instance together under its limit, and ends the call that would grow beyond: a guest that is
/// merely told that its memory does not grow dies without a word.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_limit: usize,
    memory: usize,
    element_limit: usize,
    elements: usize,
}

impl Limiter {
    /// Allows what the limits say for all memories together, and for all tables.
    pub(crate) fn new(limits: &Limits) -> Self {
        let (memory_limit, element_limit) = (bytes(limits.memory_mebibytes), count(limits.table_elements));
        Self { memory_limit, memory: 0, element_limit, elements: 0 }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool, Error> {
        let wanted = self.memory.saturating_add(desired.saturating_sub(current));
        if wanted > self.memory_limit {
            let limit = self.memory_limit;
            return Err(Exceeded { memory: true, wanted, limit }.into());
        }
        self.memory = wanted;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: Error) -> Result<(), Error> {
        Err(error)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool, Error> {
        let wanted = self.elements.saturating_add(desired.saturating_sub(current));
        if wanted > self.element_limit {
            return Err(Exceeded { memory: false, wanted, limit: self.element_limit }.into());
        }
        self.elements = wanted;
        Ok(true)
    }

    fn table_grow_failed(&mut self, error: Error) -> Result<(), Error> {
        Err(error)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        CORE_INSTANCES
    }

    fn memories(&self) -> usize {
        CORE_INSTANCES
    }
}
