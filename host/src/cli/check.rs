//! `check`: every part of the configured pipeline is looked at, not only up to the first that is broken.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, join_all};

use super::Exit;
use super::assemble::{close_sink, dlq_sink, native_sinks, queries, reach};
use super::memory::MemoryReport;
use crate::collect::Collect;
use crate::config::Loaded;
use crate::model::{Fault, SinkKind};
use crate::pipeline::NamedSink;
use crate::plugin::{self, Compiler, Limit, PluginCollector, PluginSink, Plugins};
use crate::sink::{Queries, Sink};
use crate::source;

/// Longest that the source's brokers may take to answer before they count as not to be reached.
const PROBE: Duration = Duration::from_secs(10);

/// One part of the pipeline and what is to be said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// `source`, `collect`, `sink` or `dlq`.
    pub what: &'static str,
    /// Its name, such as `postgres/main`.
    pub name: String,
    /// More to know about it, in short.
    pub detail: Vec<String>,
    /// What a plugin may reach; `None` for what is no plugin.
    pub grants: Option<Vec<String>>,
    /// What a plugin may use, all of it; empty for what is no plugin.
    pub limits: Vec<Limit>,
    /// What is wrong with it, if anything.
    pub fault: Option<Fault>,
}

impl Line {
    pub(super) fn named(what: &'static str, name: impl Into<String>) -> Self {
        Self { what, name: name.into(), detail: Vec::new(), grants: None, limits: Vec::new(), fault: None }
    }

    fn of_plugin(what: &'static str, name: impl Into<String>, options: &plugin::Options) -> Self {
        Self { grants: Some(grants(&options.grants)), limits: options.limits.all(), ..Self::named(what, name) }
    }

    /// In a word, whether the part is sound.
    pub fn verdict(&self) -> &'static str {
        if self.fault.is_some() { "fault" } else { "ok" }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// One per part; none when the configuration is wrong.
    pub lines: Vec<Line>,
    /// What is wrong and belongs to no part.
    pub own: Vec<Fault>,
    /// How memory is divided; nothing when the configuration is wrong.
    pub memory: Option<MemoryReport>,
}

