//! Values as JSON lines.

use memchr::memchr2;

use crate::model::{Batch, Failure};
use crate::sink::OnTombstone;
use crate::sink::json::{self, Row};

/// Fills `block` with the lines of `rows`, behind one leading `\n` that ends somebody's half line when there is one.
/// Returns the rows that have a line; the others are added to `failures`.
pub(super) fn fill(
    block: &mut Vec<u8>,
    batch: &Batch,
    rows: &[u32],
    on_tombstone: OnTombstone,
    failures: &mut Vec<Failure>,
) -> Vec<u32> {
    let values = || rows.iter().map(|&row| batch.values.get(row as usize));
    block.clear();
    block.reserve(1 + values().map(|value| value.map_or(0, <[u8]>::len) + 1).sum::<usize>());
    block.push(b'\n');
    let mut filled = Vec::with_capacity(rows.len());
    for (&row, value) in rows.iter().zip(values()) {
        match json::row(value, on_tombstone) {
            Ok(Row::Write(document)) => {
                push(block, document.as_bytes());
                filled.push(row);
            }
            // Lines have no keys to delete by, which the options were checked for.
            Ok(Row::Skip | Row::Delete) => {}
            Err(reason) => failures.push(Failure::reject(row, reason)),
        }
    }
    filled
}

/// Appends one valid JSON document as one line.
fn push(block: &mut Vec<u8>, value: &[u8]) {
    if memchr2(b'\n', b'\r', value).is_some() {
        compact(block, value);
    } else {
        block.extend_from_slice(value);
    }
    block.push(b'\n');
}

/// Appends a valid JSON document without its insignificant whitespace. Every other byte stays, so numbers keep their
/// digits, objects their order and their duplicates, strings their escapes; a parsed tree would change some of them.
fn compact(block: &mut Vec<u8>, value: &[u8]) {
    let (mut in_string, mut escaped) = (false, false);
    for &byte in value {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        block.push(byte);
    }
}
