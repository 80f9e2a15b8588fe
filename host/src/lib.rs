#![doc = include_str!("../../docs/architecture.md")]

pub mod address;
pub mod blocking;
pub mod brokers;
pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod collect;
pub mod config;
pub mod memory;
pub mod model;
pub mod pipeline;
pub mod plugin;
pub mod secret;
pub mod sink;
pub mod source;
pub mod telemetry;
