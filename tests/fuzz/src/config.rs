//! A configuration file, and the environment over it: what is wrong is said in words that never hold a secret, and what is
//! right makes sinks without a panic.
//!
//! The input is the file's text; lines after [`ENVIRONMENT`] set variables, `NAME=value`.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate::config::{Config, Configured, Environment, MAX_SINKS, parse};
use tidegate::model::{Fault, Owner};
use tidegate::plugin::Origin;
use tidegate::sink;

/// Ends the file's text.
const ENVIRONMENT: &str = "\n#environment\n";
/// The value of `${SECRET}`, which no text but the configuration itself may hold. A topic's name and a password could be it.
const SECRET: &str = "Xq7Zk2-unguessable";
/// What of it is looked for.
const GIVEAWAY: &str = "unguessable";

/// S120, S121, S122: never a panic, never a secret in a fault, and never a limit out of its bounds.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Who writes the secret into the file has it in the keys; files elsewhere are none of a fuzzer's business.
    if text.contains(GIVEAWAY) || text.contains("file:") {
        return;
    }
    let (text, variables) = text.split_once(ENVIRONMENT).unwrap_or((text, ""));
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let environment: Environment = variables.chain([("SECRET", SECRET), ("TOPIC", "orders")]).collect();
    match parse(text, "t.yaml", &environment) {
        Ok(config) => {
            sound(&config);
            make(&config);
        }
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a word");
            faults.iter().for_each(tells_no_secret);
        }
    }
}

fn tells_no_secret(fault: &Fault) {
    assert_eq!(fault.owner, Owner::Config, "{fault:?}");
    assert!(!fault.message.is_empty(), "{fault:?}");
    assert!(!format!("{fault:?}").contains(GIVEAWAY), "{fault:?}");
}

/// What every configuration that was let through must be.
fn sound(config: &Config) {
    assert!((1..=MAX_SINKS).contains(&config.sinks.names().count()));
    assert!(!config.kafka.topics().is_empty() && !config.kafka.group.is_empty());
    for plugin in config.sinks.plugin.values().map(|sink| &sink.options).chain(&config.collect) {
        for limit in plugin.limits.all() {
            assert_eq!(limit.out_of_bounds(), None, "{}", limit.key);
        }
        for origin in &plugin.grants.http {
            // What a `check` shows grants the same when it is written into the configuration.
            let shown = origin.to_string();
            assert!(!shown.contains(['@', '*', '\\', '?', '#']) && !shown.contains(char::is_whitespace), "{shown}");
            let again = serde_json::from_value::<Origin>(shown.clone().into());
            assert!(again.is_ok_and(|again| again == *origin), "{shown}");
        }
    }
    let seconds = [
        config.checkpoint.interval_seconds,
        config.executor.delivery_timeout_seconds,
        config.executor.drain_timeout_seconds,
        config.kafka.revoke_budget_seconds,
    ];
    for seconds in seconds {
        assert!(Duration::try_from_secs_f64(seconds).is_ok(), "{seconds}");
    }
}

/// What of a sink's options is a name in its database.
type Names<T> = fn(&T) -> Vec<String>;

/// Makes the sinks, unconnected, as `check` does. HTTP's are left out: each of them reads the system's certificates.
fn make(config: &Config) {
    fn each<T, S>(
        sinks: &BTreeMap<String, Configured<T>>,
        new: impl Fn(&str, &T) -> Result<S, Fault>,
        names: Names<T>,
    ) {
        for (name, sink) in sinks {
            if let Err(fault) = new(name, &sink.options) {
                // A table or a field that cannot be one is quoted: whoever has put a secret there sees it.
                let quoted = names(&sink.options).iter().any(|name| name.contains(GIVEAWAY));
                assert!(quoted || !format!("{fault:?}").contains(GIVEAWAY), "{fault:?}");
            }
        }
    }
    let inherited =
        sink::kafka::Inherited { brokers: config.kafka.brokers.joined(), properties: config.kafka.properties.clone() };
    each(&config.sinks.kafka, |_, options| sink::kafka::KafkaSink::new(options.clone(), &inherited), |_| Vec::new());
    each(&config.sinks.postgres, sink::postgres::PostgresSink::new, |it| {
        [std::slice::from_ref(&it.table), &it.key].concat()
    });
    each(&config.sinks.mongo, sink::mongo::MongoSink::new, |it| {
        [std::slice::from_ref(&it.collection), &it.key].concat()
    });
    each(&config.sinks.redis, sink::redis::RedisSink::new, |_| Vec::new());
}
