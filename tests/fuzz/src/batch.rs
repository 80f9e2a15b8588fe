//! Records as columns: put together and taken apart by the host, read by the Rust SDK; and columns that lie.
//!
//! The host's own text of a batch is taken in here, because host and SDK are never built together.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use tidegate_sdk::bindings::types;

/// What the host's text refers to.
type Offset = i64;

/// As the host has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TopicPartition {
    topic: Arc<str>,
    partition: i32,
}

impl TopicPartition {
    fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

#[allow(dead_code, reason = "of the host's text only what crosses is used")]
#[path = "../../../host/src/model/batch.rs"]
mod columns;

use columns::{Batch, Column};

/// Most records of an input, and headers of a record.
const MOST: usize = 24;

type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
    ordinal: u32,
}

/// Few bytes of few kinds, or any: what counts are the lengths and the nulls.
fn bytes(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length = input.int_in_range(0..=9)?;
    Ok(input.bytes(usize::min(length, input.len()))?.to_vec())
}

fn maybe(input: &mut Unstructured<'_>) -> Result<Option<Vec<u8>>> {
    Ok(if bool::arbitrary(input)? { Some(bytes(input)?) } else { None })
}

fn row(input: &mut Unstructured<'_>, ordinals: bool) -> Result<Row> {
    let (offset, timestamp) = (i64::arbitrary(input)?, i64::arbitrary(input)?);
    let (key, value) = (maybe(input)?, maybe(input)?);
    let headers = (0..input.int_in_range(0..=3)?).map(|_| Ok((bytes(input)?, maybe(input)?))).collect::<Result<_>>()?;
    Ok(Row { offset, timestamp, key, value, headers, ordinal: if ordinals { u32::arbitrary(input)? } else { 0 } })
}

/// The columns of these rows. With ordinals, every row has one.
fn together(rows: &[Row], ordinals: bool) -> Batch {
    let mut batch = Batch::new(TopicPartition::new("orders", 3));
    for row in rows {
        batch.push(row.offset, row.timestamp, row.key.as_deref(), row.value.as_deref());
        batch.push_headers(row.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())));
        if ordinals {
            batch.ordinals.push(row.ordinal);
        }
    }
    batch
}

fn apart(batch: &Batch) -> Vec<Row> {
    let headers = |row| batch.headers(row).map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
    let row = |(index, row): (usize, columns::Record<'_>)| Row {
        offset: row.offset,
        timestamp: row.timestamp,
        key: row.key.map(<[u8]>::to_vec),
        value: row.value.map(<[u8]>::to_vec),
        headers: headers(index),
        ordinal: row.ordinal,
    };
    batch.rows().enumerate().map(row).collect()
}

/// The way to the guest: the host's columns as the contract's, copied.
fn crossed(batch: &Batch) -> types::Batch {
    let column = |column: &Column| types::Column { bytes: column.bytes().to_vec(), lengths: column.lengths().to_vec() };
    types::Batch {
        topic: batch.source.topic.to_string(),
        partition: batch.source.partition,
        offsets: batch.offsets.clone(),
        ordinals: batch.ordinals.clone(),
        timestamps: batch.timestamps.clone(),
        keys: column(&batch.keys),
        values: column(&batch.values),
        header_counts: batch.header_counts.clone(),
        header_names: column(&batch.header_names),
        header_values: column(&batch.header_values),
    }
}

fn read(record: &tidegate_sdk::Record<'_>) -> Row {
    Row {
        offset: record.offset,
        timestamp: record.timestamp,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record.headers.clone().map(|it| (it.name.to_vec(), it.value.map(<[u8]>::to_vec))).collect(),
        ordinal: record.ordinal,
    }
}

/// S17: what goes in comes out, in the host and behind the crossing; what lies is found out or read within its columns.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let lies = bool::arbitrary(&mut input).unwrap_or_default();
    // An input that ends too early is none.
    let _ended = if lies { lie(&mut input) } else { round(&mut input) };
}

fn round(input: &mut Unstructured<'_>) -> Result<()> {
    let (first, second) = (bool::arbitrary(input)?, bool::arbitrary(input)?);
    let rows = |input: &mut Unstructured<'_>, ordinals| {
        (0..input.int_in_range(0..=MOST)?).map(|_| row(input, ordinals)).collect::<Result<Vec<_>>>()
    };
    let (one, two) = (rows(input, first)?, rows(input, second)?);
    let (left, right) = (together(&one, first), together(&two, second));
    check(&left, &one);
    check(&right, &two);
    if one.is_empty() {
        return Ok(());
    }
    let chosen: Vec<usize> =
        (0..input.int_in_range(0..=MOST)?).map(|_| input.int_in_range(0..=one.len() - 1)).collect::<Result<_>>()?;
    let mut some = left.select(&chosen);
    let mut expected: Vec<Row> = chosen.iter().filter_map(|index| one.get(*index).cloned()).collect();
    check(&some, &expected);
    for (index, row) in two.iter().enumerate() {
        some.push_row(&right, index);
        expected.push(row.clone());
    }
    check(&some, &expected);
    Ok(())
}

