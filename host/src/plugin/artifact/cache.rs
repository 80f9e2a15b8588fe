//! Compiled components on disk, under the content's hash and the engine's fingerprint. A compiled component is native code
//! that will run in this process, so only what this user wrote is ever loaded.

use std::fs::{DirBuilder, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::blocking;
use crate::model::Fault;

/// Most entries kept; the ones used longest ago go first.
const ENTRIES: usize = 64;
/// Length of the checksum that stands before the compiled code.
const CHECKSUM_BYTES: usize = 32;
/// Permission bits that let others than the owner write.
const OTHERS_WRITE: u32 = 0o022;
const SUFFIX: &str = ".cwasm";

/// A directory of compiled components, private to the user.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Opens the cache in `folder`, creating it for this user alone.
    ///
    /// # Errors
    /// When the folder cannot be created, or others may write into it.
    pub(crate) fn open(folder: PathBuf) -> Result<Self, Fault> {
        let shown = folder.display();
        let cannot = |error: std::io::Error| {
            Fault::host(format!("the cache for compiled plugins, `{shown}`, cannot be used")).because(error)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(cannot)?;
        let found = std::fs::metadata(&folder).map_err(cannot)?;
        if let Some(why) = distrust(&found) {
            return Err(Fault::host(format!("the cache for compiled plugins, `{shown}`, is not private"))
                .because(why)
                .hint(format!("it holds code that Tidegate runs: chown it to this user and chmod 700 {shown}")));
        }
        Ok(Self { folder })
    }

    /// Opens the user's cache, `$XDG_CACHE_HOME/tidegate` or `$HOME/.cache/tidegate`. A user without a home, or with one that
    /// cannot be written, as in many containers, has none.
    ///
    /// # Errors
    /// When the folder is there, and others may write into it.
    pub(crate) fn open_default() -> Result<Option<Self>, Fault> {
        let Some(folder) = Self::default_folder() else { return Ok(None) };
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
            tracing::warn!("`{}` cannot be created, so plugins are compiled at every start: {error}", folder.display());
            return Ok(None);
        }
        Self::open(folder).map(Some)
    }

    /// Where the user's cache is or would be; nothing for a user without a home.
    pub(crate) fn default_folder() -> Option<PathBuf> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        caches.map(|caches| caches.join("tidegate"))
    }

    /// The component with that hash: from the cache, or from `compile`, whose result is kept. Says whether it was kept before.
    pub(crate) async fn load_or<F: Future<Output = Result<Vec<u8>, Fault>>>(
        &self,
        engine: &Engine,
        sha256: &str,
        compile: impl FnOnce() -> F,
    ) -> Result<(Component, bool), Fault> {
        let path = self.folder.join(format!("{sha256}-{:016x}{SUFFIX}", fingerprint(engine)));
        let (cache, entry, loading) = (self.clone(), path.clone(), engine.clone());
        let kept = blocking(move || Ok(cache.read(&entry)?.and_then(|code| deserialize(&loading, &code).ok())));
        if let Some(component) = kept.await? {
            return Ok((component, true));
        }
        let code = compile().await?;
        let (cache, loading) = (self.clone(), engine.clone());
        let component = blocking(move || {
            if let Err(error) = cache.write(&path, &code) {
                tracing::warn!("`{}` could not be written; the plugin will be compiled again: {error}", path.display());
            }
            deserialize(&loading, &code)
        });
        Ok((component.await?, false))
    }

    /// The code in the entry, or nothing when there is none or it is damaged.
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, Fault> {
        let shown = path.display();
        let not_followed = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
        let mut file = match OpenOptions::new().read(true).custom_flags(not_followed).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refused(path, &error.to_string())),
        };
        // The open file is judged, not its name, which somebody could exchange in between.
        let found = file.metadata().map_err(|error| refused(path, &error.to_string()))?;
        if let Some(why) = distrust(&found) {
            return Err(refused(path, &why));
        }
        let (mut checksum, mut code) = ([0; CHECKSUM_BYTES], Vec::new());
        if let Err(error) = file.read_exact(&mut checksum).and_then(|()| file.read_to_end(&mut code)) {
            tracing::warn!("`{shown}` cannot be read and is compiled again: {error}");
            return Ok(None);
        }
        if self::checksum(path, &code) != checksum {
            tracing::warn!("`{shown}` is damaged and is compiled again");
            return Ok(None);
        }
        let _unimportant = file.set_modified(crate::clock::time_of_day());
        Ok(Some(code))
    }

    /// A temporary file takes the entry's name only when it is whole, so nobody ever sees half of one.
    fn write(&self, path: &Path, code: &[u8]) -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix("writing-").suffix(SUFFIX).tempfile_in(&self.folder)?;
        file.write_all(&checksum(path, code))?;
        file.write_all(code)?;
        file.as_file().sync_data()?;
        file.persist(path).map_err(|error| error.error)?;
        self.prune()
    }

    fn prune(&self) -> std::io::Result<()> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(SUFFIX)
                && let Ok(used) = std::fs::metadata(&path).and_then(|found| found.modified())
            {
                entries.push((used, path));
            }
        }
        entries.sort();
        let surplus = entries.len().saturating_sub(ENTRIES);
        entries.into_iter().take(surplus).try_for_each(|(_, path)| std::fs::remove_file(path))
    }
}

/// Of the code and of its entry's name, so that one component's code never passes for another's.
fn checksum(path: &Path, code: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    Sha256::new().chain_update(name).chain_update(code).finalize().into()
}

/// Changes whenever compiled code of before may not be run any more.
fn fingerprint(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    hasher.finish()
}

/// Why what stands there may be somebody else's work.
fn distrust(found: &std::fs::Metadata) -> Option<String> {
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        return Some(format!("it belongs to user {}, not to {user}", found.uid()));
    }
    (found.mode() & OTHERS_WRITE != 0).then(|| format!("others may write it (mode {:o})", found.mode() & 0o7777))
}

fn refused(path: &Path, why: &str) -> Fault {
    let shown = path.display();
    Fault::host(format!("the compiled plugin `{shown}` is refused"))
        .because(why)
        .hint(format!("it may not be Tidegate's own work: rm {shown}"))
}

/// Turns compiled code into a component.
pub(crate) fn deserialize(engine: &Engine, code: &[u8]) -> Result<Component, Fault> {
    #[allow(unsafe_code, reason = "a compiled component can be loaded in no other way")]
    // SAFETY: `code` has to be what `Engine::precompile_component` returned, unchanged, for it is run as native code. It comes
    // either straight from that call, or from a cache entry that (1) stands in a directory that only this user can write,
    // (2) belongs to this user and is writable by nobody else, as seen on the open file, and (3) still has the checksum
    // that this program wrote with it. Whoever can get past that can already run code as this user. Wasmtime itself refuses
    // code of another version or configuration.
    let component = unsafe { Component::deserialize(engine, code) };
    component.map_err(|error| Fault::host("a compiled plugin could not be loaded").because(format!("{error:#}")))
}
