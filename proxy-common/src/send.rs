//! The last step: a packet of a known flow is edited, sent and counted.

use crate::{
    abi::{Dir, Flow, Route},
    addr::Family,
    hook::Hook,
    packet::Packet,
    parse::{L3, View},
    path::Hop,
    reason::Reason,
    rewrite::{self, Protocols},
    tables::Tables,
    verdict::Verdict,
};

/// Edits and sends a packet of a known flow. [`Verdict::SLOW`], untouched: it may not be forwarded, since its
/// hop limit ends or it is too big.
#[inline(always)]
pub fn finish<F: Family, P: Packet, T: Tables<F>>(
    protocols: Protocols,
    hook: Hook,
    packet: &mut P,
    view: &View<F::Addr>,
    flow: &Flow<F::Addr>,
    hop: &Hop,
    tables: &T,
) -> Verdict {
    let forwarded = hop.route == Route::Forward;
    if forwarded && (view.ip.ttl <= 1 || is_too_big(protocols, packet, view, hop.mtu)) {
        return Verdict::SLOW;
    }
    // XDP has no segments in one frame, and the verifier no liking for the difference of its pointers.
    let bytes = if hook.xdp {
        view.ip.len
    } else {
        packet.frame_len() - L3 as u32
    };
    let (backend, reply) = (flow.backend, flow.is_reply());
    let verdict = match rewrite::rewrite::<F, P>(protocols, packet, view, flow, forwarded) {
        Some(()) => send(hook, packet, hop, tables.ifindex()),
        None => return Verdict::drop(Reason::EditFailed),
    };
    tables.count_packet(backend, bytes, reply);
    verdict
}

/// Is the packet, or each segment of it, larger than `mtu`?
#[inline(always)]
fn is_too_big<A, P: Packet>(protocols: Protocols, packet: &P, view: &View<A>, mtu: u16) -> bool {
    if mtu == 0 {
        return false;
    }
    let gso = packet.gso_size();
    let len = if gso == 0 {
        view.ip.len
    } else if protocols.is_sctp(view) {
        // Segments of any size, each made for the path by its sender.
        return false;
    } else {
        let header = if view.is_tcp() {
            match packet.load::<u16>(view.ip.l4 + 12).map(u16::to_ne_bytes) {
                Some([b, _]) => (b >> 4) as u32 * 4,
                None => 20,
            }
        } else {
            8
        };
        (view.ip.l4 - L3) as u32 + header + gso
    };
    len > mtu as u32
}

/// Sends an edited packet by a hop.
#[inline(always)]
pub fn send<P: Packet>(hook: Hook, packet: &mut P, hop: &Hop, here: u32) -> Verdict {
    if hop.route == Route::Stack {
        return Verdict::TRANSLATED;
    }
    if !hop.resolved {
        return Verdict::neighbour(hop.ifindex);
    }
    if packet.store(0, hop.macs).is_none() {
        return Verdict::drop(Reason::EditFailed);
    }
    if hop.route == Route::Receive {
        return Verdict::receive(hop.ifindex);
    }
    match (hop.ifindex == here, hook.dir) {
        (true, Dir::In) => Verdict::TRANSMIT,
        (true, Dir::Out) => Verdict::TRANSLATED,
        (false, _) => Verdict::redirect(hop.ifindex),
    }
}
