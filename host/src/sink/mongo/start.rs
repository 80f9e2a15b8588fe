//! What the server tells at the start about the configured collection (S124a): what refuses every row is refused, what
//! may refuse some is said. What it does not tell, because it does not know the question or because the user may not
//! ask, is left to the rows.

use futures_util::future::join_all;
use mongodb::Database;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::error::Error;
use mongodb::options::{Acknowledgment, WriteConcern};

use super::address::Address;
use super::{NAMESPACE_NOT_FOUND, refusal};
use crate::model::{CallError, Fault};

/// What is to be done with the collection.
pub(super) struct Plan<'s> {
    pub(super) address: &'s Address,
    pub(super) collection: &'s str,
    pub(super) key: &'s [String],
    pub(super) deletes: bool,
    pub(super) concern: Option<&'s WriteConcern>,
}

/// Asks the server.
///
/// # Errors
/// When no row can be written.
pub(super) async fn ask(plan: &Plan<'_>, database: &Database) -> Result<(), CallError> {
    let questions = [
        doc! { "hello": 1 },
        doc! { "connectionStatus": 1, "showPrivileges": true },
        doc! { "listCollections": 1, "filter": { "name": plan.collection } },
    ];
    let answers = join_all(questions.into_iter().map(|question| database.run_command(question).into_future())).await;
    let said = |answer: Result<Document, Error>| {
        answer
            .inspect_err(|error| {
                tracing::debug!("the start was not told: {}", plan.address.veiled(&refusal::words(error)))
            })
            .ok()
    };
    let mut answers = answers.into_iter().map(said);
    let [hello, status, collections] = [(); 3].map(|()| answers.next().flatten().unwrap_or_default());
    plan.server(&hello)?;
    if plan.collection.is_empty() {
        return Ok(());
    }
    plan.privileges(&status)?;
    let cursor = collections.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    if let Some(found) = cursor.ok().and_then(|found| found.first()).and_then(Bson::as_document) {
        plan.kind(found)?;
        notes(found).iter().for_each(|note| tracing::warn!(collection = plan.collection, "{note}"));
    }
    match indexes(database, plan.collection).await {
        Ok(indexes) => {
            plan.about(&indexes).iter().for_each(|note| tracing::warn!(collection = plan.collection, "{note}"));
        }
        Err(error) => {
            tracing::debug!("the indexes were not listed: {}", plan.address.veiled(&refusal::words(&error)));
        }
    }
    Ok(())
}

