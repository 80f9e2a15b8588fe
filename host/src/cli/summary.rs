//! What a pipeline did, in the few numbers that its closing line needs.

use crate::model::TopicPartition;
use crate::telemetry::Counters;

/// What the closing line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// `SIGTERM`, `SIGINT`, or nothing when it was no signal.
    pub signal: Option<&'static str>,
    /// Records committed.
    pub records: u64,
    /// Dead letters written.
    pub dead_letters: u64,
    /// Records and dead letters that were lost by a rule that the configuration asked for: `kafka.on_offset_gap: continue` and
    /// `dlq.on_send_failure: drop`.
    pub lost: u64,
    /// Partitions committed to the end of their log.
    pub complete: usize,
    /// Partitions that are assigned.
    pub partitions: usize,
    /// The others, and how many offsets each has left.
    pub left: Vec<(TopicPartition, u64)>,
}

impl Summary {
    /// What the counters say.
    pub fn of(counters: &Counters, signal: Option<&'static str>) -> Self {
        let places = counters.partitions();
        let left: Vec<(TopicPartition, u64)> = places
            .iter()
            .filter_map(|(partition, place)| {
                let end = place.end.unwrap_or(place.position).max(place.position);
                let left = u64::try_from(end - place.committed).ok().filter(|left| *left > 0)?;
                Some((partition.clone(), left))
            })
            .collect();
        Self {
            signal,
            records: counters.records.get(),
            dead_letters: counters.dead_letters(),
            lost: counters.lost_records.get() + counters.lost_letters.get(),
            complete: places.len() - left.len(),
            partitions: places.len(),
            left,
        }
    }
}
