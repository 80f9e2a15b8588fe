//! Where rows go, how it fails, and what it has.

mod filesystem;
mod http;
mod kafka;
mod mongo;
mod postgres;
mod redis;

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::outages::matrix::{Kind, Outage};
use crate::outages::process::Process;
use crate::outages::rows::Written;
use crate::support::proxy::Proxy;

/// A destination of one cell. What the proxy can do by itself is done to the proxy.
pub trait Destination {
    /// The `sinks` of the configuration, through the proxy.
    fn sinks(&self) -> Value;

    /// What stands in front of the servers.
    fn proxy(&self) -> Option<&Proxy>;

    /// A command that the binary has to be run by.
    fn around(&self) -> Vec<String> {
        Vec::new()
    }

    /// Begins an outage of the server itself.
    fn begin(&mut self, outage: Outage, process: &Process);

    /// Ends it.
    fn end(&mut self, outage: Outage, process: &Process);

    /// After a failover: the sink has found the new server.
    fn is_taken_over(&self) -> bool {
        true
    }

    /// What each sink has written, asked of the servers themselves.
    fn written(&self) -> Vec<Written>;
}

/// A destination with servers of its own where the outage takes more than a proxy.
pub fn start(kind: Kind, outage: Outage, source: &str, runtime: &Runtime) -> Box<dyn Destination> {
    match kind {
        Kind::Kafka => Box::new(kafka::Topic::start(outage, source, runtime)),
        Kind::Postgres => Box::new(postgres::Tables::start(outage)),
        Kind::Mongo => Box::new(mongo::Collections::start()),
        Kind::Redis => Box::new(redis::Keys::start(outage)),
        Kind::Http => Box::new(http::Endpoint::start(outage)),
        Kind::Filesystem => Box::new(filesystem::Lines::start(outage, source)),
    }
}
