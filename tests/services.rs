//! The sinks that are servers' clients, on real servers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

mod services {
    mod help;
    mod http;
    mod mongo;
    mod postgres;
    mod redis;
    mod servers;
}
#[path = "support"]
mod support {
    pub mod certificates;
    pub mod child;
    pub mod servers;
}
