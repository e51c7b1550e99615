//! The addresses that a granted name alone never reaches.
//!
//! The owner of a name may point it anywhere. A granted `api.example.com` that resolves to the machine
//! itself, to its neighbours or to the cloud's metadata service would otherwise grant those. An address that
//! is not plainly one of the public internet must be granted as that address.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::model::grant::Endpoint;

/// Whether a connection to `endpoint`, a granted one, may go to `address`, which its name resolved to.
///
/// Errors: what kind of address it is.
pub(super) fn check(endpoint: &Endpoint, address: IpAddr, allowed: &BTreeSet<Endpoint>) -> Result<(), &'static str> {
    let Some(kind) = special(address) else { return Ok(()) };
    let literal = Endpoint { host: address.to_string(), port: endpoint.port };
    // The name `localhost` says where it leads; an address elsewhere was not granted.
    let is_localhost = endpoint.host == "localhost" && address.is_loopback();
    match is_localhost || allowed.contains(&literal) {
        true => Ok(()),
        false => Err(kind),
    }
}

/// The kind of an address, if it is not one of the public internet.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

/// IANA's registry of special IPv4 addresses, without those that are reachable from everywhere, and with a
/// cloud's own address.
const SPECIAL_V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this machine's own network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "a private network"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "a provider's private network"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "this machine itself"),
    (Ipv4Addr::new(168, 63, 129, 16), 32, "a cloud's own service"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "the local link, where clouds keep their metadata"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "a private network"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "reserved for protocols"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "for documentation"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "an old relay to IPv6"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "a private network"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "for benchmarks"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "for documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "for documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast group"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved, or broadcast"),
];

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let within = |network: &Ipv4Addr, bits: u32| (address.to_bits() ^ network.to_bits()).leading_zeros() >= bits;
    SPECIAL_V4.iter().find(|(network, bits, _)| within(network, *bits)).map(|(_, _, kind)| *kind)
}

/// For IPv6 the list is reversed: only global unicast is public, and within it these are not.
const SPECIAL_V6: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "reserved for protocols"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "for documentation"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "for documentation"),
];

/// The names of the address ranges outside of global unicast, only for the message.
const OUTSIDE_V6: &[(Ipv6Addr, u32, &str)] = &[
    (Ipv6Addr::LOCALHOST, 128, "this machine itself"),
    (Ipv6Addr::UNSPECIFIED, 128, "this machine's own network"),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, "a private network"),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, "the local link"),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, "a private network"),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, "a multicast group"),
];

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let within = |network: &Ipv6Addr, bits: u32| (address.to_bits() ^ network.to_bits()).leading_zeros() >= bits;
    let find = |table: &'static [(Ipv6Addr, u32, &str)]| table.iter().find(|(network, bits, _)| within(network, *bits));
    if let Some(inner) = address.to_ipv4_mapped() {
        return special_v4(inner);
    }
    let [a, b, c, d, e, f, g, h] = address.segments();
    let inner = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    // A translator or a relay turns these into a connection to the IPv4 address inside.
    match (a, b) {
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => return special_v4(inner(g, h)),
        (0x2002, _) => return special_v4(inner(b, c)),
        // Teredo: the relay's address, and the client's with its bits inverted. It is out of use, so it is
        // not public either way.
        (0x2001, 0) => return special_v4(inner(c, d)).or(special_v4(inner(!g, !h))).or(Some("an old tunnel to IPv6")),
        _ => {}
    }
    match within(&Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3) {
        true => find(SPECIAL_V6).map(|(_, _, kind)| *kind),
        false => Some(find(OUTSIDE_V6).map_or("not of the public internet", |(_, _, kind)| *kind)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoints(texts: &[&str]) -> BTreeSet<Endpoint> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            "::7f00:1",
            "::808:808",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:0:808:808:0:0:8000:1",
            "2001:0:a00:1::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "3fff:0fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ffff::1",
        ] {
            assert!(special(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.17",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2002:808:808::1",
            "2606:4700::1111",
            "3ffe::1",
            "3fff:1000::1",
        ] {
            assert_eq!(special(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn a_special_address_is_reached_where_it_was_granted_itself() {
        let allowed = endpoints(&["api.example:443", "10.0.0.5:443", "localhost:8080", "[fd00::1]:443"]);
        let may = |endpoint: &str, address: &str| check(&endpoint.parse().unwrap(), address.parse().unwrap(), &allowed);
        assert_eq!(may("api.example:443", "1.1.1.1"), Ok(()));
        assert_eq!(may("api.example:443", "10.0.0.5"), Ok(()));
        assert_eq!(may("api.example:443", "fd00::1"), Ok(()));
        assert_eq!(may("10.0.0.5:443", "10.0.0.5"), Ok(()));
        assert_eq!(may("api.example:443", "10.0.0.6"), Err("a private network"));
        // Another port of that address needs another grant, and so does the same address in another notation.
        assert_eq!(may("api.example:80", "10.0.0.5"), Err("a private network"));
        assert_eq!(may("api.example:443", "::ffff:10.0.0.5"), Err("a private network"));
        assert_eq!(may("localhost:8080", "127.0.0.1"), Ok(()));
        assert_eq!(may("localhost:8080", "::1"), Ok(()));
        assert_eq!(may("localhost:8080", "10.0.0.6"), Err("a private network"));
        assert_eq!(may("localhost.example:8080", "127.0.0.1"), Err("this machine itself"));
    }

    proptest! {
        #[test]
        fn what_embeds_an_address_is_no_more_public_than_it(bits: u32) {
            let plain = Ipv4Addr::from_bits(bits);
            let (high, low) = ((bits >> 16) as u16, bits as u16);
            let kind = special_v4(plain);
            for dressed in [plain.to_ipv6_mapped(), Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low), Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1)] {
                prop_assert_eq!(special_v6(dressed), kind, "{}", dressed);
            }
            prop_assert!(special_v6(plain.to_ipv6_compatible()).is_some());
        }
    }
}
