use std::str;

use serde::Serialize;

use crate::Failed;
use crate::bindings::payloads as raw;
use crate::bindings::types;

/// What a collector yields: one list per sink type, each in the order in which it was filled.
///
/// `data` is any serde type and becomes compact JSON; a number that JSON does not have (NaN, infinite) becomes `null`.
/// Every method hands back the payload that it added, to be addressed further. A payload without [`sink`](KafkaPayload::sink)
/// goes to the only sink of its type.
#[derive(Debug)]
pub struct Payloads {
    result: raw::CollectResult,
    index: u32,
    /// Where JSON is written, so that each document is then allocated once and at its size.
    scratch: Vec<u8>,
}

/// How long each list was, to go back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark([usize; 7]);

impl Payloads {
    pub(crate) fn new() -> Self {
        let result = raw::CollectResult {
            kafka: Vec::new(),
            postgres: Vec::new(),
            mongo: Vec::new(),
            http: Vec::new(),
            redis: Vec::new(),
            files: Vec::new(),
            plugin: Vec::new(),
            failed: Vec::new(),
        };
        Self { result, index: 0, scratch: Vec::new() }
    }

    /// What is added from now on comes from row `index`.
    pub(crate) fn start(&mut self, index: u32) -> Mark {
        self.index = index;
        let lists = &self.result;
        Mark([
            lists.kafka.len(),
            lists.postgres.len(),
            lists.mongo.len(),
            lists.http.len(),
            lists.redis.len(),
            lists.files.len(),
            lists.plugin.len(),
        ])
    }

    /// The row that was started last failed: its payloads do not count.
    pub(crate) fn fail(&mut self, mark: Mark, kind: types::FailureKind, reason: String) {
        let Mark([kafka, postgres, mongo, http, redis, files, plugin]) = mark;
        let lists = &mut self.result;
        lists.kafka.truncate(kafka);
        lists.postgres.truncate(postgres);
        lists.mongo.truncate(mongo);
        lists.http.truncate(http);
        lists.redis.truncate(redis);
        lists.files.truncate(files);
        lists.plugin.truncate(plugin);
        lists.failed.push(types::Failure { index: self.index, kind, reason });
    }

    pub(crate) fn finish(self) -> raw::CollectResult {
        self.result
    }

    fn json(&mut self, data: &impl Serialize) -> Result<String, Failed> {
        self.scratch.clear();
        serde_json::to_writer(&mut self.scratch, data)?;
        str::from_utf8(&self.scratch).map(str::to_owned).map_err(Failed::reject)
    }

