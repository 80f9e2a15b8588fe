//! Statements on a configured Postgres sink's own connections.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::imports::postgres;

/// Why a statement was not run, or had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// The configuration does not grant it.
    Denied(String),
    /// The server refused it, or it went beyond a limit of the host; what it changed is undone.
    Failed(String),
}

impl std::fmt::Display for QueryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Denied(why) | Self::Failed(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for QueryError {}

/// Runs one statement on the connections of `sinks.postgres.<sink>` and returns its rows, each from a JSON object. `$1` is the first of
/// `parameters`, a list or tuple; the server converts each to the type that it expects. Needs `grants.postgres`, and connected
/// sinks: in the ready hook or later.
///
/// # Errors
/// [`QueryError`], also when a row is not what was expected.
pub fn query<T: DeserializeOwned>(
    sink: &str,
    statement: &str,
    parameters: impl Serialize,
) -> Result<Vec<T>, QueryError> {
    let failed = |error: serde_json::Error| QueryError::Failed(error.to_string());
    // An empty tuple is null to serde.
    let parameters = serde_json::to_value(parameters).map_err(failed)?;
    let parameters = if parameters.is_null() { "[]".into() } else { parameters.to_string() };
    let rows = postgres::query(sink, statement, &parameters).map_err(|error| match error {
        postgres::Error::Denied(why) => QueryError::Denied(why),
        postgres::Error::Failed(why) => QueryError::Failed(why),
    })?;
    serde_json::from_str(&rows).map_err(failed)
}
