//! Sink names → instances, for a whole answer before the first byte of it is written (S67–S72).

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use crate::model::{Batch, Fault, Payload, SinkKind};

/// What the texts of the errors begin with.
const AMBIGUOUS: &str = "AmbiguousSinkError";
const NOT_CONFIGURED: &str = "SinkNotConfiguredError";

/// A payload's sink cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RouteError {
    /// S69.
    #[error("{}: {count} `{kind}` sinks are configured ({names}) and the payload names none of them", AMBIGUOUS)]
    Ambiguous {
        /// The kind that the payload is for.
        kind: SinkKind,
        /// How many of it there are.
        count: usize,
        /// Their names.
        names: String,
    },
    /// S70.
    #[error("{}: the payload is for `{kind}/{sink}`, and {known}", NOT_CONFIGURED)]
    NotConfigured {
        /// The kind that the payload is for.
        kind: SinkKind,
        /// The name it gives.
        sink: String,
        /// What is configured instead.
        known: String,
    },
}

impl RouteError {
    /// Whether a reason is the text of such an error.
    pub fn is_in(reason: &str) -> bool {
        reason.starts_with(AMBIGUOUS) || reason.starts_with(NOT_CONFIGURED)
    }
}

/// The configured sinks by kind and name.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    by_kind: BTreeMap<SinkKind, Vec<(String, usize)>>,
}

/// Payloads of one round for one sink.
#[derive(Clone, Debug)]
pub struct Group {
    /// The sink's index.
    pub sink: usize,
    /// The payloads.
    pub batch: Arc<Batch>,
    /// The window's row that each payload came from; `None` when they are the window's rows themselves.
    pub origin: Option<Arc<Vec<usize>>>,
}

/// A routed answer.
#[derive(Clone, Debug, Default)]
pub struct Routed {
    /// One group per sink that got anything.
    pub groups: Vec<Group>,
    /// Records with a payload that has no sink, and why: nothing of theirs is delivered (S71).
    pub refused: BTreeMap<usize, String>,
}

impl Routes {
    /// The routes to these sinks, in order of registration.
    pub fn new<'n>(sinks: impl IntoIterator<Item = (SinkKind, &'n str)>) -> Self {
        let mut by_kind: BTreeMap<SinkKind, Vec<(String, usize)>> = BTreeMap::new();
        for (index, (kind, name)) in sinks.into_iter().enumerate() {
            by_kind.entry(kind).or_default().push((name.to_owned(), index));
        }
        Self { by_kind }
    }

    /// The sink that a payload of `kind` which says `sink` is for.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn resolve(&self, kind: SinkKind, sink: &str) -> Result<usize, RouteError> {
        let known = self.by_kind.get(&kind).map(Vec::as_slice).unwrap_or_default();
        let names = || known.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        match known {
            [(_, index)] if sink.is_empty() => Ok(*index),
            [_, _, ..] if sink.is_empty() => Err(RouteError::Ambiguous { kind, count: known.len(), names: names() }),
            _ => known.iter().find(|(name, _)| name == sink).map(|(_, index)| *index).ok_or_else(|| {
                let known = match known {
                    [] => format!("no `{kind}` sink is configured"),
                    _ => format!("the `{kind}` sinks are {}", names()),
                };
                RouteError::NotConfigured { kind, sink: sink.to_owned(), known }
            }),
        }
    }

    /// Routes what a collector yielded for the window `window`. Payload indices are rows of it.
    ///
    /// # Errors
    /// A payload that comes from no row: the plugin broke its contract, and nothing of the answer counts.
    pub fn route(&self, window: &Batch, payloads: Vec<(SinkKind, Vec<Payload>)>) -> Result<Routed, Fault> {
        let mut refused = BTreeMap::new();
        let mut addressed: Vec<Vec<(usize, Payload)>> = Vec::new();
        for (kind, payloads) in payloads {
            for payload in payloads {
                let row = payload.index as usize;
                if row >= window.len() {
                    return Err(Fault::plugin(format!(
                        "the collector yielded a payload for row {row} of a batch of {}",
                        window.len()
                    )));
                }
                match self.resolve(kind, &payload.sink) {
                    Ok(sink) => {
                        if addressed.len() <= sink {
                            addressed.resize_with(sink + 1, Vec::new);
                        }
                        addressed[sink].push((row, payload));
                    }
                    Err(error) => {
                        refused.entry(row).or_insert_with(|| error.to_string());
                    }
                }
            }
        }
        let groups = addressed
            .into_iter()
            .enumerate()
            .map(|(sink, mut payloads)| {
                payloads.retain(|(row, _)| !refused.contains_key(row));
                columns(window, sink, payloads)
            })
            .filter(|group| !group.batch.is_empty())
            .collect();
        Ok(Routed { groups, refused })
    }
}

