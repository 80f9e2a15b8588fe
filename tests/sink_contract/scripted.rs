//! A sink in memory that does what the trait promises, in both styles, and variants that do not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;
use tidegate::model::{Answer, Batch, CallError, Failure, Fault, TopicPartition};
use tidegate::sink::{Description, Sink, Style};

use super::cases::{Destination, Row};

/// How a sink breaks its promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    None,
    LosesARow,
    RefusesAll,
    ClaimsIdempotence,
    Reverses,
    ConnectsAnywhere,
    IgnoresAbsence,
}

/// What outlives the sink.
#[derive(Debug, Default)]
struct Place {
    away: bool,
    documents: Vec<Value>,
}

#[derive(Debug)]
struct Scripted {
    place: Arc<Mutex<Place>>,
    there: bool,
    style: Style,
    lie: Lie,
    connected: Mutex<bool>,
    buffers: Mutex<BTreeMap<TopicPartition, Vec<Value>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn away() -> CallError {
    CallError::Unavailable(Fault::destination("`scripted` is away"))
}

impl Scripted {
    /// The documents of a call, and its rows that hold none.
    fn sorted(&self, batch: &Batch) -> Taken {
        if !*lock(&self.connected) {
            return Err(CallError::Fatal(Fault::host("`scripted` is not connected")));
        }
        if lock(&self.place).away && self.lie != Lie::IgnoresAbsence {
            return Err(away());
        }
        let (mut documents, mut failures) = (Vec::new(), Vec::new());
        for (index, row) in (0..).zip(batch.rows()) {
            match serde_json::from_slice::<Value>(row.value.unwrap_or_default()) {
                Ok(document) if document.is_object() => documents.push(document),
                _ => failures.push(Failure::reject(index, "no object")),
            }
        }
        match self.lie {
            Lie::LosesARow => drop(documents.pop()),
            Lie::RefusesAll if !failures.is_empty() => {
                let rows = u32::try_from(batch.len()).unwrap_or(u32::MAX);
                failures = (0..rows).map(|index| Failure::reject(index, "all of them")).collect();
            }
            Lie::Reverses => documents.reverse(),
            _ => {}
        }
        Ok((documents, failures))
    }
}

/// What a call takes, and the rows that it does not.
type Taken = Result<(Vec<Value>, Vec<Failure>), CallError>;

#[async_trait]
impl Sink for Scripted {
    fn description(&self) -> Description {
        Description { style: self.style, ..Description::direct(self.lie == Lie::ClaimsIdempotence) }
    }

    async fn connect(&self) -> Result<(), CallError> {
        if !self.there && self.lie != Lie::ConnectsAnywhere {
            return Err(away());
        }
        *lock(&self.connected) = true;
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        tokio::task::yield_now().await;
        let (documents, failures) = self.sorted(batch)?;
        lock(&self.place).documents.extend(documents);
        Ok(failures)
    }

    async fn add(&self, batch: &Arc<Batch>) -> Answer {
        let (documents, failures) = self.sorted(batch)?;
        lock(&self.buffers).entry(batch.source.clone()).or_default().extend(documents);
        Ok(failures)
    }

    async fn flush(&self, source: &TopicPartition) -> Answer {
        tokio::task::yield_now().await;
        let documents = lock(&self.buffers).remove(source).unwrap_or_default();
        let mut place = lock(&self.place);
        if place.away && self.lie != Lie::IgnoresAbsence {
            return Err(away());
        }
        place.documents.extend(documents);
        Ok(Vec::new())
    }

    async fn discard(&self, source: &TopicPartition) {
        lock(&self.buffers).remove(source);
    }
}

/// The destination of one style and one lie.
struct Memory {
    place: Arc<Mutex<Place>>,
    style: Style,
    lie: Lie,
}

impl Memory {
    fn new(style: Style, lie: Lie) -> Self {
        Self { place: Arc::default(), style, lie }
    }

    fn sink(&self, there: bool) -> Arc<dyn Sink> {
        Arc::new(Scripted {
            place: self.place.clone(),
            there,
            style: self.style,
            lie: self.lie,
            connected: Mutex::default(),
            buffers: Mutex::default(),
        })
    }
}

macro_rules! memory {
    ($name:ident, $text:literal) => {
        #[doc = $text]
        pub struct $name(Memory);

        #[async_trait]
        impl Destination for $name {
            async fn sink(&self) -> Arc<dyn Sink> {
                self.0.sink(true)
            }

            async fn nowhere(&self) -> Option<Arc<dyn Sink>> {
                Some(self.0.sink(false))
            }

            fn spoil(&self, row: &mut Row) -> bool {
                row.value = None;
                true
            }

            async fn read(&self) -> Vec<Value> {
                lock(&self.0.place).documents.clone()
            }

            async fn take_away(&mut self) {
                lock(&self.0.place).away = true;
            }

            async fn bring_back(&mut self) {
                lock(&self.0.place).away = false;
            }
        }
    };
}

memory!(Direct, "Writes at once.");
memory!(Buffering, "Writes when it is flushed.");
memory!(Liar, "Breaks one of its promises.");

impl Direct {
    pub async fn new() -> Self {
        Self(Memory::new(Style::Direct, Lie::None))
    }
}

impl Buffering {
    pub async fn new() -> Self {
        Self(Memory::new(Style::Buffering, Lie::None))
    }
}

impl Liar {
    pub fn new(lie: Lie) -> Self {
        Self(Memory::new(Style::Direct, lie))
    }
}
