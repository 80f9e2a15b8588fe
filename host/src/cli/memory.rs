//! What `check` says about memory: the budget for records, and what plugins may take beside it (S15).

use serde_json::{Value, json};

use crate::config::Config;
use crate::memory::Budget;
use crate::model::SinkKind;
use crate::plugin::{self, MOST_AUTOMATIC_INSTANCES, PluginSink};

/// Bytes in one MiB.
const MEBIBYTE: f64 = (1 << 20) as f64;

/// How memory is divided.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryReport {
    max_mebibytes: u64,
    budget: Budget,
    /// How many partitions share what is fetched ahead; `None` when the brokers were not asked.
    partitions: Option<usize>,
    /// What a native sink may take for each window that it is writing, in bytes: it makes the window's rows into its own form.
    written_bytes: u64,
    native: Vec<String>,
    plugins: Vec<PluginMemory>,
}

/// What a plugin may take.
#[derive(Clone, Debug, PartialEq)]
struct PluginMemory {
    name: String,
    instances: u64,
    mebibytes: u64,
    /// What a buffering sink's instance is given between two flushes, part of the budget for records; `None` for a collector.
    buffered_bytes: Option<u64>,
}

impl MemoryReport {
    /// Reads the configuration.
    pub fn of(config: &Config, partitions: Option<usize>) -> Self {
        let plugin = |name: String, options: &plugin::Options, is_sink: bool| PluginMemory {
            name,
            instances: options.limits.instances_with(&options.grants),
            mebibytes: options.limits.memory_mebibytes,
            buffered_bytes: is_sink.then(|| PluginSink::most_buffered_bytes(&options.limits)),
        };
        let collector = config.collect.iter().map(|options| plugin("collect".into(), options, false));
        let sinks =
            config.sinks.plugin.iter().map(|(name, sink)| plugin(format!("plugin/{name}"), &sink.options, true));
        let native = config.sinks.names().filter(|(kind, _)| *kind != SinkKind::Plugin);
        Self {
            max_mebibytes: config.memory.max_mebibytes,
            budget: config.memory.budget(),
            partitions,
            written_bytes: (config.window.max_bytes as u64).min(config.memory.budget().record_bytes),
            native: native.map(|(kind, name)| format!("{kind}/{name}")).collect(),
            plugins: collector.chain(sinks).collect(),
        }
    }

    /// What is divided, how much it is, and a word about it.
    pub fn rows(&self) -> Vec<(String, String, String)> {
        let share = match self.partitions {
            Some(partitions) => {
                let each = self.budget.prefetch_bytes as f64 / partitions.max(1) as f64;
                format!("{} for each of {partitions} partitions", shown(each))
            }
            None => "divided by the partitions".into(),
        };
        let mut rows = vec![
            ("fetched ahead from Kafka".into(), shown(self.budget.prefetch_bytes as f64), share),
            ("windows, payloads, buffered rows".into(), shown(self.budget.record_bytes as f64), String::new()),
        ];
        for sink in &self.native {
            let note = "at most, for each window that is being written".into();
            rows.push((sink.clone(), shown(self.written_bytes as f64), note));
        }
        for plugin in &self.plugins {
            let buffered = plugin.buffered_bytes.map(|bytes| format!(", rows buffered {}", shown(bytes as f64)));
            let note = format!("{}{}", instances(plugin.instances), buffered.unwrap_or_default());
            rows.push((plugin.name.clone(), shown(plugin.mebibytes as f64 * MEBIBYTE), note));
        }
        rows
    }

    /// The same for a machine.
    pub fn value(&self) -> Value {
        let plugins: Vec<Value> = self
            .plugins
            .iter()
            .map(|plugin| {
                json!({
                    "name": plugin.name,
                    "instances": plugin.instances,
                    "memory_mebibytes": plugin.mebibytes,
                    "buffered_bytes": plugin.buffered_bytes,
                })
            })
            .collect();
        json!({
            "max_mebibytes": self.max_mebibytes,
            "prefetch_bytes": self.budget.prefetch_bytes,
            "record_bytes": self.budget.record_bytes,
            "partitions": self.partitions,
            "sinks": self.native.iter().map(|name| json!({ "name": name, "window_bytes": self.written_bytes })).collect::<Vec<_>>(),
            "plugins": plugins,
        })
    }
}

fn instances(count: u64) -> String {
    match count {
        0 => format!("for each instance, one per core, at most {MOST_AUTOMATIC_INSTANCES}"),
        1 => "1 instance".into(),
        count => format!("for each of {count} instances"),
    }
}

fn shown(bytes: f64) -> String {
    let mebibytes = bytes / MEBIBYTE;
    if mebibytes >= 10.0 || mebibytes.fract() == 0.0 {
        format!("{mebibytes:.0} MiB")
    } else if mebibytes >= 1.0 {
        format!("{mebibytes:.1} MiB")
    } else {
        format!("{:.0} KiB", bytes / 1024.0)
    }
}
