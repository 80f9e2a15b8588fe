use std::iter::FusedIterator;
use std::slice;

use serde::de::Deserialize;

use crate::Failed;
use crate::bindings::types;

#[cfg(test)]
mod tests;

/// Rows of one topic-partition in the order in which they were added.
///
/// The columns stay as the host handed them over; a [`Record`] borrows from them, so reading a batch copies nothing.
#[derive(Debug)]
pub struct Batch {
    topic: String,
    partition: i32,
    parts: Vec<types::Batch>,
    size: usize,
}

/// [`Batch::start_offset`] of a batch without rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmptyBatchError;

impl std::fmt::Display for EmptyBatchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an empty batch has no start offset")
    }
}

impl std::error::Error for EmptyBatchError {}

/// [`Batch::iter_chunks`] with chunks of no rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSizeError;

impl std::fmt::Display for ChunkSizeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a chunk has at least 1 row")
    }
}

impl std::error::Error for ChunkSizeError {}

impl Batch {
    pub(crate) fn new(topic: String, partition: i32) -> Self {
        Self { topic, partition, parts: Vec::new(), size: 0 }
    }

    pub(crate) fn push(&mut self, part: types::Batch) {
        self.size += part.offsets.len();
        self.parts.push(part);
    }

    /// The topic that the rows come from.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition that the rows come from.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// How many rows there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether there is no row.
    pub fn empty(&self) -> bool {
        self.size == 0
    }

    /// The first row's offset.
    ///
    /// # Errors
    /// When there is no row.
    pub fn start_offset(&self) -> Result<i64, EmptyBatchError> {
        self.iter().next().map(|record| record.offset).ok_or(EmptyBatchError)
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.size = 0;
    }

    /// The rows, in the order in which they were added.
    pub fn iter(&self) -> Rows<'_> {
        Rows { batch: self, parts: self.parts.iter(), part: None, place: Place::default(), left: self.size }
    }

    /// The rows in chunks of `rows`; the last one may be shorter.
    ///
    /// # Errors
    /// When `rows` is 0.
    pub fn iter_chunks(&self, rows: usize) -> Result<Chunks<'_>, ChunkSizeError> {
        if rows == 0 {
            return Err(ChunkSizeError);
        }
        Ok(Chunks { rest: self.iter(), rows })
    }
}

impl From<types::Batch> for Batch {
    fn from(mut part: types::Batch) -> Self {
        let mut batch = Self::new(std::mem::take(&mut part.topic), part.partition);
        batch.push(part);
        batch
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Record<'a>;
    type IntoIter = Rows<'a>;

    fn into_iter(self) -> Rows<'a> {
        self.iter()
    }
}

/// One row, borrowed from its batch.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The topic that the record comes from.
    pub topic: &'a str,
    /// The partition that the record comes from.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// Which of its record's payloads for this sink the row is, from 0; always 0 in a collector.
    pub ordinal: u32,
    /// Milliseconds since the Unix epoch, -1 when unknown.
    pub timestamp: i64,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value, or `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers in order; a name may stand more than once.
    pub headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// The value as text.
    ///
    /// # Errors
    /// [`Failed::Reject`] when there is no value or it is not UTF-8.
    pub fn text(&self) -> Result<&'a str, Failed> {
        let value = self.value.ok_or_else(|| Failed::reject("the record has no value"))?;
        std::str::from_utf8(value).map_err(|error| Failed::reject(format_args!("the value is not UTF-8: {error}")))
    }

    /// The value read as JSON. `T` may borrow from it; use `Cow<str>` with `#[serde(borrow)]` where a string may hold
    /// escapes.
    ///
    /// # Errors
    /// [`Failed::Reject`] when there is no value or it is not what `T` expects.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T, Failed> {
        let value = self.value.ok_or_else(|| Failed::reject("the record has no value"))?;
        serde_json::from_slice(value).map_err(|error| {
            let fits = if error.is_data() { "does not fit" } else { "is no JSON" };
            Failed::reject(format_args!("the value {fits}: {error}"))
        })
    }
}

/// Where the next row, or the next header, begins in every column.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    row: usize,
    key: usize,
    value: usize,
    header: usize,
    header_name: usize,
    header_value: usize,
}

/// Takes the entry `index`, which begins at the byte `at`, and moves `at` behind it.
fn entry<'a>(column: &'a types::Column, index: usize, at: &mut usize) -> Option<&'a [u8]> {
    let length = usize::try_from(column.lengths[index]).ok()?;
    let start = *at;
    *at += length;
    Some(&column.bytes[start..*at])
}

/// The rows of a batch, in order.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    batch: &'a Batch,
    parts: slice::Iter<'a, types::Batch>,
    part: Option<&'a types::Batch>,
    place: Place,
    left: usize,
}

impl<'a> Iterator for Rows<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.left == 0 {
            return None;
        }
        let part = loop {
            match self.part {
                Some(part) if self.place.row < part.offsets.len() => break part,
                _ => {
                    self.part = Some(self.parts.next()?);
                    self.place = Place::default();
                }
            }
        };
        self.left -= 1;
        let place = &mut self.place;
        let row = place.row;
        place.row += 1;
        let count = part.header_counts.get(row).map_or(0, |&count| count as usize);
        let headers = Headers { part, place: *place, left: count };
        for header in place.header..place.header + count {
            entry(&part.header_names, header, &mut place.header_name);
            entry(&part.header_values, header, &mut place.header_value);
        }
        place.header += count;
        Some(Record {
            topic: &self.batch.topic,
            partition: self.batch.partition,
            offset: part.offsets[row],
            ordinal: part.ordinals.get(row).copied().unwrap_or(0),
            timestamp: part.timestamps[row],
            key: entry(&part.keys, row, &mut place.key),
            value: entry(&part.values, row, &mut place.value),
            headers,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Rows<'_> {}
impl FusedIterator for Rows<'_> {}

/// A batch in chunks: see [`Batch::iter_chunks`].
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    rest: Rows<'a>,
    rows: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Rows<'a>;

    fn next(&mut self) -> Option<Rows<'a>> {
        let rows = self.rows.min(self.rest.left);
        if rows == 0 {
            return None;
        }
        let chunk = Rows { left: rows, ..self.rest.clone() };
        self.rest.nth(rows - 1);
        Some(chunk)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let chunks = self.rest.left.div_ceil(self.rows);
        (chunks, Some(chunks))
    }
}

impl ExactSizeIterator for Chunks<'_> {}
impl FusedIterator for Chunks<'_> {}

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name; Kafka says that it is UTF-8, its clients do not all keep to it.
    pub name: &'a [u8],
    /// The value, if any.
    pub value: Option<&'a [u8]>,
}

/// The headers of a record, in order. An iterator: clone it to go through them again.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    part: &'a types::Batch,
    place: Place,
    left: usize,
}

impl<'a> Headers<'a> {
    /// The last header of that name, which is the one that counts by Kafka's convention.
    pub fn last_named(&self, name: &str) -> Option<Header<'a>> {
        self.clone().filter(|header| header.name == name.as_bytes()).last()
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        let header = self.place.header;
        self.place.header += 1;
        Some(Header {
            name: entry(&self.part.header_names, header, &mut self.place.header_name).unwrap_or_default(),
            value: entry(&self.part.header_values, header, &mut self.place.header_value),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Headers<'_> {}
impl FusedIterator for Headers<'_> {}
