//! The plugin runtime of the targets, with a cache and files of their own.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use tidegate::plugin::{Compiler, Plugins};

/// Where the plugin stands in its configuration.
pub const PLACE: &str = "collect";

/// A test's folder is the test's; a fuzzer's is its process's own.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = match option_env!("CARGO_TARGET_TMPDIR") {
        Some(tests) => Path::new(tests).join("fuzz"),
        None => std::env::temp_dir().join(format!("tidegate-fuzz-{}", std::process::id())),
    };
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
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

/// Writes a file that nobody else may write.
pub fn write(path: &Path, bytes: &[u8]) {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(bytes)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
