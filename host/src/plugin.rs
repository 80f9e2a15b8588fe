//! WebAssembly components as collectors and sinks: path → artifact → contract → instance.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Fault;

mod adapter;
mod artifact;
mod bindings;
mod contract;
mod engine;
mod grants;
mod imports;
mod instance;
mod report;

pub use adapter::collector::PluginCollector;
pub use adapter::sink::PluginSink;
pub use artifact::{Artifact, Summary};
pub use contract::Hooks;

/// Most memory that one instance may be given, in MiB: what 32-bit WebAssembly can address.
const MOST_MEMORY_MEBIBYTES: u64 = 4096;
/// Shortest and longest that one call may be allowed to take, in seconds; a guest's time is measured in steps of the first.
const CALL_SECONDS: std::ops::RangeInclusive<f64> = 0.01..=3600.0;
/// Most instances of one plugin.
const MOST_INSTANCES: u32 = 64;

/// One plugin: the component, what it is told, and what it may do.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Plugin")]
pub struct Options {
    /// The component's file; a relative path starts at the configuration file's folder.
    pub component: PathBuf,
    /// The file's SHA-256 in hexadecimal; anything else is refused when set.
    #[serde(default)]
    pub sha256: String,
    /// Given to the plugin's `setup` as JSON.
    #[serde(default)]
    pub options: serde_json::Map<String, serde_json::Value>,
    /// How much the plugin may use.
    #[serde(default)]
    pub limits: Limits,
    /// What the plugin may reach; nothing by default.
    #[serde(default)]
    pub grants: Grants,
}

/// How much a plugin may use.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most memory of one instance, in MiB.
    pub memory_mebibytes: u64,
    /// Longest that one call may take, in seconds, in the guest and on the host's side of it.
    pub call_timeout_seconds: f64,
    /// How many instances share the partitions (S129).
    pub instances: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_mebibytes: 64, call_timeout_seconds: 10.0, instances: 1 }
    }
}

/// What a plugin may reach. Everything not named is refused.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Directories of the host that the guest sees.
    pub directories: Vec<Directory>,
    /// Names of environment variables that the guest sees.
    pub environment: Vec<String>,
    /// Names of PostgreSQL sinks on whose connections the guest may run statements (S109).
    pub postgres: Vec<String>,
}

/// One directory of the host that the guest sees.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// The directory on this machine; it must exist.
    pub host: PathBuf,
    /// The name under which the guest sees it.
    pub guest: String,
    /// What the guest may do in it.
    #[serde(default)]
    pub access: Access,
}

/// What a guest may do in a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Read only.
    #[default]
    Read,
    /// Read and write.
    Write,
}

/// Loads components. One for the whole process: it holds the runtime and the cache.
pub struct Plugins {
    engine: Arc<engine::Engine>,
    cache: Option<artifact::Cache>,
}

impl Plugins {
    /// Starts the runtime. Compiled components are kept in `cache_folder`, or else in `$XDG_CACHE_HOME/tidegate` or
    /// `$HOME/.cache/tidegate`.
    ///
    /// # Errors
    /// When the cache's folder cannot be used, or when others may write into it.
    pub fn new(cache_folder: Option<PathBuf>) -> Result<Arc<Self>, Fault> {
        let cache = match cache_folder {
            Some(folder) => Some(artifact::Cache::open(folder)?),
            None => artifact::Cache::open_default()?,
        };
        Ok(Arc::new(Self { engine: Arc::new(engine::Engine::start()?), cache }))
    }

    /// Reads, checks and compiles a plugin's component without running any of it. `place` is where the plugin stands in the
    /// configuration, such as `collect` or `sinks.plugin.csv`; relative paths start at `base_folder`.
    ///
    /// # Errors
    /// When the file cannot be read, is not what was asked for, or was built for another contract.
    pub async fn load(&self, place: &str, options: &Options, base_folder: &Path) -> Result<Artifact, Fault> {
        checked(&options.limits, place)?;
        let (engine, cache) = (Arc::clone(&self.engine), self.cache.clone());
        let (place, options, base) = (place.to_owned(), options.clone(), base_folder.to_owned());
        tokio::task::spawn_blocking(move || Artifact::load(engine, cache.as_ref(), &place, &options, &base))
            .await
            .unwrap_or_else(|error| Err(Fault::host("a component could not be loaded").because(error)))
    }
}

/// The limits, when they are ones.
fn checked(limits: &Limits, place: &str) -> Result<Limits, Fault> {
    let wrong = |key: &str, range: String| Err(Fault::config(format!("`{place}.limits.{key}` must be {range}")));
    if !(1..=MOST_MEMORY_MEBIBYTES).contains(&limits.memory_mebibytes) {
        return wrong("memory_mebibytes", format!("between 1 and {MOST_MEMORY_MEBIBYTES}"));
    }
    if !CALL_SECONDS.contains(&limits.call_timeout_seconds) {
        return wrong("call_timeout_seconds", format!("between {} and {}", CALL_SECONDS.start(), CALL_SECONDS.end()));
    }
    if !(1..=MOST_INSTANCES).contains(&limits.instances) {
        return wrong("instances", format!("between 1 and {MOST_INSTANCES}"));
    }
    Ok(limits.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn limits_out_of_range_are_named() {
        for (limits, key) in [
            (Limits { memory_mebibytes: 0, ..Limits::default() }, "collect.limits.memory_mebibytes"),
            (Limits { call_timeout_seconds: f64::NAN, ..Limits::default() }, "collect.limits.call_timeout_seconds"),
            (Limits { instances: 65, ..Limits::default() }, "collect.limits.instances"),
        ] {
            assert!(checked(&limits, "collect").unwrap_err().message.contains(key));
        }
        assert!(checked(&Limits::default(), "collect").is_ok());
    }
}
