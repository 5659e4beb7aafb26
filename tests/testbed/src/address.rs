//! The address plan: who has which address, in both families at once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}

/// One host's, or one service's, address in both families.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Pair {
    pub const fn new(v4: [u8; 4], v6: [u16; 8]) -> Self {
        let [a, b, c, d] = v4;
        let [s, t, u, v, w, x, y, z] = v6;
        Self {
            v4: Ipv4Addr::new(a, b, c, d),
            v6: Ipv6Addr::new(s, t, u, v, w, x, y, z),
        }
    }

    pub fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        Family::BOTH
            .iter()
            .any(|family| self.of(*family) == address)
    }
}

/// Outside client `number`, counted from 1, on 192.0.2.0/24 behind the router.
pub fn client(number: u8) -> Pair {
    Pair::new(
        [192, 0, 2, 10 + number],
        [0x2001, 0xdb8, 1, 0, 0, 0, 0, 10 + u16::from(number)],
    )
}

pub const CLIENT_GATEWAY: Pair = Pair::new([192, 0, 2, 1], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1]);

/// Host `number` of a segment. Segment 0 is the one that nodes share; segment n is node n's own link to the router.
pub fn on_segment(segment: u8, number: u8) -> Pair {
    Pair::new(
        [198, 18, segment, number],
        [0x2001, 0xdb8, 2, segment.into(), 0, 0, 0, number.into()],
    )
}

/// What a node's pods live in: 10.244.N.0/24 and fd00:10:244:N::/64.
pub fn pod(node: u8, number: u8) -> Pair {
    Pair::new(
        [10, 244, node, number],
        [0xfd00, 0x10, 0x244, node.into(), 0, 0, 0, number.into()],
    )
}

/// The node's own address towards its pods.
pub fn pod_gateway(node: u8) -> Pair {
    pod(node, 1)
}

/// The address of the node's tunnel device: the first of the pod range, as flannel has it.
pub fn overlay(node: u8) -> Pair {
    pod(node, 0)
}

/// Service address `number` in 10.96.0.0/16 and fd00:10:96::/112.
pub fn service(number: u16) -> Pair {
    let [high, low] = number.to_be_bytes();
    Pair::new(
        [10, 96, high, low],
        [0xfd00, 0x10, 0x96, 0, 0, 0, 0, number],
    )
}

pub const SERVICE_RANGE_V4: &str = "10.96.0.0/16";
pub const SERVICE_RANGE_V6: &str = "fd00:10:96::/112";
pub const POD_RANGE_V4: &str = "10.244.0.0/16";
pub const POD_RANGE_V6: &str = "fd00:10:244::/48";

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// That of all hosts, 224.0.0.1 (RFC 1112 section 6.4).
    pub const MULTICAST: Self = Self([0x01, 0x00, 0x5e, 0, 0, 1]);

    /// A locally administered address that no other interface of this process has.
    pub fn fresh() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let [a, b, c, d] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Self([0x02, 0x50, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
