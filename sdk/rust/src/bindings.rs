//! What wit-bindgen makes of `wit/plugin.wit`. Authors need none of it; guests that must misbehave do.
#![allow(missing_docs, clippy::all, reason = "generated")]
#![allow(unsafe_code, reason = "generated: the canonical ABI passes pointers")]

/// The types, once; the worlds below refer to them.
pub mod contract {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package tidegate:sdk;
            world contract { import tidegate:plugin/types@0.1.0; import tidegate:plugin/payloads@0.1.0; }",
        generate_unused_types: true,
        generate_all,
    });
}
pub use contract::tidegate::plugin::{payloads, types};

/// What the host offers beyond WASI. A component imports only what its author calls.
pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package tidegate:sdk; world imports { import tidegate:plugin/postgres@0.1.0; }",
        generate_all,
    });
    pub use tidegate::plugin::postgres;
}

pub mod collector {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "collector-plugin",
        pub_export_macro: true,
        export_macro_name: "export_raw_collector",
        default_bindings_module: "tidegate_sdk::bindings::collector",
        with: {
            "tidegate:plugin/types@0.1.0": crate::bindings::types,
            "tidegate:plugin/payloads@0.1.0": crate::bindings::payloads,
        },
    });
    pub use exports::tidegate::plugin::collector::*;
}

/// An optional hook, in a world of its own: a component exports it only when its author asked for it.
pub mod ready_hook {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package tidegate:sdk; world ready { export tidegate:plugin/ready-hook@0.1.0; }",
        pub_export_macro: true,
        export_macro_name: "export_raw_ready_hook",
        default_bindings_module: "tidegate_sdk::bindings::ready_hook",
        with: {
            "tidegate:plugin/types@0.1.0": crate::bindings::types,
            "tidegate:plugin/ready-hook@0.1.0": generate,
        },
    });
    pub use exports::tidegate::plugin::ready_hook::*;
}

/// An optional hook, in a world of its own: a component exports it only when its author asked for it.
pub mod window_hook {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package tidegate:sdk; world window { export tidegate:plugin/window-hook@0.1.0; }",
        pub_export_macro: true,
        export_macro_name: "export_raw_window_hook",
        default_bindings_module: "tidegate_sdk::bindings::window_hook",
        with: {
            "tidegate:plugin/types@0.1.0": crate::bindings::types,
            "tidegate:plugin/payloads@0.1.0": crate::bindings::payloads,
            "tidegate:plugin/window-hook@0.1.0": generate,
        },
    });
    pub use exports::tidegate::plugin::window_hook::*;
}

/// An optional hook, in a world of its own: a component exports it only when its author asked for it.
pub mod delivery_hook {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package tidegate:sdk; world delivery { export tidegate:plugin/delivery-hook@0.1.0; }",
        pub_export_macro: true,
        export_macro_name: "export_raw_delivery_hook",
        default_bindings_module: "tidegate_sdk::bindings::delivery_hook",
        with: {
            "tidegate:plugin/delivery-hook@0.1.0": generate,
        },
    });
    pub use exports::tidegate::plugin::delivery_hook::*;
}

pub mod sink {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "sink-plugin",
        pub_export_macro: true,
        export_macro_name: "export_raw_sink",
        default_bindings_module: "tidegate_sdk::bindings::sink",
        with: { "tidegate:plugin/types@0.1.0": crate::bindings::types },
    });
    pub use exports::tidegate::plugin::sink::*;
}
