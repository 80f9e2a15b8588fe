//! `run` and `demo`: source, collector and sinks put together.

use std::path::Path;

use super::Exit;
use crate::config::Loaded;
use crate::model::Fault;

/// Takes records to the sinks until told to stop.
pub async fn run(_loaded: &Loaded) -> Result<Exit, Fault> {
    Err(Fault::host("`run` is not put together in this build"))
}

/// Runs a pipeline on this machine alone.
pub async fn demo(_records: u64, _keep: Option<&Path>) -> Result<Exit, Fault> {
    Err(Fault::host("`demo` is not put together in this build"))
}
