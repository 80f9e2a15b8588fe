//! What librdkafka is told about a producer, and the creation of its topic.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigEntry, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::RDKafkaErrorCode;

use super::topic::{CLEANUP_POLICY, Setting, Settings};
use super::{Inherited, Options};
use crate::model::{CallError, Fault};

/// The user's properties go over these.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "tidegate"),
    ("linger.ms", "5"),
    ("compression.type", "lz4"),
    // What Java's producers use, so that equal keys meet in one partition whoever writes them.
    ("partitioner", "murmur2_random"),
    // Given up before the 30 seconds that a call may take by default (S77), so that every row's outcome is known by then.
    ("message.timeout.ms", "20000"),
    (QUEUE_KIBIBYTES, "131072"),
    // The broker's limit is the one that counts, as far as a request of one record fits into the 100 MiB that brokers read
    // (`socket.request.max.bytes`): of a larger one they hang up.
    ("message.max.bytes", "104792064"),
    ("reconnect.backoff.max.ms", "2000"),
    ("socket.keepalive.enable", "true"),
];

/// How much waits for the brokers at most, in units of 1,024 bytes.
const QUEUE_KIBIBYTES: &str = "queue.buffering.max.kbytes";
/// librdkafka's own `batch.size`, in bytes.
const BATCH_SIZE: u64 = 1_000_000;

/// What success means, so that nobody else sets it (S104).
const OWNED: &[(&str, &str)] = &[("acks", "all"), ("enable.idempotence", "true")];
/// Other names of the same.
const ALIASES: &[&str] = &["request.required.acks", "transactional.id"];

/// Which of the source's properties a producer on the same cluster needs.
const CONNECTION: &[&str] = &["security.", "sasl.", "ssl.", "enable.ssl.", "https.ca.", "broker.address.family"];

pub(super) fn producer(options: &Options, inherited: &Inherited) -> Result<ClientConfig, Fault> {
    if options.topic.is_empty() {
        return Err(Fault::config("a Kafka sink without `topic`").hint("name the topic to write to"));
    }
    let mut client = ClientConfig::new();
    client.set_log_level(RDKafkaLogLevel::Warning);
    for (name, value) in DEFAULTS {
        client.set(*name, *value);
    }
    if options.brokers.is_empty() {
        client.set("bootstrap.servers", &inherited.brokers);
        for (name, value) in &inherited.properties {
            if CONNECTION.iter().any(|prefix| name.starts_with(prefix)) {
                client.set(name, value);
            }
        }
    } else {
        client.set("bootstrap.servers", &options.brokers);
    }
    for (name, value) in &options.properties {
        let refused = |hint: &str| Err(Fault::config(format!("property `{name}` is not taken")).hint(hint));
        match name.as_str() {
            "bootstrap.servers" | "metadata.broker.list" => return refused("set `brokers` instead"),
            name if ALIASES.contains(&name) || OWNED.iter().any(|(owned, _)| *owned == name) => {
                return refused("leave it out: Tidegate sets it, because it decides what counts as delivered");
            }
            name => client.set(name, value),
        };
    }
    for (name, value) in OWNED {
        client.set(*name, *value);
    }
    Ok(client)
}

pub(super) fn brokers(config: &ClientConfig) -> &str {
    config.get("bootstrap.servers").unwrap_or_default()
}

/// The same configuration with batches of at most `batch_size` bytes, save those of a single larger record.
pub(super) fn within(config: &ClientConfig, batch_size: u64) -> ClientConfig {
    let mut config = config.clone();
    config.set("batch.size", batch_size.max(1).to_string());
    config
}

/// The largest batch that is configured, in bytes.
pub(super) fn batch_size(config: &ClientConfig) -> u64 {
    config.get("batch.size").and_then(|size| size.parse().ok()).unwrap_or(BATCH_SIZE)
}

/// The largest value that the queue takes, in bytes.
pub(super) fn queue_bytes(config: &ClientConfig) -> u64 {
    config.get(QUEUE_KIBIBYTES).and_then(|size| size.parse::<u64>().ok()).map_or(u64::MAX, |size| size * 1024)
}

/// The `message.max.bytes` that the user wants.
pub(super) fn own_limit(options: &Options) -> Option<u64> {
    options.properties.get("message.max.bytes")?.parse().ok()
}

/// What the topic is like; `None` when we may not ask.
pub(super) async fn describe(config: &ClientConfig, topic: &str, timeout: Duration) -> Option<Settings> {
    let admin: AdminClient<DefaultClientContext> = connection(config).create().ok()?;
    let options = AdminOptions::new().request_timeout(Some(timeout));
    let mut found = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await.ok()?;
    let entries = found.pop()?.ok()?.entries.into_iter();
    let setting = |entry: ConfigEntry| {
        let is_default = entry.is_default || matches!(entry.source, ConfigSource::Default);
        entry.value.map(|value| Setting { name: entry.name, value, is_default })
    };
    Some(Settings(entries.filter_map(setting).collect()))
}

