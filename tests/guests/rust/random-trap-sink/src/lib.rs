//! A batching sink that appends the values of rows to a file of their partition and traps at random: before it has written
//! anything, in between, or when everything is written.
//!
//! No row is to blame: the call after a trap never traps for the same partition. A file in the directory remembers that,
//! because an instance ends with its trap.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tidegate_sdk::{Batch, BatchingSink, Context, Failure, Fault, export_batching_sink};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The granted directory, as the guest sees it.
    directory: PathBuf,
    /// A batch traps with a probability of one in so many.
    trap_one_in: u64,
}

struct RandomTrapSink(Options);

/// Appends lines and syncs them. A line that the end of a host has cut off gets an end of its own.
fn append(path: &Path, lines: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let mut text = Vec::new();
    if file.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            text.push(b'\n');
        }
    }
    for line in lines {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    file.write_all(&text)?;
    file.sync_data()
}

fn random(below: u64) -> u64 {
    RandomState::new().hash_one(0) % below.max(1)
}

impl BatchingSink for RandomTrapSink {
    fn new(context: &Context) -> Result<Self, String> {
        Ok(Self(context.options()?))
    }

    fn connect(&mut self) -> Result<(), Fault> {
        fs::read_dir(&self.0.directory).map(drop).map_err(Fault::fatal)
    }

    fn write(&mut self, batch: &Batch) -> Result<Vec<Failure>, Fault> {
        let partition = batch.partition();
        let path = self.0.directory.join(format!("{partition}.jsonl"));
        let trapped = self.0.directory.join(format!("{partition}.trapped"));
        let lines: Vec<&[u8]> = batch.iter().map(|record| record.value.unwrap_or_default()).collect();
        let may_trap = fs::remove_file(&trapped).is_err();
        if may_trap && random(self.0.trap_one_in) == 0 {
            File::create(&trapped).map_err(Fault::unavailable)?;
            let rows = lines.len() as u64;
            let written = usize::try_from(random(rows + 1)).unwrap_or_default();
            append(&path, &lines[..written]).map_err(Fault::unavailable)?;
            panic!("at random, behind {written} of {rows} rows");
        }
        append(&path, &lines).map_err(Fault::unavailable)?;
        Ok(Vec::new())
    }
}

export_batching_sink!(RandomTrapSink);
