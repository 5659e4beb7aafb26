//! The life of a flow: reserved, confirmed, kept in repair, ended.
//!
//! Rule: a packet is rewritten only after both of its connection's entries are stored, and the reply's tuple
//! belongs to one connection alone (stored with NOEXIST). A new flow lives in the pending table until its
//! client answers the first reply; then it moves to the table of its kind ([`Table`]), where no connection goes for another. What a packet proves of its
//! connection ([`crate::flow::proof`]) decides whether it may end one, or confirm it.

use crate::{
    abi::{Backend, BackendFlags, Config, Dir, Flow, FlowKey, Generation, Jiffies, flow_state},
    addr::{Addr, Be16, Family},
    edge::{Edge, work::Work},
    flow::{closed, crowd, proof},
    tables::{FlowCell, Flows, Node, Put, Services, Table},
    wire::parse::is_connected,
};

/// How many source ports are tried for one flow. At half of the ports taken, one flow in 65,536 finds none.
const PORT_TRIES: u32 = 16;

/// From one port of the round to the next: a prime above the number of all ports, so that a round has each port once, whatever their span; of
/// the usual span it is three fifths. Ports that clients brought along often lie side by side, and would take all tries of a round by ones.
const PORT_STRIDE: u64 = 104_383;

/// How often a reply tuple is claimed for one flow: with the client's own port, then with ports that no flow had, and
/// that only a process of the node or another CPU can have.
const CLAIMS: u32 = 3;

/// Is the backend still the one that the flow was made for?
#[inline(always)]
pub fn backend_lives<A: Addr>(backend: Option<&Backend<A>>, generation: Generation) -> bool {
    match backend {
        Some(b) => b.generation == generation && b.flags.contains(BackendFlags::SERVING),
        None => false,
    }
}

/// Must this packet begin a new flow, although its tuple has an old one?
///
/// TCP keeps its backend to the end of the connection; a SYN begins anew after both ends' FIN or a RST, or when the
/// backend is gone. So does SCTP, by its chunks that say the same. UDP leaves a backend that is gone at once (docs/conformance.md M1,
/// M3), and after the idle time.
#[inline(always)]
pub fn is_over<F: Family, T: Flows<F> + Services<F> + Node>(
    tables: &T,
    config: &Config,
    now: Jiffies,
    work: &Work<F::Addr>,
) -> bool {
    let Work { view, flow, .. } = work;
    if flow.is_reply() || (view.is_connected() && !view.opens()) {
        return false;
    }
    let ended = if view.is_connected() {
        flow.is_done()
    } else {
        now.since(flow.last_seen) >= config.udp_idle
    };
    ended || !backend_lives(tables.backend(flow.backend), flow.generation)
}

/// Has a flow been idle for so long that its reply tuple can be given to another?
#[inline(always)]
pub fn has_expired<A: Addr>(
    flow: &Flow<A>,
    proto: u8,
    table: Table,
    config: &Config,
    now: Jiffies,
) -> bool {
    let limit = if flow.is_own() {
        config.udp_idle
    } else if table == Table::Pending {
        if flow.state & flow_state::ANSWERED == 0 {
            config.unanswered
        } else {
            config.tcp_closed
        }
    } else if !is_connected(proto) {
        config.udp_idle
    } else if flow.is_done() {
        config.tcp_closed
    } else if flow.is_closing() {
        config.tcp_half
    } else {
        config.tcp_idle
    };
    now.since(flow.last_seen) >= limit
}

/// The flow under a key, and its table.
///
/// A flow that another CPU confirms at this moment is stored in the confirmed table before it leaves the pending one: in
/// this order it is seen in one of them.
#[inline(always)]
pub fn find<'a, F: Family, T: Flows<F> + Node>(
    tables: &'a T,
    key: &FlowKey<F::Addr>,
) -> Option<(Table, &'a FlowCell<F::Addr>)> {
    match tables.flow(Table::Pending, key) {
        Some(cell) => Some((Table::Pending, cell)),
        None => tables
            .flow(Table::confirmed(key.proto()), key)
            .map(|cell| (Table::confirmed(key.proto()), cell)),
    }
}

/// Fills in the other direction's key.
#[inline(always)]
pub fn find_peer<A: Addr>(work: &mut Work<A>) {
    work.peer_key = work.flow.peer_key(work.key.proto());
}

/// Removes both directions of a flow.
#[inline(always)]
pub fn forget<F: Family, T: Flows<F> + Node>(tables: &T, table: Table, work: &mut Work<F::Addr>) {
    find_peer(work);
    delete_peer::<F, T>(tables, table, &work.peer_key, &work.key, &mut work.other);
    tables.delete_flow(table, &work.key);
}

