//! Rows on their way to a sink, and those that a buffering sink has taken and not flushed yet.

use std::ops::Range;
use std::sync::Arc;

use super::route::Group;
use crate::model::{Batch, Failure};
use crate::sink::BufferLimit;

/// A run of rows for one sink, shared with whoever else holds them, with the records they came from.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The payloads.
    pub batch: Arc<Batch>,
    /// The window's row that each payload came from; `None` when they are the window's rows themselves.
    pub origin: Option<Arc<Vec<usize>>>,
    /// The window that they came from.
    pub window: Arc<Batch>,
}

impl Segment {
    /// The window's row that payload `row` came from.
    pub fn origin(&self, row: usize) -> usize {
        self.origin.as_ref().and_then(|origin| origin.get(row).copied()).unwrap_or(row)
    }

    /// The chosen rows, ascending. All of them are the segment itself, and nothing is copied.
    fn select(&self, rows: &[usize]) -> Self {
        if rows.len() == self.batch.len() {
            return self.clone();
        }
        let origin = rows.iter().map(|row| self.origin(*row)).collect();
        Self {
            batch: Arc::new(self.batch.select(rows)),
            origin: Some(Arc::new(origin)),
            window: Arc::clone(&self.window),
        }
    }
}

/// Rows for one sink, in order, as runs of one or several windows. Rows are numbered from 0 over all runs.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    segments: Vec<Segment>,
    /// The number of the first row behind each run.
    ends: Vec<usize>,
}

impl Rows {
    /// The rows of a group that came from `window`.
    pub fn of_group(group: &Group, window: &Arc<Batch>) -> Self {
        let mut rows = Self::default();
        rows.push(Segment {
            batch: Arc::clone(&group.batch),
            origin: group.origin.clone(),
            window: Arc::clone(window),
        });
        rows
    }

    /// Appends a run.
    pub fn push(&mut self, segment: Segment) {
        if !segment.batch.is_empty() {
            self.ends.push(self.len() + segment.batch.len());
            self.segments.push(segment);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The runs.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The run of a row, and the row's place in it.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn find(&self, row: usize) -> (&Segment, usize) {
        let run = self.ends.partition_point(|end| *end <= row);
        let before = if run == 0 { 0 } else { self.ends[run - 1] };
        (&self.segments[run], row - before)
    }

    /// The row's key.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn key(&self, row: usize) -> Option<&[u8]> {
        let (segment, row) = self.find(row);
        segment.batch.keys.get(row)
    }

    /// Bytes of the row's key and value.
    fn row_bytes(&self, row: usize) -> usize {
        let (segment, row) = self.find(row);
        segment.batch.keys.get(row).map_or(0, <[u8]>::len) + segment.batch.values.get(row).map_or(0, <[u8]>::len)
    }

    /// What the row takes in a guest's memory, as [`BufferLimit::bytes_of`] counts it.
    fn row_guest_bytes(&self, row: usize) -> u64 {
        let (segment, place) = self.find(row);
        let headers = segment.batch.headers(place).map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len));
        (self.row_bytes(row) + headers.sum::<usize>() + BufferLimit::ROW_BYTES) as u64
    }

    /// What the rows of a range take in a guest's memory, as [`BufferLimit::bytes_of`] counts it.
    pub fn guest_bytes(&self, rows: Range<usize>) -> u64 {
        rows.map(|row| self.row_guest_bytes(row)).sum()
    }

    /// The chosen rows, ascending. Runs that are chosen whole are shared, others copied.
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut chosen = Self::default();
        let mut rest = rows;
        let mut first = 0;
        for (segment, end) in self.segments.iter().zip(&self.ends) {
            let (here, behind) = rest.split_at(rest.partition_point(|row| row < end));
            if !here.is_empty() {
                let places: Vec<usize> = here.iter().map(|row| row - first).collect();
                chosen.push(segment.select(&places));
            }
            (rest, first) = (behind, *end);
        }
        chosen
    }

    /// The rows of a range. Runs that lie in it whole are shared, others copied.
    pub fn slice(&self, range: Range<usize>) -> Self {
        if range == (0..self.len()) {
            return self.clone();
        }
        self.select(&range.collect::<Vec<_>>())
    }

    /// The rows from `start` on that keep to a bound of rows, of bytes of keys and values, and of bytes in a guest's memory, and do not
    /// reach into another run; one row at least.
    pub fn next_call(&self, start: usize, max_rows: usize, max_bytes: usize, max_guest_bytes: u64) -> Range<usize> {
        let run_end = self.ends.get(self.ends.partition_point(|end| *end <= start)).copied().unwrap_or(start);
        let last = start.saturating_add(max_rows.max(1)).min(run_end);
        if max_bytes == usize::MAX && max_guest_bytes == u64::MAX {
            return start..last;
        }
        let (mut bytes, mut guest_bytes) = (0usize, 0u64);
        for row in start..last {
            bytes = bytes.saturating_add(self.row_bytes(row));
            guest_bytes = guest_bytes.saturating_add(self.row_guest_bytes(row));
            if (bytes > max_bytes || guest_bytes > max_guest_bytes) && row > start {
                return start..row;
            }
        }
        start..last
    }
}

