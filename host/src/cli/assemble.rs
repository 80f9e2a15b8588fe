//! Puts a pipeline together from its configuration. The only place that names concrete sources, sinks and plugins for a run.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;

use super::Exit;
use crate::clock;
use crate::collect::{Collect, Passthrough};
use crate::config::{Config, Configured, Loaded};
use crate::model::{CallError, Fault, SinkKind};
use crate::pipeline::dlq::DeadLetters;
use crate::pipeline::dlq::kafka::{KafkaDlq, topic as dlq_topic};
use crate::pipeline::shared::{Settings, seconds};
use crate::pipeline::{NamedSink, Parts};
use crate::plugin::{Compiler, PluginCollector, PluginSink, Plugins};
use crate::sink::filesystem::{self, FilesystemSink};
use crate::sink::http::{self, HttpSink};
use crate::sink::kafka::{Inherited, KafkaSink, Options as KafkaSinkOptions};
use crate::sink::mongo::{self, MongoSink};
use crate::sink::postgres::{self, PostgresSink};
use crate::sink::redis::{self, RedisSink};
use crate::sink::{Queries, Sink};
use crate::source;
use crate::source::kafka::{Brokers, First, KafkaSource, Limits, OnOffsetGap, Span, probe_for};
use crate::telemetry::Counters;

/// How long a start waits for the source's brokers.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);
/// The same for a sink's destination, which may have a shorter limit of its own with more to say.
const REACH: Duration = Duration::from_secs(15);
/// The wait before a connection that was refused is tried again.
const REACH_AGAIN: Duration = Duration::from_millis(500);
/// How long a sink that was connected in vain, or only to be checked, may take to close again (S57).
const CLOSE: Duration = Duration::from_secs(10);

/// What a run consists of, ready to start.
pub struct Assembly {
    /// Everything but the source.
    pub parts: Parts,
    /// The source, which has subscribed: its thread may be given partitions before the pipeline asks for them.
    pub source: KafkaSource,
    /// The source's topics with their partitions.
    pub topics: Vec<(String, i32)>,
}

/// What a run reads, and how much of it.
pub struct Feed {
    /// The topics, and the group under which offsets are committed.
    pub kafka: source::kafka::Options,
    /// The part of them.
    pub span: Span,
}

impl Feed {
    /// The configured topics under the configured group, without an end.
    pub fn configured(loaded: &Loaded) -> Self {
        Self { kafka: loaded.config.kafka.clone(), span: Span::default() }
    }
}

/// The dead letter topic as a source, under a group of its own (S96).
pub fn dlq_feed(loaded: &Loaded, group: String) -> Feed {
    let Config { kafka, dlq, .. } = &loaded.config;
    let mut properties = kafka.properties.clone();
    let brokers = if dlq.brokers.is_empty() {
        // A letter is never passed over.
        properties.remove("auto.offset.reset");
        kafka.brokers.clone()
    } else {
        properties.clear();
        Brokers::One(dlq.brokers.clone())
    };
    let kafka = source::kafka::Options {
        brokers,
        properties,
        source_topic: dlq_topic(dlq, &kafka.topics()),
        source_topics: Vec::new(),
        group,
        // A member's name is its group's.
        instance_id: String::new(),
        // Letters expire: what is gone cannot be replayed, and is no reason not to replay the rest.
        on_offset_gap: OnOffsetGap::Continue,
        ..kafka.clone()
    };
    Feed { kafka, span: Span { first: Some(First::Earliest), until_end: true } }
}

/// Why nothing was started.
pub struct NotStarted {
    /// The code to end with.
    pub exit: Exit,
    /// What is wrong, all of it.
    pub faults: Vec<Fault>,
}

impl From<Fault> for NotStarted {
    fn from(fault: Fault) -> Self {
        Self { exit: Exit::at_start(&fault), faults: vec![fault] }
    }
}

/// Loads plugins, sets them up, connects the sinks, lets plugins get ready, and opens the source, in this order (S66).
///
/// # Errors
/// The first step that failed, and all that failed in it. What was connected is closed again (S123).
pub async fn assemble(loaded: &Loaded, feed: &Feed, counters: Arc<Counters>) -> Result<Assembly, NotStarted> {
    assemble_telling(loaded, feed, counters, &OnceLock::new()).await
}

