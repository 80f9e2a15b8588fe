use std::collections::HashMap;

use crate::bindings::{sink, types};
use crate::collector::before_setup;
use crate::{Batch, Context, Failure, Fault};

#[cfg(test)]
mod tests;

/// What a sink says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Writing the same rows twice, in order, leaves the destination as writing them once.
    pub idempotent: bool,
    /// Most rows wished for in one call of `deliver` or of the host's `add`; 0: no wish.
    pub max_rows: u32,
    /// Most bytes of keys and values wished for in one such call; 0: no wish.
    pub max_bytes: u64,
}

/// Writes rows at once. Exported with [`export_direct_sink!`](crate::export_direct_sink).
pub trait DirectSink: Sized + 'static {
    /// Once per instance: read the options, touch nothing outside.
    ///
    /// # Errors
    /// What is wrong with the configuration; the host does not start then.
    fn new(context: &Context) -> Result<Self, String>;

    /// What the sink says of itself.
    fn describe(&self) -> Description {
        Description::default()
    }

    /// Once, before the first row: reach the destination and prove it.
    ///
    /// # Errors
    /// A fault ends the start, or is tried again for an instance that replaces another.
    fn connect(&mut self) -> Result<(), Fault>;

    /// Writes every row and names those that did not make it, counted from 0; an empty list says that all did.
    ///
    /// # Errors
    /// A fault of the whole call: no row of it counts as written.
    fn deliver(&mut self, batch: &Batch) -> Result<Vec<Failure>, Fault>;

    /// The end. Not called after a panic.
    ///
    /// # Errors
    /// Only logged.
    fn close(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Gets everything that a checkpoint holds for one topic-partition at once. Exported with
/// [`export_batching_sink!`](crate::export_batching_sink).
pub trait BatchingSink: Sized + 'static {
    /// Once per instance: read the options, touch nothing outside.
    ///
    /// # Errors
    /// What is wrong with the configuration; the host does not start then.
    fn new(context: &Context) -> Result<Self, String>;

    /// What the sink says of itself.
    fn describe(&self) -> Description {
        Description::default()
    }

    /// Once, before the first row: reach the destination and prove it.
    ///
    /// # Errors
    /// A fault ends the start, or is tried again for an instance that replaces another.
    fn connect(&mut self) -> Result<(), Fault>;

    /// Makes a batch durable. Called exactly once per batch that is not empty; the batch is gone afterwards, whatever
    /// is returned, and rows that did not make it come again in a new one (S23). Names the rows that did not make it,
    /// counted from 0; an empty list says that all did.
    ///
    /// # Errors
    /// A fault of the whole call: no row of the batch counts as written.
    fn write(&mut self, batch: &Batch) -> Result<Vec<Failure>, Fault>;

    /// The end. Not called after a panic.
    ///
    /// # Errors
    /// Only logged.
    fn close(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// A sink of either style, as the component exports it.
#[doc(hidden)]
pub trait AnySink: Sized + 'static {
    fn setup(context: &Context) -> Result<(Self, sink::Description), String>;
    fn connect(&mut self) -> Result<(), Fault>;
    fn add(&mut self, batch: types::Batch) -> Result<Vec<Failure>, Fault>;
    fn flush(&mut self, source: types::TopicPartition) -> Result<Vec<Failure>, Fault>;
    fn deliver(&mut self, batch: types::Batch) -> Result<Vec<Failure>, Fault>;
    fn discard(&mut self, source: types::TopicPartition);
    fn close(&mut self) -> Result<(), String>;
}

fn described(style: sink::Style, description: Description) -> sink::Description {
    let Description { idempotent, max_rows, max_bytes } = description;
    sink::Description { style, idempotent, max_rows, max_bytes }
}

/// A [`DirectSink`] as the component exports it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Direct<S>(S);

impl<S: DirectSink> AnySink for Direct<S> {
    fn setup(context: &Context) -> Result<(Self, sink::Description), String> {
        let sink = S::new(context)?;
        let description = described(sink::Style::Direct, sink.describe());
        Ok((Self(sink), description))
    }

    fn connect(&mut self) -> Result<(), Fault> {
        self.0.connect()
    }

    fn add(&mut self, _batch: types::Batch) -> Result<Vec<Failure>, Fault> {
        Err(Fault::fatal("`add` was called on a direct sink"))
    }

    fn flush(&mut self, _source: types::TopicPartition) -> Result<Vec<Failure>, Fault> {
        Ok(Vec::new())
    }

    fn deliver(&mut self, batch: types::Batch) -> Result<Vec<Failure>, Fault> {
        self.0.deliver(&batch.into())
    }

    fn discard(&mut self, _source: types::TopicPartition) {}

    fn close(&mut self) -> Result<(), String> {
        self.0.close()
    }
}

/// A [`BatchingSink`] as the component exports it, with one batch per topic-partition.
#[doc(hidden)]
#[derive(Debug)]
pub struct Batching<S> {
    sink: S,
    /// The host bounds what is added between two flushes, so nothing is bounded here.
    batches: HashMap<(String, i32), Batch>,
}

impl<S: BatchingSink> AnySink for Batching<S> {
    fn setup(context: &Context) -> Result<(Self, sink::Description), String> {
        let sink = S::new(context)?;
        let description = described(sink::Style::Buffering, sink.describe());
        Ok((Self { sink, batches: HashMap::new() }, description))
    }

    fn connect(&mut self) -> Result<(), Fault> {
        self.sink.connect()
    }

    fn add(&mut self, batch: types::Batch) -> Result<Vec<Failure>, Fault> {
        self.batches
            .entry((batch.topic.clone(), batch.partition))
            .or_insert_with_key(|(topic, partition)| Batch::new(topic.clone(), *partition))
            .push(batch);
        Ok(Vec::new())
    }

    fn flush(&mut self, source: types::TopicPartition) -> Result<Vec<Failure>, Fault> {
        match self.batches.remove(&(source.topic, source.partition)) {
            Some(batch) if !batch.empty() => self.sink.write(&batch),
            _ => Ok(Vec::new()),
        }
    }

    fn deliver(&mut self, _batch: types::Batch) -> Result<Vec<Failure>, Fault> {
        Err(Fault::fatal("`deliver` was called on a buffering sink"))
    }

    fn discard(&mut self, source: types::TopicPartition) {
        self.batches.remove(&(source.topic, source.partition));
    }

    fn close(&mut self) -> Result<(), String> {
        self.sink.close()
    }
}

/// The one sink of a component. Calls are serial, so a plain cell holds it.
#[doc(hidden)]
pub trait SinkInstance {
    type Sink: AnySink;

    fn with<R>(call: impl FnOnce(&mut Option<Self::Sink>) -> R) -> R;
}

impl<C: SinkInstance> sink::Guest for C {
    fn setup(context: Context) -> Result<sink::Description, String> {
        crate::panic::install();
        let (sink, description) = C::Sink::setup(&context)?;
        C::with(|slot| *slot = Some(sink));
        Ok(description)
    }

    fn connect() -> Result<(), Fault> {
        C::with(|slot| slot.as_mut().ok_or_else(before_setup)?.connect())
    }

    fn add(batch: types::Batch) -> Result<Vec<Failure>, Fault> {
        C::with(|slot| slot.as_mut().ok_or_else(before_setup)?.add(batch))
    }

    fn flush(source: types::TopicPartition) -> Result<Vec<Failure>, Fault> {
        C::with(|slot| slot.as_mut().ok_or_else(before_setup)?.flush(source))
    }

    fn deliver(batch: types::Batch) -> Result<Vec<Failure>, Fault> {
        C::with(|slot| slot.as_mut().ok_or_else(before_setup)?.deliver(batch))
    }

    fn discard(source: types::TopicPartition) {
        C::with(|slot| {
            if let Some(sink) = slot.as_mut() {
                sink.discard(source);
            }
        });
    }

    fn close() -> Result<(), String> {
        C::with(|slot| slot.take().map_or(Ok(()), |mut sink| sink.close()))
    }
}

/// Makes a type that is a [`DirectSink`] the component's sink. Once per crate.
#[macro_export]
macro_rules! export_direct_sink {
    ($sink:ty) => {
        $crate::__sink!($crate::exports::Direct<$sink>);
    };
}

/// Makes a type that is a [`BatchingSink`] the component's sink. Once per crate.
#[macro_export]
macro_rules! export_batching_sink {
    ($sink:ty) => {
        $crate::__sink!($crate::exports::Batching<$sink>);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __sink {
    ($sink:ty) => {
        const _: () = {
            struct Component;

            ::std::thread_local! {
                static INSTANCE: ::std::cell::RefCell<::std::option::Option<$sink>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }

            impl $crate::exports::SinkInstance for Component {
                type Sink = $sink;

                fn with<R>(call: impl ::std::ops::FnOnce(&mut ::std::option::Option<$sink>) -> R) -> R {
                    INSTANCE.with_borrow_mut(call)
                }
            }

            #[cfg(target_family = "wasm")]
    $crate::bindings::sink::export_raw_sink!(Component with_types_in $crate::bindings::sink);
            #[cfg(not(target_family = "wasm"))]
            const _: fn() = || $crate::exports::exports_sink::<Component>();
        };
    };
}

// Natively nothing is exported; this keeps the type checked all the same.
#[doc(hidden)]
pub fn exports_sink<C: sink::Guest>() {}
