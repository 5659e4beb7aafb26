//! Address ranges.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::{Family, parse_address};

/// An address range, its host bits always zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cidr(IpNet);

/// Text that is no address range.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not an address range (address/bits)")]
pub struct CidrError(String);

impl Cidr {
    /// The range of `prefix` bits that holds `addr`; `None` if the family has fewer bits.
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Self> {
        IpNet::new(addr, prefix).ok().map(|net| Self(net.trunc()))
    }

    /// Its first address.
    pub fn addr(self) -> IpAddr {
        self.0.addr()
    }

    /// How many leading bits are fixed.
    pub fn prefix(self) -> u8 {
        self.0.prefix_len()
    }

    pub fn family(self) -> Family {
        Family::of(self.addr())
    }

    pub fn contains(self, addr: IpAddr) -> bool {
        self.0.contains(&addr)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads `addr/prefix` as kube-proxy does (`ParseCIDRSloppy` in k8s.io/utils/net); whitespace around it does not
    /// count.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.trim()
            .split_once('/')
            .filter(|(_, prefix)| prefix.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|(addr, prefix)| Self::new(parse_address(addr)?, prefix.parse().ok()?))
            .ok_or_else(|| CidrError(text.to_owned()))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_without_its_host_bits_and_its_whitespace() {
        for (text, range) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            (" 192.0.2.1/32\n", "192.0.2.1/32"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("fd00:1:2::3/32", "fd00:1::/32"),
            ("::1/0", "::/0"),
            ("010.001.02.3/08", "10.0.0.0/8"),
            ("fd00::1/128", "fd00::1/128"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), range);
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "a/8",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_holds_the_addresses_of_its_own_family_that_share_its_bits() {
        let holds = |range: &str, addr: &str| {
            range
                .parse::<Cidr>()
                .unwrap()
                .contains(addr.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("0.0.0.0/0", "11.0.0.1"));
        assert!(!holds("0.0.0.0/0", "::1"));
        assert!(holds("fd00::/16", "fd00:ffff::1"));
    }
}
