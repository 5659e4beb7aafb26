//! Addresses that no cluster object may name.
//!
//! An EndpointSlice is often writable by people who may not write to nodes. An endpoint at `127.0.0.1` or
//! `169.254.169.254` would lend them the node's own identity (the family of CVE-2021-25740), and a service address there
//! would capture the node's own traffic.
//!
//! An IPv6 address may stand for an IPv4 one: then both must be allowed. What is never routed as IPv6 (`::ffff:10.0.0.1`) is
//! refused, whatever it stands for.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::Cidr;

/// What is refused unless somebody says otherwise, besides what [`not_routable`] refuses in any case: where clouds answer a
/// node about itself (Azure, Alibaba, Oracle, AWS), and the addresses that are reserved for future use (RFC 1112).
pub const REFUSED: &str =
    "168.63.129.16/32,100.100.100.200/32,192.0.0.192/32,fd00:ec2::254/128,240.0.0.0/4";

/// Ranges of addresses that no object may name on this node.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Ranges(Vec<Cidr>);

impl Ranges {
    /// Why `addr` can be neither an endpoint nor a service address; `None` if it can.
    pub fn refuse(&self, addr: IpAddr) -> Option<Cow<'static, str>> {
        not_routable(addr).or_else(|| self.of(addr)).or_else(|| {
            let IpAddr::V6(v6) = addr else { return None };
            disguised(v6).into_iter().find_map(|(v4, form)| {
                let reason = self.of(v4.into())?;
                Some(format!("{v4} in {form} form, {reason}").into())
            })
        })
    }

    fn of(&self, addr: IpAddr) -> Option<Cow<'static, str>> {
        let range = self.0.iter().find(|range| range.contains(addr))?;
        Some(format!("in {range} (--refused-addresses)").into())
    }
}

impl FromStr for Ranges {
    type Err = String;

    /// Ranges and addresses with commas between them; empty for none.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let one = |text: &str| match parse_address(text) {
            Some(addr @ IpAddr::V4(_)) => Ok(Cidr::new(addr, 32).expect("IPv4 has 32 bits")),
            Some(addr @ IpAddr::V6(_)) => Ok(Cidr::new(addr, 128).expect("IPv6 has 128 bits")),
            None => text
                .parse()
                .map_err(|error: super::CidrError| error.to_string()),
        };
        let texts = text.split(',').map(str::trim);
        let ranges = texts.filter(|text| !text.is_empty()).map(one);
        Ok(Self(ranges.collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

/// Why `addr` can be neither an endpoint nor a service address, wherever this runs; `None` if it can.
pub fn not_routable(addr: IpAddr) -> Option<Cow<'static, str>> {
    match addr {
        IpAddr::V4(v4) => v4_reason(v4).map(Cow::Borrowed),
        IpAddr::V6(v6) => v6_reason(v6).map(Cow::Borrowed).or_else(|| {
            disguised(v6).into_iter().find_map(|(v4, form)| {
                let reason = v4_reason(v4)?;
                Some(format!("{v4} in {form} form, {reason}").into())
            })
        }),
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
    /// `::/96` (RFC 4291, 2.5.5.1), `::ffff:0:0/96` (2.5.5.2) and `::ffff:0:0:0/96` (RFC 2765).
    const IPV4_IN_IPV6: [[u16; 6]; 3] = [[0; 6], [0, 0, 0, 0, 0, 0xffff], [0, 0, 0, 0, 0xffff, 0]];
    if addr.is_unspecified() {
        Some("an unspecified address")
    } else if addr.is_loopback() {
        Some("a loopback address")
    } else if addr.is_unicast_link_local() {
        Some("a link-local address")
    } else if addr.is_multicast() {
        Some("a multicast address")
    } else if IPV4_IN_IPV6
        .iter()
        .any(|head| addr.segments()[..6] == *head)
    {
        Some("an IPv4 address in IPv6 form")
    } else {
        None
    }
}

/// The IPv4 addresses that a routable IPv6 address may stand for, each with the name of the form.
fn disguised(addr: Ipv6Addr) -> Vec<(Ipv4Addr, &'static str)> {
    let bytes = addr.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| bytes[place]));
    let last = at([12, 13, 14, 15]);
    let mut found = Vec::new();
    match addr.segments() {
        // RFC 6052, the well-known prefix.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => found.push((last, "NAT64")),
        // RFC 8215: prefixes of 48 to 96 bits, of which nobody knows which one is in use (RFC 6052, 2.2). A reading that
        // finds nothing there is none.
        [0x64, 0xff9b, 1, ..] => {
            let readings = [
                [6, 7, 9, 10],
                [7, 9, 10, 11],
                [9, 10, 11, 12],
                [12, 13, 14, 15],
            ];
            let readings = readings.map(at).into_iter();
            let readings = readings.filter(|v4| v4.octets()[0] != 0);
            found.extend(readings.map(|v4| (v4, "NAT64")));
        }
        // RFC 3056.
        [0x2002, ..] => found.push((at([2, 3, 4, 5]), "6to4")),
        // RFC 4380: the server, and the client with its bits turned.
        [0x2001, 0, ..] => {
            let client = Ipv4Addr::from_bits(!last.to_bits());
            found.extend([(client, "Teredo"), (at([4, 5, 6, 7]), "Teredo")]);
        }
        // RFC 5214, 6.1.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => found.push((last, "ISATAP")),
        _ => {}
    }
    found
}

