//! Tables, collections, keys and an endpoint on real servers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use tidegate::sink::Sink;
use tidegate::sink::http::HttpSink;
use tidegate::sink::mongo::MongoSink;
use tidegate::sink::postgres::PostgresSink;
use tidegate::sink::redis::RedisSink;

use super::cases::{Destination, Row, SECRET};
use crate::support::servers::{Http, Mongo, Postgres, Redis};

/// A name that no other case uses.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A server that is shared until a case wants to take it away.
struct Server<T: 'static> {
    shared: &'static OnceLock<T>,
    own: Option<T>,
    start: fn() -> T,
}

impl<T> Server<T> {
    fn new(shared: &'static OnceLock<T>, start: fn() -> T) -> Self {
        Self { shared, own: None, start }
    }

    fn get(&self) -> &T {
        self.own.as_ref().unwrap_or_else(|| self.shared.get_or_init(self.start))
    }

    fn alone(&mut self) {
        self.own = Some((self.start)());
    }

    fn own(&mut self) -> &mut T {
        self.own.as_mut().expect("a shared server is never taken away")
    }
}

static POSTGRES: OnceLock<Postgres> = OnceLock::new();
static MONGO: OnceLock<Mongo> = OnceLock::new();
static REDIS: OnceLock<Redis> = OnceLock::new();
static HTTP: OnceLock<Http> = OnceLock::new();

/// A table in a database of its own.
struct Table {
    server: Server<Postgres>,
    database: String,
    options: Value,
}

impl Table {
    fn new(options: Value) -> Self {
        let mut table = Self { server: Server::new(&POSTGRES, Postgres::start), database: String::new(), options };
        table.create();
        table
    }

    fn create(&mut self) {
        self.database = self.server.get().database("rows");
        let unique = if self.options["key"].is_null() { "" } else { " PRIMARY KEY" };
        let columns = format!("k text{unique}, id bigint, text text, written_at bigint");
        let sql = format!("CREATE TABLE rows ({columns}); ALTER TABLE rows OWNER TO tidegate");
        self.server.get().psql(&self.database, &sql);
    }

    fn sink(&self, dsn: &str) -> Arc<dyn Sink> {
        let mut options = self.options.clone();
        options["dsn"] = json!(dsn);
        Arc::new(PostgresSink::new("main", &serde_json::from_value(options).unwrap()).unwrap())
    }

    fn read(&self) -> Vec<Value> {
        let sql = "SELECT row_to_json(r) FROM (SELECT k, id, text FROM rows ORDER BY ctid) r";
        let rows = self.server.get().psql(&self.database, sql);
        rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect()
    }
}

macro_rules! table {
    ($name:ident, $keyed:literal, $options:tt, $text:literal) => {
        #[doc = $text]
        pub struct $name(Table);

        impl $name {
            pub async fn new() -> Self {
                Self(Table::new(json!($options)))
            }
        }

        #[async_trait]
        impl Destination for $name {
            async fn sink(&self) -> Arc<dyn Sink> {
                self.0.sink(&self.0.server.get().dsn(&self.0.database))
            }

            async fn nowhere(&self) -> Option<Arc<dyn Sink>> {
                Some(self.0.sink(&format!("postgresql://u:{SECRET}@127.0.0.1:1/app")))
            }

            fn target(&self) -> Option<&'static str> {
                Some("rows")
            }

            async fn read(&self) -> Vec<Value> {
                self.0.read()
            }

            fn is_keyed(&self) -> bool {
                $keyed
            }

            async fn alone(&mut self) {
                self.0.server.alone();
                self.0.create();
            }

            async fn take_away(&mut self) {
                self.0.server.own().kill();
            }

            async fn bring_back(&mut self) {
                self.0.server.own().restart();
            }
        }
    };
}

table!(PostgresTable, false, {}, "A table to insert into.");
table!(PostgresUpsert, true, { "key": ["k"] }, "A table with one row per key.");
table!(PostgresGuard, true, { "key": ["k"], "upsert": { "guard": "written_at" } }, "A table with the newest row per key.");

/// A collection in a database of its own.
struct Collection {
    server: Server<Mongo>,
    database: String,
    keyed: bool,
}

impl Collection {
    fn new(keyed: bool) -> Self {
        let server = Server::new(&MONGO, Mongo::start);
        let database = server.get().database("rows");
        Self { server, database, keyed }
    }

    fn sink(&self, uri: &str) -> Arc<dyn Sink> {
        let key = if self.keyed { json!(["k"]) } else { json!([]) };
        let options = json!({ "uri": uri, "database": self.database, "key": key });
        Arc::new(MongoSink::new("archive", &serde_json::from_value(options).unwrap()).unwrap())
    }

    async fn read(&self) -> Vec<Value> {
        let client = mongodb::Client::with_uri_str(self.server.get().uri()).await.unwrap();
        let rows = client.database(&self.database).collection::<Document>("rows");
        let found: Vec<Document> = rows.find(doc! {}).await.unwrap().try_collect().await.unwrap();
        let documents = found.iter().map(|row| {
            let id = row.get_i64("id").or_else(|_| row.get_i32("id").map(i64::from)).unwrap();
            json!({ "id": id, "k": row.get_str("k").unwrap(), "text": row.get_str("text").unwrap() })
        });
        documents.collect()
    }
}

