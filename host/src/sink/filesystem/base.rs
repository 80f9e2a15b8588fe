//! The directory that no path leaves.
//!
//! cap-std opens every file beneath the directory's handle (`openat2` with `RESOLVE_BENEATH`, or component by component
//! where the kernel has none), so containment holds at the moment of opening, whatever was swapped before (S118).

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, FileType, FileTypeExt as _, Metadata, MetadataExt as _, OpenOptions};

use super::errno::{self, Class};
use super::outcome::Refusal;

/// Which file it is, whatever its names are: device and inode.
pub(super) type Identity = (u64, u64);

/// An open base directory.
#[derive(Debug)]
pub(super) struct Base {
    dir: Dir,
    /// As configured, made absolute.
    configured: PathBuf,
    /// Without links.
    canonical: PathBuf,
}

/// Where a payload's path leads.
pub(super) struct Found {
    /// Relative to the base.
    pub(super) inside: PathBuf,
    /// Which regular file is there now, if any.
    pub(super) identity: Option<Identity>,
}

impl Base {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let configured = std::path::absolute(path)?;
        let canonical = configured.canonicalize()?;
        Ok(Self { dir: Dir::open_ambient_dir(&canonical, ambient_authority())?, configured, canonical })
    }

    /// Proves that files can be created, by doing it.
    pub(super) fn probe(&self) -> io::Result<()> {
        // Two sinks may probe one directory at the same time.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!(".tidegate-probe-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let create = || self.dir.open_with(&name, OpenOptions::new().write(true).create_new(true)).map(|_| ());
        create().or_else(|error| match error.kind() {
            // Left by a process of the same number that was killed in between.
            io::ErrorKind::AlreadyExists => self.dir.remove_file(&name).and_then(|()| create()),
            _ => Err(error),
        })?;
        self.dir.remove_file(&name)
    }

    /// Whether the directory still has a name.
    pub(super) fn exists(&self) -> bool {
        self.dir.dir_metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }

    /// Where `path` leads; touches nothing.
    pub(super) fn find(&self, path: &Path) -> Result<Found, Refusal> {
        if path.as_os_str().is_empty() {
            return Err(Refusal::path("the path is empty"));
        }
        if path.as_os_str().as_bytes().contains(&0) {
            return Err(Refusal::path(format!("the path `{}` holds a NUL byte", path.display())));
        }
        let outside = || Refusal::path(format!("`{}` is outside of `base_path`", path.display()));
        let mut inside = self.relative(path).ok_or_else(outside)?.to_owned();
        let mut found = self.dir.metadata(&inside);
        if found.as_ref().is_err_and(escaped) {
            inside = self.settle(&inside).ok_or_else(outside)?;
            found = self.dir.metadata(&inside);
        }
        match found {
            Ok(metadata) => regular(&metadata, path).map(|identity| Found { inside, identity: Some(identity) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found { inside, identity: None }),
            Err(error) => Err(self.refusal(path, &inside, &error)),
        }
    }

    /// Opens the file that [`Self::find`] found, or creates it.
    pub(super) fn open_file(&self, path: &Path, inside: &Path) -> Result<(std::fs::File, Identity), Refusal> {
        // Reading and writing at once never waits for the other end of a FIFO that was put there just now.
        let file = self
            .dir
            .open_with(inside, OpenOptions::new().read(true).append(true).create(true))
            .map_err(|error| self.refusal(path, inside, &error))?;
        let metadata = file.metadata().map_err(|error| self.refusal(path, inside, &error))?;
        Ok((file.into_std(), regular(&metadata, path)?))
    }

    /// Makes the name of a file that was just created survive a power cut.
    pub(super) fn sync_parent(&self, inside: &Path) -> io::Result<()> {
        // Opened for reading: the handles that cap-std walks along cannot be synced.
        let synced = self.dir.canonicalize(inside).and_then(|real| {
            let parent = real.parent().filter(|parent| !parent.as_os_str().is_empty());
            self.dir.open(parent.unwrap_or(Path::new(".")))?.sync_all()
        });
        synced.or_else(|error| match error.kind() {
            // The name is gone again, or the file system cannot do this to directories: there is nothing to wait for.
            io::ErrorKind::NotFound | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
            _ => Err(error),
        })
    }

    /// The path as seen from the base; `None` for an absolute path elsewhere.
    fn relative<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        if path.is_relative() {
            return Some(path);
        }
        let inside = path.strip_prefix(&self.configured).or_else(|_| path.strip_prefix(&self.canonical)).ok()?;
        Some(if inside.as_os_str().is_empty() { Path::new(".") } else { inside })
    }

    /// What the path is without links, for those that leave on the way and come back: absolute links into the base. The
    /// result is opened beneath the base like any other.
    fn settle(&self, inside: &Path) -> Option<PathBuf> {
        let path = self.canonical.join(inside);
        let real = path.canonicalize().or_else(|error| match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
            _ => Err(error),
        });
        let inside = real.ok()?.strip_prefix(&self.canonical).ok()?.to_owned();
        Some(if inside.as_os_str().is_empty() { PathBuf::from(".") } else { inside })
    }

    /// The error table of the sink's page.
    fn refusal(&self, path: &Path, inside: &Path, error: &io::Error) -> Refusal {
        use io::ErrorKind as Kind;
        let shown = path.display();
        if escaped(error) {
            return Refusal::path(format!("`{shown}` is outside of `base_path`"));
        }
        match error.kind() {
            Kind::NotFound if !self.exists() => {
                Refusal { class: Class::Unavailable, reason: "`base_path` has been deleted".into() }
            }
            Kind::NotFound => {
                match inside.parent().filter(|parent| self.dir.metadata(Path::new(".").join(parent)).is_err()) {
                    Some(parent) => Refusal::path(format!(
                        "`{shown}` cannot be created: its parent directory `{}` does not exist, and directories are never created",
                        self.configured.join(parent).display()
                    )),
                    None => Refusal::path(format!("`{shown}` is a link that leads nowhere")),
                }
            }
            Kind::IsADirectory => Refusal::path(not_a_file(path, "a directory")),
            _ => Refusal { class: errno::classify(error), reason: format!("`{shown}` cannot be opened: {error}") },
        }
    }
}

/// cap-std's word for a path that leads out; the kernel's own refusals carry an error number.
fn escaped(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

fn regular(metadata: &Metadata, path: &Path) -> Result<Identity, Refusal> {
    if metadata.is_file() {
        return Ok((metadata.dev(), metadata.ino()));
    }
    Err(Refusal::path(not_a_file(path, kind(metadata.file_type()))))
}

fn not_a_file(path: &Path, what: &str) -> String {
    format!("`{}` is {what}, not a file", path.display())
}

fn kind(found: FileType) -> &'static str {
    if found.is_dir() {
        "a directory"
    } else if found.is_fifo() {
        "a FIFO"
    } else if found.is_char_device() || found.is_block_device() {
        "a device"
    } else if found.is_socket() {
        "a socket"
    } else {
        "something else"
    }
}