/// An address as kube-proxy reads it: leading zeros of a decimal number count for nothing (`ParseIPSloppy` in
/// k8s.io/utils/net, after Go's of before 1.17).
pub fn parse_address(text: &str) -> Option<IpAddr> {
    let strict = text.parse().ok();
    strict.or_else(|| {
        let (head, dotted) = text.split_at(text.rfind(':').map_or(0, |colon| colon + 1));
        let numbers: Vec<&str> = dotted
            .split('.')
            .map(without_zeros)
            .collect::<Option<_>>()?;
        format!("{head}{}", numbers.join(".")).parse().ok()
    })
}

fn without_zeros(number: &str) -> Option<&str> {
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let trimmed = number.trim_start_matches('0');
    Some(if trimmed.is_empty() { "0" } else { trimmed })
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
            ("::127.0.0.1", Some("an IPv4 address in IPv6 form")),
            ("::a9fe:a9fe", Some("an IPv4 address in IPv6 form")),
            ("::10.0.0.1", Some("an IPv4 address in IPv6 form")),
            ("::ffff:0:127.0.0.1", Some("an IPv4 address in IPv6 form")),
            ("::ffff:0:a00:1", Some("an IPv4 address in IPv6 form")),
            ("64:ff9b::808:808", None),
            (
                "64:ff9b::7f00:1",
                Some("127.0.0.1 in NAT64 form, a loopback address"),
            ),
            (
                "64:ff9b::",
                Some("0.0.0.0 in NAT64 form, an unspecified address"),
            ),
            ("64:ff9b:1::808:808", None),
            (
                "64:ff9b:1::a9fe:a9fe",
                Some("169.254.169.254 in NAT64 form, a link-local address"),
            ),
            (
                "64:ff9b:1:7f00:0:100::",
                Some("127.0.0.1 in NAT64 form, a loopback address"),
            ),
            (
                "64:ff9b:1:7f:0:1::",
                Some("127.0.0.1 in NAT64 form, a loopback address"),
            ),
            (
                "64:ff9b:1:0:7f:0:100::",
                Some("127.0.0.1 in NAT64 form, a loopback address"),
            ),
            ("2002:808:808::1", None),
            (
                "2002:7f00:1::1",
                Some("127.0.0.1 in 6to4 form, a loopback address"),
            ),
            (
                "2002:a9fe:a9fe::",
                Some("169.254.169.254 in 6to4 form, a link-local address"),
            ),
            ("2001:0:808:808::f7f7:f7f7", None),
            (
                "2001:0:808:808::5601:5601",
                Some("169.254.169.254 in Teredo form, a link-local address"),
            ),
            (
                "2001:0:7f00:1::f7f7:f7f7",
                Some("127.0.0.1 in Teredo form, a loopback address"),
            ),
            ("fd00::5efe:808:808", None),
            (
                "fd00::5efe:7f00:1",
                Some("127.0.0.1 in ISATAP form, a loopback address"),
            ),
            (
                "2001:db8::200:5efe:7f00:1",
                Some("127.0.0.1 in ISATAP form, a loopback address"),
            ),
        ] {
            let found = not_routable(addr.parse().unwrap());
            assert_eq!(found.as_deref(), reason, "{addr}");
        }
    }

    #[test]
    fn clouds_addresses_are_refused_in_each_form_unless_they_are_allowed() {
        let usual: Ranges = REFUSED.parse().unwrap();
        let none: Ranges = "".parse().unwrap();
        for addr in [
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "240.0.0.1",
            "64:ff9b::168.63.129.16",
            "2002:a83f:8110::1",
        ] {
            let addr: IpAddr = addr.parse().unwrap();
            let reason = usual.refuse(addr).unwrap_or_default();
            assert!(reason.contains("--refused-addresses"), "{addr}: {reason}");
            assert_eq!(none.refuse(addr), None, "{addr}");
        }
        for addr in ["168.63.129.17", "10.0.0.1", "fd00:ec2::253"] {
            assert_eq!(usual.refuse(addr.parse().unwrap()), None, "{addr}");
        }
        assert!(none.refuse("127.0.0.1".parse().unwrap()).is_some());
    }

    #[test]
    fn ranges_are_read_with_addresses_among_them() {
        let read = |text: &str| text.parse::<Ranges>().map(|ranges| ranges.to_string());
        assert_eq!(read(REFUSED).as_deref(), Ok(REFUSED));
        assert_eq!(
            read("10.0.0.1, fd00::/8").as_deref(),
            Ok("10.0.0.1/32,fd00::/8")
        );
        assert!(read("10.0.0.0/33").is_err());
        assert!(read("metadata").is_err());
    }

    #[test]
    fn leading_zeros_are_read_as_kube_proxy_reads_them() {
        for (text, addr) in [
            ("192.168.001.010", Some("192.168.1.10")),
            ("010.000.000.001", Some("10.0.0.1")),
            ("0000010.1.1.1", Some("10.1.1.1")),
            ("FD00:10:96::00AB", Some("fd00:10:96::ab")),
            ("64:ff9b::010.0.0.1", Some("64:ff9b::a00:1")),
            ("10.0.0.256", None),
            ("10.0.0.0256", None),
            ("10.0.0", None),
            ("10.0.0.0.1", None),
            ("10..0.1", None),
            ("0x0a.0.0.1", None),
            ("+1.0.0.1", None),
            (" 10.0.0.1", None),
            ("fe80::1%eth0", None),
            ("", None),
        ] {
            let wanted = addr.map(|addr| addr.parse::<IpAddr>().unwrap());
            assert_eq!(parse_address(text), wanted, "{text}");
        }
    }
}
