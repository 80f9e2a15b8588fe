//! MongoDB collections as a destination: every row becomes a document (S110).
//!
//! The value is a JSON object. What MongoDB Extended JSON writes for a value, such as `{"$oid": …}` and `{"$date": …}`, is
//! stored as that value, unless `extended_json` is off. Whole numbers become 32-bit integers where they fit and 64-bit integers where not, as
//! MongoDB's own import writes them; numbers with a fraction or an exponent become doubles. Names keep their order.
//!
//! Without `key` every document is inserted. One without an `_id` gets an `ObjectId` made of its record's time,
//! coordinates
//! and value, so that inserting it again changes nothing. One with an `_id` of its own that is already there counts as
//! written when the document there is the same, and is refused when it is another.
//!
//! With `key` a document replaces the one that has the same values in these fields, or is inserted where there is none.
//! Values of a key
//! are strings, numbers, booleans, or the `ObjectId`, date or binary that Extended JSON writes. Of several rows of a call with one key only the last is written; the ones before
//! count with it, and the last before it is written where the server refuses it. Give the collection a unique index
//! over
//! exactly these fields: without it two partitions that write the same new key at the same moment may both insert, and
//! the
//! start warns of it for the configured collection. A tombstone deletes every document of its key, which is the
//! record's
//! key: a JSON object with the fields; for a single field also its JSON scalar or, where it is no JSON, its text.
//!
//! The start asks what the server tells of the configured collection. A user who may not write to it, a view, a time series
//! with `key`, a server that is no primary, and more servers to confirm a write than there are end it. Unique indexes
//! beside the key's, a validator, a capped collection and a time series are said.
//!
//! Writes wait for a majority of the replica set unless the URI says otherwise with `w`; 0 is refused. Writing a row
//! again is as writing it
//! once. Without `tls.ca_file` Mozilla's certificate authorities are believed, not the system's.
//!
//! | What goes wrong | Answer for its rows |
//! |---|---|
//! | The value is null, not UTF-8, no JSON object, or has a name twice in one object | reject |
//! | A name is empty, begins with `$`, holds `.` or a NUL character; an object that begins like Extended JSON is not what that writes | reject |
//! | A whole number past 64 bits, a number past a double, more than 100 levels, a document of more than 16 MiB | reject |
//! | The collection's name is missing, holds `$` or a NUL character, begins with `system.`, is too long | reject |
//! | A field of the key is missing, null, an object, an array, or another type by which documents are not told apart, such as a pattern | reject |
//! | A unique index has the value already, another document has the `_id`, a validator refuses it, any other refusal of the one document | reject |
//! | The collection takes no documents, such as a view, or the user may not write to it and the row named it | reject for the rows of this collection |
//! | The user may not write to the configured collection | the call is unavailable: the privilege is for the operator to give back |
//! | An internal error, one without a cause, too little memory for the command, what the server or its storage does not offer (1, 8, 20, 43, 65, 72, 77, 78, 96, 125, 146, 208, 235, 238, 245, 251, 257, 292, 301, 388, 409, 40414, 40415) | retry where other rows of the call were written, else unknown: asked again in parts |
//! | The connection broke off, and the server can be reached | unknown |
//! | No primary, shutting down, interrupted, overloaded, locked, being migrated, out of space, not confirmed by enough replicas, over its quota, a gateway or version that does not know the command | the call is unavailable |
//! | The server names one document with a code of these | unavailable; the others are written |
//! | Not to be reached, login refused | the call is unavailable |
//! | No answer within 20 seconds, or the server itself ran out of time (50, 202, 262, 290) | the call timed out: smaller ones follow |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mongodb::bson::Document;
use mongodb::error::{Error, ErrorKind};
use mongodb::{Client, Database};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::RwLock;

use super::suspects::Suspects;
use super::tls::Tls;
use super::{Description, OnTombstone, Sink, json};
use crate::blocking::compute;
use crate::model::{Answer, Batch, CallError, Failure, Fault, Record, TopicPartition};

mod address;
mod document;
mod extended;
mod identity;
mod insert;
mod outcome;
mod refusal;
mod replace;
mod start;

use address::Address;
use insert::Insert;
use replace::{Keyed, Wish};
use start::Plan;