/// The same until `stop` completes, at whichever step that is: what was connected is closed then, and nothing is returned (S54).
///
/// # Errors
/// As `assemble`.
pub async fn assemble_until(
    loaded: &Loaded,
    feed: &Feed,
    counters: Arc<Counters>,
    stop: impl Future<Output = ()>,
) -> Result<Option<Assembly>, NotStarted> {
    let connecting = OnceLock::new();
    tokio::select! {
        ended = assemble_telling(loaded, feed, counters, &connecting) => return ended.map(Some),
        () = stop => {}
    }
    if let Some((sinks, dlq)) = connecting.get()
        && tokio::time::timeout(CLOSE, close(sinks, dlq)).await.is_err()
    {
        tracing::warn!("the sinks took too long to close");
    }
    Ok(None)
}

/// What may be connected once this is set.
type Connecting = OnceLock<(Vec<NamedSink>, Arc<dyn DeadLetters>)>;

async fn assemble_telling(
    loaded: &Loaded,
    feed: &Feed,
    counters: Arc<Counters>,
    connecting: &Connecting,
) -> Result<Assembly, NotStarted> {
    let config = &loaded.config;
    let plugins = Plugins::new(None, Compiler::this_program()?)?;
    let native = native_sinks(loaded).into_iter().map(|(_, _, sink)| sink).collect::<Result<Vec<_>, _>>()?;
    let queries = queries(&native);
    let collector: Arc<dyn Collect> = match &config.collect {
        None => Arc::new(Passthrough),
        Some(options) => {
            let artifact = plugins.load("collect", options, &loaded.folder).await?;
            Arc::new(PluginCollector::start(artifact, options, &queries).await?)
        }
    };
    let sinks = with_plugins(native, loaded, &plugins, &queries).await?;
    let patience = seconds(config.kafka.start_timeout_seconds);
    let dlq = dlq(loaded, &counters)?;
    let _once = connecting.set((sinks.clone(), Arc::clone(&dlq)));
    let (topics, connected) =
        tokio::join!(probe_for(&feed.kafka, PROBE_TIMEOUT, patience), connect(&sinks, &dlq, patience));
    let topics = match (topics, connected) {
        (Ok(topics), Ok(())) => topics,
        (Ok(_), Err(failed)) => return Err(failed),
        (Err(fault), Ok(())) => {
            close(&sinks, &dlq).await;
            return Err(fault.into());
        }
        (Err(fault), Err(mut failed)) => {
            failed.exit = failed.exit.min(Exit::at_start(&fault));
            failed.faults.insert(0, fault);
            return Err(failed);
        }
    };
    let window = &config.window;
    let window = Limits {
        records: window.max_records,
        bytes: window.max_bytes,
        memory: config.memory.budget(),
        partitions: topics.iter().map(|(_, count)| usize::try_from(*count).unwrap_or(0)).sum(),
    };
    let opened = async {
        collector.ready().await.map_err(CallError::into_fault)?;
        KafkaSource::over(&feed.kafka, window, feed.span)
    };
    let source = match opened.await {
        Ok(source) => source,
        Err(fault) => {
            close(&sinks, &dlq).await;
            return Err(fault.into());
        }
    };
    let settings = Settings {
        checkpoint: config.checkpoint.clone(),
        window: config.window.clone(),
        executor: config.executor.clone(),
        abort: config.abort.clone(),
        on_send_failure: config.dlq.on_send_failure,
        revoke_budget: seconds(config.kafka.revoke_budget_seconds),
        is_replay: false,
    };
    let collector_name = config.collect.as_ref().map_or_else(String::new, |options| {
        options.component.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    });
    let memory = source.memory();
    Ok(Assembly { parts: Parts { sinks, collector, collector_name, dlq, settings, counters, memory }, source, topics })
}

/// A Kafka sink as configured.
///
/// # Errors
/// When its options cannot be right.
pub fn kafka_sink(options: &KafkaSinkOptions, loaded: &Loaded) -> Result<KafkaSink, Fault> {
    KafkaSink::new(options.clone(), &inherited(loaded))
}

