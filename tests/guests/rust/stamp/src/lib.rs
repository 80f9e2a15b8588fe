//! A collector that tells in every payload which instance wrote it, and where it began to read.
//!
//! A record is `{"p":3,"n":17,"k":"3-5"}`. It yields one payload for each of the sinks `kafka`, `postgres` and `filesystem`,
//! for `redis` where the options say so, and for each plugin sink that they name: the record's own members and the stamp, `host` (from the options),
//! `nonce` (the instance's own) and `epoch`. A partition's epoch ends whenever a record does not directly follow the one
//! before it, so within one epoch numbers only rise.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

use serde::{Deserialize, Serialize};
use tidegate_sdk::{Collector, Context, Failed, Payloads, Record, export_collector};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The name of the process, which no other ever has.
    host: String,
    /// PostgreSQL's table.
    table: String,
    /// The file below the sink's folder.
    file: String,
    /// Whether there is a sink for Redis.
    #[serde(default)]
    redis: bool,
    /// Plugin sinks.
    #[serde(default)]
    plugins: Vec<String>,
}

#[derive(Deserialize)]
struct Numbered<'a> {
    p: u32,
    n: u64,
    #[serde(borrow)]
    k: Cow<'a, str>,
}

#[derive(Serialize)]
struct Stamped<'a> {
    p: u32,
    n: u64,
    k: &'a str,
    host: &'a str,
    nonce: u32,
    epoch: u32,
}

/// How far a partition is.
#[derive(Clone, Copy)]
struct Place {
    last: i64,
    epoch: u32,
}

struct Stamp {
    options: Options,
    nonce: u32,
    places: HashMap<i32, Place>,
}

impl Stamp {
    /// The epoch of a record, which ends the one before when it does not directly follow.
    fn epoch(&mut self, partition: i32, offset: i64) -> u32 {
        let epoch = match self.places.get(&partition) {
            Some(place) if place.last + 1 == offset => place.epoch,
            Some(place) => place.epoch + 1,
            None => 0,
        };
        self.places.insert(partition, Place { last: offset, epoch });
        epoch
    }
}

impl Collector for Stamp {
    fn new(context: &Context) -> Result<Self, String> {
        let random = RandomState::new().hash_one(0);
        let nonce = u32::try_from(random & u64::from(u32::MAX)).unwrap_or_default();
        Ok(Self { options: context.options()?, nonce, places: HashMap::new() })
    }

    fn collect(&mut self, record: &Record<'_>, out: &mut Payloads) -> Result<(), Failed> {
        let epoch = self.epoch(record.partition, record.offset);
        let Numbered { p, n, k } = record.json()?;
        let stamped = Stamped { p, n, k: &k, host: &self.options.host, nonce: self.nonce, epoch };
        out.kafka(&stamped)?.key(k.as_bytes());
        out.postgres(&self.options.table, &stamped)?;
        out.file(&self.options.file, &stamped)?;
        if self.options.redis {
            out.redis(&k, &stamped)?;
        }
        for plugin in &self.options.plugins {
            out.plugin_json(&stamped)?.sink(plugin).key(k.as_bytes());
        }
        Ok(())
    }
}

export_collector!(Stamp);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_ends_where_a_record_does_not_follow() {
        let options =
            Options { host: "h0-0".into(), table: String::new(), file: String::new(), redis: false, plugins: vec![] };
        let mut stamp = Stamp { options, nonce: 0, places: HashMap::new() };
        let epochs = [(0, 5), (0, 6), (1, 0), (0, 7), (0, 6), (0, 7), (1, 1), (0, 9)];
        let epochs = epochs.map(|(partition, offset)| stamp.epoch(partition, offset));
        assert_eq!(epochs, [0, 0, 0, 0, 1, 1, 0, 2]);
    }
}
