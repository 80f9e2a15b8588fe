//! The addresses of clouds' metadata services, from which a machine learns its own secrets. One table for all that sends
//! requests to a configured or a guest's choice of address: the HTTP sink refuses them always (S113), a plugin reaches one only
//! where the configuration names that very address (S129).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Metadata services on IPv4.
const METADATA_V4: [Ipv4Net; 5] = [
    // Link-local. 169.254.169.254: AWS, Google, Azure, Oracle, DigitalOcean, OpenStack, Akamai, IBM, Hetzner, Huawei and others;
    // 169.254.170.2 and .23: credentials of ECS tasks and EKS pods; 169.254.0.23 and .10.10: Tencent; 169.254.42.42: Scaleway.
    v4([169, 254, 0, 0], 16),
    v4([168, 63, 129, 16], 32),   // Azure's wire server
    v4([100, 100, 100, 200], 32), // Alibaba
    v4([100, 96, 0, 96], 32),     // Volcano Engine, BytePlus
    v4([192, 0, 0, 192], 32),     // Oracle Classic, Oracle Cloud at Customer
];

/// Metadata services on IPv6.
const METADATA_V6: [Ipv6Net; 7] = [
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), // link-local; fe80::a9fe:a9fe: OpenStack, Akamai
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), // AWS: ::254 metadata, ::23 credentials of EKS pods
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), // Google
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128), // Oracle
    v6([0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200], 128), // Alibaba
    v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1], 128), // Akamai
    v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128), // Scaleway
];

/// Prefixes in front of an IPv4 address in an IPv6 address's last 32 bits: IPv4-compatible (deprecated), mapped, translated
/// (RFC 2765), and both prefixes of NAT64 (RFC 6052, RFC 8215).
const BEFORE_V4: [Ipv6Net; 5] =
    [v6([0; 8], 96), v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96), v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96), NAT64, NAT64_LOCAL];
/// The prefix of translators that everybody may use.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
const NAT64_LOCAL: Ipv6Net = v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);
/// The IPv4 address follows the prefix (RFC 3056, deprecated).
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

/// A network of IPv4, its host bits zero.
pub const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// A network of IPv6, its host bits zero.
pub const fn v6(groups: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = groups;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// Whether a metadata service may answer under this address, or under an IPv4 address inside it.
pub fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => METADATA_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            METADATA_V6.iter().any(|network| network.contains(&address))
                || embedded(address).is_some_and(|inner| is_metadata(inner.into()))
        }
    }
}

/// The IPv4 address that the system or a translator connects to in an IPv6 address's place.
pub fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    address.to_ipv4_mapped().or_else(|| NAT64.contains(&address).then(|| last_32_bits(address)))
}

/// The IPv4 address in an IPv6 address, in any form that has ever been specified for it.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if SIX_TO_FOUR.contains(&address) {
        let [_, _, a, b, c, d, ..] = address.octets();
        return Some(Ipv4Addr::new(a, b, c, d));
    }
    BEFORE_V4.iter().any(|prefix| prefix.contains(&address)).then(|| last_32_bits(address))
}

fn last_32_bits(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// What providers document, with the forms of IPv6 that stand for an address of IPv4.
    #[test]
    fn s113_s129_every_documented_metadata_address_is_in_the_table_in_every_form() {
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "169.254.0.23",
            "169.254.10.10",
            "169.254.42.42",
            "168.63.129.16",
            "100.100.100.200",
            "100.96.0.96",
            "192.0.0.192",
        ] {
            let address: Ipv4Addr = address.parse().unwrap();
            assert!(is_metadata(address.into()), "{address}");
            let [a, b, c, d] = address.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for form in [
                format!("::{address}"),
                format!("::ffff:{address}"),
                format!("::ffff:{high:x}:{low:x}"),
                format!("::ffff:0:{address}"),
                format!("64:ff9b::{address}"),
                format!("64:ff9b:1::{address}"),
                format!("64:ff9b:1:7::{address}"),
                format!("2002:{high:x}:{low:x}::"),
                format!("2002:{high:x}:{low:x}::1"),
            ] {
                assert!(is_metadata(form.parse().unwrap()), "{form}");
            }
        }
        for address in [
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:100::100:200",
            "fd00:a9fe:a9fe::1",
            "fd00:42::42",
            "fe80::a9fe:a9fe",
        ] {
            assert!(is_metadata(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn neighbours_of_metadata_addresses_are_none() {
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "168.63.129.15",
            "100.100.100.201",
            "100.96.0.95",
            "192.0.0.193",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "fd00::1",
            "fd00:ec3::254",
            "fd20:ce::253",
            "fd00:42::41",
            "2001:db8::a9fe:a9fe",
        ] {
            assert!(!is_metadata(address.parse().unwrap()), "{address}");
        }
    }
}