/// Every native sink as configured, not yet connected, with its fault where its options cannot be right. Relative paths
/// start at the configuration file's folder, as all paths do.
pub fn native_sinks(loaded: &Loaded) -> Vec<(SinkKind, String, Result<NamedSink, Fault>)> {
    fn each<T>(
        kind: SinkKind,
        configured: &BTreeMap<String, Configured<T>>,
        make: impl Fn(&str, &T) -> Result<Arc<dyn Sink>, Fault>,
    ) -> impl Iterator<Item = (SinkKind, String, Result<NamedSink, Fault>)> {
        configured.iter().map(move |(name, Configured { options, delivery })| {
            let named = |sink| NamedSink { kind, name: name.clone(), sink, delivery: delivery.clone() };
            (kind, name.clone(), make(name, options).map(named))
        })
    }
    let (folder, sinks) = (&loaded.folder, &loaded.config.sinks);
    let kafka = each(SinkKind::Kafka, &sinks.kafka, |_, options| Ok(Arc::new(kafka_sink(options, loaded)?)));
    let postgres = each(SinkKind::Postgres, &sinks.postgres, |name, options| {
        let options = postgres::Options { tls: options.tls.within(folder), ..options.clone() };
        let secret = loaded.secrets.get(&format!("sinks.postgres.{name}.dsn"));
        Ok(Arc::new(PostgresSink::new(name, &options)?.with_secret(secret)))
    });
    let mongo = each(SinkKind::Mongo, &sinks.mongo, |name, options| {
        let options = mongo::Options { tls: options.tls.within(folder), ..options.clone() };
        Ok(Arc::new(MongoSink::new(name, &options)?))
    });
    let http = each(SinkKind::Http, &sinks.http, |name, options| {
        let options = http::Options { tls: options.tls.within(folder), ..options.clone() };
        Ok(Arc::new(HttpSink::new(name, &options)?))
    });
    let redis = each(SinkKind::Redis, &sinks.redis, |name, options| {
        let options = redis::Options { tls: options.tls.within(folder), ..options.clone() };
        Ok(Arc::new(RedisSink::new(name, &options)?))
    });
    let filesystem = each(SinkKind::Filesystem, &sinks.filesystem, |name, options| {
        let base_path = folder.join(&options.base_path);
        Ok(Arc::new(FilesystemSink::new(name, &filesystem::Options { base_path, ..options.clone() })))
    });
    kafka.chain(postgres).chain(mongo).chain(http).chain(redis).chain(filesystem).collect()
}

/// The cluster that sinks and the dead letter queue write to when they name none.
fn inherited(loaded: &Loaded) -> Inherited {
    let kafka = &loaded.config.kafka;
    Inherited { brokers: kafka.brokers.joined(), properties: kafka.properties.clone() }
}

/// The sinks that plugins may be granted to ask, connected or not (S109).
pub fn queries<'s>(sinks: impl IntoIterator<Item = &'s NamedSink>) -> Queries {
    let postgres = sinks.into_iter().filter(|one| one.kind == SinkKind::Postgres);
    postgres.filter_map(|one| Some((one.name.clone(), Arc::clone(&one.sink).query()?))).collect()
}

async fn with_plugins(
    mut sinks: Vec<NamedSink>,
    loaded: &Loaded,
    plugins: &Plugins,
    queries: &Queries,
) -> Result<Vec<NamedSink>, Fault> {
    for (name, Configured { options, delivery }) in &loaded.config.sinks.plugin {
        let artifact = plugins.load(&format!("sinks.plugin.{name}"), options, &loaded.folder).await?;
        let sink = Arc::new(PluginSink::start(artifact, name, options, queries).await?);
        sinks.push(NamedSink { delivery: delivery.clone(), ..NamedSink::new(SinkKind::Plugin, name, sink) });
    }
    Ok(sinks)
}

/// The dead letter queue, which is a topic behind a Kafka sink of its own (S88).
fn dlq(loaded: &Loaded, counters: &Counters) -> Result<Arc<dyn DeadLetters>, Fault> {
    let (topic, sink) = dlq_sink(loaded)?;
    let sink = sink.creating_the_topic().counting_late(Arc::clone(&counters.late_letters));
    Ok(Arc::new(KafkaDlq::new(Arc::new(sink), topic, loaded.config.dlq.format)))
}

/// The dead letter queue's topic and the sink that writes to it.
///
/// # Errors
/// When its options cannot be right.
pub fn dlq_sink(loaded: &Loaded) -> Result<(String, KafkaSink), Fault> {
    let options = &loaded.config.dlq;
    let topic = dlq_topic(options, &loaded.config.kafka.topics());
    let sink_options =
        KafkaSinkOptions { topic: topic.clone(), brokers: options.brokers.clone(), ..Default::default() };
    Ok((topic, kafka_sink(&sink_options, loaded)?.keeping_every_record()))
}

