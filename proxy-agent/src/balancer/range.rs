//! Ranges of addresses, as a pool has them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::model::{Family, not_routable};

/// Addresses of one family, from the first to the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    first: IpAddr,
    last: IpAddr,
}

impl Range {
    /// `192.0.2.0/24`, or `192.0.2.10-192.0.2.20`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let range = match text.split_once('-') {
            None => {
                let net: IpNet = text.trim().parse().map_err(|_| {
                    format!("{text:?} is neither a prefix (192.0.2.0/24) nor a range (192.0.2.1-192.0.2.9)")
                })?;
                Self {
                    first: net.network(),
                    last: net.broadcast(),
                }
            }
            Some((first, last)) => {
                let address = |text: &str| {
                    let text = text.trim();
                    text.parse::<IpAddr>()
                        .map_err(|_| format!("{text:?} is not an IP address"))
                };
                Self {
                    first: address(first)?,
                    last: address(last)?,
                }
            }
        };
        let Self { first, last } = range;
        if Family::of(first) != Family::of(last) {
            return Err(format!("{first} and {last} are of two families"));
        }
        if first > last {
            return Err(format!("{first} is behind {last}"));
        }
        match [first, last]
            .into_iter()
            .find_map(|end| Some((end, not_routable(end)?)))
        {
            Some((end, why)) => Err(format!("{end} cannot be a service's: {why}")),
            None => Ok(range),
        }
    }

    pub fn family(self) -> Family {
        Family::of(self.first)
    }

    pub const fn first(self) -> IpAddr {
        self.first
    }

    pub const fn last(self) -> IpAddr {
        self.last
    }

    pub fn contains(self, address: IpAddr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    pub fn overlaps(self, other: Self) -> bool {
        // IPv4 addresses come before all of IPv6.
        self.first <= other.last && other.first <= self.last
    }

    /// How many addresses there are, those that end in .0 and .255 left out where `avoids` says so.
    pub fn len(self, avoids: bool) -> u128 {
        let (first, behind) = (bits(self.first), bits(self.last).saturating_add(1));
        match self.family() {
            Family::Ipv4 if avoids => {
                // Of the numbers below a bound, those that end in these two.
                let ends = |below: u128| below.div_ceil(256) + below / 256;
                behind - first - (ends(behind) - ends(first))
            }
            Family::Ipv4 | Family::Ipv6 => behind - first,
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The next address of the family.
pub fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from_bits(address.to_bits().checked_add(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits().checked_add(1)?).into()),
    }
}

/// Does it end in .0 or .255?
pub const fn ends_badly(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets()[3], 0 | 255),
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_prefixes_and_by_their_ends() {
        for (text, first, last) in [
            ("192.0.2.0/24", "192.0.2.0", "192.0.2.255"),
            ("192.0.2.77/24", "192.0.2.0", "192.0.2.255"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.7"),
            ("192.0.2.1 - 192.0.2.9", "192.0.2.1", "192.0.2.9"),
            ("2001:db8::/126", "2001:db8::", "2001:db8::3"),
            ("2001:db8::1-2001:db8::ff", "2001:db8::1", "2001:db8::ff"),
        ] {
            let range = Range::parse(text).unwrap();
            let ends: [IpAddr; 2] = [first, last].map(|end| end.parse().unwrap());
            assert_eq!([range.first(), range.last()], ends, "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_its_reason() {
        for (text, words) in [
            ("192.0.2.0", "neither a prefix"),
            ("192.0.2.0/33", "neither a prefix"),
            ("192.0.2.9-192.0.2.1", "is behind"),
            ("192.0.2.1-2001:db8::1", "two families"),
            ("192.0.2.1-elsewhere", "\"elsewhere\" is not an IP address"),
            ("192.0.02.1-192.0.2.9", "is not an IP address"),
            ("127.0.0.0/8", "a loopback address"),
            ("ff02::/64", "a multicast address"),
            ("", "neither a prefix"),
        ] {
            let error = Range::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_are_counted_one_by_one() {
        for text in [
            "192.0.2.0/24",
            "192.0.2.0/32",
            "192.0.2.255/32",
            "192.0.2.7/32",
            "192.0.1.3-192.0.4.255",
            "192.0.2.0-192.0.3.0",
            "192.0.2.1-192.0.2.254",
            "198.51.96.0/20",
        ] {
            let range = Range::parse(text).unwrap();
            for avoids in [false, true] {
                let mut count = 0;
                let mut at = Some(range.first());
                while let Some(address) = at.filter(|at| range.contains(*at)) {
                    count += u128::from(!(avoids && ends_badly(address)));
                    at = next(address);
                }
                assert_eq!(range.len(avoids), count, "{text} {avoids}");
            }
        }
        assert_eq!(Range::parse("2001:db8::/64").unwrap().len(true), 1 << 64);
    }
}
