//! A collector's answer as the host has it.

use std::collections::BTreeSet;

use super::super::bindings::payloads::{CollectResult, Header};
use super::addressed::{Allowed, Barred};
use super::{failures, in_range};
use crate::collect::Collected;
use crate::model::{Payload, SinkKind};
use crate::plugin::instance::Stop;
use crate::plugin::limits::{Limits, bytes};
use crate::plugin::report::Met;

/// Why an answer counts for nothing.
#[derive(Debug)]
pub(super) enum Void {
    /// It cannot be true.
    Broke(String),
    /// It is more than a collector may answer.
    Exceeded(Met),
}

impl Void {
    /// As the end of the instance that answered so.
    pub(super) fn of(self, hook: &'static str) -> Stop {
        match self {
            Self::Broke(how) => Stop::Broke { hook, how },
            Self::Exceeded(met) => Stop::Exceeded { hook, met },
        }
    }
}

impl From<String> for Void {
    fn from(how: String) -> Self {
        Self::Broke(how)
    }
}

/// What a collector's answer has to keep to.
pub(super) struct Terms<'t> {
    /// The rows that there are.
    pub(super) rows: u64,
    /// How much it may answer.
    pub(super) limits: &'t Limits,
    /// The sinks it may write to.
    pub(super) allowed: &'t Allowed,
}

/// The payloads, by kind of sink, with the rows that failed; and the sinks that it may not write to, but wanted to.
///
/// # Errors
/// How the guest broke the contract, or which limit it met.
pub(super) fn collected(answered: CollectResult, terms: &Terms<'_>) -> Result<(Collected, BTreeSet<String>), Void> {
    let CollectResult { kafka, postgres, mongo, http, redis, files, plugin, failed } = answered;
    let mut kinds = ByKind { terms, count: 0, bytes: 0, barred: Barred::default(), lists: Vec::new() };
    for it in kafka {
        let payload = Payload { key: it.key, ..json(it.index, it.sink, it.data) };
        kinds.push(SinkKind::Kafka, payload)?;
    }
    for it in postgres {
        kinds.push(SinkKind::Postgres, Payload { target: named(it.table), ..json(it.index, it.sink, it.data) })?;
    }
    for it in mongo {
        kinds.push(SinkKind::Mongo, Payload { target: named(it.collection), ..json(it.index, it.sink, it.data) })?;
    }
    for it in http {
        kinds.push(SinkKind::Http, json(it.index, it.sink, it.data))?;
    }
    for it in redis {
        let payload = Payload { key: Some(it.key.into_bytes()), ttl: it.ttl, ..json(it.index, it.sink, it.data) };
        kinds.push(SinkKind::Redis, payload)?;
    }
    for it in files {
        kinds.push(SinkKind::Filesystem, Payload { target: named(it.path), ..json(it.index, it.sink, it.data) })?;
    }
    for it in plugin {
        let (kind, sink) = addressed(it.sink)?;
        let headers = it.headers.into_iter().map(|Header { name, value }| (name.into_bytes(), value)).collect();
        let payload = Payload { index: it.index, sink, key: it.key, value: it.value, headers, ..Payload::default() };
        kinds.push(kind, payload)?;
    }
    let ByKind { mut barred, lists, .. } = kinds;
    let sinks = std::mem::take(&mut barred.sinks);
    let failed = barred.reject(failures(failed, terms.rows)?);
    Ok((Collected::Payloads { payloads: lists, failed }, sinks))
}

struct ByKind<'t> {
    terms: &'t Terms<'t>,
    count: u64,
    bytes: usize,
    barred: Barred,
    lists: Vec<(SinkKind, Vec<Payload>)>,
}

impl ByKind<'_> {
    /// Payloads of one sink keep the order in which they came.
    fn push(&mut self, kind: SinkKind, payload: Payload) -> Result<(), Void> {
        in_range(payload.index, self.terms.rows).map_err(|how| format!("a payload for {kind}: {how}"))?;
        self.count += 1;
        self.bytes = self.bytes.saturating_add(size(&payload));
        let Limits { payloads_per_call, payload_mebibytes_per_call, .. } = *self.terms.limits;
        if self.count > payloads_per_call {
            let words = format!("to yield more than its {payloads_per_call} payloads in one call");
            return Err(Void::Exceeded(Met { key: "payloads_per_call", words }));
        }
        if self.bytes > bytes(payload_mebibytes_per_call) {
            let words = format!("to yield more than its {payload_mebibytes_per_call} MiB of payloads in one call");
            return Err(Void::Exceeded(Met { key: "payload_mebibytes_per_call", words }));
        }
        if !self.barred.look(self.terms.allowed, payload.index, kind, &payload.sink) {
            return Ok(());
        }
        match self.lists.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, list)) => list.push(payload),
            None => self.lists.push((kind, vec![payload])),
        }
        Ok(())
    }
}

