//! Fragments: only the first one of a datagram shows the ports; the others find them by the datagram's id.
//!
//! One that comes before the first is held, and comes in anew when the first one has come. The kernel does the same by putting datagrams
//! together before it translates them.

use crate::{
    abi::{FragmentKey, FragmentPorts, HeldKey, LocalAddr, gate},
    addr::{Addr, Family},
    edge::{Client, Edge},
    reason::PassReason,
    tables::{Flows, Node, Routes},
    wire::{
        packet::Packet,
        parse::{ParseIp, Part, View},
    },
};

/// What is known of a fragment's datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// The ports, now in the view.
    Ports,
    /// The ports, and that others wait for them.
    Awaited,
    /// Nothing, and it may be a service's.
    Nothing,
}

/// Fills in the ports of a fragment, or notes them.
#[inline(always)]
pub fn complete<F: Family, T: Flows<F> + Routes<F> + Node>(
    edge: Edge,
    view: &mut View<F::Addr>,
    tables: &T,
) -> Result<Known, PassReason> {
    let key = FragmentKey {
        src: view.ip.src,
        dst: view.ip.dst,
        id: view.ip.datagram,
        kind: view.ip.proto as u32 | (edge.dir as u32) << 8,
    };
    if view.ip.part == Part::First {
        tables.put_fragment(
            &key,
            &FragmentPorts {
                sport: view.tuple.sport,
                dport: view.tuple.dport,
            },
        );
        return Ok(if is_held_at(edge) && tables.is_held(&key) {
            Known::Awaited
        } else {
            Known::Ports
        });
    }
    let Some(ports) = tables.fragment(&key) else {
        return if is_held_at(edge) && may_be_to_service::<F, T>(tables, &view.ip.dst) {
            Ok(Known::Nothing)
        } else {
            Err(PassReason::FragmentUnknown)
        };
    };
    view.tuple.sport = ports.sport;
    view.tuple.dport = ports.dport;
    Ok(Known::Ports)
}

/// Fragments are held where they come in from a wire or a pod: on their way out they are in the order in which this node made them.
#[inline(always)]
fn is_held_at(edge: Edge) -> bool {
    matches!(edge.client(), Some(Client::Outside | Client::Pod))
}

/// May a fragment without ports be for a service, or a reply to restore?
#[inline(always)]
fn may_be_to_service<F: Family, T: Flows<F> + Routes<F> + Node>(tables: &T, dst: &F::Addr) -> bool {
    tables.gate(gate::service_addr(dst))
        || matches!(tables.local_addr(dst), Some(flags) if flags.contains(LocalAddr::NODE_PORTS))
}

/// Describes a fragment for the table of held ones, as [`complete`] looks for it; gives which one it is.
#[inline(always)]
pub fn describe<F: ParseIp, P: Packet>(edge: Edge, packet: &P, key: &mut HeldKey) -> Part {
    let Ok(ip) = F::ip(packet, 0) else {
        return Part::Whole;
    };
    let mut i = 0;
    while i < 4 {
        key.src[i] = ip.src.word(i);
        key.dst[i] = ip.dst.word(i);
        i += 1;
    }
    key.id = ip.datagram;
    key.kind = ip.proto as u32 | (edge.dir as u32) << 8;
    key.number = 0;
    ip.part
}

/// The same from what [`complete`] knows.
#[inline(always)]
pub fn describe_key<A: Addr>(of: &FragmentKey<A>, key: &mut HeldKey) {
    let mut i = 0;
    while i < 4 {
        key.src[i] = of.src.word(i);
        key.dst[i] = of.dst.word(i);
        i += 1;
    }
    key.id = of.id;
    key.kind = of.kind;
    key.number = 0;
}
