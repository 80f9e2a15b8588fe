//! Redis keys as a destination: every row is a `SET` (S114, S115).
//!
//! The key is `key_prefix` and the row's key, byte for byte and without a separator; the value is the row's JSON
//! document, byte for byte. A row with a time to live gets it in the same command. A row without one never expires,
//! and,
//! as Redis has it, loses an expiry that its key had before. The rows of a call go to the server together and in order,
//! and each gets its own answer. Writing a row again is as writing it once. A cluster's nodes are not followed.
//!
//! | What goes wrong | Answer for its rows |
//! |---|---|
//! | The value is not UTF-8 or not one JSON document; it is null and `on_tombstone` is `reject` | reject |
//! | The key is null; the time to live is 0 | reject |
//! | Key or value is larger than the server's `proto-max-bulk-len`, 512 MiB unless set otherwise; the server hangs up three times on a row of more than 1 MiB | reject |
//! | The user may not write this key (`NOPERM`), anything else that the server says of a command (`ERR`, `WRONGTYPE`, `CROSSSLOT`) | reject |
//! | The user may not run the command with any key (`NOPERM`), the command is unknown | unavailable: it is for the operator to allow |
//! | Out of memory, a script that does not end, too few replicas (`OOM`, `BUSY`, `UNKILLABLE`, `NOREPLICAS`, `TRYAGAIN`) | unavailable |
//! | Read-only replica, still loading, saving to disk failed, no master, login wanted (`READONLY`, `LOADING`, `MISCONF`, `MASTERDOWN`, `NOMASTERLINK`, `CLUSTERDOWN`, `REDIRECT`, `DENIED`, `NOAUTH`, `WRONGPASS`) | unavailable, and the next call makes a new connection: the server may have been replaced |
//! | A proxy does not reach the server (`upstream failure`, `no upstream host`, `ERR Connection refused` and the like), too many clients, a service's quota | unavailable |
//! | Unreachable, login refused, database number unknown | the call is unavailable |
//! | No answer within 20 seconds | the call timed out: smaller ones follow |
//! | The server takes a new connection and hangs up again, three times on the same rows | unknown: asked again in parts |
//! | Any other answer | retry where other rows of the call were written, else unknown |
//! | The server sends all rows of a call elsewhere (`MOVED`, `ASK`), as the only master of a cluster does once it is none any more | unavailable, and the next call makes a new connection |
//! | It sends some rows of a call elsewhere: it holds a part of the keys of a cluster | the run stops |
//!
//! The start tries the commands on keys that nobody has, which changes nothing. A user who may not run them, a server that
//! takes no writes, and a node of a cluster that has others beside it end it; a user who may not write keys with this prefix
//! is told so.
//!
//! A connection that the server ends is made anew, and the rows are sent again on it. A connection that is given up
//! while its
//! commands may still wait inside the server is ended there by `CLIENT KILL`. Behind a proxy that hangs up on `CLIENT`
//! the sink
//! works without it; there a call that was given up may still be carried out after later ones.

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Cmd, Pipeline, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use super::suspects::Suspects;
use super::tls::Tls;
use super::{Description, OnTombstone, Sink, TOO_LARGE, json};
use crate::blocking::compute;
use crate::model::{Answer, Batch, CallError, Failure, Fault, Record, TopicPartition};

mod link;
mod reply;
mod start;

use link::{Link, Lost};

/// Most rows wished for in one call, which is one round trip.
const MAX_ROWS: usize = 1_000;
/// Most bytes wished for in one call.
const MAX_BYTES: usize = 16 << 20;
/// What a server takes at most as one key or value, unless it is told otherwise.
const MAX_BULK: usize = 512 << 20;
/// A server can be told to take less than [`MAX_BULK`], but not less than this. It answers one that is too large with
/// an error and
/// hangs up, so a row that may be too large travels alone: then the error is its own.
const ALWAYS_TAKEN: usize = 1 << 20;
/// That error is seldom seen, since it is lost when the server ends the connection with the rest of the row unread. A
/// server
/// that can be reached each time and hangs up this often on one large row is not going to take it. On several rows, one
/// of them
/// may be the cause.
const HANG_UPS: u32 = 3;