/// Removes the entry under `key` if it is the other direction of the one under `of`.
///
/// Where the table was full it may have lost either entry of a connection without the other, and the place of the lost one may be
/// another connection's by now, which lives.
#[inline(always)]
fn delete_peer<F: Family, T: Flows<F> + Node>(
    tables: &T,
    table: Table,
    key: &FlowKey<F::Addr>,
    of: &FlowKey<F::Addr>,
    found: &mut Flow<F::Addr>,
) {
    if let Some(cell) = tables.flow(table, key) {
        *found = cell.get();
        if found.is_peer_of(key.proto(), of) {
            tables.delete_flow(table, key);
        }
    }
}

/// Removes both directions of `work.other`, the flow that stands under `work.other_key`.
#[inline(always)]
pub fn remove_other<F: Family, T: Flows<F> + Node>(
    tables: &T,
    table: Table,
    work: &mut Work<F::Addr>,
) {
    let peer_key = work.other.peer_key(work.other_key.proto());
    if let Some(cell) = tables.flow(table, &peer_key)
        && cell.peek().is_peer_of(peer_key.proto(), &work.other_key)
    {
        tables.delete_flow(table, &peer_key);
    }
    tables.delete_flow(table, &work.other_key);
}

/// Removes the other direction of `work.other`, the flow that stands under `work.peer_key`.
#[inline(always)]
fn delete_peer_of_other<F: Family, T: Flows<F> + Node>(
    tables: &T,
    table: Table,
    work: &mut Work<F::Addr>,
) {
    work.other_key = work.other.peer_key(work.peer_key.proto());
    delete_peer::<F, T>(
        tables,
        table,
        &work.other_key,
        &work.peer_key,
        &mut work.other,
    );
}

/// Why a flow could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    NoPort,
    TableFull,
}

/// Is there no room for another connection? So it was when one was last to be confirmed, which is asked anew about once a second.
#[inline(always)]
fn is_full<F: Family, T: Flows<F> + Node>(tables: &T, config: &Config, now: Jiffies) -> bool {
    let since = tables.full_since();
    since != Jiffies::default() && now.since(since) < config.unanswered / 8
}

/// Stores the new flow `work.flow` in the pending table, with a source port under which its reply tuple is its
/// own.
///
/// The flow comes with the client's own port; where that one is taken the ports go round, never at random: a
/// port that was just used would meet the server's TIME_WAIT with an older timestamp.
#[inline(always)]
pub fn reserve<F: Family, T: Flows<F> + Services<F> + Node>(
    tables: &T,
    config: &Config,
    now: Jiffies,
    work: &mut Work<F::Addr>,
) -> Result<(), Refusal> {
    if work.view.is_connected() && is_full::<F, T>(tables, config, now) {
        return Err(Refusal::TableFull);
    }
    work.flow.note_changes(&work.key.tuple);
    work.peer = work.flow.peer(&work.key);
    work.peer.proof = proof::claimed(&work.view);
    find_peer(work);
    // The port is changed at the loop's head, not before it comes round: 5.10 and 6.1 refuse a loop whose back
    // edge is not a jump (`check_cfg`), as LLVM laid it out otherwise.
    let mut claims = 0;
    loop {
        if claims != 0 && !next_free_port::<F, T>(tables, config, now, work) {
            return Err(Refusal::NoPort);
        }
        if !is_a_sockets::<F, T>(tables, work) && claim::<F, T>(tables, config, now, work) {
            break;
        }
        claims += 1;
        if claims == CLAIMS {
            return Err(Refusal::NoPort);
        }
    }
    if tables.put_flow(Table::Pending, &work.key, &work.flow, Put::Over) {
        return Ok(());
    }
    tables.delete_flow(Table::Pending, &work.peer_key);
    Err(Refusal::TableFull)
}

/// Gives the flow the next source port with which its reply tuple seems to be free.
///
/// To look is a small loop, and to claim a large one: the verifier goes through every round of each.
#[inline(always)]
fn next_free_port<F: Family, T: Flows<F> + Services<F> + Node>(
    tables: &T,
    config: &Config,
    now: Jiffies,
    work: &mut Work<F::Addr>,
) -> bool {
    let span = config.port_last.wrapping_sub(config.port_first) as u32 + 1;
    let proto = work.key.proto();
    let mut tries = 0;
    loop {
        let step = (tables.next_port() as u64 * PORT_STRIDE) % span as u64;
        let port = Be16::new((config.port_first as u32 + step as u32) as u16);
        work.peer_key.tuple.dport = port;
        let is_free = match find::<F, T>(tables, &work.peer_key) {
            Some((table, cell)) => has_expired(&cell.get(), proto, table, config, now),
            None => true,
        };
        if is_free {
            break;
        }
        tries += 1;
        if tries == PORT_TRIES {
            return false;
        }
    }
    work.flow.to.sport = work.peer_key.tuple.dport;
    work.flow.note_port_change(&work.key.tuple);
    work.peer.port_change = !work.flow.port_change;
    true
}