/// Those properties that concern the connection.
fn connection(config: &ClientConfig) -> ClientConfig {
    let mut connection = ClientConfig::new();
    // The map itself hides what is secret; only `get` gives it.
    for name in config.config_map().into_keys() {
        if name == "bootstrap.servers" || CONNECTION.iter().any(|prefix| name.starts_with(prefix)) {
            connection.set(name, config.get(name).unwrap_or_default());
        }
    }
    connection
}

/// Creates the topic, with as many partitions and replicas as the cluster gives by itself; or only asks whether that
/// could be done.
pub(super) async fn create(
    config: &ClientConfig,
    topic: &str,
    only_ask: bool,
    timeout: Duration,
) -> Result<(), CallError> {
    /// Asks the cluster for its own default.
    const CLUSTER_DEFAULT: i32 = -1;
    let failed = || Fault::destination(format!("topic `{topic}` cannot be created"));
    let admin: AdminClient<DefaultClientContext> =
        connection(config).create().map_err(|error| CallError::Fatal(failed().because(error)))?;
    // Whatever the cluster's default is: compaction would delete records that have a key in common.
    let wanted =
        NewTopic::new(topic, CLUSTER_DEFAULT, TopicReplication::Fixed(CLUSTER_DEFAULT)).set(CLEANUP_POLICY, "delete");
    let options =
        AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout)).validate_only(only_ask);
    let results = admin.create_topics([&wanted], &options).await.map_err(|error| {
        CallError::Unavailable(failed().because(format!("no answer of `{}`: {error}", brokers(config))))
    })?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            // Somebody else may have created it, and we may be allowed to write all the same: the probe will tell.
            Err((
                _,
                code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed),
            )) if !only_ask => {
                tracing::warn!(topic, "a topic may not be created by us: {code}");
            }
            Err((_, code)) => return Err(CallError::Unknown(failed().because(code))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn inherited() -> Inherited {
        let properties =
            [("sasl.password", "secret"), ("session.timeout.ms", "6000"), ("security.protocol", "SASL_SSL")];
        Inherited {
            brokers: "a:1,b:2".into(),
            properties: properties.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        }
    }

    /// S103: without brokers of its own a sink writes to the source's cluster, the way the source connects to it.
    #[test]
    fn brokers_are_inherited_with_what_connects_to_them_s103() {
        let options = Options { topic: "out".into(), ..Options::default() };
        let config = producer(&options, &inherited()).unwrap();
        assert_eq!(config.get("bootstrap.servers"), Some("a:1,b:2"));
        assert_eq!(config.get("sasl.password"), Some("secret"));
        assert_eq!(config.get("session.timeout.ms"), None);
        let options = Options { brokers: "c:3".into(), ..options };
        let config = producer(&options, &inherited()).unwrap();
        assert_eq!((config.get("bootstrap.servers"), config.get("sasl.password")), (Some("c:3"), None));
    }

    /// S88: a topic is asked for and created the way it is written to, password included.
    #[test]
    fn questions_are_asked_with_the_password_s88() {
        let config = producer(&Options { topic: "out".into(), ..Options::default() }, &inherited()).unwrap();
        let connection = connection(&config);
        assert_eq!(connection.get("sasl.password"), Some("secret"));
        assert_eq!(connection.get("linger.ms"), None);
    }

    /// S94a, S104: a queue that is configured smaller than a record says so; batches are as small as wanted.
    #[test]
    fn sizes_are_those_of_the_configuration_s94a() {
        let mut options = Options { topic: "out".into(), ..Options::default() };
        let config = producer(&options, &inherited()).unwrap();
        assert_eq!((batch_size(&config), queue_bytes(&config)), (1_000_000, 128 << 20));
        assert_eq!(within(&config, 488).get("batch.size"), Some("488"));
        options.properties =
            [("batch.size", "5000"), (QUEUE_KIBIBYTES, "1")].map(|(name, value)| (name.into(), value.into())).into();
        let config = producer(&options, &inherited()).unwrap();
        assert_eq!((batch_size(&config), queue_bytes(&config)), (5000, 1024));
    }

    /// S104: what success means is not up for configuration.
    #[test]
    fn acknowledgement_is_ours_s104() {
        let mut options = Options { topic: "out".into(), ..Options::default() };
        let config = producer(&options, &inherited()).unwrap();
        assert_eq!((config.get("acks"), config.get("enable.idempotence")), (Some("all"), Some("true")));
        for name in ["acks", "request.required.acks", "enable.idempotence"] {
            options.properties = [(name.to_owned(), "0".to_owned())].into();
            assert!(producer(&options, &inherited()).unwrap_err().message.contains(name));
        }
        options.properties = [("linger.ms".to_owned(), "50".to_owned())].into();
        assert_eq!(producer(&options, &inherited()).unwrap().get("linger.ms"), Some("50"));
    }
}
