//! Where a request goes: scheme, host and port. What the configuration grants and what a guest asks for are read by the same
//! parser, so two spellings of one place are one place.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Unexpected};
use serde::{Deserialize, de};
use url::{Host, Url};

/// What an origin has to look like.
const SHAPE: &str = "a scheme, a host and perhaps a port, and nothing else, such as `https://api.example.com:443`";
const SCHEME: &str = "an address that begins with `http://` or `https://`";
const USER: &str = "an address without user and password";
const WILDCARD: &str = "the address of one host; there are no wildcards";
const HOST: &str = "an address with a host and a port that can be one";

/// Scheme, host and port, in their one normal form: lower case, names as DNS has them and without the dot at their end, IPv4
/// addresses dotted however they were written, the scheme's port where none is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    is_secure: bool,
    host: Host,
    port: u16,
}

impl Origin {
    /// Reads `scheme://host[:port]`.
    ///
    /// # Errors
    /// What it would have to be, when it is not.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, authority) = text.split_once("://").ok_or(SCHEME)?;
        Self::new(scheme, authority)
    }

    /// Reads a request's scheme and authority.
    ///
    /// # Errors
    /// What they would have to be, when they are not.
    pub(crate) fn new(scheme: &str, authority: &str) -> Result<Self, &'static str> {
        let is_secure = scheme.eq_ignore_ascii_case("https");
        if !is_secure && !scheme.eq_ignore_ascii_case("http") {
            return Err(SCHEME);
        }
        if authority.contains('@') {
            return Err(USER);
        }
        if authority.contains('*') {
            return Err(WILDCARD);
        }
        // What the parser would take for the end of the host, or leave out without a word.
        let is_foreign =
            |part: char| part.is_control() || part.is_whitespace() || matches!(part, '/' | '\\' | '?' | '#');
        if authority.contains(is_foreign) {
            return Err(SHAPE);
        }
        if authority.is_empty() || authority.ends_with(':') {
            return Err(HOST);
        }
        let url =
            Url::parse(&format!("{}://{authority}/", if is_secure { "https" } else { "http" })).map_err(|_| HOST)?;
        Self::of(&url).ok_or(HOST)
    }

    /// Where a request to `url` goes, when it can go anywhere.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let host = match url.host()? {
            Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                if name.is_empty() || name.split('.').any(str::is_empty) {
                    return None;
                }
                Host::Domain(name.to_owned())
            }
            Host::Ipv4(address) => Host::Ipv4(address),
            Host::Ipv6(address) => Host::Ipv6(address),
        };
        let port = url.port_or_known_default().filter(|port| *port != 0)?;
        Some(Self { is_secure: url.scheme() == "https", host, port })
    }
}

/// As it stands in the configuration; the port is left out where it is the scheme's.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.is_secure { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == usual { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|wanted| de::Error::invalid_value(Unexpected::Str(&text), &wanted))
    }
}

impl JsonSchema for Origin {
    fn schema_name() -> Cow<'static, str> {
        "Origin".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Scheme, host and port, such as `https://api.example.com:443`; without a port, the scheme's.",
            "type": "string",
            "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@*\\\\\\s]+$"
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// S129: every spelling of a place is that place, in the configuration and in a request.
    #[test]
    fn one_place_has_one_form() {
        for (written, normal) in [
            ("https://api.example.com", "https://api.example.com"),
            ("https://api.example.com:443", "https://api.example.com"),
            ("HTTPS://API.Example.COM.:443", "https://api.example.com"),
            ("http://api.example.com:443", "http://api.example.com:443"),
            ("http://bücher.example", "http://xn--bcher-kva.example"),
            ("http://B\u{dc}CHER.example", "http://xn--bcher-kva.example"),
            ("http://\u{ff11}27.0.0.1", "http://127.0.0.1"),
            ("http://2130706433", "http://127.0.0.1"),
            ("http://0x7f.1", "http://127.0.0.1"),
            ("http://127.1:8080", "http://127.0.0.1:8080"),
            ("http://0177.0.0.01", "http://127.0.0.1"),
            ("http://127.0.0.1.", "http://127.0.0.1"),
            ("http://%31%32%37.0.0.1", "http://127.0.0.1"),
            ("http://0", "http://0.0.0.0"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
            ("http://[::FFFF:10.0.0.1]", "http://[::ffff:a00:1]"),
        ] {
            assert_eq!(Origin::parse(written).unwrap().to_string(), normal, "{written}");
        }
    }

    #[test]
    fn what_is_no_origin_says_what_it_would_have_to_be() {
        for (written, wanted) in [
            ("api.example.com", SCHEME),
            ("ftp://api.example.com", SCHEME),
            ("ws://api.example.com", SCHEME),
            ("httpſ://api.example.com", SCHEME),
            ("http://user@api.example.com", USER),
            ("http://granted:x@evil.example", USER),
            ("https://*.example.com", WILDCARD),
            ("https://api.example.com/", SHAPE),
            ("https://api.example.com/v1", SHAPE),
            ("https://api.example.com?x", SHAPE),
            ("https://api.example.com#x", SHAPE),
            ("https://good.example\\.evil.example", SHAPE),
            ("https://api.exa\nmple.com", SHAPE),
            ("https://api.example.com ", SHAPE),
            ("https://", HOST),
            ("https://:443", HOST),
            ("https://api.example.com:", HOST),
            ("https://api.example.com:0", HOST),
            ("https://api.example.com:65536", HOST),
            ("https://api.example.com:80:80", HOST),
            ("https://.", HOST),
            ("https://api..example.com", HOST),
            ("http://127.0.0.256", HOST),
            ("http://1.2.3.4.5", HOST),
            ("http://0x7f.1x.1", HOST),
            ("http://::1", HOST),
            ("http://[::1", HOST),
            ("http://[fe80::1%25eth0]", HOST),
            ("http://exa%00mple.com", HOST),
        ] {
            assert_eq!(Origin::parse(written), Err(wanted), "{written}");
        }
    }

    #[test]
    fn the_configurations_error_says_it() {
        let error = serde_json::from_str::<Origin>("\"https://api.example.com/v1\"").unwrap_err().to_string();
        assert!(error.contains(SHAPE), "{error}");
        assert_eq!(serde_json::from_str::<Origin>("\"http://127.1\"").unwrap().to_string(), "http://127.0.0.1");
    }
}
