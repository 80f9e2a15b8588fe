//! Tidegate takes records from Kafka to native and WebAssembly sinks, and commits offsets only for what arrived.

pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod collect;
pub mod config;
pub mod model;
pub mod pipeline;
pub mod plugin;
pub mod sink;
pub mod source;
pub mod telemetry;
