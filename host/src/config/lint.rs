//! What the option structs cannot say: checks across options, each with a code that stays the same for good.
//!
//! | Code | What is wrong |
//! |---|---|
//! | C001 | no sink |
//! | C002 | no source topic |
//! | C003 | `source_topic` beside `source_topics` |
//! | C004 | no consumer group |
//! | C005 | a name that is no Kafka topic, or a topic named twice |
//! | C006 | dead letters would be read again as records |
//! | C007 | a sink writes to a topic that is read |
//! | C008 | a number that makes no sense |
//! | C009 | the revoke budget is too long for `max.poll.interval.ms` |
//! | C010 | too many sinks |
//! | C011 | a property that belongs to Tidegate |
//! | C012 | two directories under one name for a guest |
//! | C013 | a sink's name that cannot be one |
//! | C014 | something that is no SHA-256 |
//! | C015 | an empty path |
//! | C016 | tombstones that a sink cannot delete |
//! | C017 | a sink's topics that are not read, or a topic that no sink takes |
//! | C018 | a grant for a PostgreSQL sink that is not configured |
//! | C019 | a grant to write to a sink that is not configured, or for a plugin that writes to none |
//! | C020 | addresses that no granted host needs |

use std::collections::{BTreeMap, BTreeSet};

use super::explain::listed;
use super::substitute::Written;
use super::tree::{Located, Node};
use super::{Config, Configured};
use crate::memory;
use crate::model::Fault;

mod plugins;
mod sinks;

/// Most sinks that one pipeline serves: the ledger marks them in one machine word.
pub const MAX_SINKS: usize = 63;
/// Longest time that an option in seconds may name: a year.
const MAX_SECONDS: f64 = 31_536_000.0;
/// Longest topic name that Kafka takes.
const MAX_TOPIC_BYTES: usize = 249;
/// librdkafka's `max.poll.interval.ms` when the properties have none (S122).
const DEFAULT_MAX_POLL_MS: f64 = 300_000.0;
/// The part of `max.poll.interval.ms` that giving a partition back may take (S46).
const REVOKE_SHARE: f64 = 0.2;

/// Properties of the consumer that decide about offsets and assignment, and the option to use instead, if any.
const SOURCE_PROPERTIES: [(&str, &str); 13] = [
    ("bootstrap.servers", "kafka.brokers"),
    ("metadata.broker.list", "kafka.brokers"),
    ("group.id", "kafka.group"),
    ("group.instance.id", "kafka.instance_id"),
    ("enable.auto.commit", ""),
    ("auto.commit.enable", ""),
    ("auto.commit.interval.ms", "checkpoint.interval_seconds"),
    ("enable.auto.offset.store", ""),
    ("enable.partition.eof", ""),
    ("partition.assignment.strategy", ""),
    ("allow.auto.create.topics", ""),
    ("group.protocol", ""),
    ("group.remote.assignor", ""),
];

/// Properties of the producer that decide whether a write counts (S104).
const SINK_PROPERTIES: [(&str, &str); 6] = [
    ("bootstrap.servers", "brokers"),
    ("metadata.broker.list", "brokers"),
    ("acks", ""),
    ("request.required.acks", ""),
    ("enable.idempotence", ""),
    ("transactional.id", ""),
];

/// Everything that is wrong, at once.
pub fn lint(config: &Config, root: &Node, written: &Written, file: &str) -> Vec<Fault> {
    let mut lint = Lint { config, root, written, file, faults: Vec::new() };
    lint.sinks();
    lint.tombstones();
    lint.taken_topics();
    lint.source();
    lint.topics();
    lint.loops();
    lint.numbers();
    lint.properties();
    lint.plugins();
    lint.faults
}

struct Lint<'a> {
    config: &'a Config,
    root: &'a Node,
    written: &'a Written,
    file: &'a str,
    faults: Vec<Fault>,
}