/// One Redis database to write to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RedisSink")]
pub struct Options {
    /// Where the server is: `redis://user:password@host:6379/0`, `rediss://` for TLS, `unix:///path?db=0` for a socket.
    #[serde(default = "url")]
    pub url: String,
    /// Stands before every key, without a separator (S114).
    #[serde(default)]
    pub key_prefix: String,
    /// Seconds until Redis forgets a payload that says nothing of its own; left out, never (S115).
    #[serde(default)]
    pub ttl_seconds: Option<u32>,
    /// What happens to a record whose value is null; `delete` removes its key.
    #[serde(default)]
    pub on_tombstone: OnTombstone,
    /// TLS beyond what the URL says.
    #[serde(default)]
    pub tls: Tls,
}

fn url() -> String {
    "redis://localhost:6379/0".into()
}

/// Redis keys as a destination: every row is a `SET` (S114, S115).
#[derive(Debug)]
pub struct RedisSink {
    key_prefix: String,
    ttl_seconds: Option<u32>,
    on_tombstone: OnTombstone,
    link: Link,
    suspects: Suspects,
}

impl RedisSink {
    /// The sink `sinks.redis.<name>`, not yet connected.
    ///
    /// # Errors
    /// When an option cannot be right, or a file that it names cannot be read.
    pub fn new(name: &str, options: &Options) -> Result<Self, Fault> {
        let place = format!("sinks.redis.{name}");
        if options.ttl_seconds == Some(0) {
            return Err(Fault::config(format!("`{place}.ttl_seconds` must be 1 or more"))
                .hint("leave it out to keep keys for ever"));
        }
        Ok(Self {
            key_prefix: options.key_prefix.clone(),
            ttl_seconds: options.ttl_seconds,
            on_tombstone: options.on_tombstone,
            link: Link::new(&place, options)?,
            suspects: Suspects::default(),
        })
    }

    /// The answers to the commands; `None` where the server does not take the only one, which is large. A connection
    /// that the
    /// server has ended is no reason to fail: the commands are sent again on a new one, since twice is as once.
    async fn send(&self, group: &Group) -> Result<Option<Vec<Value>>, CallError> {
        let mut hang_ups = 0;
        loop {
            match self.link.send(&group.pipeline, group.rows.len()).await {
                Ok(values) => return Ok(Some(values)),
                Err(lost @ (Lost::Unavailable(_) | Lost::Late(_))) => return Err(lost.into()),
                Err(lost) => {
                    hang_ups += 1;
                    if hang_ups == HANG_UPS {
                        return if group.large { Ok(None) } else { Err(lost.into()) };
                    }
                }
            }
        }
    }

    /// The rows' commands in groups, and the rows that there is none for.
    fn commands(&self, batch: &Batch) -> (Groups, Vec<Failure>) {
        let (mut groups, mut failures) = (Groups::default(), Vec::new());
        for (index, row) in (0u32..).zip(batch.rows()) {
            match self.command(&row) {
                Ok(Some(command)) => {
                    let largest = row.key.map_or(0, <[u8]>::len).max(row.value.map_or(0, <[u8]>::len));
                    groups.push(index, command, largest + self.key_prefix.len() > ALWAYS_TAKEN);
                }
                Ok(None) => {}
                Err(reason) => failures.push(Failure::reject(index, reason)),
            }
        }
        (groups, failures)
    }

