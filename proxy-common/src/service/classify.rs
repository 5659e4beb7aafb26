//! Which service, if any, a packet is addressed to.

use crate::{
    abi::{FrontendKey, FrontendKind, FrontendRef, LocalAddr, Tuple, gate},
    addr::Family,
    tables::{Node, Routes, Services},
    wire::parse::View,
};

/// May the packet be for a service address or a NodePort? Two bit tests, no hash look-up.
#[inline(always)]
pub fn may_be_to_service<F: Family, T: Node>(
    tables: &T,
    tuple: &Tuple<F::Addr>,
    proto: u8,
) -> bool {
    tables.gate(gate::service_addr(&tuple.dst)) || tables.gate(gate::node_port(proto, tuple.dport))
}

/// May the address be a service's, or is it this node's, where NodePorts are?
#[inline(always)]
pub fn is_served_address<F: Family, T: Routes<F> + Node>(tables: &T, addr: &F::Addr) -> bool {
    tables.gate(gate::service_addr(addr)) || tables.local_addr(addr).is_some()
}

/// May the packet be from a backend, and so a reply to restore? Two bit tests.
#[inline(always)]
pub fn may_be_from_backend<F: Family, T: Node>(tables: &T, tuple: &Tuple<F::Addr>) -> bool {
    tables.gate(gate::backend_port(tuple.sport)) && tables.gate(gate::backend_addr(&tuple.src))
}

/// May the packet open a connection to a backend's own address?
#[inline(always)]
pub fn may_open_to_backend<F: Family, T: Node>(tables: &T, view: &View<F::Addr>) -> bool {
    view.is_connected() && view.opens() && may_be_to_backend::<F, T>(tables, &view.tuple)
}

/// May the packet be to a backend's own address? Two bit tests.
#[inline(always)]
pub fn may_be_to_backend<F: Family, T: Node>(tables: &T, tuple: &Tuple<F::Addr>) -> bool {
    tables.gate(gate::backend_port(tuple.dport)) && tables.gate(gate::backend_addr(&tuple.dst))
}

/// The frontend that a tuple's destination is, if it is one.
///
/// The exact address and port come first (an external IP may be a node's own address, docs/conformance.md J6), then
/// NodePorts on local addresses, last the rest of a ClusterIP, where traffic is refused.
#[inline(always)]
pub fn frontend<F: Family, T: Services<F> + Routes<F> + Node>(
    tables: &T,
    tuple: &Tuple<F::Addr>,
    proto: u8,
) -> Option<FrontendRef> {
    if let Some(exact) = tables.frontend(&FrontendKey::new(tuple.dst, tuple.dport, proto)) {
        return Some(exact);
    }
    if tables.gate(gate::node_port(proto, tuple.dport))
        && let Some(flags) = tables.local_addr(&tuple.dst)
    {
        if !flags.contains(LocalAddr::NODE_PORTS) {
            return None;
        }
        return tables.frontend(&FrontendKey::node_port(tuple.dport, proto));
    }
    tables
        .frontend(&FrontendKey::whole_address(tuple.dst))
        .filter(|f| f.kind() == FrontendKind::Refuse)
}
