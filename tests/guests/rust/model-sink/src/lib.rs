//! The sink of [`model`] as a component. It speaks to the contract directly, past the SDK, which would not let it.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::time::{Duration, Instant};

use tidegate_sdk::bindings::sink::{Description, Guest, Style};
use tidegate_sdk::bindings::types::{self, TopicPartition};
use tidegate_sdk::{Batch, Context, Failure, Fault};

pub mod model;

use model::{Answer, Arrival, End, Failed, Model, Options, Row, Source, World};

thread_local! {
    static MODEL: RefCell<Option<Model>> = const { RefCell::new(None) };
}

/// What the component exports.
#[derive(Debug)]
pub struct ModelSink;

/// A granted file, and the guest's own time.
struct Granted(Option<String>);

impl Granted {
    fn file(&self) -> Result<Option<File>, String> {
        let Some(path) = &self.0 else { return Ok(None) };
        let opened = OpenOptions::new().append(true).create(true).open(path);
        opened.map(Some).map_err(|error| format!("`{path}` cannot be opened: {error}"))
    }
}

impl World for Granted {
    fn write(&mut self, arrivals: &[Arrival]) -> Result<(), String> {
        let Some(mut file) = self.file()? else { return Ok(()) };
        let lines: String = arrivals.iter().map(|arrival| arrival.line() + "\n").collect();
        file.write_all(lines.as_bytes())
            .and_then(|()| file.sync_data())
            .map_err(|error| format!("arrivals cannot be written: {error}"))
    }

    fn work(&mut self, milliseconds: u64, busy: bool) {
        let time = Duration::from_millis(milliseconds);
        let start = Instant::now();
        while busy && start.elapsed() < time {
            std::hint::black_box(start);
        }
        if !busy {
            std::thread::sleep(time);
        }
    }
}

/// Calls the model, and does what a component does where the model can only say it.
fn call(run: impl FnOnce(&mut Model, &mut Granted) -> Answer) -> Result<Vec<Failure>, Fault> {
    let answered = MODEL.with_borrow_mut(|model| {
        let model = model.as_mut().ok_or_else(|| End::Trap("called before `setup`".to_owned()))?;
        let mut world = Granted(model.options().path.clone());
        run(model, &mut world)
    });
    match answered {
        Ok(failed) => Ok(failed.into_iter().map(failure).collect()),
        Err(End::Backpressure(milliseconds)) => Err(Fault::Backpressure(milliseconds)),
        Err(End::Unavailable(why)) => Err(Fault::unavailable(why)),
        Err(End::Reject(why)) => Err(Fault::reject(why)),
        Err(End::Trap(why)) => panic!("{why}"),
        Err(End::Spin) => loop {
            std::hint::black_box(());
        },
    }
}

fn failure(Failed { index, retry, reason }: Failed) -> Failure {
    let kind = if retry { types::FailureKind::Retry } else { types::FailureKind::Reject };
    Failure { index, kind, reason }
}

fn rows(batch: types::Batch) -> (Source, Vec<Row>) {
    let batch = Batch::from(batch);
    let rows = batch.iter().map(|record| Row {
        offset: record.offset,
        ordinal: record.ordinal,
        value: record.value.map(<[u8]>::to_vec),
    });
    ((batch.topic().to_owned(), batch.partition()), rows.collect())
}

impl Guest for ModelSink {
    fn setup(context: Context) -> Result<Description, String> {
        tidegate_sdk::exports::install_panic_hook();
        let options = Options::parse(&context.options)?;
        let described = Description {
            style: if options.direct { Style::Direct } else { Style::Buffering },
            idempotent: options.idempotent,
            max_rows: options.max_rows,
            max_bytes: options.max_bytes,
        };
        MODEL.set(Some(Model::new(options)));
        Ok(described)
    }

    fn connect() -> Result<(), Fault> {
        let path = MODEL.with_borrow(|model| model.as_ref().and_then(|model| model.options().path.clone()));
        Granted(path).file().map(drop).map_err(Fault::fatal)
    }

    fn add(batch: types::Batch) -> Result<Vec<Failure>, Fault> {
        let (source, rows) = rows(batch);
        call(|model, _| model.add(&source, &rows))
    }

    fn flush(source: TopicPartition) -> Result<Vec<Failure>, Fault> {
        call(|model, world| model.flush(&(source.topic, source.partition), world))
    }

    fn deliver(batch: types::Batch) -> Result<Vec<Failure>, Fault> {
        let (source, rows) = rows(batch);
        call(|model, world| model.deliver(&source, &rows, world))
    }

    fn discard(source: TopicPartition) {
        MODEL.with_borrow_mut(|model| {
            if let Some(model) = model {
                model.discard(&(source.topic, source.partition));
            }
        });
    }

    fn close() -> Result<(), String> {
        Ok(())
    }
}

#[cfg(target_family = "wasm")]
tidegate_sdk::bindings::sink::export_raw_sink!(ModelSink with_types_in tidegate_sdk::bindings::sink);
