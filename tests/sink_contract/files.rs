//! Destinations on this machine's disk: JSON lines, and the csv plugin.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::plugin::{Compiler, PluginSink, Plugins};
use tidegate::sink::Sink;
use tidegate::sink::filesystem::FilesystemSink;

use super::cases::{Destination, Row};

/// A directory that can be taken away and brought back.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("base")).unwrap();
        Self(root)
    }

    fn base(&self) -> PathBuf {
        self.0.path().join("base")
    }

    fn missing(&self) -> PathBuf {
        self.0.path().join("none")
    }

    /// Deletes it. A directory that is only moved goes on taking what is written.
    fn take_away(&self) {
        fs::remove_dir_all(self.base()).unwrap();
    }

    fn bring_back(&self) {
        fs::create_dir(self.base()).unwrap();
    }

    /// The lines of all files, file by file.
    fn lines(&self) -> Vec<String> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.base()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
            .iter()
            .flat_map(|file| fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

/// Files of JSON lines.
pub struct Lines(Folder);

impl Lines {
    pub async fn new() -> Self {
        Self(Folder::new())
    }
}

fn lines_in(path: &Path) -> Arc<dyn Sink> {
    Arc::new(FilesystemSink::new("log", &serde_json::from_value(json!({ "base_path": path })).unwrap()))
}

#[async_trait]
impl Destination for Lines {
    async fn sink(&self) -> Arc<dyn Sink> {
        lines_in(&self.0.base())
    }

    async fn nowhere(&self) -> Option<Arc<dyn Sink>> {
        Some(lines_in(&self.0.missing()))
    }

    fn target(&self) -> Option<&'static str> {
        Some("rows.jsonl")
    }

    async fn read(&self) -> Vec<Value> {
        self.0.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn take_away(&mut self) {
        self.0.take_away();
    }

    async fn bring_back(&mut self) {
        self.0.bring_back();
    }
}

/// The csv plugin, whose rows are the values alone.
pub struct Csv(Folder);

impl Csv {
    pub async fn new() -> Self {
        Self(Folder::new())
    }
}

async fn csv_in(path: &Path) -> Arc<dyn Sink> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests");
    let component = guests.join("csv.wasm");
    assert!(component.exists(), "`{}` is missing: run `make setup`", component.display());
    let plugins = Plugins::new(
        Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")),
        Compiler::Child(env!("CARGO_BIN_EXE_tidegate").into()),
    )
    .unwrap();
    let options = serde_json::from_value(json!({
        "component": component,
        "options": { "path": "/out/{topic}-{partition}.csv", "columns": ["value"] },
        "grants": { "directories": [{ "host": path, "guest": "/out", "access": "write" }] },
    }))
    .unwrap();
    let artifact = plugins.load("sinks.plugin.csv", &options, Path::new("/")).await.unwrap();
    Arc::new(PluginSink::start(artifact, "csv", &options, &BTreeMap::new()).await.unwrap())
}

#[async_trait]
impl Destination for Csv {
    async fn sink(&self) -> Arc<dyn Sink> {
        csv_in(&self.0.base()).await
    }

    async fn nowhere(&self) -> Option<Arc<dyn Sink>> {
        // It is opened before the guest runs, and must not be there any more when it connects.
        let path = self.0.missing();
        fs::create_dir(&path).unwrap();
        let sink = csv_in(&path).await;
        fs::remove_dir(&path).unwrap();
        Some(sink)
    }

    /// A CSV file takes any bytes.
    fn spoil(&self, _row: &mut Row) -> bool {
        false
    }

    async fn read(&self) -> Vec<Value> {
        let lines = self.0.lines();
        let fields = lines.iter().filter(|line| *line != "value");
        fields
            .map(|field| {
                let inner = field.strip_prefix('"').and_then(|field| field.strip_suffix('"')).unwrap();
                serde_json::from_str(&inner.replace("\"\"", "\"")).unwrap()
            })
            .collect()
    }

    /// The guest keeps the directory that it was given, wherever it is moved: nothing can be written where no file may grow.
    async fn take_away(&mut self) {
        for file in fs::read_dir(self.0.base()).unwrap() {
            fs::rename(file.unwrap().path(), self.0.0.path().join("file")).unwrap();
        }
        fs::create_dir(self.0.base().join("orders-0.csv")).unwrap();
    }

    async fn bring_back(&mut self) {
        fs::remove_dir(self.0.base().join("orders-0.csv")).unwrap();
        fs::rename(self.0.0.path().join("file"), self.0.base().join("orders-0.csv")).unwrap();
    }
}
