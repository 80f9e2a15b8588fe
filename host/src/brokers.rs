//! What Kafka clients say of their brokers: one line when a broker becomes unavailable, at most one a minute while it is, and one
//! when it is back, however many clients of this process use it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::clock::{self, Instant};

/// Time between two log lines of one outage, or of one error that comes again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Brokers and errors that are remembered. Those beyond are logged each time.
const MOST_KNOWN: usize = 1_000;
/// librdkafka tells of connections that were made only in its debug lines of this context.
const DEBUG_CONTEXT: &str = "broker";

/// Of this process's clients, whatever they are for.
static OUTAGES: Mutex<Outages> = Mutex::new(Outages { known: BTreeMap::new() });

/// Makes a client tell when it has reached a broker.
pub fn watch(config: &mut ClientConfig) -> &mut ClientConfig {
    if config.get("debug").is_none() {
        config.set("debug", DEBUG_CONTEXT);
    }
    config.set_log_level(RDKafkaLogLevel::Debug)
}

/// Takes a log line of a client.
pub fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match (level, facility) {
        (_, "STATE") => {
            if let Some(broker) = reached(text) {
                available(broker);
            }
            tracing::trace!(target: "librdkafka", "{facility} {text}");
        }
        // Told by the error that comes with it, of which `error` makes one line.
        (_, "FAIL" | "ERROR" | "REQTMOUT")
        | (RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice, _) => {
            tracing::debug!(target: "librdkafka", "{facility} {text}");
        }
        (RDKafkaLogLevel::Warning, _) => tracing::warn!(target: "librdkafka", "{facility} {text}"),
        _ => tracing::error!(target: "librdkafka", "{facility} {text}"),
    }
}

/// Takes an error of a client's connections. `client` is what it is for.
pub fn error(client: &str, error: &KafkaError, reason: &str) {
    let now = clock::instant();
    if !is_of_connection(error) {
        // The same again and again, of which each tells nothing new.
        if outages(|all| all.begin(&format!("{client}: {error}"), now)).is_some() {
            tracing::warn!(%reason, "{client}: {error}");
        }
        return;
    }
    let Some((broker, why)) = failed(reason) else {
        tracing::debug!(%reason, "{client}: {error}");
        return;
    };
    match outages(|all| all.begin(broker, now)) {
        Some(0) => tracing::warn!(reason = why, "Kafka broker `{broker}` is unavailable"),
        Some(seconds) => tracing::warn!(seconds, reason = why, "Kafka broker `{broker}` is still unavailable"),
        None => tracing::debug!(%reason, "{client}: {error}"),
    }
}

/// Whether the error only says that a broker, or all of them, cannot be reached, as `error` has been told already.
pub fn is_of_connection(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::OperationTimedOut)
    )
}

fn available(broker: &str) {
    if let Some(seconds) = outages(|all| all.end(broker, clock::instant())) {
        tracing::info!(seconds, "Kafka broker `{broker}` is available again");
    }
}

fn outages<T>(look: impl FnOnce(&mut Outages) -> T) -> T {
    look(&mut OUTAGES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The address in a broker's name, such as `host:9092/1` or `host:9092/bootstrap`. A connection to the group's coordinator bears no
/// address: the broker that it leads to fails under its own name as well.
fn address(name: &str) -> Option<&str> {
    let name = name.rsplit_once("://").map_or(name, |(_, name)| name);
    let address = name.split('/').next().unwrap_or(name);
    address.contains(':').then_some(address)
}

/// The broker and what it failed of: `host:9092/1: Connect to ipv4#… failed: Connection refused (after 0ms in state CONNECT)`.
fn failed(reason: &str) -> Option<(&str, &str)> {
    let (name, why) = reason.split_once(": ")?;
    Some((address(name)?, why))
}

/// The broker of which this line says that it was reached: `[thrd:…]: host:9092/1: Broker changed state APIVERSION_QUERY -> UP`.
fn reached(text: &str) -> Option<&str> {
    let (rest, _) = text.strip_suffix("-> UP")?.split_once(": Broker changed state ")?;
    address(rest.rsplit_once(": ").map_or(rest, |(_, name)| name))
}

/// When each outage began and was last told.
struct Outages {
    known: BTreeMap<String, Outage>,
}

struct Outage {
    /// When it began; `None` once it is over.
    since: Option<Instant>,
    /// When it was last told.
    told: Instant,
    /// This one was told, and not only one before it.
    is_told: bool,
}

impl Outages {
    /// Something is unavailable; for how many seconds, where that is to be told now.
    fn begin(&mut self, what: &str, now: Instant) -> Option<u64> {
        let Some(outage) = self.known.get_mut(what) else {
            if self.known.len() < MOST_KNOWN {
                self.known.insert(what.to_owned(), Outage { since: Some(now), told: now, is_told: true });
            }
            return Some(0);
        };
        let since = *outage.since.get_or_insert(now);
        let due = now.duration_since(outage.told) >= LOG_INTERVAL;
        if due {
            (outage.told, outage.is_told) = (now, true);
        }
        due.then(|| now.duration_since(since).as_secs())
    }

    /// It is available; for how many seconds it was not, where that was told.
    fn end(&mut self, what: &str, now: Instant) -> Option<u64> {
        let outage = self.known.get_mut(what)?;
        let since = outage.since.take()?;
        std::mem::take(&mut outage.is_told).then(|| now.duration_since(since).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S124: one line at the beginning, one a minute, one at the end; what comes and goes within a minute is told once.
    #[test]
    fn an_outage_is_told_when_it_begins_each_minute_and_when_it_is_over() {
        let start = clock::instant();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outages = Outages { known: BTreeMap::new() };
        assert_eq!(outages.end("a:1", at(0)), None, "it was never gone");
        assert_eq!(outages.begin("a:1", at(0)), Some(0));
        assert_eq!((1..60).find_map(|second| outages.begin("a:1", at(second))), None);
        assert_eq!(outages.begin("b:1", at(30)), Some(0), "another broker");
        assert_eq!(outages.begin("a:1", at(60)), Some(60));
        assert_eq!(outages.begin("a:1", at(119)), None);
        assert_eq!(outages.end("a:1", at(119)), Some(119));
        assert_eq!(outages.end("a:1", at(119)), None);
        // It comes and goes.
        assert_eq!(outages.begin("a:1", at(119)), None);
        assert_eq!(outages.end("a:1", at(119)), None);
        assert_eq!(outages.begin("a:1", at(120)), Some(0));
        assert_eq!(outages.end("a:1", at(121)), Some(1));
    }

    #[test]
    fn librdkafkas_words_name_the_broker() {
        let refused = "Connect to ipv4#127.0.0.1:9 failed: Connection refused (after 0ms in state CONNECT)";
        for name in ["localhost:9/bootstrap", "localhost:9/1", "sasl_ssl://localhost:9/bootstrap"] {
            assert_eq!(failed(&format!("{name}: {refused}")), Some(("localhost:9", refused)));
            let line = format!("[thrd:{name}]: {name}: Broker changed state APIVERSION_QUERY -> UP");
            assert_eq!(reached(&line), Some("localhost:9"));
        }
        assert_eq!(failed("1/1 brokers are down"), None);
        assert_eq!(failed("GroupCoordinator: Disconnected (after 5ms in state UP)"), None);
        assert_eq!(reached("[thrd:main]: localhost:9/1: Broker changed state UP -> DOWN"), None);
        assert_eq!(reached("[thrd:GroupCoordinator]: GroupCoordinator: Broker changed state AUTH -> UP"), None);
    }
}