    /// The row's command; `None` where there is nothing to do.
    fn command(&self, row: &Record<'_>) -> Result<Option<Cmd>, String> {
        let value = json::row(row.value, self.on_tombstone)?;
        if value == json::Row::Skip {
            return Ok(None);
        }
        let Some(suffix) = row.key else {
            return Err("the key is null, and Redis keeps nothing without a key".into());
        };
        let key = [self.key_prefix.as_bytes(), suffix].concat();
        for (what, bytes) in [("key", key.len()), ("value", row.value.map_or(0, <[u8]>::len))] {
            if bytes > MAX_BULK {
                return Err(format!("{TOO_LARGE}: a {what} of {bytes} bytes, where Redis takes {MAX_BULK}"));
            }
        }
        let mut command;
        match value {
            json::Row::Write(text) => {
                let ttl = row.ttl.or(self.ttl_seconds);
                if ttl == Some(0) {
                    return Err("a time to live of 0 seconds: it must be 1 or more".into());
                }
                command = redis::cmd("SET");
                command.arg(key).arg(text);
                if let Some(ttl) = ttl {
                    command.arg("EX").arg(ttl);
                }
            }
            json::Row::Delete | json::Row::Skip => {
                command = redis::cmd("DEL");
                command.arg(key);
            }
        }
        Ok(Some(command))
    }
}

/// Commands that travel together, with their rows.
#[derive(Default)]
struct Group {
    pipeline: Pipeline,
    rows: Vec<u32>,
    /// Its only row may be larger than the server takes.
    large: bool,
}

impl Group {
    fn push(&mut self, row: u32, command: Cmd) {
        self.pipeline.add_command(command);
        self.rows.push(row);
    }
}

/// Puts the commands into groups, so that one that may break the connection is alone.
#[derive(Default)]
struct Groups {
    groups: Vec<Group>,
    open: bool,
}

impl Groups {
    fn push(&mut self, row: u32, command: Cmd, alone: bool) {
        if alone || !self.open {
            self.groups.push(Group { large: alone, ..Group::default() });
        }
        self.open = !alone;
        if let Some(group) = self.groups.last_mut() {
            group.push(row, command);
        }
    }
}

#[async_trait]
impl Sink for RedisSink {
    fn description(&self) -> Description {
        Description { max_rows: MAX_ROWS, max_bytes: MAX_BYTES, ..Description::direct(true) }
    }

    async fn connect(&self) -> Result<(), CallError> {
        let deletes = self.on_tombstone == OnTombstone::Delete;
        let answers = self.link.prove(&start::probes(&self.key_prefix, deletes)).await?;
        start::judge(&answers, &self.key_prefix, self.link.place())?;
        self.link.proven();
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        self.link.ready()?;
        let (groups, mut failures) = compute(batch.size_bytes(), || self.commands(batch));
        let (mut refused, mut written) = (Vec::new(), false);
        for group in groups.groups {
            match self.send(&group).await? {
                Some(values) => {
                    for (row, value) in group.rows.into_iter().zip(values) {
                        match value {
                            Value::ServerError(error) => refused.push((row, error)),
                            _ => written = true,
                        }
                    }
                }
                None => {
                    let reason = format!("{TOO_LARGE}: the server hung up {HANG_UPS} times on this row alone");
                    failures.extend(group.rows.into_iter().map(|row| Failure::reject(row, reason.clone())));
                }
            }
        }
        let is_to_blame = |row: u32| self.suspects.is_to_blame(batch, row as usize, written);
        failures.extend(reply::failures(&refused, written, is_to_blame, self.link.place())?);
        failures.sort_by_key(|failure| failure.index);
        Ok(failures)
    }

    async fn discard(&self, source: &TopicPartition) {
        self.suspects.forget(source);
    }

