//! Files of JSON lines as a destination (S116–S119).
//!
//! Every row becomes one line at the end of its file. A value that already is one line of JSON is written byte for
//! byte;
//! one that spans lines loses its insignificant whitespace and nothing else. A file that is missing is created, a
//! directory never is. All lines that a call has for one file reach it in one write.
//!
//! | What goes wrong | Answer for its rows |
//! |---|---|
//! | The value is null, not UTF-8 or not one JSON document | reject |
//! | The path is empty, holds a NUL byte, or leads out of `base_path` | reject |
//! | The path names a directory, a FIFO, a device or a socket; its parent is missing; permission denied (EACCES, EPERM, ENOENT, ENOTDIR, EISDIR, ENXIO) | reject |
//! | The name is too long or no name, the links run in a circle (ENAMETOOLONG, EINVAL, EILSEQ, ELOOP, EXDEV) | reject |
//! | Any of these, of a row that names no path and goes to the configured one | unavailable: it is for the operator to mend, and `base_path` may not be mounted |
//! | Disk full, over the quota, read-only, `base_path` gone, a file that can grow no more (ENOSPC, EDQUOT, EROFS, EFBIG) | unavailable |
//! | I/O error, a disk or file system that is damaged, gone or does not answer (EIO, EUCLEAN, ENODEV, ESTALE, ETIMEDOUT, ENOTCONN and other errors of networks) | unavailable |
//! | Too many open files, out of memory, busy, locked, interrupted (EMFILE, ENFILE, ENOMEM, EBUSY, ETXTBSY, EAGAIN, EINTR, ENOLCK) | unavailable |
//! | Anything else | retry where other rows of the call were written, else unknown: asked again in parts |
//!
//! Rows to retry, now or when the destination is back, have left nothing in their file: what a failed write left there
//! is cut off again. The sink is not
//! idempotent: a crash between write and commit writes lines twice, and rows written again behind a held-back row stand
//! in the file twice (S76a).
//!
//! One process writes to a file at a time: sinks of one process take turns, several processes do not. The default path
//! holds the partition's number, so that partitions and replicas have files of their own. A file must be readable to us
//! too: its last byte tells whether somebody's half line has to be ended first.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Answer, Batch, CallError, Fault, Owner, TopicPartition};
use crate::sink::suspects::Suspects;
use crate::sink::{Description, OnTombstone, Sink};

mod base;
mod errno;
mod file;
mod lines;
mod open;
mod outcome;
mod unsynced;

#[cfg(test)]
mod tests;

use base::Base;
use open::OpenFiles;
use outcome::{Outcome, Refusal};
use unsynced::Unsynced;

/// Most bytes wished for in one call: far below the 2 GiB at which Linux shortens a write by itself.
const CALL_BYTES: usize = 64 << 20;

/// Files of one call whose handles are kept between checking all paths and writing. What is beyond is opened again.
const HELD_FILES: usize = 64;

/// One directory to write under.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FilesystemSink")]
pub struct Options {
    /// The directory that every path has to stay in; it must exist (S117). A relative one starts at the configuration
    /// file's folder.
    pub base_path: PathBuf,
    /// The file for payloads that name none; `{topic}` and `{partition}` are filled in.
    #[serde(default = "default_path")]
    pub path: String,
    /// When written lines are forced to the disk (S119).
    #[serde(default)]
    pub fsync: Fsync,
    /// What happens to a record whose value is null; lines have no keys, so `delete` is refused.
    #[serde(default)]
    pub on_tombstone: OnTombstone,
}

fn default_path() -> String {
    "{topic}-{partition}.jsonl".into()
}

/// When written lines are forced to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// Left to the operating system: a power cut may lose lines whose offsets were committed.
    Never,
    /// Before the offsets are committed.
    #[default]
    Flush,
}

/// Appends JSON lines to files under one directory; see the module's text.
#[derive(Debug)]
pub struct FilesystemSink {
    shared: Arc<Shared>,
}

/// What calls share with the threads that do their file work.
#[derive(Debug)]
struct Shared {
    name: String,
    options: Options,
    /// `None` until connected.
    base: Mutex<Option<Arc<Base>>>,
    open: OpenFiles,
    unsynced: Unsynced,
    suspects: Suspects,
}

/// The rows of one call that go to one file.
struct Group<'b> {
    path: &'b Path,
    rows: Vec<u32>,
    file: Option<Arc<file::OpenFile>>,
}

