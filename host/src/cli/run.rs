//! `run`: the configured pipeline, from start to signal, or over a part of its topics and to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use super::assemble::{Assembly, Feed, NotStarted, assemble_until};
use super::log;
use super::moment::Moment;
use super::render;
use super::render::live;
use super::summary::Summary;
use crate::clock::RealClock;
use crate::config::Loaded;
use crate::model::Fault;
use crate::pipeline;
use crate::source::kafka::{First, Span};
use crate::telemetry::Counters;

/// The code of a process that a second signal ends at once, as shells give it.
const KILLED: i32 = 130;

/// Which part of the topics is taken to the sinks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Request {
    /// Start at this time, like 2026-01-31T12:00:00Z, or at `earliest`, under a consumer group of its own: the configured
    /// group's offsets stay as they are. An interrupted run goes on where it was.
    #[arg(long, value_name = "TIME", value_parser = Start::parse)]
    from: Option<Start>,
    /// End once everything is delivered and committed that the topics held at the start.
    #[arg(long)]
    until_end: bool,
    /// The consumer group of --from; left out, the configured one's name and the start.
    #[arg(long, value_name = "NAME", requires = "from", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    group: Option<String>,
}

/// Where a run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Earliest,
    At(Moment),
}

impl Start {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            text => Moment::parse(text).map(Self::At).map_err(|why| format!("{why}, and not `earliest`")),
        }
    }

    fn first(self) -> First {
        match self {
            Self::Earliest => First::Earliest,
            Self::At(Moment(millis)) => First::At(millis),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Earliest => "earliest".into(),
            Self::At(moment) => moment.to_string(),
        }
    }
}

impl Request {
    /// What is read under which group (S51).
    fn feed(&self, loaded: &Loaded) -> Result<Feed, Fault> {
        let mut feed = Feed::configured(loaded);
        feed.span = Span { first: self.from.map(Start::first), until_end: self.until_end };
        if let Some(from) = self.from {
            let own = || format!("{}-from-{}", loaded.config.kafka.group, from.text().replace([':', '-'], ""));
            let group = self.group.clone().unwrap_or_else(own);
            if group == loaded.config.kafka.group {
                return Err(Fault::config(format!("`--group {group}` is the configured group"))
                    .because("reading again under it would move the offsets of the pipeline that runs under it")
                    .hint("leave `--group` out, or name a group that nothing else uses"));
            }
            feed.kafka.group = group;
        }
        Ok(feed)
    }
}

/// Takes records to the sinks until told to stop or until the end that was asked for (S54).
///
/// # Errors
/// What kept it from starting, with the code that says so.
pub async fn run(loaded: &Loaded, request: &Request) -> Result<Exit, NotStarted> {
    let feed = request.feed(loaded)?;
    let counters = Arc::new(Counters::default());
    let stopped = Arc::new(AtomicU8::new(0));
    let mut stop = Box::pin(stop_signal(stopped.clone())?);
    let Some(assembly) = assemble_until(loaded, &feed, counters.clone(), &mut stop).await? else {
        live::stopped(&Summary::of(&counters, signal_name(&stopped)));
        return Ok(if request.until_end { Exit::Stopped } else { Exit::Done });
    };
    let Assembly { parts, source, topics } = assembly;
    let sinks: Vec<String> = loaded.config.sinks.names().map(|(kind, name)| format!("{kind}/{name}")).collect();
    live::running(&topics, &sinks);
    if let Some(from) = request.from {
        live::backfill(&from.text(), &feed.kafka.group);
    }
    let outcome = pipeline::run(parts, source, RealClock::start(), stop).await;
    let signal = signal_name(&stopped);
    let summary = Summary::of(&counters, signal);
    let ended = request.until_end && outcome.is_ok() && signal.is_none();
    if ended {
        live::ended(&summary);
    } else {
        live::stopped(&summary);
    }
    Ok(match outcome {
        // A script that waits for the end must not take an interruption for it.
        Ok(()) if request.until_end && !ended => Exit::Stopped,
        Ok(()) => Exit::Done,
        Err(fault) => {
            render::faults(&[fault]);
            Exit::Stopped
        }
    })
}

/// The signal that `stop_signal` noted, if any came.
pub fn signal_name(stopped: &AtomicU8) -> Option<&'static str> {
    match stopped.load(Ordering::Relaxed) {
        0 => None,
        1 => Some("SIGTERM"),
        _ => Some("SIGINT"),
    }
}

/// Completes at SIGTERM or SIGINT; a SIGINT after that ends the process at once (S54).
///
/// # Errors
/// When the process cannot be told of signals.
pub fn stop_signal(stopped: Arc<AtomicU8>) -> Result<impl Future<Output = ()> + Send, Fault> {
    let listen = |kind| signal(kind).map_err(|error| Fault::host("signals cannot be received").because(error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => stopped.store(1, Ordering::Relaxed),
            _ = interrupt.recv() => stopped.store(2, Ordering::Relaxed),
        }
        tracing::info!("stopping: what is under way is settled and committed first");
        tokio::spawn(async move {
            interrupt.recv().await;
            log::flush();
            std::process::exit(KILLED);
        });
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn loaded() -> Loaded {
        let mut loaded = Loaded {
            config: crate::config::Config::default(),
            folder: std::path::PathBuf::new(),
            secrets: crate::config::Secrets::default(),
        };
        loaded.config.kafka.group = "out".into();
        loaded
    }

    /// S51: a part is read under a group of its own, never the configured one; without a start the configured one stays.
    #[test]
    fn s51_a_start_has_a_group_of_its_own() {
        let group = |request: &Request| request.feed(&loaded()).map(|feed| feed.kafka.group);
        let from = |text: &str| Request { from: Some(Start::parse(text).unwrap()), ..Request::default() };
        assert_eq!(group(&from("earliest")).unwrap(), "out-from-earliest");
        assert_eq!(group(&from("2026-01-31T13:00:00.5+01:00")).unwrap(), "out-from-20260131T120000.5Z");
        assert_eq!(group(&Request { group: Some("own".into()), ..from("earliest") }).unwrap(), "own");
        let fault = group(&Request { group: Some("out".into()), ..from("earliest") }).unwrap_err();
        assert_eq!((fault.owner, fault.hint.is_some()), (crate::model::Owner::Config, true));
        assert_eq!(group(&Request { until_end: true, ..Request::default() }).unwrap(), "out");
        assert!(Start::parse("latest").is_err());
    }
}
