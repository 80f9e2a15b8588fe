//! A buffering sink that appends rows to CSV files in a granted directory.
//!
//! ```yaml
//! sinks:
//!   plugin:
//!     csv:
//!       component: plugins/csv.wasm
//!       options: { path: "/out/{topic}-{partition}.csv" }
//!       grants: { directories: [{ host: /var/lib/tidegate/csv, guest: /out, access: write }] }
//! ```
//!
//! `path` is as the guest sees it. `{topic}`, `{partition}` and `{slot}` in the file's name stand for what they say. `columns` chooses
//! from `key`, `value`, `timestamp`, `topic`, `partition`, `offset` and `ordinal`, in that order by default, without the last.
//!
//! A new file begins with a line of column names; one that begins with another line is left alone. Fields are quoted as RFC 4180 has it, lines end with `\n`. A null is an
//! empty field, as an empty text is. Bytes that are not UTF-8 are written as `base64:` and their base64.
//!
//! A flush is one append and one sync: the rows are on the disk when it returns. An append that fails half-way is taken
//! back; one that a crash cut off is taken back when its file is opened again.

mod file;
mod options;
mod rows;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tidegate_sdk::{Batch, BatchingSink, Context, Failure, Fault, export_batching_sink};

use options::{Options, Template};
use rows::Rows;

struct CsvSink {
    directory: PathBuf,
    template: Template,
    slot: u32,
    rows: Rows,
    /// The files that this instance has looked at: only before its first append may one end in a row cut off.
    opened: HashSet<PathBuf>,
}

impl BatchingSink for CsvSink {
    fn new(context: &Context) -> Result<Self, String> {
        let options: Options = context.options()?;
        let (directory, template) = options.place()?;
        if context.slots > 1 && !template.is_unique_per_slot() {
            return Err(format!(
                "`path` is `{}` for all {} instances, and two must not write to one file: put `{{slot}}`, or `{{topic}}` and \
                 `{{partition}}`, into the file's name",
                options.path, context.slots
            ));
        }
        let rows = Rows::new(options.columns);
        Ok(Self { directory, template, slot: context.slot, rows, opened: HashSet::new() })
    }

    fn connect(&mut self) -> Result<(), Fault> {
        file::probe(&self.directory, self.slot).map_err(|error| Fault::fatal(refusal(&self.directory, &error)))
    }

    fn write(&mut self, batch: &Batch) -> Result<Vec<Failure>, Fault> {
        let path = self.directory.join(self.template.file_name(batch.topic(), batch.partition(), self.slot));
        let first = !self.opened.contains(&path);
        let failed = |error: std::io::Error| {
            Fault::unavailable(format_args!("`{}` could not be written: {error}", path.display()))
        };
        let mut file = file::Appending::open(&path, first).map_err(failed)?;
        if first && !file.is_empty() && !file.begins_with(self.rows.names().as_bytes()).map_err(failed)? {
            return Err(Fault::fatal(format_args!(
                "`{}` begins with other columns than `{}`: move it away, or change `columns` back",
                path.display(),
                self.rows.names().trim_end()
            )));
        }
        let text = self.rows.encode(batch, file.is_empty()).map_err(failed)?;
        file.append(text).map_err(failed)?;
        if first {
            self.opened.insert(path);
        }
        Ok(Vec::new())
    }
}

fn refusal(directory: &Path, error: &std::io::Error) -> String {
    let directory = directory.display();
    format!(
        "cannot write to `{directory}`: {error}; grant it with `grants.directories: \
         [{{ host: <a directory of the host>, guest: {directory}, access: write }}]`"
    )
}

export_batching_sink!(CsvSink);