    /// A Kafka record whose value is `data`.
    ///
    /// # Errors
    /// Like all of its kind: when `data` cannot be written as JSON (a map whose keys are no strings).
    pub fn kafka(&mut self, data: &impl Serialize) -> Result<KafkaPayload<'_>, Failed> {
        let data = self.json(data)?;
        Ok(KafkaPayload(added(
            &mut self.result.kafka,
            raw::KafkaPayload { index: self.index, sink: String::new(), key: None, data },
        )))
    }

    /// A row for `table`; `data` is an object with one member per column.
    ///
    /// # Errors
    /// As in [`Self::kafka`].
    pub fn postgres(&mut self, table: &str, data: &impl Serialize) -> Result<PostgresPayload<'_>, Failed> {
        let data = self.json(data)?;
        let payload = raw::PostgresPayload { index: self.index, sink: String::new(), table: table.to_owned(), data };
        Ok(PostgresPayload(added(&mut self.result.postgres, payload)))
    }

    /// A document for `collection`.
    ///
    /// # Errors
    /// As in [`Self::kafka`].
    pub fn mongo(&mut self, collection: &str, data: &impl Serialize) -> Result<MongoPayload<'_>, Failed> {
        let data = self.json(data)?;
        let payload =
            raw::MongoPayload { index: self.index, sink: String::new(), collection: collection.to_owned(), data };
        Ok(MongoPayload(added(&mut self.result.mongo, payload)))
    }

    /// A request whose body is `data`.
    ///
    /// # Errors
    /// As in [`Self::kafka`].
    pub fn http(&mut self, data: &impl Serialize) -> Result<HttpPayload<'_>, Failed> {
        let data = self.json(data)?;
        Ok(HttpPayload(added(&mut self.result.http, raw::HttpPayload { index: self.index, sink: String::new(), data })))
    }

    /// A value under `key`, to which the sink adds its prefix.
    ///
    /// # Errors
    /// As in [`Self::kafka`].
    pub fn redis(&mut self, key: &str, data: &impl Serialize) -> Result<RedisPayload<'_>, Failed> {
        let data = self.json(data)?;
        let payload =
            raw::RedisPayload { index: self.index, sink: String::new(), key: key.to_owned(), data, ttl: None };
        Ok(RedisPayload(added(&mut self.result.redis, payload)))
    }

    /// A line for the file at `path` below the sink's folder.
    ///
    /// # Errors
    /// As in [`Self::kafka`].
    pub fn file(&mut self, path: &str, data: &impl Serialize) -> Result<FilePayload<'_>, Failed> {
        let data = self.json(data)?;
        let payload = raw::FilePayload { index: self.index, sink: String::new(), path: path.to_owned(), data };
        Ok(FilePayload(added(&mut self.result.files, payload)))
    }

    /// Bytes for a plugin sink, or for a native one with [`sink`](PluginPayload::sink) written `type/name`. Without
    /// [`value`](PluginPayload::value) it is a tombstone.
    pub fn plugin(&mut self) -> PluginPayload<'_> {
        let payload =
            raw::PluginPayload { index: self.index, sink: String::new(), key: None, value: None, headers: Vec::new() };
        PluginPayload(added(&mut self.result.plugin, payload))
    }

    /// [`Self::plugin`] with `data` as JSON for its value.
    ///
    /// # Errors
    /// As in [`Self::kafka`].
    pub fn plugin_json(&mut self, data: &impl Serialize) -> Result<PluginPayload<'_>, Failed> {
        let value = self.json(data)?;
        Ok(self.plugin().value(value.into_bytes()))
    }
}

fn added<T>(list: &mut Vec<T>, payload: T) -> &mut T {
    let last = list.len();
    list.push(payload);
    &mut list[last]
}

macro_rules! payloads {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<'a>(&'a mut raw::$name);

        impl $name<'_> {
            /// Which sink of its type: the name in the configuration.
            pub fn sink(self, name: impl Into<String>) -> Self {
                self.0.sink = name.into();
                self
            }
        }
    )*};
}

payloads! {
    /// A payload for a `kafka` sink.
    KafkaPayload
    /// A payload for a `postgres` sink.
    PostgresPayload
    /// A payload for a `mongo` sink.
    MongoPayload
    /// A payload for an `http` sink.
    HttpPayload
    /// A payload for a `redis` sink.
    RedisPayload
    /// A payload for a `filesystem` sink.
    FilePayload
    /// A payload for a `plugin` sink.
    PluginPayload
}

impl KafkaPayload<'_> {
    /// The record's key.
    pub fn key(self, key: impl Into<Vec<u8>>) -> Self {
        self.0.key = Some(key.into());
        self
    }
}

impl RedisPayload<'_> {
    /// Seconds after which the value expires; at least 1.
    pub fn ttl(self, seconds: u32) -> Self {
        self.0.ttl = Some(seconds);
        self
    }
}

impl PluginPayload<'_> {
    /// The row's key.
    pub fn key(self, key: impl Into<Vec<u8>>) -> Self {
        self.0.key = Some(key.into());
        self
    }

    /// The row's value.
    pub fn value(self, value: impl Into<Vec<u8>>) -> Self {
        self.0.value = Some(value.into());
        self
    }

    /// One more header; a name may stand more than once.
    pub fn header(self, name: impl Into<String>, value: Option<&[u8]>) -> Self {
        self.0.headers.push(types::Header { name: name.into(), value: value.map(<[u8]>::to_vec) });
        self
    }
}