/// Would the flow's replies be taken from a connection that a process of this node has to the backend itself?
#[inline(always)]
fn is_a_sockets<F: Family, T: Flows<F> + Node>(tables: &T, work: &Work<F::Addr>) -> bool {
    // Replies that are restored on their way in are the ones that come to an address of the node.
    work.peer_key.dir() == Dir::In && tables.has_socket(&work.peer_key.tuple, work.key.proto())
}

/// Takes the reply tuple `work.peer_key`, if it is free, this flow's own from before, or long unused.
#[inline(always)]
fn claim<F: Family, T: Flows<F> + Services<F> + Node>(
    tables: &T,
    config: &Config,
    now: Jiffies,
    work: &mut Work<F::Addr>,
) -> bool {
    // First the pending table, then a look at the confirmed one. A flow that is being confirmed is stored
    // there before it leaves the pending table, so that one of the two always shows it.
    let fresh = tables.put_flow(Table::Pending, &work.peer_key, &work.peer, Put::New);
    let confirmed = Table::confirmed(work.key.proto());
    let table = if fresh { confirmed } else { Table::Pending };
    let Some(other) = tables.flow(table, &work.peer_key) else {
        return fresh;
    };
    work.other = other.get();
    if !is_same(&work.other, &work.peer) {
        if !has_expired(&work.other, work.key.proto(), table, config, now) {
            if fresh {
                tables.delete_flow(Table::Pending, &work.peer_key);
            }
            return false;
        }
        delete_peer_of_other::<F, T>(tables, table, work);
    }
    if fresh {
        tables.delete_flow(confirmed, &work.peer_key);
        true
    } else {
        tables.put_flow(Table::Pending, &work.peer_key, &work.peer, Put::Over)
    }
}

/// Notes in both directions who has sent its last by a packet that ends a connection, and that fits it. Tells whether the connection is
/// over by that.
#[inline(always)]
pub fn close<F: Family, T: Flows<F> + Node>(
    tables: &T,
    table: Table,
    cell: &FlowCell<F::Addr>,
    work: &mut Work<F::Addr>,
) -> bool {
    let peer = tables.flow(table, &work.peer_key);
    let shown = match peer {
        Some(peer) => peer.get().proof,
        None => proof::NONE,
    };
    let answered = table != Table::Pending || work.flow.state & flow_state::ANSWERED != 0;
    if !proof::ends(&work.view, work.flow.proof, shown, answered) {
        return false;
    }
    let done = if work.view.resets() {
        flow_state::RESET
    } else if work.flow.is_reply() {
        flow_state::BACKEND_DONE
    } else {
        flow_state::CLIENT_DONE
    };
    if work.flow.state & done == done {
        return false;
    }
    let was_done = work.flow.is_done();
    work.flow.state |= done;
    cell.mark(done);
    if let Some(peer) = peer {
        peer.mark(done);
    }
    !was_done && work.flow.is_done()
}

/// A packet of a flow whose last was a RST: that one was not taken by its receiver, so that the flow is not over.
#[inline(always)]
pub fn go_on_after_reset<F: Family, T: Flows<F> + Node>(
    tables: &T,
    table: Table,
    cell: &FlowCell<F::Addr>,
    work: &mut Work<F::Addr>,
) {
    work.flow.state &= !flow_state::RESET;
    cell.unmark(flow_state::RESET);
    if let Some(peer) = tables.flow(table, &work.peer_key) {
        peer.unmark(flow_state::RESET);
    }
}

/// Before a connection that goes straight to a backend, past every service address: lets go of a flow that is over
/// and whose replies the backend's answers would be taken for.
///
/// Such a connection is not tracked, and its client may well use a port that a service flow to the same backend had:
/// it chooses its ports by what it connects to. One that is not over keeps its tuple.
#[inline(always)]
pub fn make_way<F: Family, T: Flows<F> + Services<F> + Node>(
    edge: Edge,
    tables: &T,
    work: &mut Work<F::Addr>,
) {
    let Some(config) = tables.config() else {
        return;
    };
    let proto = work.view.ip.proto;
    work.peer_key.tuple = work.view.tuple.inverse();
    work.peer_key.kind = FlowKey::<F::Addr>::kind(proto, edge.dir.opposite());
    let Some((table, cell)) = find::<F, T>(tables, &work.peer_key) else {
        return;
    };
    work.other = cell.get();
    if work.other.is_done() || has_expired(&work.other, proto, table, config, tables.now()) {
        delete_peer_of_other::<F, T>(tables, table, work);
        tables.delete_flow(table, &work.peer_key);
    }
}