impl Plan<'_> {
    fn refused(&self, what: &str, hint: String) -> CallError {
        CallError::Fatal(Fault::config(format!("`{}` {what}", self.address.place())).hint(hint))
    }

    /// Whether the server takes writes, and confirms them as wanted.
    fn server(&self, hello: &Document) -> Result<(), CallError> {
        // A failover that is under way passes.
        if matches!(hello.get_bool("isWritablePrimary"), Ok(false)) {
            let fault =
                Fault::destination(format!("`{}` takes no writes", self.address.place())).because("not primary");
            let hint = "name the replica set in the URI (`replicaSet=…`) and leave `directConnection` out";
            return Err(CallError::Unavailable(fault.hint(hint)));
        }
        let Some(Acknowledgment::Nodes(wanted)) = self.concern.and_then(|concern| concern.w.as_ref()) else {
            return Ok(());
        };
        let members = |name| hello.get_array(name).map_or(0, Vec::len);
        let there = match (hello.get_str("setName"), hello.get_str("msg")) {
            (Ok(_), _) => members("hosts") + members("passives"),
            // What stands behind a router, it does not say.
            (_, Ok("isdbgrid")) => return Ok(()),
            _ if hello.contains_key("isWritablePrimary") => 1,
            _ => return Ok(()),
        };
        if usize::try_from(*wanted).is_ok_and(|wanted| wanted > there) {
            let what = format!("never confirms a write by `w={wanted}` servers: {there} can");
            return Err(self.refused(&what, format!("set `w` in the URI to at most {there}, or to `majority`")));
        }
        Ok(())
    }

    /// Whether the user may write to the collection. Without a login, or without access control, nobody is asked.
    fn privileges(&self, status: &Document) -> Result<(), CallError> {
        let Ok(login) = status.get_document("authInfo") else { return Ok(()) };
        let users = login.get_array("authenticatedUsers").map_or(0, Vec::len);
        let Ok(privileges) = login.get_array("authenticatedUserPrivileges") else { return Ok(()) };
        // Servers that only speak the protocol may know users and no privileges.
        if users == 0 || privileges.is_empty() {
            return Ok(());
        }
        let may = |action: &str| {
            privileges.iter().filter_map(Bson::as_document).any(|one| {
                let covers = one.get_document("resource").is_ok_and(|resource| self.is_of(resource));
                let actions = one.get_array("actions");
                let named = |known: &Bson| [Some(action), Some("anyAction")].contains(&known.as_str());
                covers && actions.is_ok_and(|actions| actions.iter().any(named))
            })
        };
        let wanted: &[&str] = match (self.key.is_empty(), self.deletes) {
            (true, _) => &["insert"],
            (false, false) => &["insert", "update"],
            (false, true) => &["insert", "update", "remove"],
        };
        let missing: Vec<_> = wanted.iter().copied().filter(|action| !may(action)).collect();
        if !missing.is_empty() {
            let missing = missing.join("`, `");
            let what = format!("does not let its user `{missing}` in `{}`", self.collection);
            let hint = format!("grant it, such as with the role `readWrite` on `{}`", self.address.database());
            return Err(self.refused(&what, hint));
        }
        if self.key.is_empty() && !may("find") {
            tracing::warn!(
                collection = self.collection,
                "the user may not `find`: a row with an `_id` of its own that is written again is refused"
            );
        }
        Ok(())
    }

    /// Whether a privilege's resource is, or holds, the collection. An empty name is any.
    fn is_of(&self, resource: &Document) -> bool {
        if matches!(resource.get_bool("anyResource"), Ok(true)) {
            return true;
        }
        let is = |field, name: &str| resource.get_str(field).is_ok_and(|found| found.is_empty() || found == name);
        is("db", self.address.database()) && is("collection", self.collection)
    }

    /// Whether the collection is one that rows can be written to.
    fn kind(&self, found: &Document) -> Result<(), CallError> {
        match found.get_str("type") {
            Ok("view") => {
                let what = format!("has a view named `{}`, which takes no documents", self.collection);
                Err(self.refused(&what, "name the collection behind the view".into()))
            }
            Ok("timeseries") if !self.key.is_empty() => {
                let what = format!("has a time series named `{}`, where no document is replaced", self.collection);
                Err(self.refused(&what, "leave `key` out, or name another collection".into()))
            }
            _ => Ok(()),
        }
    }

    /// What the indexes say that is worth knowing.
    fn about(&self, indexes: &[Index]) -> Vec<String> {
        let is_key = |index: &Index| {
            index.fields.len() == self.key.len() && self.key.iter().all(|field| index.fields.contains(field))
        };
        let mut notes = Vec::new();
        // Two inserts of one new key at the same moment are kept apart by a unique index and by nothing else.
        if !self.key.is_empty() && self.key != ["_id"] && !indexes.iter().any(|index| !index.partial && is_key(index)) {
            notes.push(format!(
                "no unique index covers exactly the key `{}`: a key written by two partitions at once may be there twice",
                self.key.join(", ")
            ));
        }
        for index in indexes.iter().filter(|index| !is_key(index)) {
            notes.push(format!(
                "the unique index `{}` over `{}` refuses a row whose value another document has",
                index.name,
                index.fields.join(", ")
            ));
        }
        notes
    }
}

/// What else the collection says of itself that is worth knowing.
fn notes(found: &Document) -> Vec<String> {
    let mut notes = Vec::new();
    let none = Document::new();
    let options = found.get_document("options").unwrap_or(&none);
    if matches!(found.get_str("type"), Ok("timeseries")) {
        notes.push("a time series has no unique `_id`: a row that is written again is there twice".to_owned());
    }
    if matches!(options.get_bool("capped"), Ok(true)) {
        notes.push("the collection is capped: its oldest documents go as new ones come".into());
    }
    let refuses = options.get_str("validationAction").is_ok_and(|action| action == "warn");
    if options.get_document("validator").is_ok_and(|rules| !rules.is_empty()) && !refuses {
        notes.push("the collection has a validator: rows that it refuses become dead letters".into());
    }
    notes
}

