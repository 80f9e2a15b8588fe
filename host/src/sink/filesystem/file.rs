//! One open file: whole lines or nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::base::{Base, Identity};

/// What appending needs of a file; tests put a full disk behind it.
pub(super) trait Disk {
    /// The length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// The byte at `position`.
    fn byte_at(&self, position: u64) -> io::Result<u8>;
    /// One write at the end.
    fn write(&self, block: &[u8]) -> io::Result<usize>;
    /// Sets the length.
    fn cut(&self, size: u64) -> io::Result<()>;
}

impl Disk for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn byte_at(&self, position: u64) -> io::Result<u8> {
        let mut byte = [0];
        self.read_exact_at(&mut byte, position)?;
        Ok(byte[0])
    }

    fn write(&self, block: &[u8]) -> io::Result<usize> {
        let mut file = self;
        io::Write::write(&mut file, block)
    }

    fn cut(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}

/// What is known of a file's end, by whoever holds its lock.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The length at which the file ended with a whole line when we last looked.
    whole_at: Option<u64>,
}

/// Appends `block`, whose first byte is a `\n` of which only files that end inside a line have need. After an error the
/// file is as long as before, unless somebody else wrote to it or the disk refuses even that.
pub(super) fn append(disk: &impl Disk, end: &mut End, block: &[u8]) -> io::Result<()> {
    let before = disk.size()?;
    let whole = before == 0 || end.whole_at == Some(before) || disk.byte_at(before - 1)? == b'\n';
    let block = if whole { block.get(1..).unwrap_or_default() } else { block };
    end.whole_at = None;
    let written = loop {
        match disk.write(block) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    let (taken, error) = match written {
        Ok(taken) if taken == block.len() => {
            end.whole_at = Some(before + taken as u64);
            return Ok(());
        }
        Ok(taken) => {
            // A disk that fills up takes a part first, and says why only when it is asked for the rest.
            let rest = block.get(taken..).unwrap_or_default();
            match disk.write(rest) {
                Err(error) => (taken, error),
                Ok(more) => {
                    let taken = taken + more;
                    (taken, io::Error::other(format!("the disk took {taken} of {} bytes", block.len())))
                }
            }
        }
        Err(error) => (0, error),
    };
    let undone = disk.size().and_then(|size| match size.checked_sub(before) {
        Some(0) => Ok(()),
        Some(more) if more == taken as u64 => disk.cut(before),
        // Cutting here would cut somebody else's lines; the next write ends the half line instead.
        _ => Err(io::Error::other("somebody else wrote to it meanwhile")),
    });
    undone.map_err(|left| io::Error::new(error.kind(), format!("{error}; the part written stays: {left}")))?;
    Err(error)
}

/// A file under the base, open for appending.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    identity: Identity,
    /// As the payload named it first.
    path: PathBuf,
    end: Arc<Mutex<End>>,
    /// Where the directory entry is that is new and has to be synced too. Locked while a sync runs.
    entry: Mutex<Option<(Arc<Base>, PathBuf)>>,
    /// Why the disk lost lines. The kernel tells once and forgets, so it is kept for every partition concerned.
    lost: OnceLock<String>,
}

impl OpenFile {
    /// `created`: where its directory entry is to be synced.
    pub(super) fn new(file: File, identity: Identity, path: &Path, created: Option<(Arc<Base>, PathBuf)>) -> Self {
        Self {
            file,
            identity,
            path: path.to_owned(),
            end: end_of(identity),
            entry: Mutex::new(created),
            lost: OnceLock::new(),
        }
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether the disk has lost lines of it: a fresh handle is needed to notice the next loss.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.get().is_some()
    }

    /// Whether it still has a name.
    pub(super) fn exists(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }

    #[cfg(test)]
    pub(super) fn lose(&self, reason: &str) {
        self.lost.get_or_init(|| reason.to_owned());
    }

    /// Appends whole lines in one write, alone on the file (S119); see [`append`].
    pub(super) fn append(&self, block: &[u8]) -> io::Result<()> {
        append(&self.file, &mut lock(&self.end), block)
    }

    /// Makes everything written so far survive a power cut.
    ///
    /// # Errors
    /// The reason; the same again for everyone who asks later.
    pub(super) fn sync(&self) -> Result<(), String> {
        // Held to the end: of two that sync at once only one is told of a loss.
        let mut entry = lock(&self.entry);
        if let Some(reason) = self.lost.get() {
            return Err(reason.clone());
        }
        let synced = self.file.sync_data().and_then(|()| match entry.take() {
            Some((base, inside)) => base.sync_parent(&inside),
            None => Ok(()),
        });
        synced.map_err(|error| self.lost.get_or_init(|| format!("`{}`: {error}", self.path.display())).clone())
    }
}

/// The lock of a file. It belongs to the file and not to a sink, because two sinks, or two names, may lead to one file.
fn end_of(identity: Identity) -> Arc<Mutex<End>> {
    static ENDS: Mutex<Option<HashMap<Identity, Weak<Mutex<End>>>>> = Mutex::new(None);
    let mut ends = lock(&ENDS);
    let ends = ends.get_or_insert_default();
    if let Some(end) = ends.get(&identity).and_then(Weak::upgrade) {
        return end;
    }
    ends.retain(|_, end| end.strong_count() > 0);
    let end = Arc::default();
    ends.insert(identity, Arc::downgrade(&end));
    end
}

/// Locks; what a thread that panicked left behind is whole, for nothing here panics between two steps.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
