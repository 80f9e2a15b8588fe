use std::borrow::Cow;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use csv::{Terminator, WriterBuilder};
use tidegate_sdk::{Batch, Record};

use crate::options::Column;

/// Turns batches into lines, in one buffer that is used again and again.
pub struct Rows {
    columns: Vec<Column>,
    buffer: Vec<u8>,
}

impl Rows {
    pub fn new(columns: Vec<Column>) -> Self {
        Self { columns, buffer: Vec::new() }
    }

    /// The line of column names.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|column| column.name()).collect();
        names.join(",") + "\n"
    }

    /// The batch as lines, with the line of column names before them if asked for.
    pub fn encode(&mut self, batch: &Batch, with_names: bool) -> io::Result<&[u8]> {
        self.buffer.clear();
        if with_names {
            self.buffer.extend_from_slice(self.names().as_bytes());
        }
        let mut writer = WriterBuilder::new().terminator(Terminator::Any(b'\n')).from_writer(&mut self.buffer);
        for record in batch {
            for column in &self.columns {
                writer.write_field(field(*column, &record).as_ref())?;
            }
            writer.write_record(None::<&[u8]>)?;
        }
        writer.flush()?;
        drop(writer);
        Ok(&self.buffer)
    }
}

fn field<'r>(column: Column, record: &Record<'r>) -> Cow<'r, [u8]> {
    let number = |number: i64| Cow::Owned(number.to_string().into_bytes());
    match column {
        Column::Key => text(record.key),
        Column::Value => text(record.value),
        Column::Timestamp => number(record.timestamp),
        Column::Topic => Cow::Borrowed(record.topic.as_bytes()),
        Column::Partition => number(record.partition.into()),
        Column::Offset => number(record.offset),
        Column::Ordinal => number(record.ordinal.into()),
    }
}

fn text(bytes: Option<&[u8]>) -> Cow<'_, [u8]> {
    let bytes = bytes.unwrap_or_default();
    match std::str::from_utf8(bytes) {
        Ok(_) => Cow::Borrowed(bytes),
        Err(_) => Cow::Owned(format!("base64:{}", STANDARD.encode(bytes)).into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_sdk::bindings::types;

    use super::*;

    fn column(entries: &[Option<&[u8]>]) -> types::Column {
        types::Column {
            bytes: entries.iter().flat_map(|entry| entry.unwrap_or_default()).copied().collect(),
            lengths: entries
                .iter()
                .map(|entry| entry.map_or(-1, |entry| i32::try_from(entry.len()).unwrap_or(i32::MAX)))
                .collect(),
        }
    }

    fn batch(keys: &[Option<&[u8]>], values: &[Option<&[u8]>]) -> Batch {
        types::Batch {
            topic: "orders".into(),
            partition: 3,
            offsets: (40..).take(keys.len()).collect(),
            ordinals: Vec::new(),
            timestamps: vec![1700; keys.len()],
            keys: column(keys),
            values: column(values),
            header_counts: Vec::new(),
            header_names: column(&[]),
            header_values: column(&[]),
        }
        .into()
    }

    #[test]
    fn fields_are_quoted_where_rfc_4180_asks_for_it() {
        let batch =
            batch(&[Some(b"k"), None, Some(b"\xff")], &[Some(br#"{"a":1}"#), Some(b"x,y\nz"), Some("é".as_bytes())]);
        let mut rows = Rows::new(vec![
            Column::Key,
            Column::Value,
            Column::Timestamp,
            Column::Topic,
            Column::Partition,
            Column::Offset,
        ]);
        let text = rows.encode(&batch, true).map(String::from_utf8_lossy).map(Cow::into_owned).unwrap_or_default();
        assert_eq!(
            text,
            "key,value,timestamp,topic,partition,offset\n\
             k,\"{\"\"a\"\":1}\",1700,orders,3,40\n\
             ,\"x,y\nz\",1700,orders,3,41\n\
             base64:/w==,é,1700,orders,3,42\n"
        );
    }

    #[test]
    fn names_stand_only_before_the_first_rows_and_columns_keep_their_order() {
        let mut rows = Rows::new(vec![Column::Offset, Column::Ordinal, Column::Value]);
        let text = rows.encode(&batch(&[None], &[Some(b"v")]), false).map(<[u8]>::to_vec).unwrap_or_default();
        assert_eq!(text, b"40,0,v\n");
    }
}
