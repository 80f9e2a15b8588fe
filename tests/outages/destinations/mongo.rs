//! Two collections: a document for each record, and the newest of every key.

use std::fs;

use futures_util::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::Destination;
use crate::outages::matrix::Outage;
use crate::outages::process::Process;
use crate::outages::rows::Written;
use crate::support::proxy::{Cut, Proxy};
use crate::support::servers::Mongo;

const DATABASE: &str = "outages";

/// What MongoDB answers a write with then.
fn code(outage: Outage) -> Option<i32> {
    match outage {
        // NotWritablePrimary, OutOfDiskSpace, Unauthorized.
        Outage::ReadOnly => Some(10_107),
        Outage::OutOfSpace => Some(14_031),
        Outage::LoginRevoked => Some(13),
        _ => None,
    }
}

pub struct Collections {
    server: Mongo,
    proxy: Proxy,
    runtime: Runtime,
}

impl Collections {
    pub fn start() -> Self {
        let server = Mongo::start();
        let proxy = Proxy::before(server.port());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { server, proxy, runtime }
    }

    fn read(&self, collection: &str) -> Vec<(String, i64)> {
        let found: Vec<Document> = self.runtime.block_on(async {
            let client = mongodb::Client::with_uri_str(self.server.uri()).await.unwrap();
            let found = client.database(DATABASE).collection(collection).find(doc! {}).await.unwrap();
            found.try_collect().await.unwrap()
        });
        let id = |document: &Document| match document.get("id") {
            Some(Bson::Int32(id)) => i64::from(*id),
            Some(Bson::Int64(id)) => *id,
            other => panic!("{other:?} is no id"),
        };
        found.iter().map(|document| (document.get_str("k").unwrap().to_owned(), id(document))).collect()
    }
}

impl Destination for Collections {
    fn sinks(&self) -> Value {
        let uri = format!("mongodb://{}/", self.proxy.address());
        json!({ "mongo": {
            "rows": { "uri": uri, "database": DATABASE, "collection": "rows" },
            "latest": { "uri": uri, "database": DATABASE, "collection": "latest", "key": ["k"] },
        } })
    }

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }

    fn begin(&mut self, outage: Outage, _: &Process) {
        if let Some(code) = code(outage) {
            // Written whole before it is there.
            let part = self.server.dir().join("answer.part");
            fs::write(&part, code.to_string()).unwrap();
            fs::rename(part, self.server.dir().join("answer")).unwrap();
            return;
        }
        self.server.kill();
        if outage == Outage::FailedOver {
            self.server.relocate();
            self.proxy.redirect(self.server.port());
        }
        self.proxy.cut(Cut::Reset);
    }

    fn end(&mut self, outage: Outage, _: &Process) {
        if code(outage).is_some() {
            fs::remove_file(self.server.dir().join("answer")).unwrap();
        } else if outage == Outage::Killed {
            self.server.restart();
        }
    }

    fn written(&self) -> Vec<Written> {
        let latest = self.read("latest");
        let keys: std::collections::BTreeSet<&String> = latest.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), latest.len(), "a key has several documents");
        let rows = self.read("rows").into_iter().map(|(_, id)| id).collect();
        vec![Written::Unordered(rows), Written::Newest(latest.into_iter().collect())]
    }
}
