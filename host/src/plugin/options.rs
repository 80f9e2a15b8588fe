//! What a plugin's configuration says: the component, what it is told, and what it may reach.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::grants::http::{Network, Origin};
use super::limits::Limits;

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

/// What a plugin may reach. Everything not named is refused.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Directories of the host that the guest sees.
    pub directories: Vec<Directory>,
    /// Names of environment variables that the guest sees.
    pub environment: Vec<String>,
    /// The sinks that a collector may write to, as `type/name`; all that are configured when it is left out.
    pub allowed_sinks: Option<Vec<String>>,
    /// Names of PostgreSQL sinks on whose databases the guest may run statements, on connections of its own (S109).
    pub postgres: Vec<String>,
    /// Where the guest may send HTTP requests: scheme, host and port, such as `https://api.example.com:443`. A host is reached
    /// only at addresses that anybody on the internet can reach, unless it is itself an address, or `localhost`.
    pub http: Vec<Origin>,
    /// Addresses and networks that the hosts of `http` may stand for although they are not everybody's: loopback, private,
    /// link-local and the like, such as `10.1.2.0/24`.
    pub http_addresses: Vec<Network>,
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
