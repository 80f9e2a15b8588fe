//! Real servers for the sinks' tests, each a child of the test process. One is shared by the tests of a process, which keep
//! apart by database, number or name; a test that ends a server starts its own.
#![allow(dead_code, unused_imports, reason = "not every test binary uses all of it")]

mod http;
mod mongo;
mod postgres;
mod redis;

use std::sync::atomic::{AtomicU32, Ordering};

pub use http::{Http, Request, crypto};
pub use mongo::Mongo;
pub use postgres::Postgres;
pub use redis::Redis;

/// A name that no other test of this process has.
fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
