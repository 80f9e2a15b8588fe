//! Rows without a key: inserted, however often they come.

use std::collections::{BTreeMap, HashMap};

use mongodb::Database;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::error::{ErrorKind, IndexedWriteError, InsertManyError};

use super::address::Address;
use super::outcome::Outcome;
use super::refusal::{self, Refusal};
use super::{document, identity};
use crate::model::{Answer, CallError, Failure, Fault, Record, TopicPartition};

/// The index over `_id` that every collection has.
const ID_INDEX: &str = "_id_";

/// One row to insert.
pub(super) struct Insert {
    row: u32,
    collection: String,
    id: Bson,
    /// The `_id` was made here, of the row itself.
    made: bool,
    raw: RawDocumentBuf,
}

impl Insert {
    pub(super) fn new(
        row: u32,
        collection: &str,
        mut document: Document,
        source: &TopicPartition,
        record: &Record<'_>,
    ) -> Result<Self, String> {
        let own = document.get("_id").cloned();
        let made = own.is_none();
        let id = own.unwrap_or_else(|| Bson::ObjectId(identity::made(source, record)));
        if made {
            let fields = std::mem::take(&mut document);
            document.insert("_id", id.clone());
            document.extend(fields);
        }
        Ok(Self { row, collection: collection.to_owned(), id, made, raw: document::raw(&document)? })
    }
}

/// Inserts the rows, each collection's in one go.
pub(super) async fn all(address: &Address, database: &Database, inserts: Vec<Insert>) -> Result<Outcome, CallError> {
    let mut collections: BTreeMap<String, Vec<Insert>> = BTreeMap::new();
    for insert in inserts {
        collections.entry(insert.collection.clone()).or_default().push(insert);
    }
    let mut outcome = Outcome::default();
    for (name, inserts) in collections {
        outcome.join(one(address, database, &name, &inserts).await?);
    }
    Ok(outcome)
}

async fn one(address: &Address, database: &Database, name: &str, inserts: &[Insert]) -> Result<Outcome, CallError> {
    let collection = database.collection::<RawDocumentBuf>(name);
    let documents = inserts.iter().map(|insert| &insert.raw);
    // Unordered: a document that is refused does not keep the ones after it from being written (S76).
    let Err(error) = collection.insert_many(documents).ordered(false).await else {
        return Ok(Outcome::new(true));
    };
    if let ErrorKind::InsertMany(InsertManyError { write_errors, write_concern_error, .. }) = &*error.kind {
        let fault = |what: &str| Fault::destination(format!("`{}` {what}", address.place()));
        if let Some(why) = write_concern_error {
            // Written, but not on as many servers as wanted; inserting again asks again.
            let why = refusal::said(why.code, &why.code_name, &why.message);
            return Err(CallError::Unavailable(fault("does not confirm writes").because(address.veiled(&why))));
        }
        return match write_errors {
            Some(errors) => refused(address, database, name, inserts, errors).await,
            None => Err(CallError::Unknown(fault("failed to insert and does not say why"))),
        };
    }
    let mut outcome = Outcome::default();
    match refusal::of(address, name, &error) {
        Refusal::Row(reason) if inserts.len() > 1 => {
            // Which of them it is, only asking in parts can tell.
            return Err(CallError::Reject(
                Fault::destination(format!("`{}` refused documents for `{name}`", address.place())).because(reason),
            ));
        }
        refusal => {
            let reason = refusal.call()?;
            inserts.iter().for_each(|insert| outcome.reject(insert.row, &*reason));
        }
    }
    Ok(outcome)
}

/// Judges the documents that the server did not insert.
async fn refused(
    address: &Address,
    database: &Database,
    name: &str,
    inserts: &[Insert],
    errors: &[IndexedWriteError],
) -> Result<Outcome, CallError> {
    let mut outcome = Outcome::new(errors.len() < inserts.len());
    let mut duplicates: Vec<(&Insert, Option<&str>)> = Vec::new();
    for error in errors {
        let Some(insert) = inserts.get(error.index) else {
            let fault = Fault::destination(format!("`{}` refused a document that it was not sent", address.place()));
            return Err(CallError::Unknown(fault));
        };
        if refusal::DUPLICATE.contains(&error.code) {
            let index = refusal::index(&error.message);
            if !(insert.made && index == Some(ID_INDEX)) {
                duplicates.push((insert, index));
            }
            continue;
        }
        let words = refusal::said(error.code, error.code_name.as_deref().unwrap_or_default(), &error.message);
        match refusal::of_code(address, name, error.code, &words) {
            Refusal::Row(reason) | Refusal::Collection(reason) => outcome.reject(insert.row, reason),
            Refusal::Unavailable(fault) | Refusal::Timeout(fault) => {
                outcome.failures.push(Failure::unavailable(insert.row, fault.to_string()));
            }
            Refusal::Unknown(fault) => outcome.unknown(insert.row, fault),
        }
    }
    if !duplicates.is_empty() {
        outcome.failures.extend(compared(address, database, name, &duplicates).await?);
    }
    Ok(outcome)
}

/// A document that is there already, just as it is, was written before.
async fn compared(
    address: &Address,
    database: &Database,
    name: &str,
    duplicates: &[(&Insert, Option<&str>)],
) -> Answer {
    let ids: Vec<Bson> = duplicates.iter().map(|(insert, _)| insert.id.clone()).collect();
    let found = async {
        let mut cursor = database.collection::<RawDocumentBuf>(name).find(doc! { "_id": { "$in": ids } }).await?;
        let mut found = HashMap::new();
        while cursor.advance().await? {
            let raw = cursor.current();
            if let Ok(Some(id)) = raw.get("_id") {
                found.insert(format!("{id:?}"), raw.to_owned());
            }
        }
        Ok(found)
    };
    let found = match found.await {
        Ok(found) => found,
        Err(error) => {
            let reason = refusal::of(address, name, &error).call()?;
            let reason = format!(
                "its `_id` or another unique value is there already, and what is there cannot be read: {reason}"
            );
            return Ok(duplicates.iter().map(|(insert, _)| Failure::reject(insert.row, reason.clone())).collect());
        }
    };
    let other = duplicates.iter().filter_map(|(insert, index)| {
        let id = insert.raw.get("_id").ok().flatten().map(|id| format!("{id:?}"));
        if id.and_then(|id| found.get(&id)).is_some_and(|there| *there == insert.raw) {
            return None;
        }
        let reason = match index {
            Some(ID_INDEX) => format!("another document in `{name}` has its `_id`"),
            Some(index) => format!("the unique index `{index}` of `{name}` has its value already"),
            None => format!("a unique index of `{name}` has its value already"),
        };
        Some(Failure::reject(insert.row, reason))
    });
    Ok(other.collect())
}
