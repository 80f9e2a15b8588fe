//! What the process takes of the machine, read from `/proc`.

use std::path::{Path, PathBuf};

/// One number of `/proc/self/status`, such as `Threads`, or `VmHWM` in KiB.
pub(crate) fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect("a known key");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Most memory that the process has had, in MiB.
pub(crate) fn peak_mebibytes() -> u64 {
    status("VmHWM") >> 10
}

/// Every open file.
pub(crate) fn open_files() -> Vec<PathBuf> {
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect()
}

/// How many files and directories below `folder` are open.
pub(crate) fn open_below(folder: &Path) -> usize {
    open_files().iter().filter(|path| path.starts_with(folder)).count()
}
