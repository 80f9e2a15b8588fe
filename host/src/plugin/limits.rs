//! How much a plugin may use, with units, defaults and bounds (S129).

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::options::{Access, Grants};
use super::report::Deadline;
use crate::model::Fault;

/// Bytes in one MiB.
pub(crate) const MEBIBYTE: u64 = 1 << 20;
/// What 32-bit WebAssembly can address, in MiB: no limit in MiB is larger.
const MEBIBYTES: RangeInclusive<u64> = 1..=4096;
/// Largest file that can be allowed as a component, in MiB. Python's are some 20 MiB.
pub(crate) const COMPONENT_MEBIBYTES: u64 = 1024;
/// Most instances where the configuration names no number: each has a memory of its own.
pub const MOST_AUTOMATIC_INSTANCES: u64 = 4;
/// Shortest and longest time limit, in seconds; a guest's time is measured in steps of the first.
const SECONDS: RangeInclusive<f64> = 0.01..=3600.0;

/// How much a plugin may use.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most memory of one instance, in MiB.
    pub memory_mebibytes: u64,
    /// Most elements of all tables of one instance together; interpreters have some ten thousand.
    pub table_elements: u64,
    /// Longest that one call may take, in seconds, in the guest and on the host's side of it.
    pub call_timeout_seconds: f64,
    /// Longest that each step of an instance's start may take, in seconds: instantiation, `setup`, and `connect` or `on-ready`.
    pub setup_timeout_seconds: f64,
    /// How many instances share the partitions; 0: one per core, at most 4. A plugin that may write to a directory is one then,
    /// because two instances might write to one file, and so is one whose `setup` refuses to be one of several (S129).
    pub instances: u64,
    /// Most lines of one instance and its replacements that reach the log in a second; the others are counted.
    pub output_lines_per_second: u64,
    /// Most bytes of one instance and its replacements that reach the log in a second; lines beyond are counted.
    pub output_bytes_per_second: u64,
    /// Most payloads in one answer of a collector.
    pub payloads_per_call: u64,
    /// Most that the payloads of one answer may hold together, in MiB.
    pub payload_mebibytes_per_call: u64,
    /// Most that one call may move from the guest to the host, in MiB, its lists and strings counted as the host holds them.
    pub hostcall_mebibytes: u64,
    /// Most handles that one instance may hold: open files, requests, streams, clocks.
    pub handles: u64,
    /// Most HTTP requests of one instance at a time; one whose response is still being read counts.
    pub http_requests_in_flight: u64,
    /// Most HTTP requests in one call, refused ones included.
    pub http_requests_per_call: u64,
    /// Longest body of one HTTP request, in MiB.
    pub http_request_mebibytes: u64,
    /// Longest body of one HTTP response, in MiB.
    pub http_response_mebibytes: u64,
    /// Longest that one HTTP request may take, in seconds, from sending it to the last byte of its response.
    pub http_timeout_seconds: f64,
    /// Largest component file, in MiB.
    pub component_mebibytes: u64,
    /// Longest that compiling the component may take, in seconds.
    pub compile_timeout_seconds: f64,
    /// Most memory that compiling the component may take, in MiB.
    pub compile_memory_mebibytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_mebibytes: 64,
            table_elements: 1 << 18,
            call_timeout_seconds: 10.0,
            setup_timeout_seconds: 30.0,
            instances: 0,
            output_lines_per_second: 200,
            output_bytes_per_second: 64 << 10,
            payloads_per_call: 100_000,
            payload_mebibytes_per_call: 64,
            hostcall_mebibytes: 128,
            handles: 256,
            http_requests_in_flight: 16,
            http_requests_per_call: 1000,
            http_request_mebibytes: 8,
            http_response_mebibytes: 16,
            http_timeout_seconds: 10.0,
            component_mebibytes: 128,
            compile_timeout_seconds: 300.0,
            compile_memory_mebibytes: 4096,
        }
    }
}

/// One limit as it stands: its key, its value, and its unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// The key under `limits`.
    pub key: &'static str,
    /// The value, in the unit that the key names.
    pub value: f64,
    /// The bounds of the value.
    range: (f64, f64),
}

impl Limit {
    /// In words: `memory 64 MiB`, `call timeout 10 s`, `handles 256`.
    pub fn shown(&self) -> String {
        if (self.key, self.value) == ("instances", 0.0) {
            return "instances automatic".into();
        }
        let (mut name, mut unit) = (self.key.to_owned(), "");
        for (part, short) in [("_mebibytes", " MiB"), ("_seconds", " s")] {
            if let Some(at) = name.find(part) {
                name.replace_range(at..at + part.len(), "");
                unit = short;
            }
        }
        format!("{} {}{unit}", name.replace('_', " "), self.value)
    }

    /// The value as a JSON number, without a point where it counts things.
    pub fn number(&self) -> serde_json::Value {
        if self.value.fract() == 0.0 { (self.value as u64).into() } else { self.value.into() }
    }

    /// The bounds in words, when the value is not within them.
    pub fn out_of_bounds(&self) -> Option<String> {
        let (least, most) = self.range;
        // Not a number lies outside as well.
        (!(least..=most).contains(&self.value)).then(|| format!("between {least} and {most}"))
    }
}

