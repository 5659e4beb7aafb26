//! The broadcast addresses of this node's subnets.
//!
//! The kernel has a broadcast route for the last address of each subnet of 30 bits or fewer, whatever the address was
//! configured with (`fib_add_ifaddr` in net/ipv4/fib_frontend.c), and for the one that somebody gave.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};
use tracing::debug;

/// Those of the network namespace of the caller.
pub fn broadcasts() -> BTreeSet<IpAddr> {
    let addresses = match getifaddrs() {
        Ok(addresses) => addresses,
        Err(error) => {
            debug!("reading the subnets: {error}");
            return BTreeSet::new();
        }
    };
    let mut found = BTreeSet::new();
    for one in addresses {
        if let (Some(addr), Some(mask)) = (v4(one.address), v4(one.netmask)) {
            found.extend(last_of_subnet(addr, mask).map(IpAddr::V4));
        }
        found.extend(given(v4(one.address), v4(one.broadcast)).map(IpAddr::V4));
    }
    found
}

/// The one that an address was configured with. Of an address without one, libc says the address itself.
fn given(addr: Option<Ipv4Addr>, broadcast: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    broadcast.filter(|given| !given.is_unspecified() && Some(*given) != addr)
}

fn last_of_subnet(addr: Ipv4Addr, mask: Ipv4Addr) -> Option<Ipv4Addr> {
    let has_broadcast = mask.to_bits().leading_ones() < 31;
    has_broadcast.then(|| Ipv4Addr::from_bits(addr.to_bits() | !mask.to_bits()))
}

fn v4(addr: Option<SockaddrStorage>) -> Option<Ipv4Addr> {
    Some(addr?.as_sockaddr_in()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_was_given_no_broadcast_address_is_none() {
        let ip = |n| Some(Ipv4Addr::new(192, 0, 2, n));
        assert_eq!(given(ip(5), ip(5)), None);
        assert_eq!(given(ip(5), Some(Ipv4Addr::UNSPECIFIED)), None);
        assert_eq!(given(ip(5), None), None);
        assert_eq!(given(ip(5), ip(200)), ip(200));
    }

    #[test]
    fn a_subnet_of_more_than_two_addresses_has_one() {
        for (addr, mask, last) in [
            ([192, 0, 2, 5], [255, 255, 255, 0], Some([192, 0, 2, 255])),
            ([10, 1, 2, 3], [255, 240, 0, 0], Some([10, 15, 255, 255])),
            ([10, 1, 2, 1], [255, 255, 255, 252], Some([10, 1, 2, 3])),
            ([10, 1, 2, 1], [255, 255, 255, 254], None),
            ([10, 1, 2, 1], [255, 255, 255, 255], None),
        ] {
            let found = last_of_subnet(addr.into(), mask.into());
            assert_eq!(found, last.map(Ipv4Addr::from), "{addr:?}");
        }
    }
}
