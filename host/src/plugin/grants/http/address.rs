//! Which addresses are connected to: those that anybody on the internet can reach, and those that the configuration names.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Unexpected};
use serde::{Deserialize, de};

use crate::address::{is_metadata, translated, v4, v6};

/// The blocks of the IANA IPv4 Special-Purpose Address Registry (as of 2025) that are not globally reachable, with multicast,
/// which has a registry of its own. The library's `is_global` is not stable.
const SPECIAL_V4: [Ipv4Net; 16] = [
    v4([0, 0, 0, 0], 8),       // "this network"
    v4([10, 0, 0, 0], 8),      // private use
    v4([100, 64, 0, 0], 10),   // shared between carriers and their customers
    v4([127, 0, 0, 0], 8),     // loopback
    v4([169, 254, 0, 0], 16),  // link-local
    v4([172, 16, 0, 0], 12),   // private use
    v4([192, 0, 0, 0], 24),    // protocol assignments
    v4([192, 0, 2, 0], 24),    // documentation
    v4([192, 88, 99, 0], 24),  // 6to4 relays, deprecated
    v4([192, 168, 0, 0], 16),  // private use
    v4([198, 18, 0, 0], 15),   // benchmarking
    v4([198, 51, 100, 0], 24), // documentation
    v4([203, 0, 113, 0], 24),  // documentation
    v4([224, 0, 0, 0], 4),     // multicast
    v4([240, 0, 0, 0], 4),     // reserved, and broadcast
    v4([255, 255, 255, 255], 32),
];

/// All that IANA has given out as global unicast. Loopback, unique local, link-local, multicast and the rest lie outside.
const UNICAST_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// Blocks in it that the IANA IPv6 Special-Purpose Address Registry (as of 2025) does not call globally reachable. The first
/// holds some that are, of anycast and experiments, where no plugin has business; Teredo is in it.
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),     // protocol assignments
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), // documentation
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),     // 6to4, deprecated: holds an IPv4 address
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),     // documentation
];

/// Whether anybody on the internet can reach the address. One that stands for an IPv4 address is judged by that.
pub(super) fn is_global(address: IpAddr) -> bool {
    if is_metadata(address) {
        return false;
    }
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|block| block.contains(&address)),
        IpAddr::V6(address) => match translated(address) {
            Some(inner) => is_global(inner.into()),
            None => UNICAST_V6.contains(&address) && !SPECIAL_V6.iter().any(|block| block.contains(&address)),
        },
    }
}

/// Addresses that granted names may stand for although not everybody can reach them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is one of them. An IPv4-mapped address is that IPv4 address. A metadata service is only opened by
    /// its own address: whoever grants a network may not know that one is in it.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical()) && (self.is_single() || !is_metadata(address))
    }

    fn is_single(&self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }

    fn parse(text: &str) -> Option<Self> {
        let net = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>()).ok()?;
        (net.addr() == net.network()).then_some(Self(net))
    }
}

/// As it stands in the configuration; a single address without its prefix.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_single() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wanted =
            "an address or a network, such as `192.168.0.7` or `10.1.2.0/24`, with no bit set behind its prefix";
        Self::parse(&text).ok_or_else(|| de::Error::invalid_value(Unexpected::Str(&text), &wanted))
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An address or a network, such as `192.168.0.7` or `10.1.2.0/24`.",
            "type": "string"
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// S129: the first and the last address of every block, and what lies beside it.
    #[test]
    fn special_addresses_are_not_global() {
        for special in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.254",
            "255.255.255.255",
            "::",
            "::1",
            "::10.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "::ffff:0:8.8.8.8",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "100:0:0:1::1",
            "2001::1",
            "2001:0:7f00:1::",
            "2001:2::1",
            "2001:10::1",
            "2001:1ff:ffff::",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2002:808:808::",
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fdff:ffff::",
            "fe80::1",
            "fe80::a9fe:a9fe",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ffff::",
        ] {
            assert!(!is_global(special.parse().unwrap()), "{special}");
        }
    }

    #[test]
    fn everybodys_addresses_are_global() {
        for global in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2600::1",
            "2a00::1",
            "3ffe:ffff::1",
            "3fff:1000::1",
        ] {
            assert!(is_global(global.parse().unwrap()), "{global}");
        }
    }

    #[test]
    fn networks_are_read_and_shown() {
        for (text, shown) in [
            ("10.1.2.0/24", "10.1.2.0/24"),
            ("192.168.0.7", "192.168.0.7"),
            ("192.168.0.7/32", "192.168.0.7"),
            ("FD00::/8", "fd00::/8"),
            ("::1", "::1"),
        ] {
            assert_eq!(Network::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", "10.1.2.3/24", "10.1.2.0/33", "10.1.2", "localhost", "10.1.2.0/", "fe80::1%eth0"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
        let network = Network::parse("10.1.2.0/24").unwrap();
        let contains = |address: &str| network.contains(address.parse().unwrap());
        assert!(contains("10.1.2.255") && contains("::ffff:10.1.2.3"));
        assert!(!contains("10.1.3.0") && !contains("64:ff9b::10.1.2.3") && !contains("::10.1.2.3"));
    }

    /// S129: a metadata service is opened by its own address alone, never by a network that happens to hold it.
    #[test]
    fn s129_a_granted_network_opens_no_metadata_service() {
        for (network, address) in [
            ("169.254.0.0/16", "169.254.169.254"),
            ("0.0.0.0/0", "168.63.129.16"),
            ("100.64.0.0/10", "100.100.100.200"),
            ("169.254.169.254/31", "::ffff:169.254.169.254"),
            ("fd00::/8", "fd00:ec2::254"),
            ("fd20:ce::/32", "fd20:ce::254"),
            ("::/0", "64:ff9b::169.254.169.254"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(!Network::parse(network).unwrap().contains(address), "{network}");
            assert!(Network::parse(&address.to_canonical().to_string()).unwrap().contains(address), "{address}");
        }
        assert!(Network::parse("fd00::/8").unwrap().contains("fd00::7".parse().unwrap()));
    }
}
