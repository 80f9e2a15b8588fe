//! Rows on their way to a sink, and those that a buffering sink took and did not flush yet.

use std::sync::Arc;

use super::route::Group;
use crate::model::{Answer, Batch, Failure, TopicPartition};

/// Rows on their way to a sink, with the records they came from.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The payloads and where they come from.
    pub group: Group,
    /// The window that they come from.
    pub window: Arc<Batch>,
}

impl Rows {
    /// The chosen rows, in the order given.
    pub fn select(&self, rows: &[usize]) -> Self {
        let origin = rows.iter().map(|row| self.group.origin(*row)).collect();
        let batch = Arc::new(self.group.batch.select(rows));
        Self { group: Group { sink: self.group.sink, batch, origin: Some(origin) }, window: self.window.clone() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.group.batch.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.group.batch.is_empty()
    }
}

/// One call of `add`, as flush failures count over it.
#[derive(Clone, Debug)]
pub struct Added {
    /// The rows that were given.
    pub rows: Rows,
    /// Those that the sink did not take, ascending.
    pub refused: Vec<usize>,
}

/// Joins all rows that the sink took since its last flush, and counts the answer's failures over them.
pub fn joined(source: &TopicPartition, sink: usize, added: &[Added], answer: Answer) -> (Rows, Answer) {
    let mut batch = Batch::new(source.clone());
    let mut window = Batch::new(source.clone());
    let mut origin = Vec::new();
    // Where each row of the adds' count stands now; rows that were refused at once stand nowhere.
    let mut places = Vec::new();
    for call in added {
        let first = window.len();
        for row in 0..call.rows.window.len() {
            window.push_row(&call.rows.window, row);
        }
        for row in 0..call.rows.group.batch.len() {
            if call.refused.binary_search(&row).is_ok() {
                places.push(None);
                continue;
            }
            places.push(u32::try_from(batch.len()).ok());
            batch.push_row(&call.rows.group.batch, row);
            origin.push(first + call.rows.group.origin(row));
        }
    }
    let answer = answer.map(|failures| {
        failures
            .into_iter()
            .filter_map(|failure| {
                let index = places.get(failure.index as usize).copied().flatten()?;
                Some(Failure { index, ..failure })
            })
            .collect()
    });
    let group = Group { sink, batch: Arc::new(batch), origin: Some(origin) };
    (Rows { group, window: Arc::new(window) }, answer)
}