/// A unique index, but for that over `_id`.
struct Index {
    name: String,
    fields: Vec<String>,
    /// It holds for some documents only.
    partial: bool,
}

async fn indexes(database: &Database, collection: &str) -> Result<Vec<Index>, Error> {
    let mut cursor = match database.collection::<RawDocumentBuf>(collection).list_indexes().await {
        Err(error) if refusal::code(&error) == Some(NAMESPACE_NOT_FOUND) => return Ok(Vec::new()),
        cursor => cursor?,
    };
    let mut indexes = Vec::new();
    while cursor.advance().await? {
        let index = cursor.deserialize_current()?;
        let Some(options) = index.options.filter(|options| options.unique == Some(true)) else { continue };
        let fields: Vec<String> = index.keys.keys().cloned().collect();
        if fields != ["_id"] {
            let partial = options.partial_filter_expression.is_some();
            indexes.push(Index { name: options.name.unwrap_or_default(), fields, partial });
        }
    }
    Ok(indexes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn address() -> Address {
        let options = r#"{"uri":"mongodb://app@localhost/","database":"app","collection":"orders"}"#;
        Address::new("sinks.mongo.archive", &serde_json::from_str(options).unwrap()).unwrap()
    }

    fn said(error: CallError) -> String {
        let (CallError::Fatal(fault) | CallError::Unavailable(fault)) = error else { panic!("{error:?}") };
        assert!(fault.hint.is_some(), "{fault}");
        fault.message
    }

    fn plan<'s>(address: &'s Address, key: &'s [String], deletes: bool, concern: Option<&'s WriteConcern>) -> Plan<'s> {
        Plan { address, collection: "orders", key, deletes, concern }
    }

    /// S124a: the answers are those of MongoDB 7 to a user with the roles named.
    #[test]
    fn s124a_a_missing_privilege_is_said_at_the_start() {
        let address = address();
        let key = ["id".to_owned()];
        let status = |privileges: Vec<Document>| {
            let users = [doc! { "user": "app", "db": "app" }];
            doc! { "authInfo": { "authenticatedUsers": users, "authenticatedUserPrivileges": privileges }, "ok": 1.0 }
        };
        let one = |db: &str, collection: &str, actions: &[&str]| {
            doc! { "resource": { "db": db, "collection": collection }, "actions": actions.to_vec() }
        };
        let read = one("app", "", &["find", "listCollections", "listIndexes"]);
        let write = one("app", "", &["find", "insert", "remove", "update", "createIndex"]);
        let other = one("app", "others", &["insert", "update", "remove"]);
        let elsewhere = one("web", "", &["insert", "update", "remove"]);
        let cluster = doc! { "resource": { "cluster": true }, "actions": ["anyAction"] };
        let (insert, replace, delete) =
            (plan(&address, &[], false, None), plan(&address, &key, false, None), plan(&address, &key, true, None));
        for sound in [
            status(vec![write]),
            status(vec![one("app", "orders", &["insert", "update", "remove"])]),
            status(vec![one("app", "orders", &["insert"]), one("", "", &["update", "remove"])]),
            status(vec![doc! { "resource": { "anyResource": true }, "actions": ["anyAction"] }]),
            // Nobody is logged in, and an older or another server that does not tell.
            doc! { "authInfo": { "authenticatedUsers": [], "authenticatedUserPrivileges": [] } },
            doc! { "authInfo": { "authenticatedUsers": [] } },
            status(Vec::new()),
            doc! {},
        ] {
            for plan in [&insert, &replace, &delete] {
                plan.privileges(&sound).unwrap();
            }
        }
        let wrong = status(vec![read, other, elsewhere, cluster]);
        for (plan, missing) in
            [(&insert, "`insert`"), (&replace, "`insert`, `update`"), (&delete, "`insert`, `update`, `remove`")]
        {
            let said = said(plan.privileges(&wrong).unwrap_err());
            assert!(said.contains(missing) && said.contains("`orders`"), "{said}");
        }
        let half = status(vec![one("app", "orders", &["insert", "update"])]);
        replace.privileges(&half).unwrap();
        assert!(said(delete.privileges(&half).unwrap_err()).contains("user `remove` in"));
    }

    /// S124a: a server that takes no writes, and more servers to confirm than there are.
    #[test]
    fn s124a_a_server_that_cannot_confirm_a_write_is_said_at_the_start() {
        let address = address();
        let concern = |nodes: u32| WriteConcern::builder().w(Acknowledgment::Nodes(nodes)).build();
        let majority = WriteConcern::majority();
        let set = doc! { "isWritablePrimary": true, "setName": "rs0", "hosts": ["a:1", "b:1"], "passives": ["c:1"],
        "arbiters": ["d:1"] };
        let alone = doc! { "isWritablePrimary": true };
        let router = doc! { "isWritablePrimary": true, "msg": "isdbgrid" };
        let secondary = doc! { "isWritablePrimary": false, "secondary": true, "setName": "rs0", "hosts": ["a:1"] };
        let server = |hello: &Document, concern: &WriteConcern| plan(&address, &[], false, Some(concern)).server(hello);
        for (hello, nodes) in [(&set, 3), (&alone, 1), (&router, 9), (&doc! {}, 9)] {
            assert_eq!(server(hello, &concern(nodes)), Ok(()), "{hello}");
            assert_eq!(server(hello, &majority), Ok(()), "{hello}");
        }
        for (hello, nodes, there) in [(&set, 4, "3 can"), (&alone, 2, "1 can")] {
            let said = said(server(hello, &concern(nodes)).unwrap_err());
            assert!(said.contains(&format!("`w={nodes}`")) && said.ends_with(there), "{said}");
        }
        assert!(matches!(server(&secondary, &majority), Err(CallError::Unavailable(_))));
    }

    /// S124a: what takes no documents is refused, what takes some and not others is named.
    #[test]
    fn s124a_what_the_collection_is_is_said_at_the_start() {
        let address = address();
        let key = ["id".to_owned()];
        let (insert, replace) = (plan(&address, &[], false, None), plan(&address, &key, false, None));
        let view = doc! { "name": "orders", "type": "view", "options": { "viewOn": "all", "pipeline": [] } };
        let series = doc! { "name": "orders", "type": "timeseries", "options": { "timeseries": { "timeField": "t" } } };
        let plain = doc! { "name": "orders", "type": "collection", "options": {} };
        assert!(said(insert.kind(&view).unwrap_err()).contains("a view named `orders`"));
        assert!(said(replace.kind(&series).unwrap_err()).contains("a time series"));
        for (plan, found) in [(&insert, &series), (&insert, &plain), (&replace, &plain)] {
            plan.kind(found).unwrap();
        }
        assert_eq!(notes(&plain), Vec::<String>::new());
        assert!(notes(&series)[0].contains("there twice"));
        let rules = doc! { "$jsonSchema": { "required": ["id"] } };
        let strict = doc! { "options": { "capped": true, "size": 4096, "validator": rules.clone() } };
        assert_eq!(notes(&strict).len(), 2);
        let lax = doc! { "options": { "validator": rules, "validationAction": "warn" } };
        assert_eq!(notes(&lax), Vec::<String>::new());
    }

    /// S124a: the key's own unique index is missed where it is not, any other is named.
    #[test]
    fn s124a_unique_indexes_are_said_at_the_start() {
        let address = address();
        let key = ["a".to_owned(), "b".to_owned()];
        let index = |fields: &[&str], partial| Index {
            name: "one".into(),
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
            partial,
        };
        let replace = plan(&address, &key, false, None);
        assert_eq!(replace.about(&[index(&["b", "a"], false)]), Vec::<String>::new());
        for missing in [vec![], vec![index(&["a", "b"], true)]] {
            assert!(replace.about(&missing)[0].contains("no unique index covers exactly the key `a, b`"));
        }
        let both = replace.about(&[index(&["email"], false)]);
        assert!(both.len() == 2 && both[1].contains("the unique index `one` over `email`"), "{both:?}");
        assert_eq!(plan(&address, &[], false, None).about(&[index(&["email"], false)]).len(), 1);
    }
}
