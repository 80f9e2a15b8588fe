//! What librdkafka is told: our defaults, the user's properties over them, and what is ours to decide.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::{OnOffsetGap, Options};
use crate::memory::Prefetch;
use crate::model::Fault;

/// Where a partition without a committed offset starts (S51).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// At the first record that the broker has: nothing is skipped on the first start.
    Earliest,
    /// Behind the last one.
    Latest,
    /// At the first record of that time or later, in milliseconds since the Unix epoch; behind the last one where there is
    /// none.
    At(i64),
}

/// A consumer's configuration, with what was taken out of it.
pub(super) struct Consumer {
    pub client: ClientConfig,
    pub first: First,
}

/// The user's properties go over these.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "tidegate"),
    ("max.poll.interval.ms", "300000"),
    ("session.timeout.ms", "45000"),
    ("heartbeat.interval.ms", "3000"),
    // A full queue is looked at again after this long; the library's own second costs a factor of six in throughput.
    ("fetch.queue.backoff.ms", "5"),
    // A broker with nothing new answers so late; each such answer costs time in proportion to the partitions. The first fetch after a
    // rewind or a pause may wait as long, so that the library's own half second is too much.
    ("fetch.wait.max.ms", "250"),
    // A topic that has gained partitions is looked at this often: the library's own five minutes would leave them unread so
    // long.
    ("topic.metadata.refresh.interval.ms", "60000"),
    // A reconnect is tried again quickly: a restarted broker is usually back within seconds.
    ("reconnect.backoff.max.ms", "2000"),
    ("socket.keepalive.enable", "true"),
];

/// What the delivery guarantee rests on, so that nobody else sets it.
const OWNED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "false"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("group.protocol", "classic"),
    ("allow.auto.create.topics", "false"),
];

/// What the client fetches ahead, in its own words (S15).
fn fetched_ahead(prefetch: Prefetch) -> [(&'static str, u64); 4] {
    [
        ("queued.max.messages.kbytes", (prefetch.queue_bytes >> 10).max(1)),
        ("queued.min.messages", prefetch.queue_records),
        ("fetch.message.max.bytes", prefetch.fetch_bytes),
        ("fetch.max.bytes", prefetch.response_bytes),
    ]
}

/// A member of the group; the user's properties go over what memory would allow.
pub(super) fn consumer(options: &Options, prefetch: Prefetch) -> Result<Consumer, Fault> {
    if options.group.is_empty() {
        return Err(Fault::config("`kafka.group` is empty").hint("name the consumer group that offsets are kept under"));
    }
    let mut client = common(options)?;
    for (name, value) in fetched_ahead(prefetch) {
        if !options.properties.contains_key(name) {
            client.set(name, value.to_string());
        }
    }
    let first = match options.properties.get("auto.offset.reset").map(String::as_str) {
        None | Some("earliest" | "smallest" | "beginning") => First::Earliest,
        Some("latest" | "largest" | "end") => First::Latest,
        Some(other) => {
            return Err(Fault::config(format!("`kafka.properties.auto.offset.reset` cannot be `{other}`"))
                .hint("use `earliest` or `latest`"));
        }
    };
    // Starts are part of the assignment (S51), so this is only met when records vanish while we read (S52).
    let reset = match options.on_offset_gap {
        OnOffsetGap::Stop => "error",
        OnOffsetGap::Continue => "earliest",
    };
    client.set("group.id", &options.group).set("auto.offset.reset", reset);
    if !options.instance_id.is_empty() {
        client.set("group.instance.id", &options.instance_id);
    }
    Ok(Consumer { client, first })
}

/// Whether records of transactions that are still open are not read: the library's default.
pub(super) fn reads_committed(client: &ClientConfig) -> bool {
    client.get("isolation.level").is_none_or(|level| level == "read_committed")
}

/// The same for one who only looks, at partitions named by hand. Its group is named only because the library wants one: nothing
/// is subscribed to, so that it is never joined.
pub(super) fn onlooker(mut client: ClientConfig) -> ClientConfig {
    client.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest").remove("group.instance.id");
    client
}

/// Without a group: for questions about topics.
pub(super) fn common(options: &Options) -> Result<ClientConfig, Fault> {
    if options.topics().is_empty() {
        return Err(Fault::config("no topic to consume").hint("set `kafka.source_topic` or `kafka.source_topics`"));
    }
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Warning);
    for (name, value) in DEFAULTS {
        client.set(*name, *value);
    }
    for (name, value) in &options.properties {
        let owned = OWNED.iter().any(|(owned, _)| owned == name);
        let named = match name.as_str() {
            "bootstrap.servers" | "metadata.broker.list" => Some("kafka.brokers"),
            "group.id" => Some("kafka.group"),
            "group.instance.id" => Some("kafka.instance_id"),
            _ => None,
        };
        match named {
            Some(option) => {
                return Err(Fault::config(format!("`kafka.properties.{name}` is not taken"))
                    .hint(format!("set `{option}` instead")));
            }
            None if owned => {
                return Err(Fault::config(format!("`kafka.properties.{name}` is not taken"))
                    .hint("leave it out: Tidegate sets it, because what is committed depends on it"));
            }
            // Interpreted by us: start offsets are made part of the assignment (S51).
            None if name == "auto.offset.reset" => {}
            None => {
                client.set(name, value);
            }
        }
    }
    for (name, value) in OWNED {
        client.set(*name, *value);
    }
    client.set("bootstrap.servers", options.brokers.joined());
    Ok(client)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::memory::Budget;

    fn with(name: &str, value: &str) -> Result<Consumer, Fault> {
        let mut options = Options { source_topic: "orders".into(), group: "out".into(), ..Options::default() };
        options.properties.insert(name.into(), value.into());
        consumer(&options, Budget::of_mebibytes(64).prefetch(4))
    }

    /// S51: the first start skips nothing unless asked to, and the reset is never left to the library.
    #[test]
    fn start_offsets_are_ours_s51() {
        assert_eq!(with("client.id", "a").unwrap().first, First::Earliest);
        let latest = with("auto.offset.reset", "latest").unwrap();
        assert_eq!(latest.first, First::Latest);
        assert_eq!(latest.client.get("auto.offset.reset"), Some("error"));
        assert!(with("auto.offset.reset", "none").is_err());
    }

    #[test]
    fn properties_go_over_the_defaults_but_not_over_what_commits_rest_on() {
        assert_eq!(with("session.timeout.ms", "6000").unwrap().client.get("session.timeout.ms"), Some("6000"));
        let refused = with("enable.auto.commit", "true").err().unwrap();
        assert!(refused.message.contains("enable.auto.commit"), "{refused}");
        let refused = with("bootstrap.servers", "elsewhere:9092").err().unwrap();
        assert_eq!(refused.hint.as_deref(), Some("set `kafka.brokers` instead"));
        let refused = with("group.instance.id", "a").err().unwrap();
        assert_eq!(refused.hint.as_deref(), Some("set `kafka.instance_id` instead"));
    }
}
