//! Addresses that no cluster object may name.
//!
//! An EndpointSlice is often writable by people who may not write to nodes. An endpoint at `127.0.0.1` or
//! `169.254.169.254` would lend them the node's own identity (the family of CVE-2021-25740), and a service address there
//! would capture the node's own traffic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why `addr` can be neither an endpoint nor a service address; `None` if it can.
pub fn not_routable(addr: IpAddr) -> Option<&'static str> {
    match addr {
        IpAddr::V4(v4) => v4_reason(v4),
        IpAddr::V6(v6) => v6_reason(v6),
    }
}

fn v4_reason(addr: Ipv4Addr) -> Option<&'static str> {
    if addr.octets()[0] == 0 {
        Some("an unspecified address")
    } else if addr.is_loopback() {
        Some("a loopback address")
    } else if addr.is_link_local() {
        Some("a link-local address")
    } else if addr.is_multicast() {
        Some("a multicast address")
    } else if addr.is_broadcast() {
        Some("the broadcast address")
    } else {
        None
    }
}

fn v6_reason(addr: Ipv6Addr) -> Option<&'static str> {
    if addr.is_unspecified() {
        Some("an unspecified address")
    } else if addr.is_loopback() {
        Some("a loopback address")
    } else if addr.is_unicast_link_local() {
        Some("a link-local address")
    } else if addr.is_multicast() {
        Some("a multicast address")
    } else if addr.to_ipv4_mapped().is_some() {
        Some("an IPv4 address in IPv6 form")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_can_be_routed_are_accepted() {
        for (addr, reason) in [
            ("10.1.2.3", None),
            ("192.168.1.1", None),
            ("203.0.113.7", None),
            ("fd00::1", None),
            ("2001:db8::1", None),
            ("0.0.0.0", Some("an unspecified address")),
            ("0.1.2.3", Some("an unspecified address")),
            ("127.0.0.1", Some("a loopback address")),
            ("127.255.0.9", Some("a loopback address")),
            ("169.254.169.254", Some("a link-local address")),
            ("224.0.0.1", Some("a multicast address")),
            ("255.255.255.255", Some("the broadcast address")),
            ("::", Some("an unspecified address")),
            ("::1", Some("a loopback address")),
            ("fe80::1", Some("a link-local address")),
            ("ff02::1", Some("a multicast address")),
            ("::ffff:127.0.0.1", Some("an IPv4 address in IPv6 form")),
            ("::ffff:10.0.0.1", Some("an IPv4 address in IPv6 form")),
        ] {
            assert_eq!(not_routable(addr.parse().unwrap()), reason, "{addr}");
        }
    }
}
