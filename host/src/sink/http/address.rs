//! Where requests may go: not to the services from which a cloud's machines learn their own secrets (S113).

use std::net::{IpAddr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address::is_metadata;
use crate::model::Fault;

/// Names of metadata services. Other names of theirs are caught by what they resolve to.
const METADATA_NAMES: [&str; 4] =
    ["metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"];

/// Reads the endpoint's address. `place` is where the sink stands in the configuration.
///
/// # Errors
/// When it is none, or nothing may be sent there. The text never shows it, as it may hold credentials.
pub(super) fn parse(place: &str, url: &str) -> Result<Url, Fault> {
    let wrong = |why: &str| {
        Fault::config(format!("`{place}.url` {why}")).hint("an address looks like `https://hooks.example.com/notify`")
    };
    let url = Url::parse(url.trim()).map_err(|error| wrong("is not an address").because(error))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("does not begin with `http://` or `https://`"));
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else { return Err(wrong("names no host")) };
    let name = host.strip_suffix('.').unwrap_or(host);
    // The parser has made dotted numbers of every other way to write an IPv4 address, and lower case of names.
    let address: Option<IpAddr> = name.trim_start_matches('[').trim_end_matches(']').parse().ok();
    if METADATA_NAMES.contains(&name) || address.is_some_and(is_metadata) {
        return Err(Fault::config(format!("`{place}.url` names `{host}`, a cloud's metadata service"))
            .hint("nothing is ever sent there; name the endpoint that is meant"));
    }
    Ok(url)
}

/// The endpoint without what may be secret: user, password, path and query. (Of many services the path is the key.)
pub(super) fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// The system's names, without the addresses of metadata services. Asked for every connection, so a name that changes its
/// address afterwards gains nothing.
#[derive(Debug)]
pub(super) struct Guarded;

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is put in by whoever connects.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(harmless(found)?.into_iter()) as Addrs)
        })
    }
}

fn harmless(found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, &'static str> {
    let (refused, allowed): (Vec<_>, Vec<_>) = found.partition(|address| is_metadata(address.ip()));
    match (allowed.is_empty(), refused.is_empty()) {
        (false, _) => Ok(allowed),
        (true, false) => Err("the name stands for a cloud's metadata service, where nothing is ever sent"),
        (true, true) => Err("the name has no address"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn s113_metadata_services_are_refused_however_they_are_written() {
        for host in [
            "169.254.169.254",
            "169.254.169.254.",
            "169.254.170.2",
            "2852039166",
            "0xA9FEA9FE",
            "0xa9.0xfe.0xa9.0xfe",
            "0251.0376.0251.0376",
            "169.254.43518",
            "\u{ff11}69.254.169.254",
            "100.100.100.200",
            "metadata.google.internal",
            "METADATA.google.internal.",
            "metadata.goog",
            "instance-data",
            "[fd00:ec2::254]",
            "[fd00:0ec2:0:0:0:0:0:23]",
            "[fe80::a9fe:a9fe]",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[::169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[2002:a9fe:a9fe::1]",
            "168.63.129.16",
            "192.0.0.192",
            "[fd20:ce::254]",
            "user:password@169.254.169.254:80",
        ] {
            let fault = parse("sinks.http.x", &format!("http://{host}/latest")).unwrap_err();
            assert!(fault.message.contains("a cloud's metadata service"), "{host}: {fault}");
            assert!(!fault.to_string().contains("password"), "{fault}");
        }
    }

    #[test]
    fn s113_own_and_private_addresses_are_the_operators_choice() {
        for host in ["127.0.0.1:8080", "localhost", "10.0.0.1", "192.168.1.1", "[::1]:80", "[fd00::1]", "100.64.0.1"] {
            parse("sinks.http.x", &format!("https://{host}/")).unwrap();
        }
    }

    #[test]
    fn s113_an_address_has_a_scheme_and_a_host_and_is_not_shown_when_it_has_not() {
        for url in
            ["", "hooks.example.com", "ftp://u:secret@h/", "http://u:secret@", "http://u:secret@h:99999/", "file:///x"]
        {
            let fault = parse("sinks.http.x", url).unwrap_err();
            assert!(fault.message.starts_with("`sinks.http.x.url` "), "{fault}");
            assert!(!format!("{fault:?}").contains("secret"), "{fault:?}");
        }
    }

    #[test]
    fn s85_neither_user_nor_path_nor_query_is_shown() {
        let url = parse("sinks.http.x", "https://u:secret@hooks.example.com:8443/T0/key?token=t").unwrap();
        assert_eq!(shown(&url), "https://hooks.example.com:8443");
    }

    #[test]
    fn s113_a_name_loses_its_metadata_addresses() {
        let addresses = |texts: &[&str]| {
            let parsed: Vec<SocketAddr> = texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect();
            harmless(parsed.into_iter()).map(|left| left.iter().map(|one| one.ip().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(addresses(&["169.254.169.254", "127.0.0.1", "fe80::1"]), Ok(vec!["127.0.0.1".to_owned()]));
        assert!(
            addresses(&["169.254.1.1", "fd00:ec2::254", "::ffff:100.100.100.200"]).unwrap_err().contains("metadata")
        );
        assert_eq!(addresses(&[]).unwrap_err(), "the name has no address");
    }

    #[tokio::test]
    async fn s113_names_are_the_systems() {
        let found: Vec<_> = Guarded.resolve("localhost".parse().unwrap()).await.unwrap().collect();
        assert!(!found.is_empty() && found.iter().all(|one| one.ip().is_loopback()), "{found:?}");
        assert!(Guarded.resolve("no-such-host.invalid".parse().unwrap()).await.is_err());
    }
}
