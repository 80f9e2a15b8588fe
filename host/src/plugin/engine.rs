//! The one Wasmtime configuration. Everything that compiles, caches or runs a component goes through [`Engine::start`], so
//! what one part compiles loads in every other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, EngineWeak};

use super::bindings::tidegate::plugin::{log, metrics, postgres};
use super::grants::{files, http, sockets, words};
use super::imports::State;
use crate::model::Fault;

/// How often a running guest is looked at: its deadline is met to within one tick.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Stack of one call, in bytes; recursion beyond it traps. Wasmtime's own default, named because it is a limit.
const GUEST_STACK_BYTES: usize = 512 << 10;

/// Stack of the fiber that a call runs on, in bytes: the guest's share, and what the host needs on top.
const FIBER_STACK_BYTES: usize = 2 << 20;

/// Ticks since the start: the guests' clock, which only tells how long they have been running.
#[derive(Debug, Default)]
pub(crate) struct Ticks(AtomicU64);

impl Ticks {
    /// Ticks so far.
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more has passed.
    pub(crate) fn pass(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Ticks in `time`, at least one.
pub(crate) fn ticks_in(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Compiles and links components; cheap to share.
pub(crate) struct Engine {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<State>,
    pub(crate) ticks: Arc<Ticks>,
}

impl Engine {
    /// Builds the engine and starts its ticker, which ends with it.
    pub(crate) fn start() -> Result<Self, Fault> {
        let failed = |error: wasmtime::Error| {
            Fault::host("the WebAssembly runtime could not be started").because(format!("{error:#}"))
        };
        let wasmtime = wasmtime::Engine::new(&config()).map_err(failed)?;
        let linker = linker(&wasmtime).map_err(failed)?;
        let ticks = Arc::new(Ticks::default());
        let (weak, counted) = (wasmtime.weak(), Arc::clone(&ticks));
        std::thread::Builder::new()
            .name("plugin-ticker".into())
            .spawn(move || tick(&weak, &counted))
            .map_err(|error| Fault::host("the plugins' ticker could not be started").because(error))?;
        Ok(Self { wasmtime, linker, ticks })
    }
}

/// Instances live long and are few, and their sizes are the operator's to choose, so they are allocated on demand: a pool
/// would need its sizes before the configuration is read, and would save microseconds per instance.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable);
    config
}

/// Every WASI interface is linked, whatever is granted: toolchains import far more than plugins use. What stands behind it
/// is each instance's own context (S129).
fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    // Ours take the place of some of the library's.
    linker.allow_shadowing(true);
    files::add_to_linker(&mut linker)?;
    sockets::add_to_linker(&mut linker)?;
    words::add_to_linker(&mut linker)?;
    http::add_to_linker(&mut linker)?;
    linker.allow_shadowing(false);
    log::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    metrics::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    postgres::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

fn tick(engine: &EngineWeak, ticks: &Ticks) {
    loop {
        std::thread::sleep(TICK);
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
        ticks.pass();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// What one engine compiled, another loads: they share one configuration.
    #[test]
    fn compiled_by_one_engine_loads_in_another() {
        let (one, other) = (Engine::start().unwrap(), Engine::start().unwrap());
        let compiled = one.wasmtime.precompile_component(&wat::parse_str("(component)").unwrap()).unwrap();
        #[allow(unsafe_code, reason = "the bytes were compiled two lines above")]
        // SAFETY: the bytes come straight from `precompile_component` of this very Wasmtime.
        let component = unsafe { wasmtime::component::Component::deserialize(&other.wasmtime, &compiled) };
        assert!(component.is_ok());
    }

    #[test]
    fn a_deadline_is_at_least_one_tick() {
        assert_eq!(ticks_in(Duration::ZERO), 1);
        assert_eq!(ticks_in(Duration::from_secs(1)), 100);
    }
}