impl FilesystemSink {
    /// The sink `sinks.filesystem.<name>`, not yet connected.
    pub fn new(name: &str, options: &Options) -> Self {
        Self {
            shared: Arc::new(Shared {
                name: name.to_owned(),
                options: options.clone(),
                base: Mutex::default(),
                open: OpenFiles::default(),
                unsynced: Unsynced::default(),
                suspects: Suspects::default(),
            }),
        }
    }

    /// Runs file work on a thread that may block. A call that is given up leaves the work running to its end, so that
    /// no line is ever cut in two.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || work(&shared)).await.unwrap_or_else(|error| {
            Err(CallError::Unknown(
                Fault::host(format!("the file work of `filesystem/{}` did not end", self.shared.name)).because(error),
            ))
        })
    }
}

#[async_trait]
impl Sink for FilesystemSink {
    fn description(&self) -> Description {
        Description { max_bytes: CALL_BYTES, ..Description::direct(false) }
    }

    fn target(&self, source: &TopicPartition) -> Option<String> {
        Some(self.shared.default_path(source))
    }

    async fn connect(&self) -> Result<(), CallError> {
        self.blocking(Shared::connect).await
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        let batch = Arc::clone(batch);
        let epoch = self.shared.unsynced.epoch(&batch.source);
        self.blocking(move |shared| shared.deliver(&batch, epoch)).await
    }

    async fn discard(&self, source: &TopicPartition) {
        self.shared.unsynced.forget(source);
        self.shared.suspects.forget(source);
    }

    async fn sync(&self, source: &TopicPartition) -> Result<(), CallError> {
        if !self.shared.unsynced.owes(source) {
            return Ok(());
        }
        let source = source.clone();
        self.blocking(move |shared| shared.unsynced.sync(&source).map_err(|fault| shared.sync_failed(fault))).await
    }
}

impl Shared {
    fn key(&self, option: &str) -> String {
        format!("sinks.filesystem.{}.{option}", self.name)
    }

    /// Proves the destination by creating a file in the directory and removing it (S124).
    fn connect(&self) -> Result<(), CallError> {
        self.check_template().map_err(CallError::Fatal)?;
        let base = self.open_base()?;
        base.probe().map_err(|error| {
            CallError::Fatal(
                Fault::destination(format!(
                    "`{}` is not writable: `{}`",
                    self.key("base_path"),
                    self.options.base_path.display()
                ))
                .because(error)
                .hint("let the user that runs Tidegate create files in that directory, or name another one"),
            )
        })?;
        *self.lock_base() = Some(Arc::new(base));
        Ok(())
    }

    fn check_template(&self) -> Result<(), Fault> {
        let key = self.key("path");
        let rest = self.options.path.replace("{topic}", "").replace("{partition}", "");
        if self.options.path.is_empty() {
            return Err(Fault::config(format!("`{key}` is empty"))
                .hint(format!("leave it out to write to `{}`", default_path())));
        }
        if rest.contains(['{', '}']) {
            return Err(Fault::config(format!("`{key}` holds an unknown placeholder: `{}`", self.options.path))
                .hint("only `{topic}` and `{partition}` are filled in"));
        }
        Ok(())
    }

    fn open_base(&self) -> Result<Base, CallError> {
        let key = self.key("base_path");
        let path = &self.options.base_path;
        if path.as_os_str().is_empty() {
            return Err(CallError::Fatal(
                Fault::config(format!("`{key}` is empty")).hint("name the directory that the files go to"),
            ));
        }
        Base::open(path).map_err(|error| {
            CallError::Fatal(
                Fault::config(format!("`{key}` is not an existing directory: `{}`", path.display()))
                    .because(error)
                    .hint(format!("create the directory, or point `{key}` at one that exists")),
            )
        })
    }

    /// The file of rows that name none.
    fn default_path(&self, source: &TopicPartition) -> String {
        let partition = source.partition.to_string();
        self.options.path.replace("{topic}", &source.topic).replace("{partition}", &partition)
    }

