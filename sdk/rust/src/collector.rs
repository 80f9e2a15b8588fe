use crate::bindings::{collector, hooks, payloads};
use crate::{Batch, Context, DeliveryAction, DeliveryError, Failed, FailureKind, Fault, Payloads, Record, Window};

#[cfg(test)]
mod tests;

/// Turns records into payloads. Exported with [`export_collector!`](crate::export_collector).
pub trait Collector: Sized + 'static {
    /// Once per instance: read the options, touch nothing outside.
    ///
    /// # Errors
    /// What is wrong with the configuration; the host does not start then.
    fn new(context: &Context) -> Result<Self, String>;

    /// What one record yields: add it to `out`, or add nothing. May be asked again for a record it has seen.
    ///
    /// # Errors
    /// [`Failed`]; what was added for the record does not count then.
    fn collect(&mut self, record: &Record<'_>, out: &mut Payloads) -> Result<(), Failed>;
}

/// The optional hooks of a collector. Exported with
/// [`export_collector_with_hooks!`](crate::export_collector_with_hooks); leave out what you do not need.
pub trait Hooks: Collector {
    /// After every sink is connected and before the instance's first record: load lookup tables here.
    ///
    /// # Errors
    /// A fault ends the start, or is tried again for an instance that replaces another.
    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// Once per window, after `collect` saw every record of it. What is added counts as coming from its last record.
    /// Where a window begins and ends differs between replays.
    ///
    /// # Errors
    /// A fault of the whole call.
    fn window_complete(&mut self, window: &Window, out: &mut Payloads) -> Result<(), Fault> {
        let _ = (window, out);
        Ok(())
    }

    /// Decides what happens to payloads that a sink did not take.
    fn delivery_error(&mut self, error: &DeliveryError) -> DeliveryAction {
        let _ = error;
        DeliveryAction::Dlq
    }
}

/// The one collector of a component. Calls are serial, so a plain cell holds it.
#[doc(hidden)]
pub trait CollectorInstance {
    type Plugin: Collector;

    fn with<R>(call: impl FnOnce(&mut Option<Self::Plugin>) -> R) -> R;
}

pub(crate) fn before_setup() -> Fault {
    Fault::fatal("called before `setup` succeeded")
}

impl<C: CollectorInstance> collector::Guest for C {
    fn setup(context: Context) -> Result<(), String> {
        crate::panic::install();
        let plugin = C::Plugin::new(&context)?;
        C::with(|slot| *slot = Some(plugin));
        Ok(())
    }

    fn collect(batch: crate::bindings::types::Batch) -> Result<payloads::CollectResult, Fault> {
        C::with(|slot| collect(slot.as_mut().ok_or_else(before_setup)?, &batch.into()))
    }
}

fn collect(plugin: &mut impl Collector, batch: &Batch) -> Result<payloads::CollectResult, Fault> {
    let mut out = Payloads::new();
    for (index, record) in (0..).zip(batch) {
        let mark = out.start(index);
        match plugin.collect(&record, &mut out) {
            Ok(()) => {}
            Err(Failed::Reject(reason)) => out.fail(mark, FailureKind::Reject, reason),
            Err(Failed::Retry(reason)) => {
                // The host ignores everything from here on and asks for it again.
                out.fail(mark, FailureKind::Retry, reason);
                break;
            }
            Err(Failed::Call(fault)) => return Err(fault),
        }
    }
    Ok(out.finish())
}

impl<C: CollectorInstance<Plugin: Hooks>> hooks::window_hook::Guest for C {
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

impl<C: CollectorInstance<Plugin: Hooks>> hooks::delivery_hook::Guest for C {
    fn on_delivery_error(error: DeliveryError) -> DeliveryAction {
        C::with(|slot| slot.as_mut().map_or(DeliveryAction::Dlq, |plugin| plugin.delivery_error(&error)))
    }
}

impl<C: CollectorInstance<Plugin: Hooks>> hooks::ready_hook::Guest for C {
    fn on_ready() -> Result<(), Fault> {
        C::with(|slot| slot.as_mut().ok_or_else(before_setup)?.ready())
    }
}

/// Makes a type that is a [`Collector`] the component's collector. Once per crate.
#[macro_export]
macro_rules! export_collector {
    ($plugin:ty) => {
        const _: () = {
            $crate::__collector!($plugin);
            #[cfg(target_family = "wasm")]
    $crate::bindings::collector::export_raw_collector!(Component with_types_in $crate::bindings::collector);
            #[cfg(not(target_family = "wasm"))]
            const _: fn() = || $crate::exports::exports_collector::<Component>();
        };
    };
}

/// [`export_collector!`] for a type that has [`Hooks`] as well.
#[macro_export]
macro_rules! export_collector_with_hooks {
    ($plugin:ty) => {
        const _: () = {
            $crate::__collector!($plugin);
            #[cfg(target_family = "wasm")]
    $crate::bindings::collector::export_raw_collector!(Component with_types_in $crate::bindings::collector);
            #[cfg(target_family = "wasm")]
    $crate::bindings::hooks::export_raw_hooks!(Component with_types_in $crate::bindings::hooks);
            #[cfg(not(target_family = "wasm"))]
            const _: fn() = || $crate::exports::exports_hooks::<Component>();
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __collector {
    ($plugin:ty) => {
        struct Component;

        ::std::thread_local! {
            static INSTANCE: ::std::cell::RefCell<::std::option::Option<$plugin>> =
                const { ::std::cell::RefCell::new(::std::option::Option::None) };
        }

        impl $crate::exports::CollectorInstance for Component {
            type Plugin = $plugin;

            fn with<R>(call: impl ::std::ops::FnOnce(&mut ::std::option::Option<$plugin>) -> R) -> R {
                INSTANCE.with_borrow_mut(call)
            }
        }
    };
}

// Natively nothing is exported; these keep the type checked all the same.
#[doc(hidden)]
pub fn exports_collector<C: collector::Guest>() {}
#[doc(hidden)]
pub fn exports_hooks<
    C: collector::Guest + hooks::window_hook::Guest + hooks::delivery_hook::Guest + hooks::ready_hook::Guest,
>() {
}