fn check(batch: &Batch, rows: &[Row]) {
    assert_eq!(apart(batch), rows);
    let size = |row: &Row| {
        let headers = row.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        [&row.key, &row.value].into_iter().flatten().map(Vec::len).chain(headers).sum::<usize>()
    };
    assert_eq!(batch.size_bytes(), rows.iter().map(size).sum::<usize>());
    let seen = tidegate_sdk::Batch::from(crossed(batch));
    assert_eq!((seen.topic(), seen.partition(), seen.size()), ("orders", 3, rows.len()));
    assert_eq!(seen.iter().map(|record| read(&record)).collect::<Vec<_>>(), rows);
    for chunk in [1, 2, 7] {
        let chunks = seen.iter_chunks(chunk).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(chunks.len(), rows.len().div_ceil(chunk));
        assert_eq!(chunks.flatten().map(|record| read(&record)).collect::<Vec<_>>(), rows);
    }
    for (record, row) in seen.iter().zip(rows) {
        let last = row.headers.iter().rev().find(|(name, _)| name == b"a");
        let found = record.headers.last_named("a").map(|header| header.value.map(<[u8]>::to_vec));
        assert_eq!(found, last.map(|(_, value)| value.clone()));
        let _any = (record.text().is_ok(), record.json::<u32>().is_ok());
    }
}

fn lie(input: &mut Unstructured<'_>) -> Result<()> {
    fn column(input: &mut Unstructured<'_>) -> Result<types::Column> {
        let lengths = (0..input.int_in_range(0..=5)?)
            .map(|_| Ok(if input.ratio(1, 8)? { i32::arbitrary(input)? } else { input.int_in_range(-2..=4)? }))
            .collect::<Result<_>>()?;
        Ok(types::Column { bytes: bytes(input)?, lengths })
    }
    fn few<T>(input: &mut Unstructured<'_>, one: impl Fn(&mut Unstructured<'_>) -> Result<T>) -> Result<Vec<T>> {
        (0..input.int_in_range(0..=4)?).map(|_| one(input)).collect()
    }
    let counts = |input: &mut Unstructured<'_>| {
        Ok(if input.ratio(1, 8)? { u32::arbitrary(input)? } else { input.int_in_range(0..=3)? })
    };
    let batch = types::Batch {
        topic: String::new(),
        partition: input.arbitrary()?,
        offsets: few(input, |input| input.arbitrary())?,
        ordinals: few(input, |input| input.arbitrary())?,
        timestamps: few(input, |input| input.arbitrary())?,
        keys: column(input)?,
        values: column(input)?,
        header_counts: few(input, counts)?,
        header_names: column(input)?,
        header_values: column(input)?,
    };
    let (honest, rows) = (is_honest(&batch), batch.offsets.len());
    let read = || {
        let seen = tidegate_sdk::Batch::from(batch);
        assert_eq!(seen.size(), rows);
        seen.iter().map(|record| read(&record).headers.len()).sum::<usize>()
    };
    EXPECTED.set(!honest);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    EXPECTED.set(false);
    // The host never lies, so a panic, which ends the instance, is answer enough to one that does. What is honest is read.
    assert!(outcome.is_ok() || !honest);
    Ok(())
}

/// Whether the columns are what the contract says.
fn is_honest(batch: &types::Batch) -> bool {
    let holds = |column: &types::Column, rows: usize| {
        let lengths = column.lengths.iter().map(|length| u64::try_from(*length).unwrap_or(0)).sum::<u64>();
        column.lengths.len() == rows && lengths == column.bytes.len() as u64
    };
    let rows = batch.offsets.len();
    let headers = batch.header_counts.iter().map(|count| u64::from(*count)).sum::<u64>();
    let headers = usize::try_from(headers).unwrap_or(usize::MAX);
    batch.timestamps.len() == rows
        && (batch.ordinals.is_empty() || batch.ordinals.len() == rows)
        && (batch.header_counts.is_empty() || batch.header_counts.len() == rows)
        && holds(&batch.keys, rows)
        && holds(&batch.values, rows)
        && holds(&batch.header_names, headers)
        && holds(&batch.header_values, headers)
}

thread_local! {
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Lets panics pass that are an answer; libFuzzer ends at any other.
pub fn prepare() {
    let hook = take_hook();
    set_hook(Box::new(move |panicked| {
        if !EXPECTED.get() {
            hook(panicked);
        }
    }));
}