    fn lock_base(&self) -> MutexGuard<'_, Option<Arc<Base>>> {
        file::lock(&self.base)
    }

    /// The directory, opened again when it was deleted and made anew since.
    fn base(&self) -> Result<Arc<Base>, CallError> {
        let Some(base) = self.lock_base().clone() else {
            return Err(CallError::Fatal(Fault::host(format!(
                "`filesystem/{}` was asked to deliver before it was connected",
                self.name
            ))));
        };
        if base.exists() {
            return Ok(base);
        }
        let base = Arc::new(self.open_base().map_err(|error| match error {
            CallError::Fatal(fault) => CallError::Unavailable(Fault { owner: Owner::Destination, ..fault }),
            other => other,
        })?);
        *self.lock_base() = Some(Arc::clone(&base));
        Ok(base)
    }

    fn sync_failed(&self, cause: Fault) -> CallError {
        CallError::Unknown(
            Fault::destination(format!("`filesystem/{}` could not force its files to the disk", self.name))
                .because(cause)
                .hint("look at the disk: what it lost is written again from the last committed offset"),
        )
    }

    fn deliver(&self, batch: &Batch, epoch: u64) -> Answer {
        let base = self.base()?;
        self.unsynced.comes_again(&batch.source, batch.offsets.first().copied());
        let default = self.default_path(&batch.source);
        let default = Path::new(&default);
        let mut outcome = Outcome::default();
        // Every path is checked, and every file opened, before the first byte is written (S119).
        let groups = self.resolve(&base, by_path(batch, default), default, &mut outcome);
        let mut block = Vec::new();
        for group in groups {
            let failures = &mut outcome.failures;
            let rows = lines::fill(&mut block, batch, &group.rows, self.options.on_tombstone, failures);
            if rows.is_empty() {
                continue;
            }
            match self.write(&base, batch, epoch, &group, &block) {
                Ok(()) => outcome.written = true,
                Err(refusal) => outcome.refuse(&rows, &refusal.of_path(group.path, default)),
            }
            if self.unsynced.too_many(&batch.source) {
                self.unsynced.sync(&batch.source).map_err(|fault| self.sync_failed(fault))?;
            }
        }
        outcome.answer(&self.name, |row, written| self.suspects.is_to_blame(batch, row as usize, written))
    }

    fn write(
        &self,
        base: &Arc<Base>,
        batch: &Batch,
        epoch: u64,
        group: &Group<'_>,
        block: &[u8],
    ) -> Result<(), Refusal> {
        let file = match &group.file {
            Some(file) => Arc::clone(file),
            None => self.open.get(base, group.path)?,
        };
        file.append(block).map_err(|error| Refusal::of_write(group.path, &error))?;
        if self.options.fsync == Fsync::Flush {
            self.unsynced.owe(batch, &file, epoch);
        }
        Ok(())
    }

    /// Opens every group's file. Groups whose paths turn out to be one file become one, in row order.
    fn resolve<'b>(
        &self,
        base: &Arc<Base>,
        groups: Vec<Group<'b>>,
        configured: &Path,
        outcome: &mut Outcome,
    ) -> Vec<Group<'b>> {
        let mut found: Vec<Group<'b>> = Vec::with_capacity(groups.len());
        let mut places = HashMap::new();
        for mut group in groups {
            let file = match self.open.get(base, group.path) {
                Ok(file) => file,
                Err(refusal) => {
                    outcome.refuse(&group.rows, &refusal.of_path(group.path, configured));
                    continue;
                }
            };
            let place = *places.entry(file.identity()).or_insert(found.len());
            if let Some(earlier) = found.get_mut(place) {
                earlier.rows.append(&mut group.rows);
                earlier.rows.sort_unstable();
            } else {
                group.file = (place < HELD_FILES).then_some(file);
                found.push(group);
            }
        }
        found
    }
}

/// The rows of each path, paths in the order of their first row.
fn by_path<'b>(batch: &'b Batch, default: &'b Path) -> Vec<Group<'b>> {
    let rows = u32::try_from(batch.len()).unwrap_or(u32::MAX);
    if batch.targets.is_empty() {
        return vec![Group { path: default, rows: (0..rows).collect(), file: None }];
    }
    let mut groups: Vec<Group<'b>> = Vec::new();
    let mut places = HashMap::new();
    for row in 0..rows {
        // Taken as bytes: a path that is not UTF-8 must not fall back to the default.
        let target = batch.targets.get(row as usize);
        let path = target.map_or(default, |bytes| Path::new(OsStr::from_bytes(bytes)));
        let place = *places.entry(path.as_os_str()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.rows.push(row),
            None => groups.push(Group { path, rows: vec![row], file: None }),
        }
    }
    groups
}
