//! Checks of the sinks together, and of what no sink could say of itself.

use super::super::Configured;
use super::super::explain::listed;
use super::{Lint, MAX_SINKS};
use crate::model::SinkKind;
use crate::sink::OnTombstone;

/// Longest sink name.
const MAX_NAME_BYTES: usize = 64;

impl Lint<'_> {
    pub(super) fn sinks(&mut self) {
        let count = self.config.sinks.names().count();
        if count == 0 {
            self.find(
                "C001",
                &["sinks"],
                "there is no sink, so nothing would be delivered",
                "add one, for example `sinks: { filesystem: { log: { base_path: /var/lib/tidegate } } }`",
            );
        }
        if count > MAX_SINKS {
            self.find(
                "C010",
                &["sinks"],
                &format!("{count} sinks are more than the {MAX_SINKS} that one process serves"),
                "",
            );
        }
        for (kind, name) in self.config.sinks.names() {
            let sound = !name.is_empty()
                && name.len() <= MAX_NAME_BYTES
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
            if !sound {
                let hint = format!("a name is 1 to {MAX_NAME_BYTES} letters, digits, `_`, `-` and `.`");
                self.find(
                    "C013",
                    &["sinks", kind.name(), name],
                    &format!("`sinks.{kind}.{name}` cannot be a sink's name"),
                    &hint,
                );
            }
        }
        for (name, Configured { options, .. }) in &self.config.sinks.filesystem {
            if options.base_path.as_os_str().is_empty() {
                let key = ["sinks", "filesystem", name, "base_path"];
                self.find("C015", &key, &format!("`{}` is empty", key.join(".")), "name the directory to write under");
            }
        }
    }

    /// A tombstone can be deleted where there is a key to delete by.
    pub(super) fn tombstones(&mut self) {
        let sinks = &self.config.sinks;
        let mut wrong: Vec<(SinkKind, &str, &str)> = Vec::new();
        let keyless = "it has no keys; use `skip`";
        let needs_key = "name the columns or fields of the `key`";
        let deletes = |chosen| chosen == OnTombstone::Delete;
        for (name, Configured { options, .. }) in &sinks.postgres {
            if deletes(options.on_tombstone) && options.key.is_empty() {
                wrong.push((SinkKind::Postgres, name, needs_key));
            }
        }
        for (name, Configured { options, .. }) in &sinks.mongo {
            if deletes(options.on_tombstone) && options.key.is_empty() {
                wrong.push((SinkKind::Mongo, name, needs_key));
            }
        }
        for (name, Configured { options, .. }) in &sinks.http {
            if deletes(options.on_tombstone) {
                wrong.push((SinkKind::Http, name, keyless));
            }
        }
        for (name, Configured { options, .. }) in &sinks.filesystem {
            if deletes(options.on_tombstone) {
                wrong.push((SinkKind::Filesystem, name, keyless));
            }
        }
        for (kind, name, hint) in wrong {
            let message = format!("`sinks.{kind}.{name}` cannot delete by key");
            self.find("C016", &["sinks", kind.name(), name, "on_tombstone"], &message, hint);
        }
    }

    /// Every record has to go somewhere, and nobody waits for a topic that is not read.
    pub(super) fn taken_topics(&mut self) {
        let topics = self.config.kafka.topics();
        let shown: Vec<&str> = topics.iter().map(|topic| self.shown(topic)).collect();
        let sinks: Vec<_> = self.config.sinks.all().collect();
        for (kind, name, delivery) in &sinks {
            let path = ["sinks", kind.name(), name, "topics"];
            if !delivery.topics.is_empty() && self.config.collect.is_some() {
                let message =
                    format!("`{}` has no meaning beside a collector, which addresses its payloads", path.join("."));
                self.find("C017", &path, &message, "leave it out");
            }
            for topic in delivery.topics.iter().filter(|topic| !topics.contains(topic)) {
                let message = format!("`{}` names `{}`, which is not read", path.join("."), self.shown(topic));
                self.find("C017", &path, &message, &format!("the source topics are {}", listed(&shown, "and")));
            }
        }
        if self.config.collect.is_some() || sinks.is_empty() {
            return;
        }
        for topic in topics.iter().filter(|topic| sinks.iter().all(|(_, _, delivery)| !delivery.takes(topic))) {
            let message = format!("no sink takes the records of `{}`, so they would be passed over", self.shown(topic));
            self.find("C017", &["sinks"], &message, "name it in the `topics` of a sink, or do not read it");
        }
    }

    /// Numbers of single sinks that make no sense.
    pub(super) fn sink_numbers(&mut self) {
        let sinks = &self.config.sinks;
        for (name, Configured { options, .. }) in &sinks.postgres {
            let key = |last| ["sinks", "postgres", name.as_str(), last];
            self.positive(&key("max_connections"), u64::from(options.max_connections));
            if options.min_connections > options.max_connections {
                let message = format!("`{}` is more than `max_connections`", key("min_connections").join("."));
                self.find("C008", &key("min_connections"), &message, "");
            }
        }
        for (name, Configured { options, .. }) in &sinks.redis {
            if let Some(ttl) = options.ttl_seconds {
                self.positive(&["sinks", "redis", name, "ttl_seconds"], u64::from(ttl));
            }
        }
        for (name, Configured { options, .. }) in &sinks.http {
            let key = |last| ["sinks", "http", name.as_str(), last];
            self.positive(&key("concurrency"), options.concurrency as u64);
            if self.seconds(&key("timeout_seconds"), options.timeout_seconds, false) && options.timeout_seconds < 1.0 {
                let message = format!("`{}` must be 1 or more", key("timeout_seconds").join("."));
                self.find("C008", &key("timeout_seconds"), &message, "");
            }
        }
    }
}