    async fn close(&self) -> Result<(), Fault> {
        self.link.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::model::Owner;

    fn options() -> Options {
        serde_json::from_str("{}").unwrap()
    }

    fn packed(sink: &RedisSink, key: Option<&[u8]>, value: Option<&[u8]>, ttl: Option<u32>) -> Result<Vec<u8>, String> {
        let mut batch = Batch::new(TopicPartition::new("t", 0));
        batch.push(1, -1, key, value);
        batch.ttls.push(ttl);
        sink.command(&batch.row(0)).map(|command| command.map_or_else(Vec::new, |command| command.get_packed_command()))
    }

    /// S114: prefix and key without a separator, the document as it came, the time to live in the same command.
    #[test]
    fn a_row_is_one_command_s114() {
        let sink = RedisSink::new("cache", &Options { key_prefix: "app:".into(), ..options() }).unwrap();
        let set = b"*3\r\n$3\r\nSET\r\n$6\r\napp:\0\xff\r\n$9\r\n{ \"a\":1 }\r\n";
        assert_eq!(packed(&sink, Some(b"\0\xff"), Some(b"{ \"a\":1 }"), None).unwrap(), set);
        let with_ttl = b"*5\r\n$3\r\nSET\r\n$5\r\napp:k\r\n$1\r\n1\r\n$2\r\nEX\r\n$2\r\n60\r\n";
        assert_eq!(packed(&sink, Some(b"k"), Some(b"1"), Some(60)).unwrap(), with_ttl);
    }

    /// S115: the row's own time to live goes over the sink's; 0 is refused before the server sees it.
    #[test]
    fn a_time_to_live_is_at_least_one_s115() {
        let sink = RedisSink::new("cache", &Options { ttl_seconds: Some(5), ..options() }).unwrap();
        let command = |ttl| packed(&sink, Some(b"k"), Some(b"1"), ttl);
        assert!(command(None).unwrap().ends_with(b"EX\r\n$1\r\n5\r\n"));
        assert!(command(Some(7)).unwrap().ends_with(b"EX\r\n$1\r\n7\r\n"));
        assert!(command(Some(0)).is_err());
        let fault = RedisSink::new("cache", &Options { ttl_seconds: Some(0), ..options() }).unwrap_err();
        assert_eq!(
            (fault.owner, fault.message.as_str()),
            (Owner::Config, "`sinks.redis.cache.ttl_seconds` must be 1 or more")
        );
    }

    #[test]
    fn tombstones_are_refused_passed_over_or_delete() {
        for (on_tombstone, expected) in [
            (OnTombstone::Reject, None),
            (OnTombstone::Skip, Some(&b""[..])),
            (OnTombstone::Delete, Some(b"*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n")),
        ] {
            let sink = RedisSink::new("cache", &Options { on_tombstone, ..options() }).unwrap();
            assert_eq!(packed(&sink, Some(b"k"), None, None).ok().as_deref(), expected, "{on_tombstone:?}");
        }
        let sink = RedisSink::new("cache", &options()).unwrap();
        assert!(packed(&sink, None, Some(b"1"), None).unwrap_err().contains("key is null"));
    }

    /// A row that may be too large for the server travels alone, and all others keep their order.
    #[test]
    fn large_rows_travel_alone() {
        let mut groups = Groups::default();
        for (row, alone) in [(0, false), (1, false), (2, true), (3, true), (4, false), (5, false)] {
            groups.push(row, redis::cmd("PING"), alone);
        }
        let rows: Vec<_> = groups.groups.into_iter().map(|group| group.rows).collect();
        assert_eq!(rows, [vec![0, 1], vec![2], vec![3], vec![4, 5]]);
    }

    /// S78, S85: no delivery before connecting; nothing secret in the words about an address that is no address.
    #[tokio::test]
    async fn an_unconnected_sink_says_so_s78() {
        let sink = RedisSink::new("cache", &options()).unwrap();
        let mut batch = Batch::new(TopicPartition::new("t", 0));
        batch.push(1, -1, Some(b"k"), Some(b"1"));
        assert!(
            matches!(sink.deliver(&Arc::new(batch)).await, Err(CallError::Fatal(fault)) if fault.owner == Owner::Host)
        );
        for url in ["redis://u:hunter2@h:port/0", "http://u:hunter2@h/0", "redis://u:hunter2@h/hunter2", "hunter2"] {
            let fault = RedisSink::new("cache", &Options { url: url.into(), ..options() }).unwrap_err();
            assert_eq!(fault.owner, Owner::Config);
            assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
        }
        let sink = RedisSink::new("cache", &Options { url: "redis://u:hunter2@h/3".into(), ..options() }).unwrap();
        assert_eq!(sink.link.place(), "h:6379/3");
        assert!(!format!("{sink:?}").contains("hunter2"));
    }
}
