//! `dlq list`: the newest letters, in bounded memory.

use std::collections::BTreeMap;

use super::super::assemble::NotStarted;
use super::super::render::letters;
use super::{Exit, topic};
use crate::config::Loaded;
use crate::model::{Batch, Offset, TopicPartition};
use crate::pipeline::dlq::{Omitted, open};
use crate::pipeline::replay::Filter;
use crate::source::kafka::{Begin, scan};

/// Most characters of an error that are kept.
const ERROR_CHARS: usize = 2_000;

/// A letter in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The letter's own coordinates.
    pub letter: String,
    /// When it was written, in milliseconds since the Unix epoch.
    pub failed_at: i64,
    /// What it says, or why it cannot be read.
    pub listed: Result<Listed, String>,
}

/// What a list says of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The record's coordinates.
    pub record: String,
    /// `kind/name` of what failed.
    pub sink: String,
    /// Calls made.
    pub attempts: u32,
    /// Replays so far.
    pub replays: u32,
    /// When it failed for the first time.
    pub first_failed_at: i64,
    /// Why, cut to some length.
    pub error: String,
    /// What the letter had to leave out.
    pub omitted: Omitted,
}

/// What a list holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The dead letter topic.
    pub topic: String,
    /// The newest letters that are meant, by time.
    pub entries: Vec<Entry>,
    /// How many are meant.
    pub matching: u64,
    /// How many records of the topic are no letters.
    pub unreadable: u64,
    /// How many records it holds.
    pub all: u64,
}

struct Newest {
    filter: Filter,
    limit: usize,
    kept: BTreeMap<(i64, TopicPartition, Offset), Entry>,
    matching: u64,
    unreadable: u64,
    all: u64,
}

impl Newest {
    fn look(&mut self, batch: &Batch) {
        self.all += 1;
        let (offset, timestamp) = (batch.offsets[0], batch.timestamps[0]);
        let (failed_at, listed) = match open(batch, 0) {
            Ok(opened) if self.filter.takes(&opened) => {
                let letter = opened.letter;
                let listed = Listed {
                    record: letter.source.at(letter.offset),
                    sink: format!("{}/{}", letter.sink_type, letter.sink_name),
                    attempts: letter.attempt_count,
                    replays: letter.replays,
                    first_failed_at: letter.first_failed_at.unwrap_or(letter.failed_at),
                    error: letter.error.chars().take(ERROR_CHARS).collect(),
                    omitted: opened.omitted,
                };
                self.matching += 1;
                (letter.failed_at, Ok(listed))
            }
            Ok(_) => return,
            Err(why) => {
                self.unreadable += 1;
                let meant = self.filter.sink.is_none() && self.filter.error.is_none();
                if !meant || !self.filter.is_in_time(timestamp) {
                    return;
                }
                (timestamp, Err(why))
            }
        };
        let entry = Entry { letter: batch.source.at(offset), failed_at, listed };
        self.kept.insert((failed_at, batch.source.clone(), offset), entry);
        if self.kept.len() > self.limit {
            self.kept.pop_first();
        }
    }
}

/// Lists the letters that are meant, at most `limit`.
///
/// # Errors
/// When the topic cannot be read.
pub async fn list(loaded: &Loaded, filter: Filter, limit: u32, json: bool) -> Result<Exit, NotStarted> {
    let (options, partitions) = topic(loaded).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let newest = Newest { filter, limit, kept: BTreeMap::new(), matching: 0, unreadable: 0, all: 0 };
    let place = (options.source_topic.as_str(), partitions);
    let newest = scan(&options, place, Begin::First, newest, Newest::look).await?;
    let Newest { kept, matching, unreadable, all, .. } = newest;
    let entries = kept.into_values().collect();
    letters::list(&List { topic: options.source_topic, entries, matching, unreadable, all }, json);
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S96: the newest are kept, and never more than asked for.
    #[test]
    fn s96_a_list_is_bounded() {
        let (kept, filter) = (BTreeMap::new(), Filter::default());
        let mut newest = Newest { filter, limit: 2, kept, matching: 0, unreadable: 0, all: 0 };
        for (offset, time) in [(0, 30), (1, 10), (2, 20), (3, 40)] {
            let mut batch = Batch::new(TopicPartition::new("dlq", 0));
            batch.push(offset, time, None, None);
            newest.look(&batch);
        }
        let letters: Vec<&str> = newest.kept.values().map(|entry| entry.letter.as_str()).collect();
        assert_eq!((letters, newest.unreadable, newest.all), (vec!["dlq[0]@0", "dlq[0]@3"], 4, 4));
    }
}
