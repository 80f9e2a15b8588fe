//! What can be tried with directories and files.

use std::collections::BTreeSet;

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags};

use crate::Outcome;

/// Most bytes of a file that are told.
const TOLD_BYTES: u64 = 200;
/// What is written where nothing should be.
const LOOT: &[u8] = b"written by the prowler";

fn no(error: ErrorCode) -> String {
    error.name().to_owned()
}

/// The names of the granted directories.
pub(crate) fn roots() -> Vec<String> {
    get_directories().into_iter().map(|(_, name)| name).collect()
}

pub(crate) fn root(name: &str) -> Result<Descriptor, String> {
    let mut all = get_directories().into_iter();
    all.find(|(_, known)| known == name).map(|(found, _)| found).ok_or_else(|| "no such root".to_owned())
}

fn follow(follows: bool) -> PathFlags {
    if follows { PathFlags::SYMLINK_FOLLOW } else { PathFlags::empty() }
}

fn told(file: &Descriptor) -> Outcome {
    let (bytes, _) = file.read(TOLD_BYTES, 0).map_err(no)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn open(from: &Descriptor, path: &str, follows: bool) -> Result<Descriptor, String> {
    from.open_at(follow(follows), path, OpenFlags::empty(), DescriptorFlags::READ).map_err(no)
}

pub(crate) fn read(from: &str, path: &str, follows: bool) -> Outcome {
    told(&open(&root(from)?, path, follows)?)
}

fn write_to(from: &Descriptor, path: &str) -> Outcome {
    let flags = DescriptorFlags::READ | DescriptorFlags::WRITE;
    let file = from.open_at(follow(true), path, OpenFlags::CREATE, flags).map_err(no)?;
    file.write(LOOT, 0).map_err(no)?;
    Ok("written".into())
}

pub(crate) fn write(from: &str, path: &str) -> Outcome {
    write_to(&root(from)?, path)
}

pub(crate) fn empty(from: &str, path: &str) -> Outcome {
    root(from)?.open_at(follow(true), path, OpenFlags::TRUNCATE, DescriptorFlags::WRITE).map_err(no)?;
    Ok("emptied".into())
}

fn directory(from: &Descriptor, path: &str) -> Result<Descriptor, String> {
    from.open_at(follow(true), path, OpenFlags::DIRECTORY, DescriptorFlags::READ).map_err(no)
}

pub(crate) fn list(from: &str, path: &str) -> Outcome {
    let entries = directory(&root(from)?, path)?.read_directory().map_err(no)?;
    let mut names = Vec::new();
    while let Some(entry) = entries.read_directory_entry().map_err(no)? {
        names.push(entry.name);
    }
    names.sort();
    Ok(format!("{names:?}"))
}

pub(crate) fn walk(from: &str, steps: &[String]) -> Outcome {
    let mut at = root(from)?;
    let (last, before) = steps.split_last().ok_or("no steps")?;
    for step in before {
        at = directory(&at, step)?;
    }
    told(&open(&at, last, true)?)
}

pub(crate) fn unlink(from: &str, path: &str) -> Outcome {
    root(from)?.unlink_file_at(path).map_err(no).map(|()| "unlinked".into())
}

pub(crate) fn make_directory(from: &str, path: &str) -> Outcome {
    root(from)?.create_directory_at(path).map_err(no).map(|()| "made".into())
}

pub(crate) fn remove_directory(from: &str, path: &str) -> Outcome {
    root(from)?.remove_directory_at(path).map_err(no).map(|()| "removed".into())
}

pub(crate) fn stat(from: &str, path: &str) -> Outcome {
    let found = root(from)?.stat_at(follow(true), path).map_err(no)?;
    Ok(format!("{:?} of {} bytes", found.type_, found.size))
}

pub(crate) fn set_times(from: &str, path: &str) -> Outcome {
    let now = || NewTimestamp::Now;
    root(from)?.set_times_at(follow(true), path, now(), now()).map_err(no).map(|()| "set".into())
}

pub(crate) fn rename(from: &str, path: &str, to_root: &str, to: &str) -> Outcome {
    root(from)?.rename_at(path, &root(to_root)?, to).map_err(no).map(|()| "renamed".into())
}

pub(crate) fn link(from: &str, path: &str, to_root: &str, to: &str) -> Outcome {
    root(from)?.link_at(PathFlags::empty(), path, &root(to_root)?, to).map_err(no).map(|()| "linked".into())
}

pub(crate) fn symlink(from: &str, target: &str, path: &str) -> Outcome {
    root(from)?.symlink_at(target, path).map_err(no).map(|()| "linked".into())
}

pub(crate) fn read_link(from: &str, path: &str) -> Outcome {
    root(from)?.readlink_at(path).map_err(no)
}

pub(crate) fn race(from: &str, path: &str, times: u32) -> Outcome {
    let from = root(from)?;
    let mut seen = BTreeSet::new();
    for _ in 0..times {
        let found = open(&from, path, true).and_then(|file| told(&file));
        seen.insert(found.unwrap_or_else(|error| format!("({error})")));
        let written = write_to(&from, &format!("{path}.new"));
        seen.insert(written.unwrap_or_else(|error| format!("({error})")));
    }
    Ok(format!("{seen:?}"))
}