/// What the payload holds, in bytes.
fn size(payload: &Payload) -> usize {
    let Payload { index: _, sink, key, value, target, headers, ttl: _, version: _, timestamp: _ } = payload;
    let headers = headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
    let fields =
        [Some(sink.len()), key.as_ref().map(Vec::len), value.as_ref().map(Vec::len), target.as_ref().map(String::len)];
    fields.into_iter().flatten().chain(headers).sum()
}

fn json(index: u32, sink: String, data: String) -> Payload {
    Payload { index, sink, value: Some(data.into_bytes()), ..Payload::default() }
}

/// An empty place is no place in particular.
fn named(target: String) -> Option<String> {
    Some(target).filter(|target| !target.is_empty())
}

/// `kafka/results` is the Kafka sink `results`, and `csv` the plugin sink of that name.
fn addressed(sink: String) -> Result<(SinkKind, String), String> {
    match sink.split_once('/') {
        None => Ok((SinkKind::Plugin, sink)),
        Some((kind, name)) => match SinkKind::from_name(kind) {
            Some(kind) => Ok((kind, name.to_owned())),
            None => Err(format!("a payload for `{}`: no sink type has that name", super::printable(&sink, 100))),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::plugin::bindings::payloads::{KafkaPayload, PluginPayload, RedisPayload};

    fn nothing() -> CollectResult {
        CollectResult {
            kafka: vec![],
            postgres: vec![],
            mongo: vec![],
            http: vec![],
            redis: vec![],
            files: vec![],
            plugin: vec![],
            failed: vec![],
        }
    }

    fn judged(answered: CollectResult, rows: u64, limits: &Limits) -> Result<Collected, Void> {
        collected(answered, &Terms { rows, limits, allowed: &Allowed::default() }).map(|(collected, _)| collected)
    }

    fn answer(answered: CollectResult, rows: u64) -> Collected {
        judged(answered, rows, &Limits::default()).unwrap()
    }

    fn raw(index: u32, sink: &str) -> PluginPayload {
        PluginPayload { index, sink: sink.into(), key: None, value: None, headers: vec![] }
    }

    /// S67: a payload for `type/name` goes to that native sink, behind those that were addressed to it directly.
    #[test]
    fn bytes_reach_a_native_sink_by_its_full_name() {
        let kafka = vec![KafkaPayload { index: 1, sink: "results".into(), key: None, data: "1".into() }];
        let answered = CollectResult { kafka, plugin: vec![raw(0, "kafka/results"), raw(0, "csv")], ..nothing() };
        let Collected::Payloads { payloads, failed } = answer(answered, 2) else { panic!("payloads") };
        assert!(failed.is_empty());
        let names: Vec<_> = payloads.iter().map(|(kind, list)| (*kind, list.len())).collect();
        assert_eq!(names, [(SinkKind::Kafka, 2), (SinkKind::Plugin, 1)]);
        assert_eq!((payloads[0].1[1].sink.as_str(), &payloads[0].1[1].value), ("results", &None));
    }

    #[test]
    fn a_time_to_live_is_carried() {
        let redis =
            vec![RedisPayload { index: 0, sink: String::new(), key: "k".into(), data: "1".into(), ttl: Some(9) }];
        let Collected::Payloads { payloads, .. } = answer(CollectResult { redis, ..nothing() }, 1) else {
            panic!("payloads")
        };
        assert_eq!((payloads[0].1[0].ttl, payloads[0].1[0].key.as_deref()), (Some(9), Some(&b"k"[..])));
    }

    #[test]
    fn payloads_of_rows_or_sinks_that_are_not_there_are_refused() {
        assert!(judged(CollectResult { plugin: vec![raw(2, "csv")], ..nothing() }, 2, &Limits::default()).is_err());
        assert!(judged(CollectResult { plugin: vec![raw(0, "ftp/x")], ..nothing() }, 2, &Limits::default()).is_err());
    }

    /// S129: what one answer may hold is bounded by number and by size.
    #[test]
    fn an_answer_has_its_bounds() {
        let met = |limits: &Limits, plugin: Vec<PluginPayload>| match judged(
            CollectResult { plugin, ..nothing() },
            1,
            limits,
        ) {
            Ok(_) => None,
            Err(Void::Exceeded(met)) => Some(met.key),
            Err(Void::Broke(how)) => panic!("{how}"),
        };
        let two = Limits { payloads_per_call: 2, ..Limits::default() };
        assert_eq!(met(&two, vec![raw(0, "csv"), raw(0, "csv")]), None);
        assert_eq!(met(&two, vec![raw(0, "csv"), raw(0, "csv"), raw(0, "csv")]), Some("payloads_per_call"));
        let small = Limits { payload_mebibytes_per_call: 1, ..Limits::default() };
        let large = |length| PluginPayload { value: Some(vec![0; length]), ..raw(0, "csv") };
        assert_eq!(met(&small, vec![large(1 << 19)]), None);
        assert_eq!(met(&small, vec![large(1 << 19), large(1 << 19)]), Some("payload_mebibytes_per_call"));
    }
}
