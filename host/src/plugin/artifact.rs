//! A component's file: read, hashed, compiled once, and known by its contract.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre};

use super::Options;
use super::contract::{Contract, Hooks, SPOKEN};
use super::engine::Engine;
use super::imports::State;
use super::limits::MEBIBYTE;
use crate::model::Fault;

pub(crate) mod cache;
pub mod compile;

pub(crate) use cache::Cache;
pub(crate) use compile::Compiler;

const MAGIC: &[u8] = b"\0asm";
/// What follows the magic number in a core module, and in a component.
const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];

/// A compiled component whose contract we speak. Cheap to clone.
#[derive(Clone)]
pub struct Artifact {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    pre: InstancePre<State>,
    contract: Contract,
    summary: Summary,
    place: String,
    base: PathBuf,
}

/// What can be said of a component without running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The file.
    pub path: PathBuf,
    /// The contract's version that it was built for, such as `0.1.0`.
    pub contract: String,
    /// It can be a sink.
    pub sink: bool,
    /// It can be the collector.
    pub collector: bool,
    /// The optional interfaces that it exports.
    pub hooks: Hooks,
    /// The file's size.
    pub size_bytes: u64,
    /// The file's SHA-256 in hexadecimal.
    pub sha256: String,
    /// It was compiled before and came from the cache.
    pub cached: bool,
}

impl Artifact {
    /// Reads and compiles `options.component`, which takes seconds for an interpreter's component.
    pub(crate) async fn load(
        engine: Arc<Engine>,
        cache: Option<&Cache>,
        compiler: &Compiler,
        place: &str,
        options: &Options,
        base: &Path,
    ) -> Result<Self, Fault> {
        let path = base.join(&options.component);
        let (bytes, sha256) = {
            let (path, place, options) = (path.clone(), place.to_owned(), options.clone());
            blocking(move || read(&path, &place, &options)).await?
        };
        let (size_bytes, bytes) = (bytes.len() as u64, Arc::new(bytes));
        let compile = || compiler.compile(&engine.wasmtime, bytes, &path, place, &options.limits);
        let (component, cached) = match cache {
            Some(cache) => cache.load_or(&engine.wasmtime, &sha256, compile).await?,
            None => {
                let (code, engine) = (compile().await?, engine.wasmtime.clone());
                (blocking(move || cache::deserialize(&engine, &code)).await?, false)
            }
        };
        let (contract, pre) = Self::link(&engine, &component, &path)?;
        let summary = Summary {
            contract: contract.version.to_string(),
            sink: contract.sink,
            collector: contract.collector,
            hooks: contract.hooks,
            size_bytes,
            path,
            sha256,
            cached,
        };
        let inner = Inner { engine, pre, contract, summary, place: place.into(), base: base.into() };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn link(engine: &Engine, component: &Component, path: &Path) -> Result<(Contract, InstancePre<State>), Fault> {
        let contract = Contract::read(component, &engine.wasmtime, path)?;
        let pre = engine.linker.instantiate_pre(component).map_err(|error| {
            Fault::config(format!("`{}` imports what Tidegate does not offer", path.display()))
                .because(format!("{error:#}"))
                .hint(format!("build it for WASI 0.2 and version {SPOKEN} of the contract"))
        })?;
        Ok((contract, pre))
    }

    /// What can be said of the component without running it.
    pub fn summary(&self) -> &Summary {
        &self.inner.summary
    }

    /// Where the plugin stands in the configuration: `collect`, `sinks.plugin.csv`.
    pub fn place(&self) -> &str {
        &self.inner.place
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(crate) fn pre(&self) -> &InstancePre<State> {
        &self.inner.pre
    }

    pub(crate) fn contract(&self) -> &Contract {
        &self.inner.contract
    }

    pub(crate) fn base(&self) -> &Path {
        &self.inner.base
    }
}

/// Does what may take long where it holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Fault::host("a component could not be loaded").because(error)))
}

/// The component's bytes and their SHA-256, when they are what was asked for.
fn read(path: &Path, place: &str, options: &Options) -> Result<(Vec<u8>, String), Fault> {
    let shown = path.display();
    let cannot = |error: std::io::Error| {
        let fault = Fault::config(format!("`{place}.component` names `{shown}`, which cannot be read")).because(&error);
        match error.kind() {
            std::io::ErrorKind::NotFound => fault.hint(
                "build the plugin, or correct the path: a relative one starts at the configuration file's folder",
            ),
            _ => fault,
        }
    };
    // Asked before it is opened, for opening a pipe would wait.
    let found = std::fs::metadata(path).map_err(cannot)?;
    if !found.is_file() {
        let what = if found.is_dir() { "a directory" } else { "no file" };
        return Err(Fault::config(format!("`{place}.component` names `{shown}`, which is {what}"))
            .hint("name the component's file, which ends in `.wasm`"));
    }
    let most = options.limits.component_mebibytes;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    // One byte more than it may have, so that it is seen to have more.
    file.take(most * MEBIBYTE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > most * MEBIBYTE {
        return Err(Fault::config(format!("`{shown}` is larger than {most} MiB"))
            .hint(format!("if that is legitimate, raise `{place}.limits.component_mebibytes`")));
    }
    let sha256 = hex::encode(Sha256::digest(&bytes));
    if !options.sha256.is_empty() && !options.sha256.eq_ignore_ascii_case(&sha256) {
        return Err(Fault::config(format!("`{shown}` is not the file that `{place}.sha256` asks for"))
            .because(format!("wanted `{}`", options.sha256))
            .because(format!("found `{sha256}`"))
            .hint(format!("if the new file is the one you want, put its hash into `{place}.sha256`")));
    }
    is_component(&bytes, path)?;
    Ok((bytes, sha256))
}

/// The first eight bytes tell a component from what is often mistaken for one.
fn is_component(bytes: &[u8], path: &Path) -> Result<(), Fault> {
    let shown = path.display();
    let (magic, version) = (bytes.get(..4), bytes.get(4..8));
    if magic != Some(MAGIC) || version.is_none() {
        return Err(Fault::config(format!("`{shown}` is not WebAssembly"))
            .because(if bytes.is_empty() { "it is empty" } else { "it does not begin with `\\0asm`" })
            .hint("name the component's file, which ends in `.wasm`"));
    }
    if version == Some(&CORE_MODULE) {
        return Err(Fault::config(format!("`{shown}` is a core WebAssembly module, not a component")).hint(
            "Rust: build with `--target wasm32-wasip2`; others: `wasm-tools component new module.wasm -o component.wasm`",
        ));
    }
    if version != Some(&COMPONENT) {
        return Err(Fault::config(format!("`{shown}` is WebAssembly of an unknown kind"))
            .because(format!("its version field is `{}`", hex::encode(version.unwrap_or_default()))));
    }
    Ok(())
}
