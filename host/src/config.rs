//! The configuration file: YAML, overridden by the environment, with `${VAR}` and `${file:…}` in its strings (S120–S122).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::{Fault, SinkKind};
use crate::pipeline::options::{
    AbortOptions, CheckpointOptions, DeliveryOptions, DlqOptions, ExecutorOptions, WindowOptions,
};
use crate::{memory, plugin, sink, source};

mod configured;
mod decode;
mod environment;
mod explain;
mod lint;
mod schema;
mod secrets;
mod substitute;
mod tree;
mod units;

pub use configured::Configured;
pub use environment::{Environment, PREFIX};
pub use lint::MAX_SINKS;
pub use schema::schema;
pub use secrets::Secrets;
use substitute::Written;

/// Largest configuration file, in bytes: more is a mistake in the file's name.
const MAX_BYTES: u64 = 4 << 20;
/// The file that is read where none is named. It may be missing where the environment has options.
pub const DEFAULT_FILE: &str = "tidegate.yaml";
/// Most unknown keys that are reported at once.
const MAX_UNKNOWN: usize = 32;

/// Tidegate's configuration file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Tidegate")]
pub struct Config {
    /// The cluster and topics that records come from.
    pub kafka: source::kafka::Options,
    /// When buffering sinks are flushed and offsets are committed.
    pub checkpoint: CheckpointOptions,
    /// How many records of a partition are taken in hand together.
    pub window: WindowOptions,
    /// How much memory records may take.
    pub memory: memory::Options,
    /// Attempts and patience.
    pub executor: ExecutorOptions,
    /// What happens to a partition that fails again and again.
    pub abort: AbortOptions,
    /// The plugin that turns records into payloads; left out, each record's value goes to every sink.
    pub collect: Option<plugin::Options>,
    /// The destinations, at least one, by kind and name.
    pub sinks: Sinks,
    /// Where given-up payloads and records go.
    pub dlq: DlqOptions,
}

/// The destinations, by kind and name (S67).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sinks {
    /// Kafka topics.
    pub kafka: BTreeMap<String, Configured<sink::kafka::Options>>,
    /// PostgreSQL databases.
    pub postgres: BTreeMap<String, Configured<sink::postgres::Options>>,
    /// MongoDB databases.
    pub mongo: BTreeMap<String, Configured<sink::mongo::Options>>,
    /// HTTP endpoints.
    pub http: BTreeMap<String, Configured<sink::http::Options>>,
    /// Redis databases.
    pub redis: BTreeMap<String, Configured<sink::redis::Options>>,
    /// Directories of JSON lines.
    pub filesystem: BTreeMap<String, Configured<sink::filesystem::Options>>,
    /// WebAssembly components.
    pub plugin: BTreeMap<String, Configured<plugin::Options>>,
}

impl Sinks {
    /// Kind, name and common options of every sink, by kind, then by name.
    pub fn all(&self) -> impl Iterator<Item = (SinkKind, &str, &DeliveryOptions)> {
        fn of<T>(
            kind: SinkKind,
            sinks: &BTreeMap<String, Configured<T>>,
        ) -> impl Iterator<Item = (SinkKind, &str, &DeliveryOptions)> {
            sinks.iter().map(move |(name, sink)| (kind, name.as_str(), &sink.delivery))
        }
        of(SinkKind::Kafka, &self.kafka)
            .chain(of(SinkKind::Postgres, &self.postgres))
            .chain(of(SinkKind::Mongo, &self.mongo))
            .chain(of(SinkKind::Http, &self.http))
            .chain(of(SinkKind::Redis, &self.redis))
            .chain(of(SinkKind::Filesystem, &self.filesystem))
            .chain(of(SinkKind::Plugin, &self.plugin))
    }

    /// Kind and name of every sink, by kind, then by name.
    pub fn names(&self) -> impl Iterator<Item = (SinkKind, &str)> {
        self.all().map(|(kind, name, _)| (kind, name))
    }
}

/// A configuration that was read and found sound.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The options.
    pub config: Config,
    /// The folder that relative paths of components start at; empty for the working directory.
    pub folder: PathBuf,
    /// The options of which files hold a part.
    pub secrets: Secrets,
}

/// Reads the file, lets the environment override it, substitutes variables and checks the whole. Every fault is the
/// configuration's, names the key and its place, and never holds a value.
///
/// # Errors
/// All that was found wrong at the first stage that found anything.
pub fn load(path: &Path, environment: &Environment) -> Result<Loaded, Vec<Fault>> {
    let is_optional = path == Path::new(DEFAULT_FILE) && environment.has_options();
    let (file, text) = match path.try_exists() {
        Ok(false) if is_optional => ("the environment".to_owned(), String::new()),
        _ => (path.display().to_string(), read(path).map_err(|fault| vec![fault])?),
    };
    let (config, written) = read_text(&text, &file, environment)?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let secrets = Secrets::new(written.into_files(), environment, folder.clone());
    Ok(Loaded { config, folder, secrets })
}

/// What [`load`] does with the file's text; `file` is the name that faults give.
///
/// # Errors
/// See [`load`].
pub fn parse(text: &str, file: &str, environment: &Environment) -> Result<Config, Vec<Fault>> {
    read_text(text, file, environment).map(|(config, _)| config)
}

fn read_text(text: &str, file: &str, environment: &Environment) -> Result<(Config, Written), Vec<Fault>> {
    let parse = if environment.has_options() { tree::parse_what_there_is } else { tree::parse };
    let mut root = parse(text, file).map_err(|fault| vec![fault])?;
    environment.override_options(&mut root)?;
    let written = substitute::substitute(&mut root, environment, file)?;
    let config = decode(&root, file)?;
    let faults = lint::lint(&config, &root, &written, file);
    if faults.is_empty() { Ok((config, written)) } else { Err(faults) }
}

fn read(path: &Path) -> Result<String, Fault> {
    let fault = |what: &str| Fault::config(format!("`{}` {what}", path.display()));
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            fault("does not exist").hint("name the configuration file: `tidegate check path/to/tidegate.yaml`")
        }
        _ => fault("cannot be read").because(error),
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(fault("is a directory").hint("name the file in it"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(fault(&format!("is larger than {MAX_BYTES} bytes")).hint("is it the right file?"));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        fault(&format!("is not UTF-8 from line {line} on")).hint("save the file as UTF-8")
    })
}

/// Decodes the tree. Unknown keys are reported all at once; what else is wrong then may follow from them and is not said.
fn decode(root: &tree::Node, file: &str) -> Result<Config, Vec<Fault>> {
    let mut root = root.clone();
    let mut faults = Vec::new();
    while faults.len() < MAX_UNKNOWN {
        match Config::deserialize(decode::Decoder::new(&root)) {
            Ok(config) if faults.is_empty() => return Ok(config),
            Ok(_) => break,
            Err(error) => {
                let unknown = matches!(error.kind, decode::Kind::Unknown { .. });
                if unknown || faults.is_empty() {
                    faults.push(explain::explain(&error, file));
                }
                if !unknown || !root.remove(&error.path()) {
                    break;
                }
            }
        }
    }
    Err(faults)
}

#[cfg(test)]
mod tests;
