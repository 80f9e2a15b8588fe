//! Records and payloads as columns: one allocation per column and batch, none per record, and the very shape in which
//! the plugin contract takes them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::{Offset, TopicPartition};

/// What a row takes beside its bytes: its offset and timestamp, and its places in the columns of keys and values.
const ROW_BYTES: usize = 40;
/// What a header takes beside its bytes: its places in two columns.
const HEADER_BYTES: usize = 24;

/// A column of nullable byte strings. `bytes` holds them end to end, `lengths` has one entry per row, -1 for null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    bytes: Vec<u8>,
    lengths: Vec<i32>,
    starts: Vec<usize>,
}

impl Column {
    /// An empty column with room for `rows` rows and `bytes` bytes.
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), lengths: Vec::with_capacity(rows), starts: Vec::with_capacity(rows) }
    }

    /// Appends a row. A row longer than `i32::MAX` bytes cannot come from Kafka, whose lengths are `i32` too.
    pub fn push(&mut self, row: Option<&[u8]>) {
        self.starts.push(self.bytes.len());
        match row {
            Some(row) => {
                self.bytes.extend_from_slice(row);
                self.lengths.push(i32::try_from(row.len()).unwrap_or(i32::MAX));
            }
            None => self.lengths.push(-1),
        }
    }

    /// The row, or `None` when it is null.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        let length = usize::try_from(self.lengths[row]).ok()?;
        let start = self.starts[row];
        Some(&self.bytes[start..start + length])
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// All rows' bytes, end to end.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// One length per row, in bytes, -1 for null.
    pub fn lengths(&self) -> &[i32] {
        &self.lengths
    }
}

/// Rows of one topic-partition in offset order, as columns. In a batch of consumed records every row is a record; in a
/// batch of payloads for a sink several rows may share an offset and are told apart by their ordinals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where the rows come from.
    pub source: TopicPartition,
    /// One per row.
    pub offsets: Vec<Offset>,
    /// Which of its record's payloads for this sink a row is, from 0. Empty: all are 0.
    pub ordinals: Vec<u32>,
    /// Milliseconds since the Unix epoch, -1 when unknown.
    pub timestamps: Vec<i64>,
    /// Keys; null where there is none.
    pub keys: Column,
    /// Values; null for a tombstone.
    pub values: Column,
    /// Headers per row; empty when no row has any. Written by [`Batch::push_headers`] only.
    pub header_counts: Vec<u32>,
    /// Where each row's headers start; as long as `header_counts`.
    header_starts: Vec<usize>,
    /// Header names, row after row.
    pub header_names: Column,
    /// Header values, row after row.
    pub header_values: Column,
    /// Where inside the sink a row goes (table, collection, path). Empty: nowhere in particular.
    pub targets: Column,
    /// Seconds to live. Empty: no row has one.
    pub ttls: Vec<Option<u32>>,
    /// See [`Self::version`]. Empty: the offsets.
    pub versions: Vec<Offset>,
    /// Whether offset and ordinal name a row in the same way when it comes again. Those of the window hook's payloads do
    /// not, because a window may begin elsewhere (S62).
    pub stable: bool,
    /// Dropped with the last of this batch and what was selected from it.
    guard: Guard,
}

/// See [`Batch::guard`]. Means nothing to the rows.
#[derive(Clone, Default)]
struct Guard(Option<Arc<dyn Any + Send + Sync>>);

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "guarded" } else { "none" })
    }
}