impl<'a> Lint<'a> {
    /// A value as a fault may show it: one that came from a variable or a file as it was written (S121).
    fn shown<'v>(&self, value: &'v str) -> &'v str
    where
        'a: 'v,
    {
        self.written.shown(value)
    }

    /// Adds a finding about the option at `path`, placed at the innermost part of it that was written.
    fn find(&mut self, code: &str, path: &[&str], message: &str, hint: &str) {
        let place = (1..=path.len()).rev().find_map(|length| self.root.at(&path[..length])).map(|node| &node.place);
        let at = Located { file: self.file, place };
        let fault = Fault::config(format!("{message} ({at}) [{code}]"));
        self.faults.push(if hint.is_empty() { fault } else { fault.hint(hint) });
    }

    fn source(&mut self) {
        let kafka = &self.config.kafka;
        if kafka.topics().is_empty() {
            self.find(
                "C002",
                &["kafka", "source_topic"],
                "`kafka.source_topic` is missing",
                "name the topic to consume, or several in `kafka.source_topics`",
            );
        }
        if !kafka.source_topic.is_empty() && !kafka.source_topics.is_empty() {
            self.find(
                "C003",
                &["kafka", "source_topics"],
                "`kafka.source_topic` and `kafka.source_topics` are both given",
                "keep one of the two",
            );
        }
        if kafka.group.is_empty() {
            self.find(
                "C004",
                &["kafka", "group"],
                "`kafka.group` is missing",
                "name the consumer group under which offsets are committed",
            );
        }
    }

    fn topics(&mut self) {
        let mut seen = BTreeSet::new();
        for topic in self.config.kafka.topics() {
            if self.topic(&["kafka", "source_topics"], &topic) && !seen.insert(topic.clone()) {
                self.find(
                    "C005",
                    &["kafka", "source_topics"],
                    &format!("`kafka.source_topics` names `{}` twice", self.shown(&topic)),
                    "keep one of the two",
                );
            }
        }
        for (name, sink) in &self.config.sinks.kafka {
            self.topic(&["sinks", "kafka", name, "topic"], &sink.options.topic);
        }
        if !self.config.dlq.topic.is_empty() {
            self.topic(&["dlq", "topic"], &self.config.dlq.topic);
        }
    }

    /// Whether the name can be a topic's. To librdkafka one that begins with `^` would be a pattern.
    fn topic(&mut self, key: &[&str], topic: &str) -> bool {
        let sound = !topic.is_empty()
            && topic.len() <= MAX_TOPIC_BYTES
            && topic != "."
            && topic != ".."
            && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        if !sound {
            let hint = format!("a topic's name is 1 to {MAX_TOPIC_BYTES} letters, digits, `.`, `_` and `-`");
            // What is written there is not quoted: it may be a secret in the wrong place.
            self.find("C005", key, &format!("`{}` is no name of a Kafka topic", key.join(".")), &hint);
        }
        sound
    }

    fn loops(&mut self) {
        let sources: BTreeSet<String> = self.config.kafka.topics().into_iter().collect();
        let dlq = &self.config.dlq;
        if self.same_cluster(&dlq.brokers) {
            let letters: Vec<String> = match dlq.topic.as_str() {
                // Letters of all topics go to the one named after the first (S88).
                "" => self.config.kafka.topics().first().map(|topic| format!("{topic}_dlq")).into_iter().collect(),
                topic => vec![topic.to_owned()],
            };
            for topic in letters.iter().filter(|topic| sources.contains(*topic)) {
                let message = format!("dead letters would go to `{}`, which is a source topic", self.shown(topic));
                self.find("C006", &["dlq", "topic"], &message, "set `dlq.topic` to a topic that is not consumed here");
            }
        }
        for (name, Configured { options, .. }) in &self.config.sinks.kafka {
            if sources.contains(&options.topic) && self.same_cluster(&options.brokers) {
                let message = format!(
                    "`sinks.kafka.{name}` writes to `{}`, which is a source topic: its records would come round again",
                    self.shown(&options.topic)
                );
                self.find(
                    "C007",
                    &["sinks", "kafka", name, "topic"],
                    &message,
                    "write to another topic, or to other brokers",
                );
            }
        }
    }

    /// Whether `brokers`, empty for the source's own, names a broker of the source.
    fn same_cluster(&self, brokers: &str) -> bool {
        let source = self.config.kafka.brokers.joined();
        let split = |list: &str| list.split(',').map(|broker| broker.trim().to_lowercase()).collect::<BTreeSet<_>>();
        brokers.trim().is_empty() || !split(brokers).is_disjoint(&split(&source))
    }

    fn numbers(&mut self) {
        let Config { kafka, checkpoint, window, executor, memory, .. } = self.config;
        self.seconds(&["checkpoint", "interval_seconds"], checkpoint.interval_seconds, true);
        self.seconds(&["executor", "delivery_timeout_seconds"], executor.delivery_timeout_seconds, false);
        self.seconds(&["executor", "drain_timeout_seconds"], executor.drain_timeout_seconds, true);
        self.positive(&["checkpoint", "max_bytes"], checkpoint.max_bytes);
        self.positive(&["checkpoint", "max_records"], checkpoint.max_records);
        self.positive(&["window", "max_records"], window.max_records as u64);
        self.positive(&["window", "max_bytes"], window.max_bytes as u64);
        self.memory(memory.max_mebibytes);
        self.sink_numbers();
        self.seconds(&["kafka", "start_timeout_seconds"], kafka.start_timeout_seconds, true);
        if self.seconds(&["kafka", "revoke_budget_seconds"], kafka.revoke_budget_seconds, false) {
            self.revoke_budget();
        }
    }

    fn memory(&mut self, mebibytes: u64) {
        let (least, most) = (memory::Options::LEAST_MEBIBYTES, memory::Options::MOST_MEBIBYTES);
        if !(least..=most).contains(&mebibytes) {
            let message = format!("`memory.max_mebibytes` must be between {least} and {most}");
            self.find("C008", &["memory", "max_mebibytes"], &message, "");
        }
    }

    fn revoke_budget(&mut self) {
        let kafka = &self.config.kafka;
        let written = kafka.properties.get("max.poll.interval.ms");
        let max_poll = match written.map(|value| value.trim().parse::<u32>()) {
            None => DEFAULT_MAX_POLL_MS,
            Some(Ok(value)) if value > 0 => f64::from(value),
            Some(_) => {
                let key = ["kafka", "properties", "max.poll.interval.ms"];
                return self.find(
                    "C008",
                    &key,
                    "`kafka.properties.max.poll.interval.ms` must be a whole number of milliseconds, 1 or more",
                    "",
                );
            }
        };
        let most = max_poll * REVOKE_SHARE / 1000.0;
        let budget = kafka.revoke_budget_seconds;
        if budget > most {
            let message = format!(
                "`kafka.revoke_budget_seconds` is {budget}, more than a fifth of `max.poll.interval.ms` ({max_poll})"
            );
            let hint = format!("at most {most} seconds, or raise `kafka.properties.max.poll.interval.ms`");
            self.find("C009", &["kafka", "revoke_budget_seconds"], &message, &hint);
        }
    }

    /// Whether the number of seconds makes sense.
    fn seconds(&mut self, key: &[&str], value: f64, zero: bool) -> bool {
        // NaN fails every comparison, so it is refused as well.
        let sound = (value > 0.0 || (zero && value == 0.0)) && value <= MAX_SECONDS;
        if !sound {
            let least = if zero { "0 or more" } else { "more than 0" };
            self.find(
                "C008",
                key,
                &format!("`{}` must be {least} and at most {MAX_SECONDS} seconds", key.join(".")),
                "",
            );
        }
        sound
    }

    fn positive(&mut self, key: &[&str], value: u64) {
        if value == 0 {
            self.find("C008", key, &format!("`{}` must be 1 or more", key.join(".")), "");
        }
    }

    fn properties(&mut self) {
        self.owned(&["kafka", "properties"], &self.config.kafka.properties, &SOURCE_PROPERTIES);
        for (name, Configured { options, .. }) in &self.config.sinks.kafka {
            self.owned(&["sinks", "kafka", name, "properties"], &options.properties, &SINK_PROPERTIES);
        }
    }

    fn owned(&mut self, key: &[&str], properties: &BTreeMap<String, String>, owned: &[(&str, &str)]) {
        for (property, instead) in owned.iter().filter(|(property, _)| properties.contains_key(*property)) {
            let path: Vec<&str> = key.iter().copied().chain([*property]).collect();
            let hint = match *instead {
                "" => "leave it out: what is delivered and committed hangs on it".to_owned(),
                option => format!("leave it out and use `{option}`"),
            };
            self.find("C011", &path, &format!("`{}` is set by Tidegate itself", path.join(".")), &hint);
        }
    }

    fn plugins(&mut self) {
        if let Some(collect) = &self.config.collect {
            self.plugin(&["collect"], collect);
        }
        for (name, Configured { options, .. }) in &self.config.sinks.plugin {
            self.plugin(&["sinks", "plugin", name], options);
        }
    }
}