/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long the driver looks for a server: shorter, since at its end it says what it met.
const SEARCH_PATIENCE: Duration = Duration::from_secs(7);
/// How long a call may take: less than the 30 seconds that the host gives it by default (S77).
const CALL_PATIENCE: Duration = Duration::from_secs(20);
/// Most rows wished for in one call.
const MAX_ROWS: usize = 1_000;
/// Most bytes wished for in one call.
const MAX_BYTES: usize = 16 << 20;
/// What the server answers where nobody has made the collection yet.
const NAMESPACE_NOT_FOUND: i32 = 26;
/// What it answers who may not.
const UNAUTHORIZED: i32 = 13;

/// One database to write to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MongoSink")]
pub struct Options {
    /// Where the server is: `mongodb://user:password@host:27017`.
    pub uri: String,
    /// The database.
    pub database: String,
    /// The collection for payloads that name none.
    #[serde(default)]
    pub collection: String,
    /// Fields that tell documents apart. With them a document replaces the one of the same key. Left out, every
    /// document is
    /// inserted, with an `_id` made of its record's coordinates (S110).
    #[serde(default)]
    pub key: Vec<String>,
    /// Whether what MongoDB Extended JSON writes for a value is stored as that value: `{"$oid": "…"}`, `{"$date": "…"}`,
    /// `{"$numberLong": "7"}` and all the others, canonical, relaxed or of version 1, as `mongoexport` and change feeds
    /// have them. Turned off, names that begin with `$` are refused.
    #[serde(default = "extended_json")]
    pub extended_json: bool,
    /// What happens to a record whose value is null; `delete` needs `key`.
    #[serde(default)]
    pub on_tombstone: OnTombstone,
    /// TLS beyond what the URI says. Certificate and key have to be in one file, named in both options.
    #[serde(default)]
    pub tls: Tls,
}

fn extended_json() -> bool {
    true
}

/// MongoDB collections as a destination: every row becomes a document (S110).
pub struct MongoSink {
    address: Address,
    collection: String,
    key: Vec<String>,
    extended_json: bool,
    on_tombstone: OnTombstone,
    client: RwLock<Option<Client>>,
    suspects: Suspects,
}

impl fmt::Debug for MongoSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoSink").field("place", &self.address.place()).finish_non_exhaustive()
    }
}

impl MongoSink {
    /// The sink `sinks.mongo.<name>`, not yet connected.
    ///
    /// # Errors
    /// When an option cannot be right, or a file that it names cannot be read.
    pub fn new(name: &str, options: &Options) -> Result<Self, Fault> {
        let place = format!("sinks.mongo.{name}");
        let address = Address::new(&place, options)?;
        if !options.collection.is_empty() {
            address::collection(&options.database, &options.collection)
                .map_err(|reason| Fault::config(format!("`{place}.collection` cannot be used: {reason}")))?;
        }
        for (position, field) in options.key.iter().enumerate() {
            document::name(field).map_err(|reason| Fault::config(format!("`{place}.key` cannot be used: {reason}")))?;
            if options.key[..position].contains(field) {
                return Err(Fault::config(format!("`{place}.key` names `{field}` twice")));
            }
        }
        if options.on_tombstone == OnTombstone::Delete && options.key.is_empty() {
            return Err(Fault::config(format!("`{place}` cannot delete by key")).hint("name the fields of the `key`"));
        }
        Ok(Self {
            address,
            collection: options.collection.clone(),
            key: options.key.clone(),
            extended_json: options.extended_json,
            on_tombstone: options.on_tombstone,
            client: RwLock::default(),
            suspects: Suspects::default(),
        })
    }

    /// Where the row goes.
    fn destination<'r>(&'r self, row: &Record<'r>) -> Result<&'r str, String> {
        let name = row.target.filter(|target| !target.is_empty()).unwrap_or(&self.collection);
        address::collection(self.address.database(), name).map(|()| name)
    }

