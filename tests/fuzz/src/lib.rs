//! Coverage-guided fuzzing of what takes bytes from outside.

#[cfg(feature = "host")]
pub mod artifact;
#[cfg(feature = "sdk")]
pub mod batch;
#[cfg(feature = "host")]
pub mod collect;
#[cfg(feature = "host")]
pub mod config;
#[cfg(feature = "host")]
pub mod dlq;
#[cfg(feature = "host")]
mod plugins;
#[cfg(feature = "host")]
mod runtime;