macro_rules! collection {
    ($name:ident, $keyed:literal, $text:literal) => {
        #[doc = $text]
        pub struct $name(Collection);

        impl $name {
            pub async fn new() -> Self {
                Self(Collection::new($keyed))
            }
        }

        #[async_trait]
        impl Destination for $name {
            async fn sink(&self) -> Arc<dyn Sink> {
                self.0.sink(&self.0.server.get().uri())
            }

            async fn nowhere(&self) -> Option<Arc<dyn Sink>> {
                Some(self.0.sink(&format!("mongodb://u:{SECRET}@127.0.0.1:1")))
            }

            fn target(&self) -> Option<&'static str> {
                Some("rows")
            }

            async fn read(&self) -> Vec<Value> {
                self.0.read().await
            }

            /// What is found comes in no order.
            fn is_ordered(&self) -> bool {
                false
            }

            fn is_keyed(&self) -> bool {
                $keyed
            }

            async fn alone(&mut self) {
                self.0.server.alone();
                self.0.database = self.0.server.get().database("rows");
            }

            async fn take_away(&mut self) {
                self.0.server.own().kill();
            }

            async fn bring_back(&mut self) {
                self.0.server.own().restart();
            }
        }
    };
}

collection!(MongoCollection, false, "A collection to insert into.");
collection!(MongoUpsert, true, "A collection with one document per key.");

/// Keys in a Redis database of its own.
pub struct RedisKeys {
    server: Server<Redis>,
    database: u8,
}

const PREFIX: &str = "app:";

impl RedisKeys {
    pub async fn new() -> Self {
        let server = Server::new(&REDIS, Redis::start);
        let database = server.get().database();
        Self { server, database }
    }

    fn sink_at(&self, url: &str) -> Arc<dyn Sink> {
        let options = json!({ "url": url, "key_prefix": PREFIX });
        Arc::new(RedisSink::new("cache", &serde_json::from_value(options).unwrap()).unwrap())
    }
}

#[async_trait]
impl Destination for RedisKeys {
    async fn sink(&self) -> Arc<dyn Sink> {
        self.sink_at(&self.server.get().url(self.database))
    }

    async fn nowhere(&self) -> Option<Arc<dyn Sink>> {
        Some(self.sink_at(&format!("redis://u:{SECRET}@127.0.0.1:1/0")))
    }

    /// Any JSON document will do here.
    fn spoil(&self, row: &mut Row) -> bool {
        row.value = Some("no JSON".into());
        true
    }

    async fn read(&self) -> Vec<Value> {
        let database = self.database.to_string();
        let redis = self.server.get();
        let keys = redis.cli(&["-n", &database, "--raw", "KEYS", "*"]);
        keys.lines()
            .filter(|key| !key.is_empty())
            .map(|key| {
                assert!(key.starts_with(PREFIX), "{key}");
                serde_json::from_str(&redis.cli(&["-n", &database, "--raw", "GET", key])).unwrap()
            })
            .collect()
    }

    fn is_keyed(&self) -> bool {
        true
    }

    async fn alone(&mut self) {
        self.server.alone();
    }

    async fn take_away(&mut self) {
        self.server.own().kill();
    }

    async fn bring_back(&mut self) {
        self.server.own().restart();
    }
}

/// An endpoint that refuses bodies with a certain word in them.
pub struct Endpoint {
    server: Server<Http>,
    test: String,
}

const POISON: &str = "poison";

impl Endpoint {
    pub async fn new() -> Self {
        Self { server: Server::new(&HTTP, Http::start), test: unique("endpoint") }
    }
}

#[async_trait]
impl Destination for Endpoint {
    async fn sink(&self) -> Arc<dyn Sink> {
        let url = self.server.get().url(&self.test, &format!("poison/{POISON}"));
        let url = url.replacen("://", &format!("://u:{SECRET}@"), 1);
        Arc::new(HttpSink::new("webhook", &serde_json::from_value(json!({ "url": url })).unwrap()).unwrap())
    }

    /// A request is an effect, so connecting sends none.
    async fn nowhere(&self) -> Option<Arc<dyn Sink>> {
        None
    }

    fn spoil(&self, row: &mut Row) -> bool {
        row.value = Some(format!("\"{POISON}\""));
        true
    }

    async fn read(&self) -> Vec<Value> {
        let requests = self.server.get().requests(&self.test).await;
        let bodies = requests.iter().map(|request| request.text()).filter(|body| !body.contains(POISON));
        bodies.map(|body| serde_json::from_str(&body).unwrap()).collect()
    }

    async fn alone(&mut self) {
        self.server.alone();
    }

    async fn take_away(&mut self) {
        self.server.own().kill();
    }

    async fn bring_back(&mut self) {
        self.server.own().restart();
    }
}
