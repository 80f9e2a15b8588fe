use crate::bindings::{collector, payloads};
use crate::{Batch, Context, Failed, FailureKind, Fault, Payloads, Record};

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

/// Makes a type that is a [`Collector`] the component's collector. Once per crate.
///
/// A component exports the hooks that are named, and no other: [`ReadyHook`](crate::ReadyHook) as `ready`,
/// [`WindowHook`](crate::WindowHook) as `window`, [`DeliveryHook`](crate::DeliveryHook) as `delivery`.
///
/// ```
/// # use tidegate_sdk::{Collector, Context, Failed, Fault, Payloads, ReadyHook, Record, export_collector};
/// # struct Lookups;
/// # impl Collector for Lookups {
/// #     fn new(_: &Context) -> Result<Self, String> { Ok(Self) }
/// #     fn collect(&mut self, _: &Record<'_>, _: &mut Payloads) -> Result<(), Failed> { Ok(()) }
/// # }
/// impl ReadyHook for Lookups {
///     fn ready(&mut self) -> Result<(), Fault> {
///         Ok(())
///     }
/// }
///
/// export_collector!(Lookups, hooks(ready));
/// ```
#[macro_export]
macro_rules! export_collector {
    ($plugin:ty $(,)?) => {
        $crate::export_collector!($plugin, hooks());
    };
    ($plugin:ty, hooks($($hook:ident),* $(,)?) $(,)?) => {
        const _: () = {
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

            #[cfg(target_family = "wasm")]
    $crate::bindings::collector::export_raw_collector!(Component with_types_in $crate::bindings::collector);
            #[cfg(not(target_family = "wasm"))]
            const _: fn() = || $crate::exports::exports_collector::<Component>();
            $($crate::__export_hook!(Component, $hook);)*
        };
    };
}

// Natively nothing is exported; this keeps the type checked all the same.
#[doc(hidden)]
pub fn exports_collector<C: collector::Guest>() {}
