//! What Kafka clients say of their brokers: one line when a broker becomes unavailable and at most one a minute while it is,
//! however many clients of this process use it. A client reports no broker that is back, except in debug lines of no fixed form.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::clock::{self, Instant};

/// Time between two log lines of one outage, or of one error that comes again.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Brokers and errors that are remembered. Those beyond are logged each time.
const MOST_KNOWN: usize = 1_000;
/// A broker of which no client complained for this long was available in between: clients try again every few seconds.
const OVER: Duration = Duration::from_secs(120);

/// Of this process's clients, whatever they are for.
static OUTAGES: Mutex<Outages> = Mutex::new(Outages { known: BTreeMap::new() });

/// Takes a log line of a client.
pub fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match (level, facility) {
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

/// When each outage began and was last told.
struct Outages {
    known: BTreeMap<String, Outage>,
}

struct Outage {
    /// When it began.
    since: Instant,
    /// When it was last told.
    told: Instant,
    /// When a client last met it.
    met: Instant,
}

impl Outages {
    /// Something is unavailable; for how many seconds, where that is to be told now.
    fn begin(&mut self, what: &str, now: Instant) -> Option<u64> {
        let new = Outage { since: now, told: now, met: now };
        let Some(outage) = self.known.get_mut(what) else {
            if self.known.len() < MOST_KNOWN {
                self.known.insert(what.to_owned(), new);
            }
            return Some(0);
        };
        if now.duration_since(outage.met) >= OVER {
            *outage = new;
            return Some(0);
        }
        outage.met = now;
        let due = now.duration_since(outage.told) >= LOG_INTERVAL;
        if due {
            outage.told = now;
        }
        due.then(|| now.duration_since(outage.since).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S124: one line at the beginning and one a minute; what comes after two quiet minutes is another outage.
    #[test]
    fn an_outage_is_told_when_it_begins_and_each_minute() {
        let start = clock::instant();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outages = Outages { known: BTreeMap::new() };
        assert_eq!(outages.begin("a:1", at(0)), Some(0));
        assert_eq!((1..60).find_map(|second| outages.begin("a:1", at(second))), None);
        assert_eq!(outages.begin("b:1", at(30)), Some(0), "another broker");
        assert_eq!(outages.begin("a:1", at(60)), Some(60));
        assert_eq!(outages.begin("a:1", at(119)), None);
        assert_eq!(outages.begin("a:1", at(238)), Some(238), "not yet over");
        assert_eq!(outages.begin("a:1", at(358)), Some(0), "another outage");
    }

    #[test]
    fn librdkafkas_words_name_the_broker() {
        let refused = "Connect to ipv4#127.0.0.1:9 failed: Connection refused (after 0ms in state CONNECT)";
        for name in ["localhost:9/bootstrap", "localhost:9/1", "sasl_ssl://localhost:9/bootstrap"] {
            assert_eq!(failed(&format!("{name}: {refused}")), Some(("localhost:9", refused)));
        }
        assert_eq!(failed("1/1 brokers are down"), None);
        assert_eq!(failed("GroupCoordinator: Disconnected (after 5ms in state UP)"), None);
    }
}
