//! `dlq show`: all that the letters of one record say.

use super::super::assemble::NotStarted;
use super::super::render::letters;
use super::{Exit, topic};
use crate::config::Loaded;
use crate::model::{Batch, Fault, Offset, TopicPartition};
use crate::pipeline::dlq::{Opened, open};
use crate::source::kafka::{Begin, scan};

/// Most letters of one record that are shown: the first ones.
const MOST: usize = 100;

/// A record's coordinates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    partition: TopicPartition,
    offset: Offset,
}

impl Place {
    /// Reads `orders[3]@1042`.
    ///
    /// # Errors
    /// How coordinates are written.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = || {
            let (partition, offset) = text.rsplit_once('@')?;
            let (topic, number) = partition.strip_suffix(']')?.rsplit_once('[')?;
            let partition = TopicPartition::new(topic, number.parse::<i32>().ok().filter(|number| *number >= 0)?);
            let offset = offset.parse::<Offset>().ok().filter(|offset| *offset >= 0)?;
            Some(Self { partition, offset }).filter(|_| !topic.is_empty())
        };
        parts().ok_or_else(|| "coordinates are written like `orders[3]@1042`".into())
    }

    fn is(&self, partition: &TopicPartition, offset: Offset) -> bool {
        self.partition == *partition && self.offset == offset
    }
}

/// A letter that was found.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its own coordinates.
    pub letter: String,
    /// When it was written to its topic, in milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// Its value as it stands in the topic, for one that cannot be read.
    pub value: Option<Vec<u8>>,
    /// What it says, or why it cannot be read.
    pub opened: Result<Opened, String>,
}

/// Shows the letters of a record, or the letter at these coordinates.
///
/// # Errors
/// When there is none, or the topic cannot be read.
pub async fn show(loaded: &Loaded, place: &Place, json: bool) -> Result<Exit, NotStarted> {
    let (options, partitions) = topic(loaded).await?;
    let wanted = place.clone();
    let look = move |found: &mut Vec<Shown>, batch: &Batch| {
        let opened = open(batch, 0);
        let record = opened.as_ref().is_ok_and(|it| wanted.is(&it.letter.source, it.letter.offset));
        if (record || wanted.is(&batch.source, batch.offsets[0])) && found.len() < MOST {
            let row = batch.row(0);
            let value = row.value.filter(|_| opened.is_err()).map(<[u8]>::to_vec);
            found.push(Shown { letter: batch.source.at(row.offset), timestamp: row.timestamp, value, opened });
        }
    };
    let topic = options.source_topic.as_str();
    let found = scan(&options, (topic, partitions), Begin::First, Vec::new(), look).await?;
    if found.is_empty() {
        let place = place.partition.at(place.offset);
        return Err(Fault::config(format!("no letter of `{topic}` is about `{place}`"))
            .hint("`tidegate dlq list` shows which there are")
            .into());
    }
    letters::shown(&found, json);
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_read() {
        let place = |text| Place::parse(text).map(|place| place.partition.at(place.offset));
        assert_eq!(place("orders[3]@1042"), Ok("orders[3]@1042".into()));
        assert_eq!(place("a[b]@1[0]@7"), Ok("a[b]@1[0]@7".into()));
        for wrong in ["", "orders", "orders[3]", "orders@3", "orders[-1]@3", "orders[3]@-1", "[0]@1", "orders[]@1"] {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }
}
