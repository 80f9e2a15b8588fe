//! Records of one topic-partition that letters keep, as a collector wants them: in offset order.

use std::sync::Arc;

use super::super::NamedSink;
use super::super::dlq::Letter;
use super::Window;
use crate::model::{Batch, Offset, Payload, SinkKind};

/// Records of letters that stand one after the other.
pub(super) struct Run {
    /// The records, by their own coordinates.
    pub batch: Arc<Batch>,
    /// The one sink that is to have what they yield; `None` for all.
    pub sink: Option<(SinkKind, String)>,
    rows: Vec<u32>,
}

impl Run {
    pub(super) fn new(letter: &Letter, index: u32, sink: Option<(SinkKind, String)>) -> Self {
        let mut run = Self { batch: Arc::new(Batch::new(letter.source.clone())), sink, rows: Vec::new() };
        run.push(letter, index);
        run
    }

    /// Whether the letter's record comes behind those that are there and yields for the same sink.
    pub(super) fn goes_on_with(&self, letter: &Letter, sink: Option<&(SinkKind, String)>) -> bool {
        self.batch.source == letter.source
            && self.sink.as_ref() == sink
            && self.batch.offsets.last().is_none_or(|last| *last < letter.offset)
    }

    pub(super) fn push(&mut self, letter: &Letter, index: u32) {
        let batch = Arc::make_mut(&mut self.batch);
        batch.push(letter.offset, letter.timestamp, letter.key.as_deref(), letter.value.as_deref());
        batch.push_headers(letter.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())));
        self.rows.push(index);
    }

    /// The letter's row of a record's; what is no record's stays none, so that the pipeline finds the breach.
    pub(super) fn index(&self, row: u32) -> u32 {
        self.rows.get(row as usize).copied().unwrap_or(u32::MAX)
    }

    pub(super) fn timestamp(&self, row: u32) -> Option<i64> {
        self.batch.timestamps.get(row as usize).copied()
    }

    pub(super) fn version(&self, row: u32) -> Option<Offset> {
        self.batch.offsets.get(row as usize).copied()
    }

    pub(super) fn window(&self) -> Option<Window> {
        let (first, last) = (*self.batch.offsets.first()?, *self.batch.offsets.last()?);
        let records = u32::try_from(self.batch.len()).unwrap_or(u32::MAX);
        Some(Window { source: self.batch.source.clone(), first, last, records })
    }

    /// Every record for the run's sink, or for every sink that takes its topic.
    pub(super) fn passed_through(&self, sinks: &[NamedSink]) -> Vec<(SinkKind, Payload)> {
        let is_taker = |sink: &&NamedSink| match &self.sink {
            Some((kind, name)) => sink.kind == *kind && sink.name == *name,
            None => sink.delivery.takes(&self.batch.source.topic),
        };
        let takers = || sinks.iter().filter(is_taker);
        let mut payloads = Vec::new();
        for (row, record) in self.batch.rows().enumerate() {
            let headers = self.batch.headers(row).map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)));
            let payload = Payload {
                index: u32::try_from(row).unwrap_or(u32::MAX),
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: headers.collect(),
                ..Payload::default()
            };
            payloads.extend(takers().map(|sink| (sink.kind, Payload { sink: sink.name.clone(), ..payload.clone() })));
        }
        payloads
    }
}
