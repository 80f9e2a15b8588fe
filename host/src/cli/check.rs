//! `check`: every part of the configured pipeline is looked at, not only up to the first that is broken.

use futures_util::future::{BoxFuture, FutureExt, join_all};

use super::Exit;
use crate::config::Loaded;
use crate::model::Fault;
use crate::plugin;

/// One part of the pipeline and what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// `source`, `collect` or `sink`.
    pub what: &'static str,
    /// Its name, such as `postgres/main`.
    pub name: String,
    /// More to know about it, in short.
    pub detail: Vec<String>,
    /// What a plugin may reach; `None` for what is no plugin.
    pub grants: Option<Vec<String>>,
    /// What is wrong with it, if anything.
    pub fault: Option<Fault>,
}

impl Line {
    fn new(what: &'static str, name: impl Into<String>) -> Self {
        Self { what, name: name.into(), detail: Vec::new(), grants: None, fault: None }
    }

    /// In a word, whether the part is sound.
    pub fn verdict(&self) -> &'static str {
        if self.fault.is_some() { "fault" } else { "ok" }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One per part; none when the configuration is wrong.
    pub lines: Vec<Line>,
    /// What is wrong and belongs to no part.
    pub own: Vec<Fault>,
}

impl Report {
    /// Faults before any part could be looked at.
    pub fn of(faults: Vec<Fault>) -> Self {
        Self { lines: Vec::new(), own: faults }
    }

    /// Everything that is wrong.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.own.iter().chain(self.lines.iter().filter_map(|line| line.fault.as_ref()))
    }

    /// A wrong configuration or plugin counts before a server that cannot be reached: it does not heal by waiting.
    pub fn exit(&self) -> Exit {
        self.faults().map(Exit::at_start).min().unwrap_or(Exit::Done)
    }
}

/// Looks at every part: loads and sets up the plugins, and with `connect` reaches the brokers and every destination.
pub async fn check(loaded: &Loaded, connect: bool) -> Report {
    let config = &loaded.config;
    let mut parts: Vec<BoxFuture<'_, Line>> = vec![source(loaded, connect).boxed()];
    parts.extend(config.collect.iter().map(|options| collect(options, loaded).boxed()));
    parts.extend(config.sinks.kafka.keys().map(|name| kafka(name, loaded, connect).boxed()));
    parts.extend(config.sinks.filesystem.keys().map(|name| filesystem(name, loaded, connect).boxed()));
    parts.extend(config.sinks.plugin.iter().map(|(name, options)| sink(name, options, loaded, connect).boxed()));
    Report { lines: join_all(parts).await, own: Vec::new() }
}

async fn source(loaded: &Loaded, _connect: bool) -> Line {
    let kafka = &loaded.config.kafka;
    Line::new("source", format!("{} (group {})", kafka.topics().join(", "), kafka.group))
}

async fn collect(options: &plugin::Options, loaded: &Loaded) -> Line {
    plugin("collect", "collect", options, loaded).await
}

async fn sink(name: &str, options: &plugin::Options, loaded: &Loaded, _connect: bool) -> Line {
    plugin("sink", &format!("plugin/{name}"), options, loaded).await
}

async fn kafka(name: &str, _loaded: &Loaded, _connect: bool) -> Line {
    Line::new("sink", format!("kafka/{name}"))
}

async fn filesystem(name: &str, _loaded: &Loaded, _connect: bool) -> Line {
    Line::new("sink", format!("filesystem/{name}"))
}

async fn plugin(what: &'static str, name: &str, options: &plugin::Options, _loaded: &Loaded) -> Line {
    Line { grants: Some(grants(&options.grants)), ..Line::new(what, name) }
}

fn grants(grants: &plugin::Grants) -> Vec<String> {
    let directories = grants.directories.iter().map(|directory| {
        let access = match directory.access {
            plugin::Access::Read => "read",
            plugin::Access::Write => "write",
        };
        format!("directory {} ({access})", directory.guest)
    });
    directories.chain(grants.environment.iter().map(|name| format!("variable {name}"))).collect()
}