/// Done at a coarse step of time: notes that the flow lives, in both directions, and restores the other
/// direction's entry if it was evicted. `false`: by now another flow has the reply's tuple, and this one is over.
#[inline(always)]
pub fn refresh<F: Family, T: Flows<F> + Services<F> + Node>(
    tables: &T,
    table: Table,
    now: Jiffies,
    cell: &FlowCell<F::Addr>,
    work: &mut Work<F::Addr>,
) -> bool {
    work.flow.last_seen = now;
    work.peer = work.flow.peer(&work.key);
    if let Some(peer) = tables.flow(table, &work.peer_key) {
        work.other = peer.get();
        if is_same(&work.other, &work.peer) {
            peer.touch(now);
            cell.touch(now);
            return true;
        }
    } else {
        let elsewhere = match table {
            Table::Pending => Table::confirmed(work.key.proto()),
            _ => Table::Pending,
        };
        if tables.flow(elsewhere, &work.peer_key).is_none() {
            cell.touch(now);
            // Where there is no room, the direction at hand goes on alone.
            return tables.put_flow(table, &work.peer_key, &work.peer, Put::New)
                || tables.flow(table, &work.peer_key).is_none();
        }
    }
    tables.delete_flow(table, &work.key);
    false
}

/// Are these entries under one key the same connection's?
#[inline(always)]
fn is_same<A: Addr>(one: &Flow<A>, other: &Flow<A>) -> bool {
    one.to == other.to && one.peer_dir == other.peer_dir
}

/// Stores both directions of a flow that is confirmed, or none of them.
#[inline(always)]
fn keep<F: Family, T: Flows<F> + Node>(tables: &T, table: Table, work: &Work<F::Addr>) -> bool {
    if !tables.put_flow(table, &work.peer_key, &work.peer, Put::Over) {
        return false;
    }
    let both = tables.put_flow(table, &work.key, &work.flow, Put::Over);
    if !both {
        tables.delete_flow(table, &work.peer_key);
    }
    both
}

/// A packet of a pending flow: notes the first reply, and moves the flow to the confirmed table when its
/// client goes on after that and shows that it got it ([`crate::flow::proof`]). Who forges a source never gets so far, and neither does a
/// datagram that nobody answers. Where there is no room for a connection it stays pending, and is tried again with its next packet. `renew`: a coarse step of time is over since the flow was last seen.
#[inline(always)]
pub fn advance<F: Family, T: Flows<F> + Services<F> + Node>(
    edge: Edge,
    tables: &T,
    config: &Config,
    now: Jiffies,
    renew: bool,
    cell: &FlowCell<F::Addr>,
    work: &mut Work<F::Addr>,
) {
    let answered = work.flow.state & flow_state::ANSWERED != 0;
    if work.flow.is_reply() {
        if !answered && proof::answers(&work.view, work.flow.proof) {
            cell.mark(flow_state::ANSWERED);
            if let Some(peer) = tables.flow(Table::Pending, &work.peer_key) {
                peer.show(proof::claimed(&work.view));
                peer.mark(flow_state::ANSWERED);
            }
            if crowd::ends_with_answer(&work.view) {
                crowd::release::<F, T>(edge, tables, &work.flow.to.dst);
            }
        }
        return;
    }
    if !answered {
        // The client may have begun anew with other numbers, where nobody has answered the first ones. Not at once: anybody could send a SYN
        // between the client's and its answer.
        if renew
            && work.view.opens()
            && let Some(peer) = tables.flow(Table::Pending, &work.peer_key)
        {
            peer.show(proof::claimed(&work.view));
        }
        return;
    }
    if config.refresh == Config::STILL || !proof::confirms(&work.view, work.flow.proof) {
        return;
    }
    if work.view.is_tcp() {
        work.flow.proof = proof::shown(&work.view);
    }
    work.peer = match tables.flow(Table::Pending, &work.peer_key) {
        Some(peer) => peer.get(),
        None => work.flow.peer(&work.key),
    };
    // The entries that may still have been written since they were read differ in their hints at most.
    // The reply's stands before this one leaves the pending table: see `claim`.
    let table = Table::confirmed(work.key.proto());
    if !keep::<F, T>(tables, table, work) {
        closed::make_room::<F, T>(tables, work);
        if !keep::<F, T>(tables, table, work) {
            tables.note_full(now);
            return;
        }
    }
    tables.delete_flow(Table::Pending, &work.key);
    tables.delete_flow(Table::Pending, &work.peer_key);
    if !crowd::ends_with_answer(&work.view) {
        crowd::release::<F, T>(edge, tables, &work.key.tuple.src);
    }
}
