//! Which sinks a collector may write to, when its grants name them.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Failure, SinkKind};
use crate::plugin::report::printable;

/// Most bytes of a sink's name in a refusal.
const NAME_BYTES: usize = 100;

/// The sinks that a collector may write to, as `type/name`. Without a list all that are configured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowed(Option<BTreeSet<(SinkKind, String)>>);

impl Allowed {
    /// The sinks that the grant names; names of no type are the configuration's check to find.
    pub(crate) fn new(names: Option<&[String]>) -> Self {
        let addressed = |name: &String| {
            let (kind, name) = name.split_once('/')?;
            Some((SinkKind::from_name(kind)?, name.to_owned()))
        };
        Self(names.map(|names| names.iter().filter_map(addressed).collect()))
    }

    /// Whether a payload may go there. Without a name it goes to the only sink of its kind that there is, so it may go if one
    /// of that kind is allowed (S68).
    fn covers(&self, kind: SinkKind, sink: &str) -> bool {
        let Some(allowed) = &self.0 else { return true };
        allowed.iter().any(|(known, name)| *known == kind && (sink.is_empty() || name == sink))
    }
}

/// Rows with a payload for a sink that the collector may not write to. Nothing of such a row is delivered.
#[derive(Debug, Default)]
pub(super) struct Barred {
    rows: BTreeMap<u32, String>,
    /// The sinks, in words, for the log.
    pub(super) sinks: BTreeSet<String>,
}

impl Barred {
    /// Looks at one payload. Returns whether it may be delivered.
    pub(super) fn look(&mut self, allowed: &Allowed, index: u32, kind: SinkKind, sink: &str) -> bool {
        if allowed.covers(kind, sink) {
            return true;
        }
        let shown = match sink {
            "" => format!("the `{kind}` sink"),
            name => format!("`{kind}/{}`", printable(name, NAME_BYTES)),
        };
        self.rows.entry(index).or_insert_with(|| shown.clone());
        self.sinks.insert(shown);
        false
    }

    /// The rows that failed, with the barred ones rejected, whatever else was said of them.
    pub(super) fn reject(self, failed: Vec<Failure>) -> Vec<Failure> {
        let mut all: BTreeMap<u32, Failure> = failed.into_iter().map(|failure| (failure.index, failure)).collect();
        for (row, sink) in self.rows {
            let reason = format!("SinkNotAllowedError: `collect.grants.allowed_sinks` does not name {sink}");
            all.insert(row, Failure::reject(row, reason));
        }
        all.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_barred() {
        let allowed = Allowed::new(Some(&["kafka/results".into(), "plugin/csv".into()]));
        assert!(allowed.covers(SinkKind::Kafka, "results") && allowed.covers(SinkKind::Kafka, ""));
        assert!(!allowed.covers(SinkKind::Kafka, "billing") && !allowed.covers(SinkKind::Redis, ""));
        assert!(!Allowed::new(Some(&[])).covers(SinkKind::Kafka, ""));
        assert!(Allowed::new(None).covers(SinkKind::Redis, "cache"));
    }

    #[test]
    fn a_barred_row_is_rejected_whatever_was_said_of_it() {
        let mut barred = Barred::default();
        let allowed = Allowed::new(Some(&[]));
        assert!(!barred.look(&allowed, 1, SinkKind::Kafka, "billing\n"));
        assert_eq!(barred.sinks.iter().collect::<Vec<_>>(), ["`kafka/billing\\n`"]);
        let failed = barred.reject(vec![Failure::retry(1, "later"), Failure::retry(2, "later")]);
        let reason = "SinkNotAllowedError: `collect.grants.allowed_sinks` does not name `kafka/billing\\n`";
        assert_eq!(failed, [Failure::reject(1, reason), Failure::retry(2, "later")]);
    }
}
