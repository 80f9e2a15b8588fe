use proptest::prelude::*;

use super::*;

type Row = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn push(column: &mut types::Column, entry: Option<&[u8]>) {
    column.bytes.extend_from_slice(entry.unwrap_or_default());
    column.lengths.push(entry.map_or(-1, |entry| i32::try_from(entry.len()).unwrap_or(i32::MAX)));
}

fn column() -> types::Column {
    types::Column { bytes: Vec::new(), lengths: Vec::new() }
}

fn part(first: i64, rows: &[Row]) -> types::Batch {
    let mut part = types::Batch {
        topic: "orders".into(),
        partition: 3,
        offsets: (first..).take(rows.len()).collect(),
        ordinals: Vec::new(),
        timestamps: (first * 10..).take(rows.len()).collect(),
        keys: column(),
        values: column(),
        header_counts: Vec::new(),
        header_names: column(),
        header_values: column(),
    };
    let headers = rows.iter().any(|row| !row.2.is_empty());
    for (key, value, row_headers) in rows {
        push(&mut part.keys, key.as_deref());
        push(&mut part.values, value.as_deref());
        if headers {
            part.header_counts.push(u32::try_from(row_headers.len()).unwrap_or(u32::MAX));
        }
        for (name, value) in row_headers {
            push(&mut part.header_names, Some(name));
            push(&mut part.header_values, value.as_deref());
        }
    }
    part
}

fn owned(record: &Record<'_>) -> Row {
    (
        record.key.map(<[u8]>::to_vec),
        record.value.map(<[u8]>::to_vec),
        record.headers.clone().map(|header| (header.name.to_vec(), header.value.map(<[u8]>::to_vec))).collect(),
    )
}

fn rows(values: &[&str]) -> Vec<Row> {
    values.iter().map(|value| (None, Some(value.as_bytes().to_vec()), Vec::new())).collect()
}

#[test]
fn s24_an_empty_batch_has_no_start_offset_and_no_rows() {
    let batch = Batch::new("orders".into(), 3);
    assert!(batch.empty());
    assert_eq!((batch.size(), batch.start_offset()), (0, Err(EmptyBatchError)));
    assert_eq!(batch.iter().count(), 0);
    assert_eq!(batch.iter_chunks(1).map(Iterator::count), Ok(0));
}

#[test]
fn s24_rows_come_in_the_order_of_their_add_calls() {
    let mut batch = Batch::new("orders".into(), 3);
    batch.push(part(7, &rows(&["a", "b"])));
    batch.push(part(9, &[]));
    batch.push(part(12, &rows(&["c"])));
    assert_eq!((batch.topic(), batch.partition(), batch.size(), batch.start_offset()), ("orders", 3, 3, Ok(7)));
    let seen: Vec<_> = batch.iter().map(|record| (record.offset, record.timestamp, record.value)).collect();
    assert_eq!(seen, [(7, 70, Some(&b"a"[..])), (8, 71, Some(b"b")), (12, 120, Some(b"c"))]);
    batch.clear();
    assert!(batch.empty() && batch.iter().next().is_none());
}

#[test]
fn s24_chunks_have_at_least_one_row_and_the_last_may_be_short() {
    let mut batch = Batch::new("orders".into(), 3);
    batch.push(part(0, &rows(&["a", "b", "c"])));
    batch.push(part(3, &rows(&["d", "e"])));
    assert_eq!(batch.iter_chunks(0).err(), Some(ChunkSizeError));
    let chunks: Vec<Vec<i64>> = batch
        .iter_chunks(2)
        .map(|chunks| chunks.map(|chunk| chunk.map(|record| record.offset).collect()).collect())
        .unwrap_or_default();
    assert_eq!(chunks, [vec![0, 1], vec![2, 3], vec![4]]);
}

#[test]
fn s17_of_two_headers_with_one_name_the_last_counts() {
    let headers =
        vec![(b"n".to_vec(), Some(b"1".to_vec())), (b"n".to_vec(), Some(b"2".to_vec())), (b"m".to_vec(), None)];
    let batch = Batch::from(part(0, &[(None, None, Vec::new()), (None, None, headers)]));
    let Some(record) = batch.iter().nth(1) else { panic!("two rows") };
    assert_eq!(record.headers.len(), 3);
    assert_eq!(record.headers.last_named("n").and_then(|header| header.value), Some(&b"2"[..]));
    assert_eq!(record.headers.last_named("m").map(|header| header.value), Some(None));
    assert_eq!(record.headers.last_named("x"), None);
}

fn row() -> impl Strategy<Value = Row> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..5);
    let headers = proptest::collection::vec((bytes(), proptest::option::of(bytes())), 0..3);
    (proptest::option::of(bytes()), proptest::option::of(bytes()), headers)
}

proptest! {
    /// S17, S24: whatever the columns hold, rows read as they were written, through any number of add calls and chunks.
    #[test]
    fn s17_s24_columns_read_back_as_the_rows_they_were_made_of(
        parts in proptest::collection::vec(proptest::collection::vec(row(), 0..6), 0..5),
        chunk in 1_usize..5,
    ) {
        let mut batch = Batch::new("orders".into(), 3);
        for rows in &parts {
            batch.push(part(0, rows));
        }
        let all: Vec<Row> = parts.concat();
        prop_assert_eq!(batch.size(), all.len());
        prop_assert_eq!(batch.iter().len(), all.len());
        let read: Vec<Row> = batch.iter().map(|record| owned(&record)).collect();
        prop_assert_eq!(&read, &all);
        let Ok(chunks) = batch.iter_chunks(chunk) else { panic!("at least one row") };
        prop_assert_eq!(chunks.len(), all.chunks(chunk).len());
        for (chunk, expected) in chunks.zip(all.chunks(chunk)) {
            prop_assert_eq!(chunk.len(), expected.len());
            let read: Vec<Row> = chunk.map(|record| owned(&record)).collect();
            prop_assert_eq!(&read[..], expected);
        }
    }
}
