//! `dlq`: what stands in the dead letter topic, and sending it through again (S96).

use std::time::Duration;

use clap::{Args, Subcommand};

use super::assemble::{NotStarted, dlq_feed};
use super::moment::Moment;
use super::{Exit, File};
use crate::config::Loaded;
use crate::model::{Fault, Owner};
use crate::pipeline::replay::Filter;
use crate::source::kafka::{Options, probe};

mod list;
mod replay;
mod show;

pub use list::{Entry, List, Listed};
pub use replay::Replayed;
pub use show::{Place, Shown};

/// How long a start waits for the brokers.
const PROBE: Duration = Duration::from_secs(15);

/// What is done with dead letters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List dead letters, the newest last.
    List {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        filter: FilterArgs,
        /// How many to show at most, the newest ones.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Print JSON for a machine to read.
        #[arg(long)]
        json: bool,
    },
    /// Show all that the dead letters of one record say.
    Show {
        /// The record's coordinates, like `orders[3]@1042`, or the letter's own.
        #[arg(value_name = "RECORD", value_parser = Place::parse)]
        place: Place,
        #[command(flatten)]
        file: File,
        /// Print JSON for a machine to read.
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters through the configured pipeline again. What fails again becomes a new letter.
    ///
    /// It commits under a consumer group of its own, so that a second replay goes on where the first one ended, as long as
    /// the brokers keep that group's offsets (`offsets.retention.minutes`). A replay with filters has a group for just
    /// these: what it delivers is delivered again by a later one with other filters or none. Letters for a sink that is not
    /// configured stop the replay before anything is sent.
    Replay {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        filter: FilterArgs,
        /// Leave letters alone that were replayed so often.
        #[arg(long, value_name = "N", default_value_t = replay::MAX_REPLAYS)]
        max_replays: u32,
        /// The consumer group of a replay of all letters; left out, the dead letter topic's name with `-replay` behind it.
        /// Filters add to its name.
        #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        group: Option<String>,
        /// Only count what would be replayed, and say what would fail.
        #[arg(long)]
        dry_run: bool,
    },
}

impl Command {
    /// The configuration to read.
    pub fn file(&self) -> &File {
        match self {
            Self::List { file, .. } | Self::Show { file, .. } | Self::Replay { file, .. } => file,
        }
    }
}

/// Which letters are meant.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only letters of this sink, like `postgres/main`, or of a collector, like `collect/search`.
    #[arg(long, value_name = "KIND/NAME", value_parser = sink)]
    sink: Option<String>,
    /// Only letters whose error contains this text.
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only letters written at this time or later, like 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    since: Option<Moment>,
    /// Only letters written before this time.
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    until: Option<Moment>,
}

impl FilterArgs {
    fn filter(&self) -> Filter {
        Filter {
            sink: self.sink.clone(),
            error: self.error.clone(),
            since: self.since.map(|Moment(millis)| millis),
            until: self.until.map(|Moment(millis)| millis),
        }
    }
}

fn sink(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok(text.to_owned()),
        _ => Err("a sink is named like `postgres/main`".into()),
    }
}

/// Does what the command says.
///
/// # Errors
/// What kept it from starting, with the code that says so.
pub async fn run(loaded: &Loaded, command: &Command) -> Result<Exit, NotStarted> {
    match command {
        Command::List { filter, limit, json, .. } => list::list(loaded, filter.filter(), *limit, *json).await,
        Command::Show { place, json, .. } => show::show(loaded, place, *json).await,
        Command::Replay { filter, max_replays, group, dry_run, .. } => {
            let (filter, group) = (filter.filter(), group.clone());
            let request = replay::Request { filter, max_replays: *max_replays, group, dry_run: *dry_run };
            replay::replay(loaded, request).await
        }
    }
}

/// The dead letter topic for whoever only looks, with the number of its partitions.
async fn topic(loaded: &Loaded) -> Result<(Options, i32), Fault> {
    // The configured group is one that we may use; nothing is committed under it.
    let options = dlq_feed(loaded, loaded.config.kafka.group.clone()).kafka;
    let topics = probe(&options, PROBE).await.map_err(|fault| match fault.owner {
        Owner::Config if fault.message.ends_with("does not exist") => {
            fault.hint("no letter was ever written there, or `dlq.topic` and `dlq.brokers` name another place")
        }
        _ => fault,
    })?;
    Ok((options, topics.first().map_or(0, |(_, partitions)| *partitions)))
}
