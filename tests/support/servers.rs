//! Real servers for the sinks' tests, each a child of the test process. One is shared by the tests of a process, which keep
//! apart by database, number or name; a test that ends a server starts its own.
#![allow(dead_code, unused_imports, reason = "not every test binary uses all of it")]

/// What every server here can do: answer on a port of 127.0.0.1, and end as in a crash or by a signal.
macro_rules! common {
    ($server:ty, $signal:literal) => {
        impl $server {
            /// The port without TLS, on 127.0.0.1.
            pub fn port(&self) -> u16 {
                self.port
            }

            /// Ends it as a crash would, with the processes that it started.
            pub fn kill(&mut self) {
                self.server.kill();
            }

            /// Ends it as an operator would.
            pub fn stop(&mut self) {
                self.server.stop($signal);
            }
        }
    };
}

mod http;
mod mongo;
mod pgbouncer;
mod postgres;
mod redis;

use std::sync::atomic::{AtomicU32, Ordering};

pub use http::{Http, Request, crypto};
pub use mongo::Mongo;
pub use pgbouncer::{PgBouncer, PoolMode};
pub use postgres::Postgres;
pub use redis::Redis;

/// A name that no other test of this process has.
fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