impl PartialEq for Guard {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Guard {}

/// One row of a [`Batch`], borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The record's offset.
    pub offset: Offset,
    /// See [`Batch::ordinals`].
    pub ordinal: u32,
    /// Milliseconds since the Unix epoch, -1 when unknown.
    pub timestamp: i64,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value, or `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// See [`Batch::targets`].
    pub target: Option<&'a str>,
    /// See [`Batch::ttls`].
    pub ttl: Option<u32>,
}

impl Batch {
    /// An empty batch of `source`.
    pub fn new(source: TopicPartition) -> Self {
        Self::with_capacity(source, 0, 0)
    }

    /// An empty batch with room for `rows` rows with `value_bytes` bytes of values in all.
    pub fn with_capacity(source: TopicPartition, rows: usize, value_bytes: usize) -> Self {
        Self {
            source,
            offsets: Vec::with_capacity(rows),
            ordinals: Vec::new(),
            timestamps: Vec::with_capacity(rows),
            keys: Column::with_capacity(rows, rows * 8),
            values: Column::with_capacity(rows, value_bytes),
            header_counts: Vec::new(),
            header_starts: Vec::new(),
            header_names: Column::default(),
            header_values: Column::default(),
            targets: Column::default(),
            ttls: Vec::new(),
            versions: Vec::new(),
            stable: true,
            guard: Guard::default(),
        }
    }

    /// Keeps `guard` until the last of this batch, its clones and what was selected from it is dropped: what counts their memory.
    pub fn guard(&mut self, guard: impl Any + Send + Sync) {
        self.guard = Guard(Some(Arc::new(guard)));
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes of keys, values and headers: what the limits in bytes count.
    pub fn size_bytes(&self) -> usize {
        [&self.keys, &self.values, &self.header_names, &self.header_values]
            .iter()
            .map(|column| column.bytes().len())
            .sum()
    }

    /// Bytes that the batch takes in memory: those of [`Self::size_bytes`] and what each row and header takes beside them.
    pub fn memory_bytes(&self) -> u64 {
        (self.size_bytes() + self.len() * ROW_BYTES + self.header_names.len() * HEADER_BYTES) as u64
    }

    /// Appends a row without headers; [`Self::push_headers`] adds them.
    pub fn push(&mut self, offset: Offset, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.offsets.push(offset);
        self.timestamps.push(timestamp);
        self.keys.push(key);
        self.values.push(value);
        if !self.header_counts.is_empty() {
            self.header_counts.push(0);
            self.header_starts.push(self.header_names.len());
        }
    }

    /// Gives the last row its headers, in order, duplicates allowed (S17).
    pub fn push_headers<'h>(&mut self, headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>) {
        let start = self.header_names.len();
        let mut count = 0;
        for (name, value) in headers {
            self.header_names.push(Some(name));
            self.header_values.push(value);
            count += 1;
        }
        if count == 0 {
            return;
        }
        // Only now is it known that some row has headers: the rows before it get their zeros.
        self.header_counts.resize(self.offsets.len(), 0);
        self.header_starts.resize(self.offsets.len(), start);
        if let Some(last) = self.header_counts.last_mut() {
            *last = count;
        }
    }

    /// The row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> Record<'_> {
        Record {
            offset: self.offsets[row],
            ordinal: self.ordinals.get(row).copied().unwrap_or(0),
            timestamp: self.timestamps[row],
            key: self.keys.get(row),
            value: self.values.get(row),
            target: if self.targets.is_empty() {
                None
            } else {
                self.targets.get(row).and_then(|target| std::str::from_utf8(target).ok())
            },
            ttl: self.ttls.get(row).copied().flatten(),
        }
    }

    /// Every row, in order.
    pub fn rows(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).map(|row| self.row(row))
    }

    /// How new a row is among those of its key: the offset of the record that it was made of. Where the batch was made of dead
    /// letters, that is the offset which the letter tells and not the letter's own.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn version(&self, row: usize) -> Offset {
        self.versions.get(row).copied().unwrap_or(self.offsets[row])
    }

    /// The headers of a row, in order.
    pub fn headers(&self, row: usize) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let count = self.header_counts.get(row).map_or(0, |count| *count as usize);
        let start = self.header_starts.get(row).copied().unwrap_or(0);
        (start..start + count)
            .map(|header| (self.header_names.get(header).unwrap_or_default(), self.header_values.get(header)))
    }

    /// A batch of the named rows, in the order given.
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut chosen = Self::new(self.source.clone());
        chosen.stable = self.stable;
        chosen.guard = self.guard.clone();
        for &row in rows {
            chosen.push_row(self, row);
        }
        chosen
    }

    /// Appends one row of another batch with all that belongs to it.
    ///
    /// # Panics
    /// When the other batch has no such row.
    pub fn push_row(&mut self, other: &Self, row: usize) {
        let before = self.len();
        self.stable &= other.stable;
        self.push(other.offsets[row], other.timestamps[row], other.keys.get(row), other.values.get(row));
        self.push_headers(other.headers(row));
        // Columns that only some batches have start late: the rows before get what their absence meant.
        if !other.ordinals.is_empty() || !self.ordinals.is_empty() {
            self.ordinals.resize(before, 0);
            self.ordinals.push(other.ordinals.get(row).copied().unwrap_or(0));
        }
        if !other.targets.is_empty() || !self.targets.is_empty() {
            while self.targets.len() < before {
                self.targets.push(None);
            }
            self.targets.push(if other.targets.is_empty() { None } else { other.targets.get(row) });
        }
        if !other.ttls.is_empty() || !self.ttls.is_empty() {
            self.ttls.resize(before, None);
            self.ttls.push(other.ttls.get(row).copied().flatten());
        }
        if !other.versions.is_empty() || !self.versions.is_empty() {
            self.versions.extend_from_slice(&self.offsets[self.versions.len()..before]);
            self.versions.push(other.version(row));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers<'h> = Vec<(&'h [u8], Option<&'h [u8]>)>;

    /// S17: keys and headers may be null, headers are ordered with duplicates, and a selection keeps all of it.
    #[test]
    fn s17_rows_keep_nulls_headers_and_late_columns() {
        let mut first = Batch::new(TopicPartition::new("t", 1));
        first.push(1, 10, None, Some(b"a"));
        first.push(2, 11, Some(b"k"), None);
        first.push_headers([(b"h".as_slice(), Some(b"1".as_slice())), (b"h".as_slice(), None)]);
        first.push(3, 12, Some(b""), Some(b""));
        let mut second = Batch::new(TopicPartition::new("t", 1));
        second.push(4, 13, None, Some(b"b"));
        second.ordinals.push(2);
        second.targets.push(Some(b"file"));
        second.ttls.push(Some(5));
        second.versions.push(77);

        let mut joined = first.select(&[2, 1]);
        joined.push_row(&second, 0);
        let expected: Headers<'_> = vec![(b"h", Some(b"1")), (b"h", None)];
        assert_eq!(joined.headers(1).collect::<Headers<'_>>(), expected);
        assert_eq!(joined.headers(0).count() + joined.headers(2).count(), 0);
        assert_eq!(joined.offsets, [3, 2, 4]);
        assert_eq!([0, 1, 2].map(|row| joined.version(row)), [3, 2, 77]);
        let last = joined.row(2);
        assert_eq!((last.ordinal, last.target, last.ttl), (2, Some("file"), Some(5)));
        let middle = joined.row(1);
        assert_eq!((middle.key, middle.value, middle.target, middle.ttl), (Some(b"k".as_slice()), None, None, None));
        assert_eq!(joined.row(0).value, Some(b"".as_slice()));
    }

    /// S15: what counts a batch's memory lives as long as anything that was made of it.
    #[test]
    fn s15_a_guard_outlives_the_batch_in_what_was_selected() {
        let counted = Arc::new(());
        let mut batch = Batch::new(TopicPartition::new("t", 1));
        batch.push(1, 10, None, Some(b"a"));
        batch.guard(Arc::clone(&counted));
        let (selected, cloned) = (batch.select(&[0]), batch.clone());
        assert_eq!(batch.memory_bytes(), 41);
        drop((batch, cloned));
        assert_eq!(Arc::strong_count(&counted), 2);
        drop(selected);
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    /// S62: one row without a stable name takes the promise from all that it is joined with.
    #[test]
    fn s62_what_has_no_stable_name_keeps_none() {
        let mut hooked = Batch::new(TopicPartition::new("t", 1));
        hooked.push(1, 10, None, Some(b"a"));
        let mut joined = hooked.select(&[0]);
        assert!(joined.stable);
        hooked.stable = false;
        assert!(!hooked.select(&[0]).stable);
        joined.push_row(&hooked, 0);
        assert!(!joined.stable);
    }
}
