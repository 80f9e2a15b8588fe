//! Rows with a key: each replaces the document of its key, or deletes it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt as _, stream};
use mongodb::bson::{Document, RawDocumentBuf};
use mongodb::error::Error;
use mongodb::{Collection, Database};

use super::address::Address;
use super::identity;
use super::outcome::Outcome;
use super::refusal::{self, Refusal};
use crate::model::{CallError, Failure};

/// How many keys of a call are written at the same time.
const CONCURRENCY: usize = 8;
/// How often a replacement is tried that lost the race for a new key against another partition's.
const ATTEMPTS: u32 = 3;

/// What is to become of a key's document.
pub(super) enum Wish {
    /// It becomes this one.
    Replace(RawDocumentBuf),
    /// It goes.
    Delete,
}

/// All rows of a call that have one key, in order.
struct Group {
    collection: String,
    filter: Document,
    wishes: Vec<(u32, Wish)>,
}

/// The rows of a call by their keys.
#[derive(Default)]
pub(super) struct Keyed {
    groups: Vec<Group>,
    places: HashMap<(String, String), usize>,
}

impl Keyed {
    pub(super) fn push(&mut self, row: u32, collection: &str, filter: Document, wish: Wish) -> Result<(), String> {
        let groups = &mut self.groups;
        let place = *self.places.entry((collection.to_owned(), identity::canonical(&filter))).or_insert_with(|| {
            groups.push(Group { collection: collection.to_owned(), filter, wishes: Vec::new() });
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(place) {
            group.wishes.push((row, wish));
        }
        Ok(())
    }
}

/// Writes every key's last wish. Keys go side by side, since only rows of one key have an order.
pub(super) async fn all(address: &Address, database: &Database, keyed: Keyed) -> Result<Outcome, CallError> {
    let failed = AtomicBool::new(false);
    let settled = stream::iter(keyed.groups).map(|group| async {
        if failed.load(Ordering::Relaxed) {
            return Ok(Outcome::default());
        }
        let settled = settle(address, database, group).await;
        if settled.is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        settled
    });
    // To the end: a write that is cut short could still be carried out, behind a later one.
    let settled: Vec<_> = settled.buffer_unordered(CONCURRENCY).collect().await;
    let mut outcome = Outcome::default();
    for settled in settled {
        outcome.join(settled?);
    }
    Ok(outcome)
}

/// Carries out the last wish that the server does not refuse.
async fn settle(address: &Address, database: &Database, group: Group) -> Result<Outcome, CallError> {
    let collection = database.collection::<RawDocumentBuf>(&group.collection);
    let mut outcome = Outcome::default();
    let mut wishes = group.wishes.into_iter().rev();
    while let Some((row, wish)) = wishes.next() {
        let Err(error) = carry_out(&collection, &group.filter, &wish).await else {
            outcome.written = true;
            break;
        };
        match refusal::of(address, &group.collection, &error) {
            Refusal::Row(_) if is_duplicate(&error) => {
                let words = refusal::words(&error);
                let index = refusal::index(&words).map(|index| format!("the unique index `{index}`"));
                let index = index.unwrap_or_else(|| "a unique index".into());
                outcome.reject(row, format!("{index} of `{}` has its value already", group.collection));
            }
            Refusal::Unknown(fault) => {
                let reason = format!("not written, because a later row of its key may have to be: {fault}");
                outcome.unknown(row, fault);
                outcome.failures.extend(wishes.map(|(row, _)| Failure::not_tried(row, reason.clone())));
                break;
            }
            refusal => outcome.reject(row, refusal.call()?),
        }
    }
    Ok(outcome)
}

async fn carry_out(collection: &Collection<RawDocumentBuf>, filter: &Document, wish: &Wish) -> Result<(), Error> {
    let Wish::Replace(raw) = wish else {
        return collection.delete_many(filter.clone()).await.map(drop);
    };
    let mut attempt = 1;
    loop {
        match collection.replace_one(filter.clone(), raw).upsert(true).await {
            // The document was not there when it was looked for, and is there now: the next attempt finds it.
            Err(error) if is_duplicate(&error) && attempt < ATTEMPTS => attempt += 1,
            replaced => return replaced.map(drop),
        }
    }
}

fn is_duplicate(error: &Error) -> bool {
    refusal::code(error).is_some_and(|code| refusal::DUPLICATE.contains(&code))
}
