//! Write collectors and sinks for Tidegate in Rust.
//!
//! A plugin is a library of crate type `cdylib`, built with `cargo build --target wasm32-wasip2 --release`. It needs
//! this crate and `serde`, nothing else.
//!
//! # A collector
//! turns records into payloads. It is asked for one record after the other; what it adds to `out` is delivered, and
//! adding nothing means that the record yields nothing.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use tidegate_sdk::{Collector, Context, Failed, Payloads, Record, export_collector};
//!
//! #[derive(Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Options {
//!     minimum: f64,
//! }
//!
//! #[derive(Deserialize)]
//! struct Order<'a> {
//!     id: &'a str,
//!     total: f64,
//! }
//!
//! #[derive(Serialize)]
//! struct Summary<'a> {
//!     id: &'a str,
//!     total: f64,
//! }
//!
//! struct Orders(Options);
//!
//! impl Collector for Orders {
//!     fn new(context: &Context) -> Result<Self, String> {
//!         Ok(Self(context.options()?))
//!     }
//!
//!     fn collect(&mut self, record: &Record<'_>, out: &mut Payloads) -> Result<(), Failed> {
//!         let order: Order = record.json()?;
//!         if order.total < self.0.minimum {
//!             return Ok(());
//!         }
//!         let summary = Summary { id: order.id, total: order.total };
//!         out.kafka(&summary)?.key(order.id);
//!         out.postgres("orders", &summary)?.sink("main");
//!         Ok(())
//!     }
//! }
//!
//! export_collector!(Orders);
//! ```
//!
//! # A batching sink
//! gets everything that a checkpoint holds for one topic-partition in a single [`write`](BatchingSink::write).
//!
//! ```
//! use std::time::Duration;
//! use tidegate_sdk::{Batch, BatchingSink, Context, Failure, Fault, export_batching_sink};
//!
//! struct Lines;
//!
//! impl BatchingSink for Lines {
//!     fn new(_context: &Context) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn connect(&mut self) -> Result<(), Fault> {
//!         Ok(())
//!     }
//!
//!     fn write(&mut self, batch: &Batch) -> Result<Vec<Failure>, Fault> {
//!         let mut failures = Vec::new();
//!         for (row, record) in batch.iter().enumerate() {
//!             match record.text() {
//!                 Ok(text) => println!("{}[{}]@{} {text}", batch.topic(), batch.partition(), record.offset),
//!                 Err(reason) => failures.push(Failure::reject(row, reason)),
//!             }
//!         }
//!         if failures.len() == batch.size() {
//!             // The destination takes no more for now: the partition pauses and comes again. Not an error.
//!             return Err(Fault::wait(Duration::from_secs(30)));
//!         }
//!         Ok(failures)
//!     }
//! }
//!
//! export_batching_sink!(Lines);
//! ```
//!
//! # What the host promises and asks
//! - Calls come one at a time. Several instances may run side by side, each with its own state, and an instance may be
//!   replaced at any moment: state in memory is a cache, never the only copy.
//! - Records may come again after a fault: delivery is at least once. `(topic, partition, offset, ordinal)` names a row
//!   for good.
//! - Rows that an answer names failed, all others did not. [`Failure::reject`] sends a row to the dead letter queue,
//!   [`Failure::retry`] asks for it again first.
//! - A [`Fault`] is of the whole call, and says nothing of a single row. After [`Fault::wait`] and
//!   [`Fault::unavailable`] the host waits and asks again, without end, and no row goes to the dead letter queue. After
//!   [`Fault::reject`] it asks in halves until it knows which rows are refused. After [`Fault::fatal`] it stops.
//! - A panic, a call that outlives its deadline and memory beyond the limit end the instance. The host repeats the call
//!   in halves on new ones: a row on which it happens alone goes to the dead letter queue, if other rows pass. The
//!   panic's text and place stand in that dead letter.
//! - What is printed goes to the host's log. Files, environment and network are there only as far as they were granted.

/// The README's example is compiled with the others.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod batch;
#[doc(hidden)]
pub mod bindings;
mod collector;
mod context;
mod failure;
mod hooks;
mod panic;
mod payload;
mod postgres;
mod sink;

pub use batch::{Batch, ChunkSizeError, Chunks, EmptyBatchError, Header, Headers, Record, Rows};
pub use bindings::delivery_hook::{DeliveryAction, DeliveryError, DeliveryErrorKind};
pub use bindings::types::{Context, Failure, FailureKind, Fault};
pub use bindings::window_hook::Window;
pub use collector::Collector;
pub use failure::Failed;
pub use hooks::{DeliveryHook, ReadyHook, WindowHook};
pub use payload::{
    FilePayload, HttpPayload, KafkaPayload, MongoPayload, Payloads, PluginPayload, PostgresPayload, RedisPayload,
};
pub use postgres::{QueryError, query};
pub use sink::{BatchingSink, Description, DirectSink};

/// What the export macros need, and guests that go past them. Not for authors.
#[doc(hidden)]
pub mod exports {
    pub use crate::collector::{CollectorInstance, exports_collector};
    pub use crate::hooks::{exports_delivery_hook, exports_ready_hook, exports_window_hook};
    pub use crate::panic::install as install_panic_hook;
    pub use crate::sink::{AnySink, Batching, Direct, SinkInstance, exports_sink};
}
