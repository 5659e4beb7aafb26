//! Datagrams of this node's own that leave from a service's port.
//!
//! A process of the node, or a pod that the CNI masquerades, may send from a port that is a NodePort, too, or the port of an external
//! address that the node has. The answers look like requests to the service; the kernel's connection tracking tells them apart under
//! kube-proxy. Here a note of the answer's tuple does, an entry of the pending table that says: not ours ([`flow_state::OWN`]). TCP needs
//! none: an answer does not open a connection.

use crate::{
    abi::{Config, Dir, Flow, FlowKey, Jiffies, UDP, flow_state},
    addr::{Addr, Family},
    edge::{Client, Edge, work::Work},
    flow::track,
    service::classify,
    tables::{FlowCell, Flows, Node, Put, Routes, Table},
    wire::parse::View,
};

/// May the packet leave from a service's port? Two bit tests.
#[inline(always)]
pub fn may_leave_from_service<F: Family, T: Flows<F> + Routes<F> + Node>(
    edge: Edge,
    tables: &T,
    view: &View<F::Addr>,
) -> bool {
    edge.dir == Dir::Out
        && view.ip.proto == UDP
        && !edge.is_loopback()
        && classify::may_be_to_service::<F, T>(tables, &view.tuple.inverse(), UDP)
}

/// Is the answer to this packet of no flow that has been seen often? Then it is for the slow path to note.
#[inline(always)]
pub fn is_new<F: Family, T: Flows<F> + Routes<F> + Node>(tables: &T, view: &View<F::Addr>) -> bool {
    let key = FlowKey::new(view.tuple.inverse(), UDP, Dir::In);
    tables.flow(Table::Datagrams, &key).is_none()
}

/// Notes where the answer to a packet comes in, if it leaves from an address of this node and a port that is a service's there.
#[inline(always)]
pub fn note<F: Family, T: Flows<F> + Routes<F> + Node>(
    edge: Edge,
    tables: &T,
    now: Jiffies,
    work: &mut Work<F::Addr>,
) {
    if !may_leave_from_service::<F, T>(edge, tables, &work.view)
        || tables.local_addr(&work.view.tuple.src).is_none()
    {
        return;
    }
    work.peer_key = FlowKey::new(work.view.tuple.inverse(), UDP, Dir::In);
    match track::find::<F, T>(tables, &work.peer_key) {
        // A service's flow keeps its tuple.
        Some((_, cell)) => {
            if cell.get().is_own() {
                cell.touch(now);
            }
        }
        None => {
            work.peer.to = work.peer_key.tuple;
            work.peer.peer_dir = Dir::In as u8;
            work.peer.last_seen = now;
            work.peer.state = flow_state::OWN;
            // Without room its answer goes where a request would.
            let _ = tables.put_flow(Table::Pending, &work.peer_key, &work.peer, Put::New);
        }
    }
}

/// Does the entry still hold for a packet that comes in?
#[inline(always)]
pub fn holds<A: Addr>(config: &Config, now: Jiffies, cell: &FlowCell<A>, flow: &Flow<A>) -> bool {
    let holds = now.since(flow.last_seen) < config.udp_idle;
    if holds {
        cell.touch(now);
    }
    holds
}

/// Does a process of this node wait for this datagram on a socket that is connected to its sender?
#[inline(always)]
pub fn is_awaited<F: Family, T: Flows<F> + Routes<F> + Node>(
    client: Client,
    tables: &T,
    view: &View<F::Addr>,
) -> bool {
    client != Client::Node
        && view.ip.proto == UDP
        && tables.local_addr(&view.tuple.dst).is_some()
        && tables.has_socket(&view.tuple, UDP)
}
