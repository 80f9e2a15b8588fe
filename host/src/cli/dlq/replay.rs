//! `dlq replay`: letters through the real pipeline, under a group of their own.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use sha2::{Digest as _, Sha256};

use super::super::assemble::{Assembly, NotStarted, assemble_until, dlq_feed};
use super::super::render::{self, letters};
use super::super::run::{signal_name, stop_signal};
use super::{Exit, topic};
use crate::clock::RealClock;
use crate::config::Loaded;
use crate::model::{Batch, Fault};
use crate::pipeline;
use crate::pipeline::options::OnSendFailure;
use crate::pipeline::replay::{Again, Choice, Filter, Handled, Replay, Tally, Totals, Verdict, not_configured};
use crate::pipeline::route::Routes;
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

/// The group of a replay of all letters: the one that is named, or one that goes with the dead letter topic. The pipeline's own
/// group may be renamed, which must not deliver again what was replayed before.
///
/// # Errors
/// When it is the pipeline's own group.
fn base(loaded: &Loaded, topic: &str, named: Option<&str>) -> Result<String, Fault> {
    let group = named.map_or_else(|| format!("{topic}-replay"), str::to_owned);
    if group == loaded.config.kafka.group {
        return Err(Fault::config(format!("the replay's group would be the configured one, `{group}`"))
            .because("a replay under it would take part in the group of the pipeline")
            .hint("name another one with `--group`"));
    }
    Ok(group)
}

/// The group that a replay commits under: one for all letters, and one for each choice of them, so that what one leaves out
/// is still there for the other.
fn group(base: &str, choice: &Choice) -> String {
    if choice.filter == Filter::default() && choice.max_replays == MAX_REPLAYS {
        return base.to_owned();
    }
    let Choice { filter: Filter { sink, error, since, until }, max_replays, .. } = choice;
    let text = serde_json::json!([sink, error, since, until, max_replays]).to_string();
    let hash = hex::encode(Sha256::digest(text.as_bytes()));
    format!("{base}-{}", hash.get(..HASH_CHARS).unwrap_or(&hash))
}

/// What is asked of a replay.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Which letters are meant.
    pub filter: Filter,
    /// Leave letters alone that were replayed so often.
    pub max_replays: u32,
    /// The group of a replay of all letters, where it is not the usual one.
    pub group: Option<String>,
    /// Only count.
    pub dry_run: bool,
}

/// Replays the letters that are meant, or counts them.
///
/// # Errors
/// What kept it from starting, with the code that says so. Letters whose sinks are not configured do: nothing is sent then, so
/// that nothing is committed past them and no replay of theirs is counted.
pub async fn replay(loaded: &Loaded, request: Request) -> Result<Exit, NotStarted> {
    let Request { filter, max_replays, group: named, dry_run } = request;
    let mut choice = Choice { filter, max_replays, ..Choice::default() };
    let (letters_of, partitions) = topic(loaded).await?;
    let base = base(loaded, &letters_of.source_topic, named.as_deref())?;
    let feed = dlq_feed(loaded, group(&base, &choice));
    let (topic, group) = (feed.kafka.source_topic.clone(), feed.kafka.group.clone());
    if group != base {
        // What a replay of all letters has delivered is not delivered again because some are named now.
        let below = committed(&dlq_feed(loaded, base).kafka, (&topic, partitions)).await?;
        choice.handled = Handled { below, max_replays: MAX_REPLAYS };
    }
    let tally = Arc::new(Tally::default());
    let replayed = |skipped| Replayed { totals: tally.totals(), skipped, max_replays };
    let routes = Routes::new(loaded.config.sinks.names());
    let (counting, counted) = (tally.clone(), choice.clone());
    let look = move |(): &mut (), batch: &Batch| match counted.verdict(&routes, batch, 0) {
        Verdict::NotConfigured(sink) => counting.not_configured(sink),
        // The replay itself counts the others.
        _ if !dry_run => {}
        Verdict::Take(_) => counting.take(&batch.source, batch.offsets[0]),
        Verdict::Pass(passed) => counting.pass(&batch.source, batch.offsets[0], passed),
    };
    scan(&feed.kafka, (&topic, partitions), Begin::Committed, (), look).await?;
    if dry_run {
        letters::would_replay(&topic, &group, &replayed(0));
    }
    let unknown = tally.sinks_not_configured();
    if !unknown.is_empty() {
        return Err(not_configured(&topic, &unknown).into());
    }
    if dry_run {
        return Ok(Exit::Done);
    }
    let counters = Arc::new(Counters::default());
    let stopped = Arc::new(AtomicU8::new(0));
    let mut stop = Box::pin(stop_signal(stopped.clone())?);
    let Some(assembly) = assemble_until(loaded, &feed, counters.clone(), &mut stop).await? else {
        letters::replayed(&replayed(0), false);
        return Ok(Exit::Stopped);
    };
    let Assembly { mut parts, source, .. } = assembly;
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

    /// K11: the replay's group goes with the dead letter topic, and is never the pipeline's own.
    #[test]
    fn s96_a_renamed_group_replays_under_the_same_one() {
        let mut loaded = Loaded {
            config: crate::config::Config::default(),
            folder: std::path::PathBuf::new(),
            secrets: crate::config::Secrets::default(),
        };
        let of = |loaded: &Loaded, named| base(loaded, "orders_dlq", named);
        loaded.config.kafka.group = "out".into();
        assert_eq!(of(&loaded, None), Ok("orders_dlq-replay".into()));
        loaded.config.kafka.group = "renamed".into();
        assert_eq!(of(&loaded, None), Ok("orders_dlq-replay".into()));
        assert_eq!(of(&loaded, Some("own")), Ok("own".into()));
        let refused = of(&loaded, Some("renamed"));
        assert!(refused.is_err_and(|fault| fault.owner == crate::model::Owner::Config && fault.hint.is_some()));
    }

    /// S96: one group for all letters, another for each choice of them, the same every time.
    #[test]
    fn s96_a_choice_has_a_group_of_its_own() {
        let all = Choice { max_replays: MAX_REPLAYS, ..Choice::default() };
        assert_eq!(group("orders_dlq-replay", &all), "orders_dlq-replay");
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