/// Puts payloads of one sink into columns, numbering those of the same record.
fn columns(window: &Batch, sink: usize, payloads: Vec<(usize, Payload)>) -> Group {
    let bytes = payloads.iter().map(|(_, payload)| payload.value.as_ref().map_or(0, Vec::len)).sum();
    let mut batch = Batch::with_capacity(window.source.clone(), payloads.len(), bytes);
    let mut origin = Vec::with_capacity(payloads.len());
    let mut next_ordinal = vec![0u32; window.len()];
    let any_target = payloads.iter().any(|(_, payload)| payload.target.is_some());
    let any_ttl = payloads.iter().any(|(_, payload)| payload.ttl.is_some());
    let any_version = payloads.iter().any(|(_, payload)| payload.version.is_some());
    for (row, payload) in payloads {
        let timestamp = payload.timestamp.unwrap_or(window.timestamps[row]);
        batch.push(window.offsets[row], timestamp, payload.key.as_deref(), payload.value.as_deref());
        if !payload.headers.is_empty() {
            batch.push_headers(payload.headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())));
        }
        if any_target {
            batch.targets.push(payload.target.as_deref().map(str::as_bytes));
        }
        if any_ttl {
            batch.ttls.push(payload.ttl);
        }
        if any_version {
            batch.versions.push(payload.version.unwrap_or(window.offsets[row]));
        }
        batch.ordinals.push(next_ordinal[row]);
        next_ordinal[row] += 1;
        origin.push(row);
    }
    Group { sink, batch: Arc::new(batch), origin: Some(Arc::new(origin)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TopicPartition;

    fn routes() -> Routes {
        Routes::new([(SinkKind::Kafka, "results"), (SinkKind::Kafka, "alerts"), (SinkKind::Filesystem, "log")])
    }

    fn window() -> Batch {
        let mut window = Batch::new(TopicPartition::new("t", 0));
        for offset in 10..14 {
            window.push(offset, 1, Some(b"k"), Some(b"v"));
        }
        window
    }

    fn payload(index: u32, sink: &str) -> Payload {
        Payload { index, sink: sink.into(), value: Some(b"{}".to_vec()), ..Payload::default() }
    }

    /// S68, S69, S70: the only one, the ambiguous one, the unknown one.
    #[test]
    fn s68_s69_s70_names_resolve_or_say_why_not() {
        let routes = routes();
        assert_eq!(routes.resolve(SinkKind::Filesystem, ""), Ok(2));
        assert_eq!(routes.resolve(SinkKind::Kafka, "alerts"), Ok(1));
        let text = |kind, sink| routes.resolve(kind, sink).map_err(|error| error.to_string());
        assert_eq!(
            text(SinkKind::Kafka, ""),
            Err("AmbiguousSinkError: 2 `kafka` sinks are configured (`results`, `alerts`) and the payload names none of them"
                .into())
        );
        assert_eq!(
            text(SinkKind::Redis, ""),
            Err("SinkNotConfiguredError: the payload is for `redis/`, and no `redis` sink is configured".into())
        );
        assert_eq!(
            text(SinkKind::Kafka, "x"),
            Err("SinkNotConfiguredError: the payload is for `kafka/x`, and the `kafka` sinks are `results`, `alerts`"
                .into())
        );
    }

    /// S71: a record with one bad payload delivers none; its neighbours deliver theirs, numbered per record and sink.
    #[test]
    fn s71_a_bad_payload_takes_its_whole_record_and_no_other() {
        let kafka = vec![payload(0, "results"), payload(1, "results"), payload(1, "results"), payload(2, "")];
        let files = vec![payload(2, ""), payload(3, "")];
        let routed = routes()
            .route(&window(), vec![(SinkKind::Kafka, kafka), (SinkKind::Filesystem, files)])
            .unwrap_or_default();
        assert_eq!(routed.refused.keys().copied().collect::<Vec<_>>(), [2]);
        let groups: Vec<_> = routed
            .groups
            .iter()
            .map(|group| (group.sink, group.batch.offsets.clone(), group.batch.ordinals.clone()))
            .collect();
        assert_eq!(groups, [(0, vec![10, 11, 11], vec![0, 0, 1]), (2, vec![13], vec![0])]);
    }
}
