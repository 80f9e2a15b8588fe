//! A sink that misbehaves as its options and the rows say. It speaks to the contract directly, past the SDK, which would not let it.
//!
//! Rows are written as lines of its log, a file in a granted directory: `wrote topic[partition]@offset.ordinal value`. A row whose
//! value contains one of the words in [`faults::Act`] gets that treatment instead, in the call that `acts_in` names.

use std::cell::RefCell;
use std::collections::HashMap;

use faults::{Act, asked, log, misbehave};
use serde::Deserialize;
use tidegate_sdk::bindings::sink::{Description, Guest, Style};
use tidegate_sdk::bindings::types::{self, TopicPartition};
use tidegate_sdk::{Batch, Context, Failure, Fault};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Call {
    Add,
    #[default]
    Flush,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    direct: bool,
    idempotent: bool,
    max_rows: u32,
    max_bytes: u64,
    /// What whole calls do.
    setup: Act,
    connect: Act,
    discard: Act,
    close: Act,
    /// Where rows get their treatment, in a buffering sink.
    acts_in: Call,
    /// How often `deliver`, or the call that `acts_in` names, answers backpressure first, and for how long.
    backpressure_times: u32,
    backpressure_milliseconds: u64,
    /// Buffering: says that everything was written, and writes nothing.
    forgets: bool,
    /// Buffering: `discard` does nothing.
    keeps: bool,
    /// A file in a granted directory that says whether a fault has happened; see [`asked`].
    once: Option<String>,
    /// A file in a granted directory to which every call adds a line.
    log: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            direct: false,
            idempotent: false,
            max_rows: 0,
            max_bytes: 0,
            setup: Act::Ok,
            connect: Act::Ok,
            discard: Act::Ok,
            close: Act::Ok,
            acts_in: Call::Flush,
            backpressure_times: 0,
            backpressure_milliseconds: 100,
            forgets: false,
            keeps: false,
            once: None,
            log: None,
        }
    }
}

/// What one buffered row became: its line, and what its value asks for. Rows refused in `add` keep their place.
struct Row {
    line: String,
    act: Act,
}

#[derive(Default)]
struct State {
    options: Options,
    backpressured: u32,
    buffers: HashMap<(String, i32), Vec<Option<Row>>>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State::default());
}

/// What the component exports.
#[derive(Debug)]
pub struct Faulty;

fn fault(act: Act, place: &str, options: &Options) -> Result<(), Fault> {
    misbehave(act, place);
    match act {
        Act::RejectCall => Err(Fault::reject(format_args!("{place} was told to reject"))),
        Act::Unavailable => Err(Fault::unavailable(format_args!("{place} was told that nothing is there"))),
        Act::Fatal => Err(Fault::fatal(format_args!("{place} was told to give up"))),
        Act::Backpressure => Err(Fault::Backpressure(options.backpressure_milliseconds)),
        _ => Ok(()),
    }
}

/// The failures of one row, or the fault of the whole call.
fn treat(act: Act, index: usize, place: &str, options: &Options) -> Result<Vec<Failure>, Fault> {
    fault(act, place, options)?;
    Ok(match act {
        Act::Reject => vec![Failure::reject(index, "told to reject")],
        Act::Retry => vec![Failure::retry(index, "told to retry")],
        Act::WrongIndex => vec![Failure::reject(usize::MAX, "told to name a wrong row")],
        Act::Twice => {
            vec![Failure::reject(index, "told to say it twice"), Failure::reject(index, "told to say it twice")]
        }
        _ => Vec::new(),
    })
}

fn rows(batch: &Batch, options: &Options) -> Vec<Row> {
    batch
        .iter()
        .map(|record| {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default());
            let line = format!("{}[{}]@{}.{} {value}", record.topic, record.partition, record.offset, record.ordinal);
            Row { line, act: asked(record.value, options.once.as_deref()) }
        })
        .collect()
}

impl State {
    fn log(&self, line: &str) {
        log(self.options.log.as_deref(), line);
    }

    fn backpressure(&mut self) -> Result<(), Fault> {
        if self.backpressured < self.options.backpressure_times {
            self.backpressured += 1;
            return Err(Fault::Backpressure(self.options.backpressure_milliseconds));
        }
        Ok(())
    }

