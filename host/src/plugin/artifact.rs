//! A component's file: read, hashed, compiled once, and known by its contract.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre};

use super::Options;
use super::contract::{Contract, Hooks, SPOKEN};
use super::engine::Engine;
use super::imports::State;
use crate::model::Fault;

pub(crate) mod cache;

pub(crate) use cache::Cache;

/// Largest file that is read as a component, in bytes. Python's are some 20 MiB.
const COMPONENT_BYTES: u64 = 512 << 20;
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
    /// Reads and compiles `options.component`. Blocks for as long as compiling takes: seconds for an interpreter's component.
    pub(crate) fn load(
        engine: Arc<Engine>,
        cache: Option<&Cache>,
        place: &str,
        options: &Options,
        base: &Path,
    ) -> Result<Self, Fault> {
        let path = base.join(&options.component);
        let shown = path.display();
        let bytes = read(&path, place)?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        if !options.sha256.is_empty() && !options.sha256.eq_ignore_ascii_case(&sha256) {
            return Err(Fault::config(format!("`{shown}` is not the file that `{place}.sha256` asks for"))
                .because(format!("wanted `{}`", options.sha256))
                .because(format!("found `{sha256}`"))
                .hint(format!("if the new file is the one you want, put its hash into `{place}.sha256`")));
        }
        is_component(&bytes, &path)?;
        let compile = || {
            engine.wasmtime.precompile_component(&bytes).map_err(|error| {
                Fault::config(format!("`{shown}` is no valid component"))
                    .because(format!("{:#}", error.root_cause()))
                    .hint("the file may be cut off or damaged: build or copy it again")
            })
        };
        let (component, cached) = match cache {
            Some(cache) => cache.load_or(&engine.wasmtime, &sha256, compile)?,
            None => (cache::deserialize(&engine.wasmtime, &compile()?)?, false),
        };
        let (contract, pre) = Self::link(&engine, &component, &path)?;
        let summary = Summary {
            contract: contract.version.to_string(),
            sink: contract.sink,
            collector: contract.collector,
            hooks: contract.hooks,
            size_bytes: bytes.len() as u64,
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

fn read(path: &Path, place: &str) -> Result<Vec<u8>, Fault> {
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
    let found = std::fs::metadata(path).map_err(cannot)?;
    if found.is_dir() {
        return Err(Fault::config(format!("`{place}.component` names `{shown}`, which is a directory"))
            .hint("name the component's file, which ends in `.wasm`"));
    }
    if found.len() > COMPONENT_BYTES {
        return Err(Fault::config(format!("`{shown}` is larger than {} MiB", COMPONENT_BYTES >> 20)));
    }
    std::fs::read(path).map_err(cannot)
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
