//! Whether a packet is taken at ingress: what the stack would ask of it, and a redirect at the edge passes by.
//!
//! In: the frame, the device at the hook, the source. Out: yes or no. A frame that is not the device's and a source that can be
//! nobody's are left to the stack, untouched; what fails a device's `rp_filter` is dropped, as the stack would. Nothing is answered.

use crate::{
    abi::{Config, ConfigFlags, Device, Dir, Macs, Sources},
    addr::{Addr, Family},
    edge::Edge,
    tables::{Fib, Node, Routes},
    wire::packet::Packet,
};

/// Is the frame addressed to this device, by its own MAC or by that of the bridge above it?
///
/// TC is told by the kernel (`PACKET_HOST`, net/ethernet/eth.c `eth_type_trans`) unless the device is a port of a bridge; XDP sees the
/// frame first.
#[inline(always)]
pub fn is_addressed<P: Packet>(packet: &P, frame: Macs, device: &Device) -> bool {
    const NONE: [u8; 6] = [0; 6];
    packet.is_to_host()
        || frame.is_to(device.mac)
        || (device.also != NONE && frame.is_to(device.also))
}

/// May no answer go to this source, wherever it is seen: is it no single host's (kernel `ip_route_input_slow`, "martian source";
/// `ip6_rcv_core`), or the frame no single station's?
#[inline(always)]
pub fn is_martian<F: Family, T: Routes<F> + Node>(
    tables: &T,
    frame: Macs,
    source: &F::Addr,
) -> bool {
    source.is_no_source() || frame.is_from_group() || tables.local_addr(source).is_some()
}

/// Is a packet asked for its source at this hook though it is of no service, if its source may be a backend's?
#[inline(always)]
pub const fn asks_strangers(edge: Edge, config: &Config) -> bool {
    edge.is_workload()
        && matches!(edge.dir, Dir::In)
        && config.flags.contains(ConfigFlags::WORKLOADS_STRICT)
}

/// Does the device take a packet from `src` to `dst`, as its `rp_filter` asks (kernel net/ipv4/fib_frontend.c, `fib_validate_source`)? IPv6
/// has none; the device's mode holds for both families.
#[inline(always)]
pub fn admits<F: Family, T: Routes<F> + Node>(
    tables: &T,
    device: &Device,
    src: &F::Addr,
    dst: &F::Addr,
) -> bool {
    if device.flags.takes(Sources::All) {
        return true;
    }
    let ifindex = match tables.fib(dst, src) {
        Fib::Hop { ifindex, .. } | Fib::Unresolved { ifindex, .. } => ifindex,
        Fib::None => return false,
    };
    !device.flags.takes(Sources::Strict) || ifindex == tables.ifindex() || ifindex == device.above
}
