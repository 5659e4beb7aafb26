//! What becomes of a TCP, UDP or SCTP packet: the flow it belongs to, or the one that it begins.
//!
//! In: a view of the packet and the tables. Out: a [`Decision`]. Nothing of the packet has been touched by then; what
//! the datapath is not sure of is a [`Decision::Pass`].

use crate::{
    abi::{
        Backend, Config, Dir, Flow, FlowKey, FrontendKind, FrontendRef, Route, Tuple, Ways,
        backend_flags, device_flags,
    },
    addr::{Addr, Family},
    classify,
    hook::{Client, Hook},
    parse::{View, tcp},
    path::{self, Hop},
    reason::Reason,
    select::{self, Choice},
    tables::{FlowCell, Table, Tables},
    track::{self, Refusal},
    work::Work,
};

/// Index of the loopback device; the same in every network namespace (kernel `LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// What to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    Pass(Reason),
    Drop(Reason),
    /// Answer that nothing is there.
    Refuse,
    /// Rewrite as [`Work::flow`] says and send on by [`Work::hop`].
    Translate,
}

/// Does something happen to a confirmed flow with this packet, beyond its rewrite?
///
/// SYN, FIN and RST may begin or end something; at each coarse step of time the flow is repaired; UDP leaves a
/// backend that is gone.
#[inline(always)]
pub fn has_news<F: Family, T: Tables<F>>(
    tables: &T,
    config: &Config,
    view: &View<F::Addr>,
    flow: &Flow<F::Addr>,
) -> bool {
    view.flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0
        || tables.now().wrapping_sub(flow.last_seen) >= config.refresh
        || (!view.is_connected()
            && !flow.is_reply()
            && !track::backend_lives(tables.backend(flow.backend), flow.generation))
}

/// Decides about one packet that passed the gate, from the beginning: reads `work.view`, fills in the rest.
#[inline(always)]
pub fn decide<F: Family, T: Tables<F>>(
    hook: Hook,
    tables: &T,
    work: &mut Work<F::Addr>,
) -> Decision {
    let Some(config) = tables.config() else {
        return Decision::Pass(Reason::NotConfigured);
    };
    let now = tables.now();
    work.key = FlowKey::new(work.view.tuple, work.view.ip.proto, hook.dir);
    if let Some((table, cell)) = track::find::<F, T>(tables, &work.key) {
        work.flow = cell.get();
        if !track::is_over::<F, T>(tables, config, now, work) {
            return go_on::<F, T>(hook, tables, config, now, table, cell, work);
        }
        track::forget::<F, T>(tables, table, work);
    }
    begin::<F, T>(hook, tables, config, now, work)
}

/// A packet of the known flow `work.flow`, which stands in `cell`.
#[inline(always)]
fn go_on<F: Family, T: Tables<F>>(
    hook: Hook,
    tables: &T,
    config: &Config,
    now: u32,
    table: Table,
    cell: &FlowCell<F::Addr>,
    work: &mut Work<F::Addr>,
) -> Decision {
    let age = now.wrapping_sub(work.flow.last_seen);
    let renew = age >= config.refresh;
    work.hop = match path::of_flow::<F, T>(hook, tables, config, cell, &work.flow, renew) {
        Ok(hop) => hop,
        Err(reason) => return Decision::Pass(reason),
    };
    track::find_peer(work);
    if work.view.ends() {
        track::close::<F, T>(tables, table, cell, work);
    }
    if renew && !track::refresh::<F, T>(tables, table, now, cell, work) {
        return Decision::Drop(Reason::NoPort);
    }
    if table == Table::Pending {
        // Last: the flow may leave its cell here.
        track::advance::<F, T>(tables, config, age, cell, work);
    }
    Decision::Translate
}

