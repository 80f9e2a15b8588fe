//! Puts a pipeline together from its configuration. The only place that names concrete sources, sinks and plugins for a run.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::Exit;
use crate::collect::{Collect, Passthrough};
use crate::config::Loaded;
use crate::model::{CallError, Fault, SinkKind};
use crate::pipeline::Parts;
use crate::pipeline::dlq::DeadLetters;
use crate::pipeline::dlq::kafka::{KafkaDlq, topic as dlq_topic};
use crate::pipeline::shared::{Settings, seconds};
use crate::plugin::{PluginCollector, PluginSink, Plugins};
use crate::sink::Sink;
use crate::sink::filesystem::{FilesystemSink, Options as FilesystemOptions};
use crate::sink::kafka::{Inherited, KafkaSink, Options as KafkaSinkOptions};
use crate::source::kafka::{KafkaSource, Limits, probe};
use crate::telemetry::Counters;

/// How long a start waits for the source's brokers.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);

/// What a run consists of, ready to start.
pub struct Assembly {
    /// Everything but the source.
    pub parts: Parts,
    /// The source, which subscribes when the pipeline asks it for the first time.
    pub source: KafkaSource,
    /// The source's topics with their partitions.
    pub topics: Vec<(String, i32)>,
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

type Sinks = Vec<(SinkKind, String, Arc<dyn Sink>)>;

/// Loads plugins, sets them up, connects the sinks, lets plugins get ready, and opens the source, in this order (S66).
///
/// # Errors
/// The first step that failed, and all that failed in it. What was connected is closed again (S123).
pub async fn assemble(loaded: &Loaded, counters: Arc<Counters>) -> Result<Assembly, NotStarted> {
    let config = &loaded.config;
    let plugins = Plugins::new(None)?;
    let collector: Arc<dyn Collect> = match &config.collect {
        None => Arc::new(Passthrough),
        Some(options) => {
            let artifact = plugins.load("collect", options, &loaded.folder).await?;
            Arc::new(PluginCollector::start(artifact, options).await?)
        }
    };
    let sinks = sinks(loaded, &plugins).await?;
    let topics = probe(&config.kafka, PROBE_TIMEOUT).await?;
    let dlq = dlq(loaded)?;
    connect(&sinks, &dlq).await?;
    if let Err(error) = collector.ready().await {
        close(&sinks, &dlq).await;
        return Err(error.into_fault().into());
    }
    let window = Limits { records: config.window.max_records, bytes: config.window.max_bytes };
    let source = KafkaSource::start(&config.kafka, window)?;
    let settings = Settings {
        checkpoint: config.checkpoint.clone(),
        window: config.window.clone(),
        executor: config.executor.clone(),
        abort: config.abort.clone(),
        on_send_failure: config.dlq.on_send_failure,
        revoke_budget: seconds(config.kafka.revoke_budget_seconds),
    };
    let collector_name = config.collect.as_ref().map_or_else(String::new, |options| {
        options.component.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    });
    Ok(Assembly { parts: Parts { sinks, collector, collector_name, dlq, settings, counters }, source, topics })
}

/// A Kafka sink as configured.
///
/// # Errors
/// When its options cannot be right.
pub fn kafka_sink(options: &KafkaSinkOptions, loaded: &Loaded) -> Result<KafkaSink, Fault> {
    KafkaSink::new(options.clone(), &inherited(loaded))
}

/// A filesystem sink as configured. A relative base path starts at the configuration file's folder, as all paths do.
pub fn filesystem_sink(name: &str, options: &FilesystemOptions, loaded: &Loaded) -> FilesystemSink {
    let base_path = loaded.folder.join(&options.base_path);
    FilesystemSink::new(name, &FilesystemOptions { base_path, ..options.clone() })
}

/// The cluster that sinks and the dead letter queue write to when they name none.
fn inherited(loaded: &Loaded) -> Inherited {
    let kafka = &loaded.config.kafka;
    Inherited { brokers: kafka.brokers.joined(), properties: kafka.properties.clone() }
}

async fn sinks(loaded: &Loaded, plugins: &Plugins) -> Result<Sinks, Fault> {
    let config = &loaded.config.sinks;
    let mut sinks = Sinks::new();
    for (name, options) in &config.kafka {
        let sink = kafka_sink(options, loaded)?;
        sinks.push((SinkKind::Kafka, name.clone(), Arc::new(sink)));
    }
    for (name, options) in &config.filesystem {
        sinks.push((SinkKind::Filesystem, name.clone(), Arc::new(filesystem_sink(name, options, loaded))));
    }
    for (name, options) in &config.plugin {
        let artifact = plugins.load(&format!("sinks.plugin.{name}"), options, &loaded.folder).await?;
        let sink = PluginSink::start(artifact, name, options).await?;
        sinks.push((SinkKind::Plugin, name.clone(), Arc::new(sink)));
    }
    Ok(sinks)
}

/// The dead letter queue, which is a topic behind a Kafka sink of its own (S88).
fn dlq(loaded: &Loaded) -> Result<Arc<dyn DeadLetters>, Fault> {
    let (topic, sink) = dlq_sink(loaded)?;
    Ok(Arc::new(KafkaDlq::new(Arc::new(sink.creating_the_topic()), topic, loaded.config.dlq.format)))
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
    Ok((topic, kafka_sink(&sink_options, loaded)?))
}

/// Connects everything at the same time; on a failure closes what did connect and reports all that did not (S123).
async fn connect(sinks: &Sinks, dlq: &Arc<dyn DeadLetters>) -> Result<(), NotStarted> {
    let connecting = sinks.iter().map(|(kind, name, sink)| async move {
        sink.connect().await.map_err(|error| named(&format!("{kind}/{name}"), error))
    });
    let (connected, queue) = tokio::join!(join_all(connecting), dlq.connect());
    let mut faults: Vec<Fault> = connected.into_iter().filter_map(Result::err).collect();
    faults.extend(queue.err());
    // As in a check: what is wrong for good counts before what may only be away.
    let Some(exit) = faults.iter().map(Exit::at_start).min() else { return Ok(()) };
    close(sinks, dlq).await;
    Err(NotStarted { exit, faults })
}

async fn close(sinks: &Sinks, dlq: &Arc<dyn DeadLetters>) {
    for (kind, name, sink) in sinks {
        if let Err(fault) = sink.close().await {
            tracing::warn!(sink = format!("{kind}/{name}"), %fault, "a sink did not close cleanly");
        }
    }
    dlq.close().await;
}

/// What kept a sink from connecting, with the sink's name in front where the fault does not say it.
pub fn named(sink: &str, error: CallError) -> Fault {
    let mut fault = error.into_fault();
    let option = format!("{}.", sink.replace('/', "."));
    if !fault.message.contains(&format!("`{sink}`")) && !fault.message.contains(&option) {
        fault.message = format!("`{sink}`: {}", fault.message);
    }
    fault
}
