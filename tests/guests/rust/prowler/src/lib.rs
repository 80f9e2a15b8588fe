//! A sink that tries to reach what it was not granted. It asks WASI itself, past the standard library, which would tidy up its paths.
//!
//! Every row's value is a [`Step`] as JSON. The row is rejected, and the reason says what came of it: `ok …` or `no …`.

mod files;
mod hoards;
mod network;

use serde::Deserialize;
use tidegate_sdk::bindings::sink::{Description, Guest, Style};
use tidegate_sdk::bindings::types::{self, TopicPartition};
use tidegate_sdk::{Batch, Context, Failure, Fault};

/// What a row asks for. `root` is a granted directory as the guest sees it; `path` is handed to WASI as it is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, tag = "do")]
enum Step {
    /// Says the names of the granted directories.
    Roots,
    /// Opens a file and says what is in it.
    Read {
        root: String,
        path: String,
    },
    /// The same without following a link at the path's end.
    ReadLinkless {
        root: String,
        path: String,
    },
    /// Opens a file, makes it if it is not there, and writes to it.
    Write {
        root: String,
        path: String,
    },
    /// Opens a file that is there and makes it empty.
    Empty {
        root: String,
        path: String,
    },
    /// Opens a directory and says what is in it.
    List {
        root: String,
        path: String,
    },
    /// Opens a directory, and from it the next, and reads the last one as a file.
    Walk {
        root: String,
        steps: Vec<String>,
    },
    Unlink {
        root: String,
        path: String,
    },
    MakeDirectory {
        root: String,
        path: String,
    },
    RemoveDirectory {
        root: String,
        path: String,
    },
    Stat {
        root: String,
        path: String,
    },
    SetTimes {
        root: String,
        path: String,
    },
    Rename {
        root: String,
        path: String,
        to_root: String,
        to: String,
    },
    Link {
        root: String,
        path: String,
        to_root: String,
        to: String,
    },
    Symlink {
        root: String,
        target: String,
        path: String,
    },
    ReadLink {
        root: String,
        path: String,
    },
    /// Reads and writes the path again and again, and says what different outcomes there were.
    Race {
        root: String,
        path: String,
        times: u32,
    },
    /// Says the environment, the arguments and the working directory.
    Look,
    /// Takes handles of a kind and gives none back, until it is refused: says how many there were.
    Hoard {
        what: hoards::What,
        most: u32,
    },
    /// Says what a way into the network answers.
    Dial {
        way: network::Way,
    },
    /// Waits for that many clocks at once.
    Poll {
        clocks: u32,
        milliseconds: u64,
    },
    /// Counts how often this instance was asked.
    Count,
    /// Remembers a text and says what was remembered before.
    Remember {
        text: String,
    },
}

type Outcome = Result<String, String>;

fn take(step: Step) -> Outcome {
    match step {
        Step::Roots => Ok(format!("{:?}", files::roots())),
        Step::Read { root, path } => files::read(&root, &path, true),
        Step::ReadLinkless { root, path } => files::read(&root, &path, false),
        Step::Write { root, path } => files::write(&root, &path),
        Step::Empty { root, path } => files::empty(&root, &path),
        Step::List { root, path } => files::list(&root, &path),
        Step::Walk { root, steps } => files::walk(&root, &steps),
        Step::Unlink { root, path } => files::unlink(&root, &path),
        Step::MakeDirectory { root, path } => files::make_directory(&root, &path),
        Step::RemoveDirectory { root, path } => files::remove_directory(&root, &path),
        Step::Stat { root, path } => files::stat(&root, &path),
        Step::SetTimes { root, path } => files::set_times(&root, &path),
        Step::Rename { root, path, to_root, to } => files::rename(&root, &path, &to_root, &to),
        Step::Link { root, path, to_root, to } => files::link(&root, &path, &to_root, &to),
        Step::Symlink { root, target, path } => files::symlink(&root, &target, &path),
        Step::ReadLink { root, path } => files::read_link(&root, &path),
        Step::Race { root, path, times } => files::race(&root, &path, times),
        Step::Look => Ok(look()),
        Step::Hoard { what, most } => hoards::hoard(what, most),
        Step::Dial { way } => network::dial(way),
        Step::Poll { clocks, milliseconds } => hoards::poll(clocks, milliseconds),
        Step::Count => Ok(count().to_string()),
        Step::Remember { text } => Ok(remember(text)),
    }
}

fn look() -> String {
    let variables: Vec<_> = std::env::vars().collect();
    let arguments: Vec<_> = std::env::args().collect();
    format!("variables {variables:?}; arguments {arguments:?}; directory {:?}", wasip2::cli::environment::initial_cwd())
}

thread_local! {
    static COUNT: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    static REMEMBERED: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

fn count() -> u32 {
    COUNT.set(COUNT.get() + 1);
    COUNT.get()
}

fn remember(text: String) -> String {
    REMEMBERED.replace(text)
}

/// What the component exports.
#[derive(Debug)]
pub struct Prowler;

impl Guest for Prowler {
    fn setup(_: Context) -> Result<Description, String> {
        tidegate_sdk::exports::install_panic_hook();
        Ok(Description { style: Style::Direct, idempotent: false, max_rows: 0, max_bytes: 0 })
    }

    fn connect() -> Result<(), Fault> {
        Ok(())
    }

    fn add(_: types::Batch) -> Result<Vec<Failure>, Fault> {
        Ok(Vec::new())
    }

    fn flush(_: TopicPartition) -> Result<Vec<Failure>, Fault> {
        Ok(Vec::new())
    }

    fn deliver(batch: types::Batch) -> Result<Vec<Failure>, Fault> {
        let batch: Batch = batch.into();
        let mut told = Vec::new();
        for (row, record) in batch.iter().enumerate() {
            let outcome = match serde_json::from_slice::<Step>(record.value.unwrap_or_default()) {
                Ok(step) => take(step),
                Err(error) => return Err(Fault::fatal(format_args!("row {row} is no step: {error}"))),
            };
            let told_of_it = match outcome {
                Ok(words) => format!("ok {words}"),
                Err(words) => format!("no {words}"),
            };
            told.push(Failure::reject(row, told_of_it));
        }
        Ok(told)
    }

    fn discard(_: TopicPartition) {}

    fn close() -> Result<(), String> {
        Ok(())
    }
}

#[cfg(target_family = "wasm")]
tidegate_sdk::bindings::sink::export_raw_sink!(Prowler with_types_in tidegate_sdk::bindings::sink);
