//! What granted names stand for, without the addresses that nobody named.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::{Network, is_global};

/// Most addresses of one name that are looked at.
const ADDRESSES: usize = 64;

/// Why a name led nowhere.
#[derive(Debug)]
pub(super) enum Unresolved {
    /// The name service said so.
    Failed(io::Error),
    /// It stands for addresses that must not be connected to; this is the first.
    Prohibited { name: String, address: IpAddr },
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Prohibited { name, address } => write!(f, "`{name}` is `{address}`"),
        }
    }
}

impl std::error::Error for Unresolved {}

/// Asks for a name's addresses. Behind a trait because no name service on a test's machine changes its mind on demand.
pub(super) trait Lookup: Send + Sync {
    /// The name's addresses, in the order of preference.
    fn lookup<'n>(&'n self, name: &'n str) -> BoxFuture<'n, io::Result<Vec<IpAddr>>>;
}

/// The system's own way to resolve names.
pub(super) struct System;

impl Lookup for System {
    fn lookup<'n>(&'n self, name: &'n str) -> BoxFuture<'n, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            // The port is put in by whoever connects.
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.take(ADDRESSES).map(|address| address.ip()).collect())
        })
    }
}

/// Resolves a name once per connection and lets through only what may be connected to. The addresses that it lets through
/// are the very ones that the client then connects to: nobody resolves the name a second time, so a name that changes its
/// addresses between check and use (DNS rebinding) finds no gap. A connection that is kept for later requests stays where it
/// was made to. Only granted names come here, and names that are addresses do not come here at all: they are only asked for
/// when the configuration names them.
pub(super) struct Filtered {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) named: Arc<[Network]>,
}

impl Resolve for Filtered {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, named) = (Arc::clone(&self.lookup), Arc::clone(&self.named));
        Box::pin(async move {
            let found = lookup.lookup(name.as_str()).await.map_err(Unresolved::Failed)?;
            let allowed = allowed(name.as_str(), &found, &named)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// The addresses of `found` that may be connected to. `localhost` is this machine and nothing else; every other name needs
/// its addresses to be everybody's, or named.
fn allowed(name: &str, found: &[IpAddr], named: &[Network]) -> Result<Vec<SocketAddr>, Unresolved> {
    let may = |address: &IpAddr| match name {
        "localhost" => address.to_canonical().is_loopback(),
        _ => is_global(*address) || named.iter().any(|network| network.contains(*address)),
    };
    let fine: Vec<_> =
        found.iter().filter(|address| may(address)).map(|address| SocketAddr::new(*address, 0)).collect();
    match found.first() {
        None => Err(Unresolved::Failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))),
        Some(address) if fine.is_empty() => Err(Unresolved::Prohibited { name: name.to_owned(), address: *address }),
        Some(_) => Ok(fine),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn left(name: &str, found: &[&str], named: &[&str]) -> Result<Vec<String>, String> {
        let found: Vec<IpAddr> = found.iter().map(|address| address.parse().unwrap()).collect();
        let named: Vec<Network> =
            named.iter().map(|network| serde_json::from_value((*network).into()).unwrap()).collect();
        match allowed(name, &found, &named) {
            Ok(fine) => Ok(fine.iter().map(|address| address.ip().to_string()).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// S129: a name loses the addresses that are neither everybody's nor named, and is refused when none is left.
    #[test]
    fn a_name_keeps_only_what_may_be_reached() {
        let some = ["10.1.2.3", "8.8.8.8", "169.254.169.254", "2600::1", "::1", "fd00:ec2::254"];
        assert_eq!(left("api.example.com", &some, &[]), Ok(vec!["8.8.8.8".into(), "2600::1".into()]));
        assert_eq!(left("api.example.com", &some[..1], &["10.1.2.0/24"]), Ok(vec!["10.1.2.3".into()]));
        assert_eq!(
            left("api.example.com", &some[..1], &["10.1.3.0/24"]),
            Err("`api.example.com` is `10.1.2.3`".into())
        );
        assert_eq!(
            left("api.example.com", &["::ffff:127.0.0.1"], &["10.1.2.0/24"]).unwrap_err(),
            "`api.example.com` is `::ffff:127.0.0.1`"
        );
        assert_eq!(left("api.example.com", &[], &["0.0.0.0/0"]), Err("the name has no address".into()));
    }

    #[test]
    fn localhost_is_this_machine_and_nothing_else() {
        assert_eq!(
            left("localhost", &["127.0.0.1", "10.0.0.1", "8.8.8.8", "::1"], &["10.0.0.0/8"]),
            Ok(vec!["127.0.0.1".into(), "::1".into()])
        );
        assert!(left("localhost", &["8.8.8.8"], &[]).is_err());
        // No other name stands for itself, however near it is.
        assert!(left("ip6-localhost", &["::1"], &[]).is_err());
        assert!(left("x.localhost", &["127.0.0.1"], &[]).is_err());
    }
}
