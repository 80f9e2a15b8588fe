//! Which limit ended a call, read from what the runtime says of it.

use wasmtime::Error;
use wasmtime::component::ResourceTableError;

use crate::plugin::imports::Exceeded;
use crate::plugin::limits::Limits;

/// What the runtime says when a call moves more to the host than [`Limits::hostcall_mebibytes`]; its error has no public type.
const FUEL: &str = "fuel allocated for hostcalls has been exhausted";
/// What it says when the guest's own tables hold more than [`Limits::handles`].
const HANDLES: &str = "handle limit exceeded";

/// A limit that a guest met.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Met {
    /// Its key under `limits`.
    pub(crate) key: &'static str,
    /// What the guest wanted more of, and how much it may have.
    pub(crate) words: String,
}

impl Met {
    /// The limit that the error tells of, if it tells of one.
    pub(crate) fn read(error: &Error, limits: &Limits) -> Option<Self> {
        let met = |key, words| Some(Self { key, words });
        match error.chain().find_map(|cause| cause.downcast_ref::<Exceeded>()) {
            Some(Exceeded { memory: true, .. }) => {
                return met("memory_mebibytes", format!("more memory than its {} MiB", limits.memory_mebibytes));
            }
            Some(Exceeded { memory: false, .. }) => {
                return met("table_elements", format!("more than its {} table elements", limits.table_elements));
            }
            None => {}
        }
        let said = |words| error.chain().any(|cause| cause.to_string().contains(words));
        let full =
            |cause: &(dyn std::error::Error + 'static)| matches!(cause.downcast_ref(), Some(ResourceTableError::Full));
        if error.chain().any(full) || said(HANDLES) {
            return met("handles", format!("more than its {} handles", limits.handles));
        }
        if said(FUEL) {
            let limit = limits.hostcall_mebibytes;
            return met("hostcall_mebibytes", format!("to hand over more than its {limit} MiB in one call"));
        }
        None
    }
}