    /// Writes the rows in order; those with a treatment get it instead.
    fn write<'r>(&self, rows: impl Iterator<Item = (usize, &'r Row)>, place: &str) -> Result<Vec<Failure>, Fault> {
        let mut failures = Vec::new();
        let mut lines = Vec::new();
        for (index, row) in rows {
            let failed = treat(row.act, index, place, &self.options)?;
            if failed.is_empty() {
                lines.push(format!("wrote {}", row.line));
            }
            failures.extend(failed);
        }
        if !lines.is_empty() {
            self.log(&lines.join("\n"));
        }
        Ok(failures)
    }

    fn add(&mut self, batch: Batch) -> Result<Vec<Failure>, Fault> {
        self.log(&format!("add {}[{}] {}", batch.topic(), batch.partition(), batch.size()));
        let here = self.options.acts_in == Call::Add;
        if here {
            self.backpressure()?;
        }
        let mut failures = Vec::new();
        let mut taken = Vec::new();
        for (index, row) in rows(&batch, &self.options).into_iter().enumerate() {
            let failed = if here { treat(row.act, index, "add", &self.options)? } else { Vec::new() };
            let act = if here { Act::Ok } else { row.act };
            taken.push(failed.is_empty().then_some(Row { act, ..row }));
            failures.extend(failed);
        }
        self.buffers.entry((batch.topic().to_owned(), batch.partition())).or_default().extend(taken);
        Ok(failures)
    }

    fn flush(&mut self, source: TopicPartition) -> Result<Vec<Failure>, Fault> {
        let TopicPartition { topic, partition } = source;
        let rows = self.buffers.remove(&(topic.clone(), partition)).unwrap_or_default();
        self.log(&format!("flush {topic}[{partition}] {}", rows.len()));
        if self.options.acts_in == Call::Flush {
            self.backpressure()?;
        }
        if self.options.forgets {
            return Ok(Vec::new());
        }
        self.write(rows.iter().enumerate().filter_map(|(index, row)| Some((index, row.as_ref()?))), "flush")
    }

    fn deliver(&mut self, batch: &Batch) -> Result<Vec<Failure>, Fault> {
        self.log(&format!("deliver {}[{}] {}", batch.topic(), batch.partition(), batch.size()));
        self.backpressure()?;
        self.write(rows(batch, &self.options).iter().enumerate(), "deliver")
    }
}

impl Guest for Faulty {
    fn setup(context: Context) -> Result<Description, String> {
        tidegate_sdk::exports::install_panic_hook();
        let options: Options = context.options()?;
        log(options.log.as_deref(), &format!("setup {} {}/{}", context.name, context.slot, context.slots));
        misbehave(options.setup, "setup");
        if !matches!(options.setup, Act::Ok | Act::Flood) {
            return Err("setup was told to fail".into());
        }
        let description = Description {
            style: if options.direct { Style::Direct } else { Style::Buffering },
            idempotent: options.idempotent,
            max_rows: options.max_rows,
            max_bytes: options.max_bytes,
        };
        STATE.set(State { options, ..State::default() });
        Ok(description)
    }

    fn connect() -> Result<(), Fault> {
        STATE.with_borrow(|state| {
            state.log("connect");
            fault(state.options.connect, "connect", &state.options)
        })
    }

    fn add(batch: types::Batch) -> Result<Vec<Failure>, Fault> {
        STATE.with_borrow_mut(|state| state.add(batch.into()))
    }

    fn flush(source: TopicPartition) -> Result<Vec<Failure>, Fault> {
        STATE.with_borrow_mut(|state| state.flush(source))
    }

    fn deliver(batch: types::Batch) -> Result<Vec<Failure>, Fault> {
        STATE.with_borrow_mut(|state| state.deliver(&batch.into()))
    }

    fn discard(source: TopicPartition) {
        STATE.with_borrow_mut(|state| {
            state.log(&format!("discard {}[{}]", source.topic, source.partition));
            misbehave(state.options.discard, "discard");
            if !state.options.keeps {
                state.buffers.remove(&(source.topic, source.partition));
            }
        });
    }

    fn close() -> Result<(), String> {
        STATE.with_borrow(|state| {
            state.log("close");
            misbehave(state.options.close, "close");
            if state.options.close == Act::Ok { Ok(()) } else { Err("close was told to fail".into()) }
        })
    }
}

#[cfg(target_family = "wasm")]
tidegate_sdk::bindings::sink::export_raw_sink!(Faulty with_types_in tidegate_sdk::bindings::sink);
