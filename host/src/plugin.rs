//! WebAssembly components as collectors and sinks: path → artifact → contract → instance.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// One plugin: the component, what it is told, and what it may do.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Read only.
    #[default]
    Read,
    /// Read and write.
    Write,
}
