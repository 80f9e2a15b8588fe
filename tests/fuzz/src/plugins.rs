//! The plugin runtime of the targets, with a cache and files of their own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use tidegate::plugin::{Compiler, Plugins};

/// Where the plugin stands in its configuration.
pub const PLACE: &str = "collect";

/// This process's folder. Runs one after the other would only fill the disk with folders, so the name is its own again.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("tidegate-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("cache")).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
});

static PLUGINS: LazyLock<Arc<Plugins>> =
    LazyLock::new(|| Plugins::new(Some(cache()), Compiler::Here).unwrap_or_else(|fault| panic!("{fault}")));

/// The runtime.
pub fn plugins() -> &'static Plugins {
    &PLUGINS
}

/// Where compiled components are kept.
pub fn cache() -> PathBuf {
    FOLDER.join("cache")
}

/// Writes a file of that name.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.join(name);
    write(&path, bytes);
    path
}

/// Writes a file.
pub fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
