//! The files kept open between calls.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::base::{Base, Identity};
use super::file::{OpenFile, lock};
use super::outcome::Refusal;

/// Most files kept open between calls by one sink.
pub(super) const OPEN_FILES: usize = 256;

/// Open files by identity: a path is resolved anew for every call, so a file that was removed or replaced is never
/// written to under its old name.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    files: HashMap<Identity, (u64, Arc<OpenFile>)>,
    /// Counts uses, to know the oldest.
    uses: u64,
}

impl OpenFiles {
    /// The file that `path` names under `base`, created if there is none.
    pub(super) fn get(&self, base: &Arc<Base>, path: &Path) -> Result<Arc<OpenFile>, Refusal> {
        let found = base.find(path)?;
        if let Some(file) = found.identity.and_then(|identity| self.kept(identity)) {
            return Ok(file);
        }
        let (file, identity) = base.open_file(path, &found.inside)?;
        // Another partition may have opened the same file at the same moment.
        if let Some(file) = self.kept(identity) {
            return Ok(file);
        }
        let created = found.identity.is_none().then(|| (Arc::clone(base), found.inside));
        let file = Arc::new(OpenFile::new(file, identity, path, created));
        self.keep(&file);
        Ok(file)
    }

    fn kept(&self, identity: Identity) -> Option<Arc<OpenFile>> {
        let mut kept = lock(&self.kept);
        kept.uses += 1;
        let now = kept.uses;
        let (used, file) = kept.files.get_mut(&identity)?;
        *used = now;
        Some(Arc::clone(file)).filter(|file| !file.is_lost())
    }

    fn keep(&self, file: &Arc<OpenFile>) {
        let mut kept = lock(&self.kept);
        // A handle on a deleted file would keep its space on the disk.
        kept.files.retain(|_, (_, file)| file.exists());
        if kept.files.len() >= OPEN_FILES {
            let oldest = kept.files.iter().min_by_key(|(_, (used, _))| *used).map(|(identity, _)| *identity);
            oldest.and_then(|identity| kept.files.remove(&identity));
        }
        kept.uses += 1;
        let now = kept.uses;
        kept.files.insert(file.identity(), (now, Arc::clone(file)));
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        lock(&self.kept).files.len()
    }
}
