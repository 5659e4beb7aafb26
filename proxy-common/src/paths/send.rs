//! The last step: a packet of a known flow is edited, sent and counted.

use crate::{
    abi::{Dir, Flow, IfIndex, Macs, Route},
    addr::Family,
    edge::{Edge, verdict::Verdict},
    tables::{Hop, Tables},
    wire::{
        packet::Packet,
        parse::View,
        rewrite::{self, Protocols},
    },
};

/// Edits and sends a packet of a known flow, which [`may_leave`] by the hop. `None`: an edit failed.
#[inline(always)]
pub fn finish<F: Family, P: Packet, T: Tables<F>>(
    edge: Edge,
    packet: &mut P,
    view: &View<F::Addr>,
    flow: &Flow<F::Addr>,
    hop: &Hop,
    tables: &T,
) -> Option<Verdict> {
    let forwarded = hop.route == Route::Forward && !hop.aside;
    let bytes = counted_bytes(edge, packet, view);
    let (backend, reply) = (flow.backend, flow.is_reply());
    rewrite::rewrite::<F, P>(Protocols::All, packet, view, flow, forwarded)?;
    let verdict = send(edge, packet, hop, tables.ifindex())?;
    tables.count_packet(backend, bytes, reply);
    Some(verdict)
}

/// The bytes of a packet in layer 3, for the counters.
#[inline(always)]
pub fn counted_bytes<A, P: Packet>(edge: Edge, packet: &P, view: &View<A>) -> u32 {
    // XDP has no segments in one frame, and the verifier no liking for the difference of its pointers.
    if edge.is_xdp() {
        view.ip.len
    } else {
        packet.net_len()
    }
}

/// Why a packet may not go on by a hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// Its hop limit ends here.
    HopLimit,
    /// It is larger than the path takes.
    TooBig,
}

/// May a packet whose [`largest`] segment is given leave by a hop?
#[inline(always)]
pub fn may_leave(ttl: u8, largest: u32, hop: &Hop) -> Result<(), Stop> {
    if hop.route != Route::Forward || hop.aside {
        return Ok(());
    }
    may_be_forwarded(ttl, largest, hop.mtu)
}

/// May a packet be forwarded on a path of this MTU (0 for no limit known)?
#[inline(always)]
pub fn may_be_forwarded(ttl: u8, largest: u32, mtu: u16) -> Result<(), Stop> {
    if ttl <= 1 {
        return Err(Stop::HopLimit);
    }
    if mtu != 0 && largest > mtu as u32 {
        return Err(Stop::TooBig);
    }
    Ok(())
}

/// The length in layer 3 of the packet, or of the largest segment of it, in bytes; 0 if it is made to fit any path.
#[inline(always)]
pub fn largest<A, P: Packet>(protocols: Protocols, packet: &P, view: &View<A>) -> u32 {
    let gso = packet.gso_size();
    if gso == 0 {
        view.ip.len
    } else if protocols.is_sctp(view) {
        // Segments of any size, each made for the path by its sender.
        0
    } else {
        let header = if view.is_tcp() {
            match packet
                .load::<u16>(protocols.transport(view) + 12)
                .map(u16::to_ne_bytes)
            {
                Some([b, _]) => (b >> 4) as u32 * 4,
                None => 20,
            }
        } else {
            8
        };
        view.ip.l4 as u32 + header + gso
    }
}

/// Sends an edited packet by a hop. `None`: its Ethernet header could not be written.
#[inline(always)]
pub fn send<P: Packet>(edge: Edge, packet: &mut P, hop: &Hop, here: IfIndex) -> Option<Verdict> {
    if hop.route == Route::Stack {
        return Some(Verdict::TRANSLATED);
    }
    if !hop.resolved || is_sent_by_kernel(edge, hop.route, hop.macs) {
        return Some(Verdict::neighbour(hop.ifindex));
    }
    packet.set_macs(hop.macs)?;
    Some(leave(edge, hop.route, hop.ifindex, here))
}

/// Does a packet leave by a device without a link header, for which there are no addresses? The kernel sends it: what a tunnel of several
/// ends puts around a packet depends on the route that the kernel took for it (`ip_tunnel_xmit`), which a plain redirect leaves out.
#[inline(always)]
pub fn is_sent_by_kernel(edge: Edge, route: Route, macs: Macs) -> bool {
    // XDP sends only by its own device, which has a link header.
    !edge.is_xdp() && route == Route::Forward && macs == Macs::NONE
}

/// The end of a packet that is ready to leave by a device, Ethernet header and all.
#[inline(always)]
pub fn leave(edge: Edge, route: Route, ifindex: IfIndex, here: IfIndex) -> Verdict {
    if route == Route::Receive {
        return Verdict::receive(ifindex);
    }
    match (ifindex == here, edge.dir) {
        (true, Dir::In) => Verdict::TRANSMIT,
        (true, Dir::Out) => Verdict::TRANSLATED,
        (false, _) => Verdict::redirect(ifindex),
    }
}
