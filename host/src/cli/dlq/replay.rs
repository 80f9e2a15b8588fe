//! `dlq replay`: letters through the real pipeline, under a group of their own.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use sha2::{Digest as _, Sha256};

use super::super::assemble::{Assembly, NotStarted, assemble, dlq_feed};
use super::super::render::{self, letters};
use super::super::run::{signal_name, stop_signal};
use super::{Exit, topic};
use crate::clock::RealClock;
use crate::config::Loaded;
use crate::model::Batch;
use crate::pipeline;
use crate::pipeline::options::OnSendFailure;
use crate::pipeline::replay::{Again, Choice, Filter, Handled, Replay, Tally, Totals, Verdict};
use crate::source::kafka::{Begin, committed, scan};
use crate::telemetry::Counters;

/// How often a letter is replayed unless more is asked for.
pub const MAX_REPLAYS: u32 = 3;
/// Characters of the filters' hash in a group's name.
const HASH_CHARS: usize = 8;

/// What came of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Letters.
    pub totals: Totals,
    /// Payloads that a hook or `on_error` gave up.
    pub skipped: u64,
    /// The bound that was asked for.
    pub max_replays: u32,
}

/// The group that a replay commits under: one for all letters, and one for each choice of them, so that what one leaves out
/// is still there for the other.
fn group(configured: &str, choice: &Choice) -> String {
    if choice.filter == Filter::default() && choice.max_replays == MAX_REPLAYS {
        return format!("{configured}-replay");
    }
    let Choice { filter: Filter { sink, error, since, until }, max_replays, .. } = choice;
    let text = serde_json::json!([sink, error, since, until, max_replays]).to_string();
    let hash = hex::encode(Sha256::digest(text.as_bytes()));
    format!("{configured}-replay-{}", hash.get(..HASH_CHARS).unwrap_or(&hash))
}

/// Replays the letters that are meant, or counts them.
///
/// # Errors
/// What kept it from starting, with the code that says so.
pub async fn replay(loaded: &Loaded, filter: Filter, max_replays: u32, dry_run: bool) -> Result<Exit, NotStarted> {
    let mut choice = Choice { filter, max_replays, ..Choice::default() };
    let (_, partitions) = topic(loaded).await?;
    let configured = &loaded.config.kafka.group;
    let feed = dlq_feed(loaded, group(configured, &choice));
    let all = dlq_feed(loaded, group(configured, &Choice { max_replays: MAX_REPLAYS, ..Choice::default() }));
    let (topic, group) = (feed.kafka.source_topic.clone(), feed.kafka.group.clone());
    if group != all.kafka.group {
        // What a replay of all letters has delivered is not delivered again because some are named now.
        let below = committed(&all.kafka, (&topic, partitions)).await?;
        choice.handled = Handled { below, max_replays: MAX_REPLAYS };
    }
    let tally = Arc::new(Tally::default());
    let replayed = |skipped| Replayed { totals: tally.totals(), skipped, max_replays };
    if dry_run {
        let counting = tally.clone();
        let look = move |(): &mut (), batch: &Batch| match choice.verdict(batch, 0) {
            Verdict::Take(_) => counting.take(&batch.source, batch.offsets[0]),
            Verdict::Pass(passed) => counting.pass(&batch.source, batch.offsets[0], passed),
        };
        scan(&feed.kafka, (&topic, partitions), Begin::Committed, (), look).await?;
        letters::would_replay(&topic, &group, &replayed(0));
        return Ok(Exit::Done);
    }
    let counters = Arc::new(Counters::default());
    let stopped = Arc::new(AtomicU8::new(0));
    let stop = stop_signal(stopped.clone())?;
    let Assembly { mut parts, source, .. } = assemble(loaded, &feed, counters.clone()).await?;
    parts.collector = Arc::new(Replay::new(parts.collector, parts.sinks.clone(), choice, tally.clone()));
    parts.dlq = Arc::new(Again::new(parts.dlq, tally.clone()));
    // The letter is not passed before the one that follows it is written, whatever is configured for records.
    parts.settings.on_send_failure = OnSendFailure::Stall;
    parts.settings.is_replay = true;
    letters::replaying(&topic, &group);
    let outcome = pipeline::run(parts, source, RealClock::start(), stop).await;
    let replayed = replayed(counters.sinks().values().map(|sink| sink.skipped.get()).sum());
    let signal = signal_name(&stopped);
    let ended = outcome.is_ok() && signal.is_none();
    letters::replayed(&replayed, ended);
    if let Err(fault) = outcome {
        render::faults(&[fault]);
    }
    Ok(if ended && replayed.totals.again == 0 { Exit::Done } else { Exit::Stopped })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S96: one group for all letters, another for each choice of them, the same every time.
    #[test]
    fn s96_a_choice_has_a_group_of_its_own() {
        let all = Choice { max_replays: MAX_REPLAYS, ..Choice::default() };
        assert_eq!(group("out", &all), "out-replay");
        let sink = |sink: &str| Choice {
            filter: Filter { sink: Some(sink.into()), ..Filter::default() },
            max_replays: MAX_REPLAYS,
            ..Choice::default()
        };
        assert_eq!(group("out", &sink("kafka/a")), group("out", &sink("kafka/a")));
        assert_ne!(group("out", &sink("kafka/a")), group("out", &sink("kafka/b")));
        assert_ne!(group("out", &all), group("out", &Choice { max_replays: 10, ..all.clone() }));
    }
}
