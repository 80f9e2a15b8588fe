//! A directory on this machine's disk, or on a small file system of its own.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Destination;
use crate::outages::matrix::Outage;
use crate::outages::process::Process;
use crate::outages::rows::Written;
use crate::support::proxy::Proxy;

/// A small file system, and more than there is room for.
const SIZE: &str = "size=96k";
const FILLER: usize = 1 << 20;
/// Mounts it where only the command sees it, and runs the command.
const MOUNT: &str = r#"mount -t tmpfs -o "$1" tmpfs "$2" && cd "$2" && shift 2 && exec "$@""#;

pub struct Lines {
    outage: Outage,
    root: TempDir,
    source: String,
    /// Whose mounts the directory is looked at through.
    pid: u32,
}

impl Lines {
    pub fn start(outage: Outage, source: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["base", "kept"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        Self { outage, root, source: source.to_owned(), pid: std::process::id() }
    }

    fn base(&self) -> PathBuf {
        self.root.path().join("base")
    }

    fn kept(&self) -> PathBuf {
        self.root.path().join("kept")
    }

    /// The directory as the process sees it.
    fn seen(&self) -> PathBuf {
        let base = self.base();
        Path::new("/proc").join(self.pid.to_string()).join("root").join(base.strip_prefix("/").unwrap())
    }

    fn names(&self) -> impl Iterator<Item = String> {
        (0..crate::outages::rows::PARTITIONS).map(|partition| format!("{}-{partition}.jsonl", self.source))
    }
}

impl Destination for Lines {
    fn sinks(&self) -> Value {
        json!({ "filesystem": { "log": { "base_path": self.base() } } })
    }

    fn proxy(&self) -> Option<&Proxy> {
        None
    }

    fn around(&self) -> Vec<String> {
        let words = match self.outage {
            Outage::OutOfSpace => {
                vec!["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNT, "mount", SIZE]
            }
            // Permissions are nothing to root.
            Outage::LoginRevoked if rustix::process::geteuid().is_root() => {
                vec!["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
            }
            _ => vec![],
        };
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        if self.outage == Outage::OutOfSpace {
            words.push(self.base().display().to_string());
        }
        words
    }

    fn begin(&mut self, outage: Outage, process: &Process) {
        self.pid = process.pid();
        // Nothing is written between one step and the next.
        process.signal("-STOP");
        match outage {
            Outage::Refused => {
                for name in self.names() {
                    fs::copy(self.base().join(&name), self.kept().join(&name)).unwrap();
                }
                fs::remove_dir_all(self.base()).unwrap();
            }
            Outage::LoginRevoked => {
                for name in self.names() {
                    fs::rename(self.base().join(&name), self.kept().join(&name)).unwrap();
                }
                rustix::fs::chmod(self.base(), Mode::from_raw_mode(0o500)).unwrap();
            }
            Outage::OutOfSpace => {
                // As much as there is room for.
                let _ = fs::write(self.seen().join("filler"), vec![0; FILLER]);
            }
            other => panic!("{other:?} cannot be had"),
        }
        process.signal("-CONT");
    }

    fn end(&mut self, outage: Outage, _: &Process) {
        match outage {
            Outage::Refused => fs::create_dir(self.base()).unwrap(),
            Outage::LoginRevoked => rustix::fs::chmod(self.base(), Mode::from_raw_mode(0o700)).unwrap(),
            _ => fs::remove_file(self.seen().join("filler")).unwrap(),
        }
    }

    fn written(&self) -> Vec<Written> {
        let mut rows = Vec::new();
        for folder in [self.kept(), self.seen()] {
            for name in self.names() {
                let lines = fs::read_to_string(folder.join(name)).unwrap_or_default();
                rows.extend(lines.lines().map(|line| {
                    let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                    row["id"].as_i64().unwrap()
                }));
            }
        }
        vec![Written::Rows(rows)]
    }
}
