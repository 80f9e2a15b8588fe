//! What the contract's text says, as Rust. A world of our own exports every interface, so one set of bindings serves every
//! kind of plugin; which of them a component really exports is looked up one by one.

#![allow(missing_docs, reason = "generated; wit/plugin.wit has the words")]

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package tidegate:host;
        world every-plugin {
            import tidegate:plugin/log@0.1.0;
            import tidegate:plugin/metrics@0.1.0;
            import tidegate:plugin/postgres@0.1.0;
            export tidegate:plugin/sink@0.1.0;
            export tidegate:plugin/collector@0.1.0;
            export tidegate:plugin/window-hook@0.1.0;
            export tidegate:plugin/delivery-hook@0.1.0;
            export tidegate:plugin/ready-hook@0.1.0;
        }
    ",
    imports: { "tidegate:plugin/postgres.query": async },
    exports: { default: async },
});

pub use self::tidegate::plugin::{payloads, types};
pub use exports::tidegate::plugin::{collector, delivery_hook, ready_hook, sink, window_hook};