impl Limits {
    /// Every limit, in the order of the configuration's documentation.
    pub fn all(&self) -> Vec<Limit> {
        let count = |key, value: u64, range: RangeInclusive<u64>| Limit {
            key,
            value: value as f64,
            range: (*range.start() as f64, *range.end() as f64),
        };
        let seconds = |key, value| Limit { key, value, range: (*SECONDS.start(), *SECONDS.end()) };
        vec![
            count("memory_mebibytes", self.memory_mebibytes, MEBIBYTES),
            count("table_elements", self.table_elements, 1..=10_000_000),
            seconds("call_timeout_seconds", self.call_timeout_seconds),
            seconds("setup_timeout_seconds", self.setup_timeout_seconds),
            count("instances", self.instances, 0..=64),
            count("output_lines_per_second", self.output_lines_per_second, 0..=100_000),
            count("output_bytes_per_second", self.output_bytes_per_second, 0..=100 * MEBIBYTE),
            count("payloads_per_call", self.payloads_per_call, 1..=10_000_000),
            count("payload_mebibytes_per_call", self.payload_mebibytes_per_call, MEBIBYTES),
            count("hostcall_mebibytes", self.hostcall_mebibytes, MEBIBYTES),
            count("handles", self.handles, 16..=65_536),
            count("http_requests_in_flight", self.http_requests_in_flight, 1..=1024),
            count("http_requests_per_call", self.http_requests_per_call, 1..=1_000_000),
            count("http_request_mebibytes", self.http_request_mebibytes, MEBIBYTES),
            count("http_response_mebibytes", self.http_response_mebibytes, MEBIBYTES),
            seconds("http_timeout_seconds", self.http_timeout_seconds),
            count("component_mebibytes", self.component_mebibytes, 1..=COMPONENT_MEBIBYTES),
            seconds("compile_timeout_seconds", self.compile_timeout_seconds),
            count("compile_memory_mebibytes", self.compile_memory_mebibytes, 128..=65_536),
        ]
    }

    /// The limits, when each is one.
    ///
    /// # Errors
    /// Names the first that is out of its bounds. `place` is the plugin's place in the configuration.
    pub(crate) fn checked(&self, place: &str) -> Result<(), Fault> {
        self.all().iter().try_for_each(|limit| match limit.out_of_bounds() {
            Some(bounds) => Err(Fault::config(format!("`{place}.limits.{}` must be {bounds}", limit.key))),
            None => Ok(()),
        })
    }

    /// How many instances are made of a plugin with these grants; 0: one per core, at most [`MOST_AUTOMATIC_INSTANCES`], where its
    /// `setup` has nothing against it.
    pub fn instances_with(&self, grants: &Grants) -> u64 {
        let writes = grants.directories.iter().any(|directory| directory.access == Access::Write);
        if self.is_automatic() && writes { 1 } else { self.instances }
    }

    /// The same on this machine.
    pub(crate) fn slots(&self, grants: &Grants) -> u32 {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let slots = match self.instances_with(grants) {
            0 => cores().clamp(1, MOST_AUTOMATIC_INSTANCES),
            named => named,
        };
        u32::try_from(slots).unwrap_or(1)
    }

    /// Whether the number of instances follows the machine and the plugin.
    pub(crate) fn is_automatic(&self) -> bool {
        self.instances == 0
    }

    /// Longest call.
    pub(crate) fn call(&self) -> Deadline {
        Deadline { key: "call_timeout_seconds", time: Duration::from_secs_f64(self.call_timeout_seconds) }
    }

    /// Longest step of an instance's start.
    pub(crate) fn setup(&self) -> Deadline {
        Deadline { key: "setup_timeout_seconds", time: Duration::from_secs_f64(self.setup_timeout_seconds) }
    }
}

/// A limit in MiB as bytes.
pub(crate) fn bytes(mebibytes: u64) -> usize {
    usize::try_from(mebibytes.saturating_mul(MEBIBYTE)).unwrap_or(usize::MAX)
}

/// A limit as a number of things in memory.
pub(crate) fn count(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn limits_out_of_range_are_named() {
        for (limits, key) in [
            (Limits { memory_mebibytes: 0, ..Limits::default() }, "collect.limits.memory_mebibytes"),
            (Limits { call_timeout_seconds: f64::NAN, ..Limits::default() }, "collect.limits.call_timeout_seconds"),
            (Limits { instances: 65, ..Limits::default() }, "collect.limits.instances"),
        ] {
            assert!(limits.checked("collect").unwrap_err().message.contains(key));
        }
        assert!(Limits::default().checked("collect").is_ok());
    }

    #[test]
    fn limits_are_shown_with_their_units() {
        let shown: Vec<String> = Limits::default().all().iter().map(Limit::shown).collect();
        for words in ["memory 64 MiB", "call timeout 10 s", "payload per call 64 MiB", "output lines per second 200"] {
            assert!(shown.iter().any(|limit| limit == words), "{words}: {shown:?}");
        }
    }

    /// A limit that is not in the list would be neither checked nor shown.
    #[test]
    fn every_limit_is_listed() {
        let schema = schemars::schema_for!(Limits);
        let mut named: Vec<_> = schema.get("properties").unwrap().as_object().unwrap().keys().cloned().collect();
        let mut listed: Vec<_> = Limits::default().all().into_iter().map(|limit| limit.key.to_owned()).collect();
        named.sort();
        listed.sort();
        assert_eq!(named, listed);
    }
}
