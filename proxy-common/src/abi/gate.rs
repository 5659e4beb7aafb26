//! The gate: one array of bit sets that lets traffic of no service leave before any hash look-up.
//!
//! A packet can concern us only if its destination may be a service address (a bit by address hash), or its
//! destination port may be a NodePort (a bit by protocol and port), or its source may be a backend (a bit by
//! address hash and a bit by port). Bits are only ever added while an agent runs: flows outlive the services
//! that made them. A stale bit costs a look-up, never a wrong answer.

use super::TCP;
use crate::addr::{Addr, Be16};

const WORDS_PER_SET: u32 = 65_536 / 64;
const SERVICE_ADDRS: u32 = 0;
const NODE_PORTS_TCP: u32 = 1;
const NODE_PORTS_UDP: u32 = 2;
const BACKEND_ADDRS: u32 = 3;
const BACKEND_PORTS: u32 = 4;

/// Number of 64-bit words in the gate array.
pub const WORDS: u32 = 5 * WORDS_PER_SET;

/// One bit of the gate: word index and mask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bit {
    pub word: u32,
    pub mask: u64,
}

#[inline(always)]
fn bit(set: u32, n: u16) -> Bit {
    Bit {
        word: set * WORDS_PER_SET + (n as u32 >> 6),
        mask: 1 << (n & 63),
    }
}

#[inline(always)]
fn hash16<A: Addr>(addr: &A) -> u16 {
    (addr.fold().wrapping_mul(0x9e37_79b1) >> 16) as u16
}

/// The bit of a service address (ClusterIP, external IP, load-balancer IP).
#[inline(always)]
pub fn service_addr<A: Addr>(addr: &A) -> Bit {
    bit(SERVICE_ADDRS, hash16(addr))
}

/// The bit of a NodePort; SCTP shares UDP's set.
#[inline(always)]
pub fn node_port(proto: u8, port: Be16) -> Bit {
    let set = if proto == TCP {
        NODE_PORTS_TCP
    } else {
        NODE_PORTS_UDP
    };
    bit(set, port.get())
}

/// The bit of a backend's address.
#[inline(always)]
pub fn backend_addr<A: Addr>(addr: &A) -> Bit {
    bit(BACKEND_ADDRS, hash16(addr))
}

/// The bit of a backend's port.
#[inline(always)]
pub fn backend_port(port: Be16) -> Bit {
    bit(BACKEND_PORTS, port.get())
}

const _: () = assert!(NODE_PORTS_UDP != NODE_PORTS_TCP);
