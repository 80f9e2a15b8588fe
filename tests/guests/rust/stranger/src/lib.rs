//! A component that has nothing to do with the contract. The host must refuse it and say what it looked for.

#[allow(clippy::all, unsafe_code, missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({
        inline: "package example:stranger@1.0.0;
            world stranger { export greet: func(name: string) -> string; }",
    });
}

/// What the component exports.
#[derive(Debug)]
pub struct Stranger;

impl bindings::Guest for Stranger {
    fn greet(name: String) -> String {
        format!("Good day, {name}")
    }
}

#[cfg(target_family = "wasm")]
#[allow(unsafe_code, reason = "generated")]
mod exported {
    use super::{Stranger, bindings};

    bindings::export!(Stranger with_types_in bindings);
}