    /// Sorts the rows into what is to be inserted, replaced and deleted; what cannot be any of it is refused here.
    fn sort(&self, batch: &Batch) -> (Vec<Insert>, Keyed, Vec<Failure>) {
        let (mut inserts, mut keyed, mut failures) = (Vec::new(), Keyed::default(), Vec::new());
        for (index, row) in (0u32..).zip(batch.rows()) {
            let sorted = self.destination(&row).and_then(|collection| match json::row(row.value, self.on_tombstone)? {
                json::Row::Skip => Ok(()),
                json::Row::Delete => {
                    let filter = identity::deleted(&self.key, row.key, self.extended_json)?;
                    keyed.push(index, collection, filter, Wish::Delete)
                }
                json::Row::Write(text) => {
                    let document = document::from_json(text, self.extended_json)?;
                    if self.key.is_empty() {
                        inserts.push(Insert::new(index, collection, document, &batch.source, &row)?);
                        return Ok(());
                    }
                    let filter = identity::of(&self.key, &document)?;
                    keyed.push(index, collection, filter, Wish::Replace(document::raw(&document)?))
                }
            });
            if let Err(reason) = sorted {
                failures.push(Failure::reject(index, reason));
            }
        }
        (inserts, keyed, failures)
    }

    async fn reach(&self) -> Result<Client, CallError> {
        let options = self.address.options().await?;
        let client = Client::with_options(options).map_err(|error| CallError::Fatal(self.address.unusable(&error)))?;
        let database = client.database(self.address.database());
        let asked = async {
            ping(&database).await?;
            // A ping needs no login; listing what one may see needs any.
            match database.list_collection_names().authorized_collections(true).await {
                Err(error) if refusal::code(&error) == Some(UNAUTHORIZED) => Err(error),
                _ => Ok(()),
            }
        };
        if let Err(error) = asked.await {
            client.shutdown().immediate(true).await;
            return Err(match &*error.kind {
                ErrorKind::InvalidTlsConfig { .. } => CallError::Fatal(self.address.unusable(&error)),
                _ => CallError::Unavailable(self.address.unavailable("cannot be reached", &error)),
            });
        }
        let plan = Plan {
            address: &self.address,
            collection: &self.collection,
            key: &self.key,
            deletes: self.on_tombstone == OnTombstone::Delete,
            concern: database.write_concern(),
        };
        if let Err(error) = start::ask(&plan, &database).await {
            client.shutdown().immediate(true).await;
            return Err(error);
        }
        Ok(client)
    }
}

/// Asks for any answer.
async fn ping(database: &Database) -> Result<(), Error> {
    let mut ping = Document::new();
    ping.insert("ping", 1);
    database.run_command(ping).await.map(drop)
}

#[async_trait]
impl Sink for MongoSink {
    fn description(&self) -> Description {
        Description { max_rows: MAX_ROWS, max_bytes: MAX_BYTES, ..Description::direct(true) }
    }

    fn target(&self, _: &TopicPartition) -> Option<String> {
        Some(self.collection.clone()).filter(|collection| !collection.is_empty())
    }

    async fn connect(&self) -> Result<(), CallError> {
        let reached = tokio::time::timeout(START_PATIENCE, self.reach()).await;
        let client = reached.unwrap_or_else(|_| Err(CallError::Unavailable(self.address.silent(START_PATIENCE))))?;
        *self.client.write().await = Some(client);
        Ok(())
    }

    async fn deliver(&self, batch: &Arc<Batch>) -> Answer {
        // S78: a sink that was never connected writes nothing.
        let Some(client) = self.client.read().await.clone() else {
            return Err(CallError::Fatal(Fault::host(format!("`{}` is not connected", self.address.place()))));
        };
        let (inserts, keyed, mut failures) = compute(batch.size_bytes(), || self.sort(batch));
        let database = client.database(self.address.database());
        let written = async {
            let mut outcome = insert::all(&self.address, &database, inserts).await?;
            outcome.join(replace::all(&self.address, &database, keyed).await?);
            outcome.failures.append(&mut failures);
            outcome.answer(|row, written| self.suspects.is_to_blame(batch, row as usize, written))
        };
        let written = async {
            match written.await {
                // A server that is gone says nothing about the rows.
                Err(CallError::Unknown(fault)) if ping(&database).await.is_err() => Err(CallError::Unavailable(fault)),
                answer => answer,
            }
        };
        let written = tokio::time::timeout(CALL_PATIENCE, written).await;
        written.unwrap_or_else(|_| Err(CallError::Timeout(self.address.silent(CALL_PATIENCE))))
    }

    async fn discard(&self, source: &TopicPartition) {
        self.suspects.forget(source);
    }

    async fn close(&self) -> Result<(), Fault> {
        if let Some(client) = self.client.write().await.take() {
            client.shutdown().immediate(true).await;
        }
        Ok(())
    }
}
