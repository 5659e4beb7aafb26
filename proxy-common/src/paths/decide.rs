//! What becomes of a TCP, UDP or SCTP packet: the flow it belongs to, or the one that it begins.
//!
//! In: a view of the packet and the tables. Out: a [`Decision`], and in [`Work::about`] what it is about. Nothing of the packet has been touched by then; what
//! the datapath is not sure of is a [`Decision::Pass`].

use crate::{
    abi::{
        Backend, BackendFlags, Config, ConfigFlags, Dir, Epoch, Flow, FlowKey, FrontendKind,
        FrontendRef, IfIndex, Jiffies, Route, Tuple,
    },
    addr::{Addr, Family},
    edge::{
        Client, Edge, admit,
        decision::{Answer, Decision},
        work::Work,
    },
    flow::{
        closed, crowd, own, proof,
        track::{self, Refusal},
    },
    paths::send::{self, Stop},
    reason::{DropReason, PassReason},
    service::{
        classify,
        select::{self, Choice},
    },
    tables::{FlowCell, Hop, Table, Tables},
    way::{self, By},
    wire::parse::{View, tcp},
};

/// Does something happen to a confirmed flow with this packet, beyond its rewrite?
///
/// SYN, FIN and RST may begin or end something, and what comes after a RST says that it was not the end; at each coarse step of time the flow is repaired; UDP leaves a
/// backend that is gone.
#[inline(always)]
pub fn has_news<F: Family, T: Tables<F>>(
    tables: &T,
    config: &Config,
    view: &View<F::Addr>,
    flow: &Flow<F::Addr>,
) -> bool {
    view.flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0
        || flow.is_reset()
        || tables.now().since(flow.last_seen) >= config.refresh
        || (!view.is_connected()
            && !flow.is_reply()
            && !track::backend_lives(tables.backend(flow.backend), flow.generation))
}

/// Decides about one packet that passed the gate, from the beginning: reads `work.view`, fills in the rest.
#[inline(always)]
pub fn decide<F: Family, T: Tables<F>>(
    edge: Edge,
    tables: &T,
    work: &mut Work<F::Addr>,
) -> Decision {
    let Some(config) = tables.config() else {
        return Decision::Pass(PassReason::NotConfigured);
    };
    let now = tables.now();
    work.key = FlowKey::new(work.view.tuple, work.view.ip.proto, edge.dir);
    if let Some((table, cell)) = track::find::<F, T>(tables, &work.key) {
        work.flow = cell.get();
        if work.flow.is_own() && own::holds(config, now, cell, &work.flow) {
            return Decision::Pass(PassReason::NotService);
        }
        if !work.flow.is_own() && !track::is_over::<F, T>(tables, config, now, work) {
            work.about.service = work.flow.service;
            work.about.backend = work.flow.backend;
            return go_on::<F, T>(edge, tables, config, now, table, cell, work);
        }
        track::forget::<F, T>(tables, table, work);
    }
    begin::<F, T>(edge, tables, config, now, work)
}

/// A packet of the known flow `work.flow`, which stands in `cell`.
#[inline(always)]
fn go_on<F: Family, T: Tables<F>>(
    edge: Edge,
    tables: &T,
    config: &Config,
    now: Jiffies,
    table: Table,
    cell: &FlowCell<F::Addr>,
    work: &mut Work<F::Addr>,
) -> Decision {
    let expected = work.flow.peer_ifindex;
    if edge.dir == Dir::In && expected != tables.ifindex() {
        let is_above = work.above != IfIndex::NONE && work.above == expected;
        if !is_above && !work.is_admitted {
            return Decision::Drop(DropReason::SourceCheck);
        }
        work.flow.peer_ifindex = tables.ifindex();
        cell.come_by(work.flow.peer_ifindex);
    }
    let renew = now.since(work.flow.last_seen) >= config.refresh;
    let by = if renew { By::LookUp } else { By::Hints };
    work.hop = match way::of_flow::<F, T>(edge, tables, config, cell, &work.flow, by) {
        Ok(hop) => hop,
        Err(reason) => return Decision::Pass(reason),
    };
    work.is_looked_up =
        work.hop.route == Route::Forward && (renew || work.flow.epoch != config.epoch);
    if let Err(stop) = send::may_leave(work.view.ip.ttl, work.largest, &work.hop) {
        return stop.into();
    }
    track::find_peer(work);
    if work.view.ends() {
        if track::close::<F, T>(tables, table, cell, work) && table == Table::Connections {
            closed::queue::<F, T>(tables, config, now, work);
        }
    } else if work.flow.is_reset() && !work.view.opens() {
        track::go_on_after_reset::<F, T>(tables, table, cell, work);
    }
    if renew && !track::refresh::<F, T>(tables, table, now, cell, work) {
        return Decision::Drop(DropReason::NoPort);
    }
    if table == Table::Pending {
        // Last: the flow may leave its cell here.
        track::advance::<F, T>(edge, tables, config, now, renew, cell, work);
    } else if proof::is_shown(&work.view) {
        let shown = proof::shown(&work.view);
        if proof::may_follow(work.flow.proof, shown) {
            cell.show(shown);
        }
    }
    if way::is_astray(edge, tables.ifindex(), &work.flow) {
        work.hop = way::aside::<F, T>(tables, config, cell, &work.flow);
        work.is_looked_up = work.hop.aside;
    }
    Decision::TRANSLATE
}