/// One call of `add` that a buffering sink has accepted, as flush indices count it.
#[derive(Clone, Debug)]
struct Accepted {
    segment: Segment,
    /// The rows that its answer named, ascending: they are counted, and not in the buffer.
    refused: Vec<usize>,
}

/// The rows that a buffering sink holds of one topic-partition: everything that calls of `add` have taken since its last flush
/// or discard. Kafka and this are the copies that count (S27).
///
/// The sink counts the rows of all calls that it has accepted, in order, those named in their answers included; a call that
/// failed as a whole is in no count (wit/plugin.wit). Windows and batches are shared, never copied.
#[derive(Clone, Debug, Default)]
pub struct BufferedRows {
    calls: Vec<Accepted>,
    counted: usize,
    held: usize,
    bytes: u64,
    guest_bytes: u64,
}

impl BufferedRows {
    /// The sink has accepted a call with the rows of `segment`, save for those that `failures` names, in ascending order.
    pub fn accept(&mut self, segment: Segment, failures: &[Failure]) {
        let refused: Vec<usize> = failures.iter().map(|failure| failure.index as usize).collect();
        self.counted += segment.batch.len();
        self.held += segment.batch.len() - refused.len();
        self.bytes += segment.batch.size_bytes() as u64;
        self.guest_bytes += BufferLimit::bytes_of(&segment.batch);
        self.calls.push(Accepted { segment, refused });
    }

    /// The sink has flushed or discarded.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many rows a flush's indices count.
    pub fn counted(&self) -> usize {
        self.counted
    }

    /// How many rows the sink holds.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether the sink holds none.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Bytes of the rows' keys, values and headers.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What the rows take in a guest's memory, as [`BufferLimit::bytes_of`] counts it.
    pub fn guest_bytes(&self) -> u64 {
        self.guest_bytes
    }

    /// The rows that the sink holds, in the order in which it was given them.
    pub fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        for call in &self.calls {
            if call.refused.is_empty() {
                rows.push(call.segment.clone());
            } else {
                let taken: Vec<usize> =
                    (0..call.segment.batch.len()).filter(|row| call.refused.binary_search(row).is_err()).collect();
                rows.push(call.segment.select(&taken));
            }
        }
        rows
    }

    /// A flush's failures, ascending and in range, numbered as [`Self::rows`] numbers the rows. What the answer says of a row that
    /// was refused by its `add` already means nothing.
    pub fn renumber(&self, failures: Vec<Failure>) -> Vec<Failure> {
        let mut renumbered = Vec::with_capacity(failures.len());
        let mut calls = self.calls.iter();
        // The call that the failure's row belongs to, and how many rows were counted and held before it.
        let (mut call, mut counted, mut held) = (calls.next(), 0, 0);
        for failure in failures {
            let index = failure.index as usize;
            while let Some(passed) = call
                && index >= counted + passed.segment.batch.len()
            {
                counted += passed.segment.batch.len();
                held += passed.segment.batch.len() - passed.refused.len();
                call = calls.next();
            }
            let Some(call) = call else { break };
            let row = index - counted;
            if let Err(refused_before) = call.refused.binary_search(&row) {
                let index = u32::try_from(held + row - refused_before).unwrap_or(u32::MAX);
                renumbered.push(Failure { index, ..failure });
            }
        }
        renumbered
    }
}

#[cfg(test)]
mod tests;