impl Report {
    /// Faults before any part could be looked at.
    pub fn of(faults: Vec<Fault>) -> Self {
        Self { own: faults, ..Self::default() }
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
    let plugins = match plugins(loaded) {
        Ok(plugins) => plugins,
        Err(fault) => return Report::of(vec![fault]),
    };
    let asked = asked(loaded, connect).await;
    let queries = queries(&asked);
    let queries = &queries;
    let mut parts: Vec<BoxFuture<'_, Line>> = Vec::new();
    if let Some(plugins) = &plugins {
        parts.extend(config.collect.iter().map(|options| collect(plugins, options, loaded, queries).boxed()));
    }
    let native = native_sinks(loaded).into_iter();
    parts.extend(native.map(|(kind, name, sink)| native_line(kind, name, sink, loaded, connect).boxed()));
    if let Some(plugins) = &plugins {
        let sinks = config.sinks.plugin.iter();
        parts.extend(
            sinks.map(|(name, sink)| plugin_line(plugins, name, &sink.options, loaded, queries, connect).boxed()),
        );
    }
    if connect {
        parts.push(dlq_line(loaded).boxed());
    }
    let ((source, partitions), parts) = tokio::join!(source(loaded, connect), join_all(parts));
    let lines = std::iter::once(source).chain(parts).collect();
    for one in asked {
        close_sink(&one.to_string(), one.sink.as_ref()).await;
    }
    Report { lines, own: Vec::new(), memory: Some(MemoryReport::of(config, partitions)) }
}

/// The sinks that plugins are granted to ask, apart from those that are checked themselves, which end as soon as they are
/// reached. Whether they can be connected is said there too.
async fn asked(loaded: &Loaded, connect: bool) -> Vec<NamedSink> {
    let config = &loaded.config;
    let plugins = config.collect.iter().chain(config.sinks.plugin.values().map(|sink| &sink.options));
    let granted: BTreeSet<&String> = plugins.flat_map(|options| &options.grants.postgres).collect();
    let native = native_sinks(loaded).into_iter().filter_map(|(_, _, sink)| sink.ok());
    let asked: Vec<_> = native.filter(|one| one.kind == SinkKind::Postgres && granted.contains(&one.name)).collect();
    if connect {
        join_all(asked.iter().map(|one| async move { reach(&one.to_string(), one.sink.as_ref()).await })).await;
    }
    asked
}

/// The plugins' runtime, if there is any plugin.
fn plugins(loaded: &Loaded) -> Result<Option<Arc<Plugins>>, Fault> {
    let config = &loaded.config;
    if config.collect.is_none() && config.sinks.plugin.is_empty() {
        return Ok(None);
    }
    Plugins::new(None, Compiler::this_program()?).map(Some)
}

async fn source(loaded: &Loaded, connect: bool) -> (Line, Option<usize>) {
    let kafka = &loaded.config.kafka;
    let topics = kafka.topics().join(", ");
    let mut line = Line::named("source", format!("{topics} (group {})", kafka.group));
    if !connect {
        return (line, None);
    }
    match source::kafka::probe(kafka, PROBE).await {
        Ok(found) => {
            let partitions: i32 = found.iter().map(|(_, partitions)| partitions).sum();
            line.name = format!("{topics} ({partitions} partitions, group {})", kafka.group);
            (line, usize::try_from(partitions).ok())
        }
        Err(fault) => {
            line.fault = Some(fault);
            (line, None)
        }
    }
}

async fn collect(plugins: &Plugins, options: &plugin::Options, loaded: &Loaded, queries: &Queries) -> Line {
    let name =
        options.component.file_stem().map_or_else(|| "collect".into(), |stem| stem.to_string_lossy().into_owned());
    let mut line = Line::of_plugin("collect", name, options);
    let sound = async {
        let artifact = plugins.load("collect", options, &loaded.folder).await?;
        line.detail = detail(plugins, artifact.summary());
        PluginCollector::start(artifact, options, queries).await?.close().await;
        Ok(())
    };
    line.fault = sound.await.err();
    line
}

async fn plugin_line(
    plugins: &Plugins,
    name: &str,
    options: &plugin::Options,
    loaded: &Loaded,
    queries: &Queries,
    connect: bool,
) -> Line {
    let mut line = Line::of_plugin("sink", format!("plugin/{name}"), options);
    let sound = async {
        let artifact = plugins.load(&format!("sinks.plugin.{name}"), options, &loaded.folder).await?;
        line.detail = detail(plugins, artifact.summary());
        let sink = PluginSink::start(artifact, name, options, queries).await?;
        if connect { reach_and_close(&line.name, &sink).await } else { Ok(()) }
    };
    line.fault = sound.await.err();
    line
}

async fn native_line(
    kind: SinkKind,
    name: String,
    sink: Result<NamedSink, Fault>,
    loaded: &Loaded,
    connect: bool,
) -> Line {
    let sinks = &loaded.config.sinks;
    let mut line = Line::named("sink", format!("{kind}/{name}"));
    // What is no secret and tells sinks of a kind apart.
    line.detail.extend(match kind {
        SinkKind::Kafka => sinks.kafka.get(&name).map(|sink| format!("topic {}", sink.options.topic)),
        SinkKind::Mongo => sinks.mongo.get(&name).map(|sink| format!("database {}", sink.options.database)),
        SinkKind::Filesystem => sinks.filesystem.get(&name).map(|sink| sink.options.base_path.display().to_string()),
        SinkKind::Postgres | SinkKind::Http | SinkKind::Redis | SinkKind::Plugin => None,
    });
    line.fault = match sink {
        Ok(named) if connect => reach_and_close(&line.name, named.sink.as_ref()).await.err(),
        Ok(_) => None,
        Err(fault) => Some(fault),
    };
    line
}

/// The dead letter queue, whose topic need not exist as long as it can be created (S94a).
async fn dlq_line(loaded: &Loaded) -> Line {
    let mut line = Line::named("dlq", "");
    line.fault = match dlq_sink(loaded) {
        Ok((topic, sink)) => {
            line.name = topic;
            reach_and_close("dlq", &sink.only_asking()).await.err()
        }
        Err(fault) => Some(fault),
    };
    line
}

/// Connects the sink and closes it again.
async fn reach_and_close(name: &str, sink: &dyn Sink) -> Result<(), Fault> {
    let reached = reach(name, sink).await;
    close_sink(name, sink).await;
    reached
}

/// The contract without its patch level, and the component's size.
fn detail(plugins: &Plugins, summary: &plugin::Summary) -> Vec<String> {
    let contract = summary.contract.rsplit_once('.').map_or(summary.contract.as_str(), |(contract, _)| contract);
    let mut detail = vec![format!("contract {contract}"), size(summary.size_bytes)];
    if let Some(folder) = plugins.unusable_cache() {
        detail.push(format!("compiled at every start: `{}` cannot be created", folder.display()));
    }
    detail
}

fn size(bytes: u64) -> String {
    // Exact enough for a number with one digit behind the point.
    let kibibytes = bytes as f64 / 1024.0;
    if kibibytes < 1000.0 { format!("{kibibytes:.1} KiB") } else { format!("{:.1} MiB", kibibytes / 1024.0) }
}

fn grants(grants: &plugin::Grants) -> Vec<String> {
    let directories = grants.directories.iter().map(|directory| {
        let access = match directory.access {
            plugin::Access::Read => "read",
            plugin::Access::Write => "write",
        };
        format!("directory {} ({access})", directory.guest)
    });
    let variables = grants.environment.iter().map(|name| format!("variable {name}"));
    let databases = grants.postgres.iter().map(|name| format!("postgres {name}"));
    let origins = grants.http.iter().map(|origin| format!("http {origin}"));
    let networks = grants.http_addresses.iter().map(|network| format!("http address {network}"));
    let sinks = grants.allowed_sinks.iter().map(|names| match names.as_slice() {
        [] => "no sinks".to_owned(),
        names => format!("sinks {}", names.join(", ")),
    });
    sinks.chain(directories).chain(variables).chain(databases).chain(origins).chain(networks).collect()
}
