//! WebAssembly components as collectors and sinks: path → artifact → contract → instance.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::Fault;

mod adapter;
mod artifact;
mod bindings;
mod contract;
mod engine;
mod grants;
mod imports;
mod instance;
mod limits;
mod options;
mod report;

pub use adapter::collector::PluginCollector;
pub use adapter::sink::PluginSink;
pub use artifact::compile::{self, Compiler};
pub use artifact::{Artifact, Summary};
pub use contract::Hooks;
pub use grants::http::{Network, Origin};
pub use limits::{Limit, Limits, MOST_AUTOMATIC_INSTANCES};
pub use options::{Access, Directory, Grants, Options};

/// Loads components. One for the whole process: it holds the runtime and the cache.
pub struct Plugins {
    engine: Arc<engine::Engine>,
    cache: Option<artifact::Cache>,
    compiler: Compiler,
}

impl Plugins {
    /// Starts the runtime. Compiled components are kept in `cache_folder`, or else in `$XDG_CACHE_HOME/tidegate` or
    /// `$HOME/.cache/tidegate`; `compiler` compiles what is not there.
    ///
    /// # Errors
    /// When the cache's folder cannot be used, or when others may write into it.
    pub fn new(cache_folder: Option<PathBuf>, compiler: Compiler) -> Result<Arc<Self>, Fault> {
        let cache = match cache_folder {
            Some(folder) => Some(artifact::Cache::open(folder)?),
            None => artifact::Cache::open_default()?,
        };
        Ok(Arc::new(Self { engine: Arc::new(engine::Engine::start()?), cache, compiler }))
    }

    /// The user's cache folder, where it could not be created: plugins are compiled at every start then.
    pub fn unusable_cache(&self) -> Option<PathBuf> {
        self.cache.is_none().then(artifact::Cache::default_folder).flatten()
    }

    /// Reads, checks and compiles a plugin's component without running any of it. `place` is where the plugin stands in the
    /// configuration, such as `collect` or `sinks.plugin.csv`; relative paths start at `base_folder`.
    ///
    /// # Errors
    /// When the file cannot be read, is not what was asked for, was built for another contract, or meets a limit.
    pub async fn load(&self, place: &str, options: &Options, base_folder: &Path) -> Result<Artifact, Fault> {
        options.limits.checked(place)?;
        let engine = Arc::clone(&self.engine);
        Artifact::load(engine, self.cache.as_ref(), &self.compiler, place, options, base_folder).await
    }
}
