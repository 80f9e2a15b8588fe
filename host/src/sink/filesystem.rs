//! Files of JSON lines as a destination.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// One directory to write under.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The directory that every path has to stay in; it must exist (S117).
    pub base_path: PathBuf,
    /// The file for payloads that name none; `{topic}` and `{partition}` are filled in.
    #[serde(default = "default_path")]
    pub path: String,
    /// When written lines are forced to the disk (S119).
    #[serde(default)]
    pub fsync: Fsync,
}

fn default_path() -> String {
    "{topic}-{partition}.jsonl".into()
}

/// When written lines are forced to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// Left to the operating system: a power cut may lose lines whose offsets were committed.
    Never,
    /// Before the offsets are committed.
    #[default]
    Flush,
}