/// Begins a flow, if the packet is for a service and may begin one.
#[inline(always)]
fn begin<F: Family, T: Tables<F>>(
    hook: Hook,
    tables: &T,
    config: &Config,
    now: u32,
    work: &mut Work<F::Addr>,
) -> Decision {
    let Some((client, frontend)) = addressed::<F, T>(hook, tables, &work.view) else {
        return Decision::Pass(Reason::NotService);
    };
    let Work { view, .. } = &*work;
    if view.is_connected() && !view.opens() {
        return Decision::Pass(Reason::MidFlow);
    }
    if frontend.kind() == FrontendKind::Refuse {
        return Decision::Refuse;
    }
    let service = frontend.service();
    let (id, backend) =
        match select::choose::<F, T>(tables, config, now, frontend, client, &view.tuple) {
            Choice::Backend { id, backend } => (id, backend),
            Choice::Refuse => {
                // XDP leaves the answer to TC, which comes here again and counts it.
                if !hook.xdp {
                    tables.count_refused(service);
                }
                return Decision::Refuse;
            }
            Choice::Drop(reason) => {
                tables.count_dropped(service);
                return Decision::Drop(reason);
            }
        };
    let way = match way::<F, T>(hook, client, tables, &view.tuple, backend) {
        Ok(way) => way,
        Err(reason) => return Decision::Pass(reason),
    };
    work.hop = way.hop;
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
        epoch: if way.hop.resolved { config.epoch } else { 0 },
        last_seen: now,
        macs: way.hop.macs,
        mtu: way.hop.mtu,
        ways: Ways::new(way.hop.route, way.reply_route, way.reply_dir),
        state: 0,
        // `track::reserve` settles the port and fills these in.
        addr_change: 0,
        port_change: 0,
        proof: 0,
    };
    match track::reserve::<F, T>(tables, config, now, work) {
        Ok(()) => {}
        Err(Refusal::NoPort) => return Decision::Drop(Reason::NoPort),
        Err(Refusal::TableFull) => return Decision::Drop(Reason::TableFull),
    }
    tables.count_connection(service, id);
    Decision::Translate
}

/// The frontend that a packet is for at its client's edge, if it is for one.
#[inline(always)]
fn addressed<F: Family, T: Tables<F>>(
    hook: Hook,
    tables: &T,
    view: &View<F::Addr>,
) -> Option<(Client, FrontendRef)> {
    let client = hook.client()?;
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
    reply_ifindex: u32,
}

/// Finds the way from a client to a backend, by the edge rule (docs/architecture.md): translated at the
/// client's edge in both directions; a full proxy only where the reply would not come back here.
#[inline(always)]
fn way<F: Family, T: Tables<F>>(
    hook: Hook,
    client: Client,
    tables: &T,
    tuple: &Tuple<F::Addr>,
    backend: &Backend<F::Addr>,
) -> Result<Way<F::Addr>, Reason> {
    let here = tables.ifindex();
    // Only the destination changes and the stack routes; the reply is restored on its way out to the client.
    let through_stack = Way {
        src: tuple.src,
        hop: Hop::STACK,
        reply_dir: Dir::Out,
        reply_route: Route::Stack,
        reply_ifindex: 0,
    };
    match client {
        Client::Outside if backend.flags & backend_flags::LOCAL != 0 => return Ok(through_stack),
        Client::Pod if backend.addr != tuple.src => return Ok(through_stack),
        Client::Node if backend.flags & backend_flags::HOST != 0 => {
            // Node to node: the packet is on the loopback device already, or is turned round to it.
            let hop = if hook.is_loopback() {
                Hop::STACK
            } else {
                path::receive::<F, T>(tables, LOOPBACK)?
            };
            return Ok(Way {
                hop,
                ..through_stack
            });
        }
        _ => {}
    }
    let hop = path::forward::<F, T>(tables, &tuple.src, &backend.addr)?;
    let hop = hop.usable_by(hook, here)?;
    let Some(device) = tables.device(hop.ifindex) else {
        return Err(Reason::NoDevice);
    };
    let leaves_node = device.flags & (device_flags::UPLINK | device_flags::TUNNEL) != 0;
    let masquerade = match client {
        // An endpoint on this node whose slice does not name the node: as a local one.
        Client::Outside if !leaves_node => return Ok(through_stack),
        Client::Outside | Client::Pod => true,
        Client::Node => tuple.src.is_loopback() || (leaves_node && hop.ifindex != here),
    };
    let src = if masquerade {
        path::source_by::<F>(device).ok_or(Reason::NoDevice)?
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
