//! The servers that the tests of this process share. A test that ends a server starts one of its own.
#![allow(dead_code, reason = "offered to every test here")]

use std::sync::OnceLock;

use crate::support::servers::{Http, Mongo, Postgres, Redis};

/// A database for each test: [`Postgres::database`].
pub fn postgres() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(Postgres::start)
}

/// A database for each test: [`Redis::database`].
pub fn redis() -> &'static Redis {
    static SHARED: OnceLock<Redis> = OnceLock::new();
    SHARED.get_or_init(Redis::start)
}

/// A database for each test: [`Mongo::database`].
pub fn mongo() -> &'static Mongo {
    static SHARED: OnceLock<Mongo> = OnceLock::new();
    SHARED.get_or_init(Mongo::start)
}

/// A name for each test: [`Http::url`].
pub fn http() -> &'static Http {
    static SHARED: OnceLock<Http> = OnceLock::new();
    SHARED.get_or_init(Http::start)
}
