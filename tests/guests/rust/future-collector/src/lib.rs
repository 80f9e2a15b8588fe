//! A collector of a contract that does not exist yet: its package says 0.2.0. The host must refuse it and name both versions.

#[allow(clippy::all, unsafe_code, missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({
        inline: "package tidegate:plugin@0.2.0;

            interface types {
                record context { name: string, options: string }
            }

            interface collector {
                use types.{context};
                setup: func(context: context) -> result<_, string>;
                collect: func(values: list<list<u8>>) -> result<list<string>, string>;
            }

            world collector-plugin { export collector; }",
    });
}

use bindings::exports::tidegate::plugin::collector::{Context, Guest};

/// What the component exports.
#[derive(Debug)]
pub struct Future;

impl Guest for Future {
    fn setup(_context: Context) -> Result<(), String> {
        Ok(())
    }

    fn collect(values: Vec<Vec<u8>>) -> Result<Vec<String>, String> {
        Ok(values.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect())
    }
}

#[cfg(target_family = "wasm")]
#[allow(unsafe_code, reason = "generated")]
mod exported {
    use super::{Future, bindings};

    bindings::export!(Future with_types_in bindings);
}
