use crate::bindings::{delivery_hook, payloads, ready_hook, window_hook};
use crate::collector::{CollectorInstance, before_setup};
use crate::{Collector, DeliveryAction, DeliveryError, Fault, Payloads, Window};

#[cfg(test)]
mod tests;

/// Gets a collector ready. Exported with [`export_collector!`](crate::export_collector) as `hooks(ready)`.
pub trait ReadyHook: Collector {
    /// After every sink is connected and before the instance's first record: load lookup tables here.
    ///
    /// # Errors
    /// A fault ends the start, or is tried again for an instance that replaces another.
    fn ready(&mut self) -> Result<(), Fault>;
}

/// Yields payloads for a window as a whole. Exported with [`export_collector!`](crate::export_collector) as
/// `hooks(window)`.
pub trait WindowHook: Collector {
    /// Once per window, after `collect` saw every record of it. What is added counts as coming from its last record.
    /// Where a window begins and ends differs between replays.
    ///
    /// # Errors
    /// A fault of the whole call: after a wait and [`Fault::unavailable`] the same window is asked about again, after
    /// [`Fault::reject`] its records go to the dead letter queue.
    fn window_complete(&mut self, window: &Window, out: &mut Payloads) -> Result<(), Fault>;
}

/// Decides what happens to payloads that a sink did not take. Exported with
/// [`export_collector!`](crate::export_collector) as `hooks(delivery)`.
pub trait DeliveryHook: Collector {
    /// What to do with them. Where the hook has no opinion, [`DeliveryAction::Default`] leaves it to the host: the
    /// sink's `on_error`, or what it does without that.
    fn delivery_error(&mut self, error: &DeliveryError) -> DeliveryAction;
}

impl Default for DeliveryAction {
    /// No opinion.
    fn default() -> Self {
        Self::Default
    }
}

impl<C: CollectorInstance<Plugin: ReadyHook>> ready_hook::Guest for C {
    fn on_ready() -> Result<(), Fault> {
        C::with(|slot| slot.as_mut().ok_or_else(before_setup)?.ready())
    }
}

impl<C: CollectorInstance<Plugin: WindowHook>> window_hook::Guest for C {
    fn on_window_complete(window: Window) -> Result<Option<payloads::CollectResult>, Fault> {
        C::with(|slot| {
            let plugin = slot.as_mut().ok_or_else(before_setup)?;
            let mut out = Payloads::new();
            out.start(window.records.saturating_sub(1));
            plugin.window_complete(&window, &mut out)?;
            Ok(Some(out.finish()))
        })
    }
}

impl<C: CollectorInstance<Plugin: DeliveryHook>> delivery_hook::Guest for C {
    fn on_delivery_error(error: DeliveryError) -> DeliveryAction {
        C::with(|slot| slot.as_mut().map(|plugin| plugin.delivery_error(&error)).unwrap_or_default())
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_hook {
    ($component:ident, ready) => {
        #[cfg(target_family = "wasm")]
    $crate::bindings::ready_hook::export_raw_ready_hook!($component with_types_in $crate::bindings::ready_hook);
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || $crate::exports::exports_ready_hook::<$component>();
    };
    ($component:ident, window) => {
        #[cfg(target_family = "wasm")]
    $crate::bindings::window_hook::export_raw_window_hook!($component with_types_in $crate::bindings::window_hook);
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || $crate::exports::exports_window_hook::<$component>();
    };
    ($component:ident, delivery) => {
        #[cfg(target_family = "wasm")]
    $crate::bindings::delivery_hook::export_raw_delivery_hook!($component with_types_in $crate::bindings::delivery_hook);
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || $crate::exports::exports_delivery_hook::<$component>();
    };
    ($component:ident, $other:ident) => {
        ::std::compile_error!("a collector's hooks are `ready`, `window` and `delivery`");
    };
}

// Natively nothing is exported; these keep the types checked all the same.
#[doc(hidden)]
pub fn exports_ready_hook<C: ready_hook::Guest>() {}
#[doc(hidden)]
pub fn exports_window_hook<C: window_hook::Guest>() {}
#[doc(hidden)]
pub fn exports_delivery_hook<C: delivery_hook::Guest>() {}