impl From<Stop> for Decision {
    #[inline(always)]
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::HopLimit => Self::Drop(DropReason::HopLimit),
            Stop::TooBig => Self::Answer(Answer::TooBig),
        }
    }
}

/// Begins a flow, if the packet is for a service and may begin one.
#[inline(always)]
fn begin<F: Family, T: Tables<F>>(
    edge: Edge,
    tables: &T,
    config: &Config,
    now: Jiffies,
    work: &mut Work<F::Addr>,
) -> Decision {
    let Some((client, frontend)) = addressed::<F, T>(edge, tables, &work.view) else {
        if admit::asks_strangers(edge, config) && !work.is_admitted {
            return Decision::Drop(DropReason::SourceCheck);
        }
        own::note::<F, T>(edge, tables, now, work);
        return Decision::Pass(PassReason::NotService);
    };
    let Work { view, frame, .. } = &*work;
    if edge.dir == Dir::In {
        if admit::is_martian::<F, T>(tables, *frame, &view.tuple.src) {
            return Decision::Pass(PassReason::Martian);
        }
        if own::is_awaited::<F, T>(client, tables, view) {
            return Decision::Pass(PassReason::NotService);
        }
    } else if view.tuple.src.is_no_source() && !view.tuple.src.is_loopback() {
        // Passed on at ingress, it is routed: where both devices are one, `ip6_forward` does not look at the source.
        return Decision::Pass(PassReason::Martian);
    }
    if view.is_connected() && !view.opens() {
        return stranger::<F, T>(edge, tables, config, view);
    }
    if client == Client::Pod && !work.is_admitted {
        return Decision::Drop(DropReason::SourceCheck);
    }
    if frontend.kind() == FrontendKind::Refuse {
        return Decision::Answer(Answer::Refuse);
    }
    let service = frontend.service();
    work.about.service = service;
    let (id, backend) =
        match select::choose::<F, T>(tables, config, now, frontend, client, &work.view.tuple) {
            Choice::Backend { id, backend } => (id, backend),
            Choice::Refuse => return Decision::Answer(Answer::Refuse),
            Choice::Drop(reason) => return Decision::Drop(reason),
        };
    work.about.backend = id;
    let way = match way::<F, T>(edge, client, tables, config, &work.view.tuple, backend) {
        Ok(way) => way,
        Err(reason) => return Decision::Pass(reason),
    };
    if client == Client::Outside && way.src != work.view.tuple.src && !work.is_admitted {
        // Past the stack, which looks at the source of what it forwards.
        return Decision::Drop(DropReason::SourceCheck);
    }
    work.hop = way.hop;
    work.is_looked_up = way.hop.route == Route::Forward;
    if let Err(stop) = send::may_leave(work.view.ip.ttl, work.largest, &work.hop) {
        return stop.into();
    }
    work.flow = Flow {
        to: Tuple {
            src: way.src,
            dst: backend.addr,
            sport: work.view.tuple.sport,
            dport: backend.port,
        },
        backend: id,
        generation: backend.generation,
        service,
        ifindex: way.hop.ifindex,
        peer_ifindex: way.reply_ifindex,
        epoch: if way.hop.resolved {
            config.epoch
        } else {
            Epoch::NONE
        },
        last_seen: now,
        // Frames of a flow that only changes its destination are told by what the device was addressed by.
        macs: if way.hop.route == Route::Stack {
            work.frame.swapped()
        } else {
            way.hop.macs
        },
        mtu: way.hop.mtu,
        route: way.hop.route as u8,
        peer_route: way.reply_route as u8,
        peer_dir: way.reply_dir as u8,
        state: 0,
        // `track::reserve` settles the port and fills these in.
        addr_change: 0,
        port_change: 0,
        proof: 0,
    };
    if client != Client::Node
        && !crowd::admits::<F, T>(edge, tables, config, now, &work.view.tuple.src)
    {
        return Decision::Drop(DropReason::SourceShare);
    }
    match track::reserve::<F, T>(tables, config, now, work) {
        Ok(()) => {}
        Err(Refusal::NoPort) => return Decision::Drop(DropReason::NoPort),
        Err(Refusal::TableFull) => return Decision::Drop(DropReason::TableFull),
    }
    work.about.is_new = true;
    Decision::TRANSLATE
}