/// Connects everything at the same time, each repeated for `patience` where that may help, and then the plugins, which may be
/// granted to ask the others; on a failure closes what did connect and reports all that did not (S123).
async fn connect(sinks: &[NamedSink], dlq: &Arc<dyn DeadLetters>, patience: Duration) -> Result<(), NotStarted> {
    let connecting = |plugins: bool| {
        let chosen = sinks.iter().filter(move |one| (one.kind == SinkKind::Plugin) == plugins);
        join_all(chosen.map(|one| async move {
            let name = one.to_string();
            patiently(&name, patience, || reach(&name, one.sink.as_ref())).await
        }))
    };
    let queue = patiently("dlq", patience, || dlq.connect());
    let (native, queue) = tokio::join!(connecting(false), queue);
    let connected = native.into_iter().chain(connecting(true).await);
    let mut faults: Vec<Fault> = connected.filter_map(Result::err).collect();
    faults.extend(queue.err());
    // As in a check: what is wrong for good counts before what may only be away.
    let Some(exit) = faults.iter().map(Exit::at_start).min() else { return Ok(()) };
    close(sinks, dlq).await;
    Err(NotStarted { exit, faults })
}

/// Repeats what may pass by itself, such as a server that is only starting (S124a); a login that it refuses does not.
async fn patiently<F: Future<Output = Result<(), Fault>>>(
    name: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<(), Fault> {
    let started = clock::instant();
    let mut said = false;
    loop {
        match attempt().await {
            Err(fault) if may_pass(&fault) && started.elapsed() < patience => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(sink = name, "{}; tried again for {} s", fault.message, patience.as_secs_f64());
                }
                tokio::time::sleep(REACH_AGAIN).await;
            }
            ended => return ended,
        }
    }
}

/// A connection that nobody takes, a topic that was created a moment ago, and a server that is loading its data or whose
/// failover is under way. Client libraries pass these on in words, and have no code that is common to all.
fn may_pass(fault: &Fault) -> bool {
    let words = [
        "connection refused",
        "unknown topic or partition",
        "leader not available",
        "readonly you can't write",
        "is loading the dataset",
        "masterdown",
        "clusterdown",
        "not primary",
    ];
    let causes = fault.causes.iter().map(|cause| cause.to_ascii_lowercase());
    causes.into_iter().any(|cause| words.iter().any(|words| cause.contains(words)))
}

async fn close(sinks: &[NamedSink], dlq: &Arc<dyn DeadLetters>) {
    for one in sinks {
        close_sink(&one.to_string(), one.sink.as_ref()).await;
    }
    if tokio::time::timeout(CLOSE, dlq.close()).await.is_err() {
        tracing::warn!("the dead letter queue took too long to close");
    }
}

/// Closes the sink, within [`CLOSE`]; what goes wrong is logged and stops nothing (S57).
pub async fn close_sink(sink: &str, of: &dyn Sink) {
    match tokio::time::timeout(CLOSE, of.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => tracing::warn!(sink, fault = %fault.with_hint(), "a sink did not close cleanly"),
        Err(_) => tracing::warn!(sink, "a sink took too long to close"),
    }
}

/// Connects the sink, within [`REACH`] (S123, S124).
///
/// # Errors
/// What kept it from connecting, with its name.
pub async fn reach(name: &str, sink: &dyn Sink) -> Result<(), Fault> {
    let connected = tokio::time::timeout(REACH, sink.connect()).await.unwrap_or_else(|_| {
        Err(CallError::Timeout(Fault::destination(format!("`{name}` did not connect within {} s", REACH.as_secs()))))
    });
    connected.map_err(|error| named(name, error))
}

/// What kept a sink from connecting, with the sink's name in front where the fault does not say it.
fn named(sink: &str, error: CallError) -> Fault {
    let mut fault = error.into_fault();
    let option = format!("{}.", sink.replace('/', "."));
    if !fault.message.contains(&format!("`{sink}`")) && !fault.message.contains(&option) {
        fault.message = format!("`{sink}`: {}", fault.message);
    }
    fault
}