/// A packet in the middle of a connection that is not known here, to a service.
///
/// The stack would send it on if the address is not the node's: to a router that sends it here, until its hop limit ends. Under kube-proxy the
/// backend that it reaches resets it.
///
/// While kube-proxy's connections go on, one of them looks the same until the kernel has translated it. It has, where the packet leaves the
/// node: what somebody else sent to a service address is on its way back there.
#[inline(always)]
fn stranger<F: Family, T: Tables<F>>(
    edge: Edge,
    tables: &T,
    config: &Config,
    view: &View<F::Addr>,
) -> Decision {
    if !view.is_tcp() || tables.local_addr(&view.tuple.dst).is_some() {
        return Decision::Pass(PassReason::MidFlow);
    }
    let is_routed =
        edge.dir == Dir::Out && !edge.is_loopback() && tables.local_addr(&view.tuple.src).is_none();
    if !is_routed && !config.flags.contains(ConfigFlags::RESET_STRANGERS) {
        return Decision::Pass(PassReason::MidFlow);
    }
    // A reset is never answered (RFC 9293 section 3.10.7.1).
    if view.resets() {
        return Decision::Drop(DropReason::Stranger);
    }
    Decision::Answer(Answer::Reset)
}

/// The frontend that a packet is for at its client's edge, if it is for one.
#[inline(always)]
fn addressed<F: Family, T: Tables<F>>(
    edge: Edge,
    tables: &T,
    view: &View<F::Addr>,
) -> Option<(Client, FrontendRef)> {
    let client = edge.client()?;
    let dst = &view.tuple.dst;
    // Nobody is at the unspecified address, and a loopback address is the node's own alone (RFC 1122 section 3.2.1.3).
    if *dst == F::Addr::ANY || (dst.is_loopback() && client != Client::Node) {
        return None;
    }
    if !classify::may_be_to_service::<F, T>(tables, &view.tuple, view.ip.proto) {
        return None;
    }
    let frontend = classify::frontend::<F, T>(tables, &view.tuple, view.ip.proto)?;
    Some((client, frontend))
}

/// The way of a new flow: there, and back.
struct Way<A> {
    /// Source address behind the rewrite.
    src: A,
    hop: Hop,
    reply_dir: Dir,
    reply_route: Route,
    reply_ifindex: IfIndex,
}

/// Finds the way from a client to a backend, by the edge rule (docs/architecture.md): translated at the
/// client's edge in both directions; a full proxy only where the reply would not come back here.
#[inline(always)]
fn way<F: Family, T: Tables<F>>(
    edge: Edge,
    client: Client,
    tables: &T,
    config: &Config,
    tuple: &Tuple<F::Addr>,
    backend: &Backend<F::Addr>,
) -> Result<Way<F::Addr>, PassReason> {
    let here = tables.ifindex();
    // Only the destination changes and the stack routes; the reply is restored on its way out to the client.
    let through_stack = Way {
        src: tuple.src,
        hop: Hop::STACK,
        reply_dir: Dir::Out,
        reply_route: Route::Stack,
        // A reply to the node itself is of no device's.
        reply_ifindex: if client == Client::Node {
            IfIndex::NONE
        } else {
            here
        },
    };
    match client {
        Client::Outside if backend.flags.contains(BackendFlags::LOCAL) => return Ok(through_stack),
        Client::Pod if backend.addr != tuple.src => return Ok(through_stack),
        Client::Node if backend.flags.contains(BackendFlags::HOST) => {
            // Node to node: the packet is on the loopback device already, or is turned round to it.
            let hop = if edge.is_loopback() {
                Hop::STACK
            } else {
                way::receive::<F, T>(tables, IfIndex::LOOPBACK)?
            };
            return Ok(Way {
                hop,
                ..through_stack
            });
        }
        _ => {}
    }
    let hop = way::forward::<F, T>(tables, &tuple.src, &backend.addr)?;
    let hop = way::usable_by(hop, edge, here)?;
    let Some(device) = tables.device(hop.ifindex) else {
        return Err(PassReason::NoDevice);
    };
    let leaves_node = device.flags.leads_out();
    let masquerade = match client {
        // An endpoint on this node whose slice does not name the node: as a local one.
        Client::Outside if !leaves_node => return Ok(through_stack),
        Client::Outside | Client::Pod => true,
        Client::Node => tuple.src.is_loopback() || (leaves_node && hop.ifindex != here),
    };
    let src = if masquerade {
        way::source_by::<F, T>(tables, config, device, &backend.addr).ok_or(PassReason::NoDevice)?
    } else {
        tuple.src
    };
    let reply_route = if client == Client::Node {
        Route::Receive
    } else {
        Route::Forward
    };
    Ok(Way {
        src,
        hop,
        reply_dir: Dir::In,
        reply_route,
        reply_ifindex: here,
    })
}
