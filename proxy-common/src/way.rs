//! Where a translated packet goes: the next hop, from the flow's hints or from the kernel's routing.

use crate::{
    abi::{Config, ConfigFlags, Dir, Flow, IfIndex, Macs, Route},
    addr::{Addr, Family},
    edge::Edge,
    reason::PassReason,
    tables::{Fib, FlowCell, Hop, Node, Routes, hints_hold},
};

/// The hop, if this hook can take it: XDP sends only by its own device and to a known next hop.
#[inline(always)]
pub fn usable_by(hop: Hop, edge: Edge, here: IfIndex) -> Result<Hop, PassReason> {
    if edge.is_xdp() && hop.route != Route::Stack && (hop.ifindex != here || !hop.resolved) {
        return Err(PassReason::OtherDevice);
    }
    Ok(hop)
}

/// Asks the kernel for the way from this node to `dst`.
#[inline(always)]
pub fn forward<F: Family, T: Routes<F> + Node>(
    tables: &T,
    src: &F::Addr,
    dst: &F::Addr,
) -> Result<Hop, PassReason> {
    let (mut hop, found) = match tables.fib(src, dst) {
        Fib::Hop { ifindex, macs, mtu } => (
            Hop {
                ifindex,
                macs,
                mtu,
                route: Route::Forward,
                aside: false,
                resolved: false,
            },
            true,
        ),
        Fib::Unresolved { ifindex, mtu } => (
            Hop {
                ifindex,
                macs: Macs::NONE,
                mtu,
                route: Route::Forward,
                aside: false,
                resolved: false,
            },
            false,
        ),
        Fib::None => return Err(PassReason::NoRoute),
    };
    if let Some(device) = tables.device(hop.ifindex) {
        // A device without a link header takes packets as they are, once the kernel has chosen the way through it.
        let is_bare = device.flags.is_bare();
        hop.resolved = found || is_bare;
        if is_bare {
            hop.macs = Macs::NONE;
        }
        // 5.10 and 5.11 do not give the route's MTU (kernel e1850ea9bd9e, 5.12).
        if hop.mtu == 0 {
            hop.mtu = if device.mtu > 0xffff {
                0
            } else {
                device.mtu as u16
            };
        }
    }
    Ok(hop)
}

/// The way in again, by `ifindex`, for a process on this node.
#[inline(always)]
pub fn receive<F: Family, T: Routes<F> + Node>(
    tables: &T,
    ifindex: IfIndex,
) -> Result<Hop, PassReason> {
    match tables.device(ifindex) {
        Some(device) => {
            let macs = Macs::new(device.mac, device.mac);
            Ok(Hop {
                ifindex,
                macs,
                mtu: 0,
                route: Route::Receive,
                aside: false,
                resolved: true,
            })
        }
        None => Err(PassReason::NoDevice),
    }
}

/// Does a packet of a known flow only go on to the next layer from here?
///
/// A reply for a process on this node does so if it came in by the very device on which the stack expects it.
#[inline(always)]
fn goes_on<A: Addr>(edge: Edge, here: IfIndex, route: Route, flow: &Flow<A>) -> bool {
    route == Route::Stack
        || (route == Route::Receive && flow.ifindex == here && edge.dir == Dir::In)
}

/// The route of a packet of a known flow, if its hints hold for the way and this hook can take it.
#[inline(always)]
pub fn hinted<A: Addr>(
    edge: Edge,
    here: IfIndex,
    config: &Config,
    flow: &Flow<A>,
) -> Option<Route> {
    let route = Route::from_bits(flow.route);
    if goes_on(edge, here, route, flow) {
        return Some(Route::Stack);
    }
    // XDP sends only by its own device.
    if !hints_hold(flow, config.epoch) || (edge.is_xdp() && flow.ifindex != here) {
        return None;
    }
    Some(route)
}

/// The way of a packet of a known flow by its hints, if they hold and this hook can take it.
#[inline(always)]
pub fn by_hints<A: Addr>(
    edge: Edge,
    here: IfIndex,
    config: &Config,
    flow: &Flow<A>,
) -> Option<Hop> {
    match hinted(edge, here, config, flow)? {
        Route::Stack => Some(Hop::STACK),
        route => Some(Hop {
            ifindex: flow.ifindex,
            macs: flow.macs,
            mtu: flow.mtu,
            route,
            aside: false,
            resolved: true,
        }),
    }
}

/// What the way of a known flow's packet is found by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// Its hints, while they hold.
    Hints,
    /// A look-up, which renews them.
    LookUp,
}

/// The way of a packet of a known flow: its hints while they hold, else a look-up that renews them.
#[inline(always)]
pub fn of_flow<F: Family, T: Routes<F> + Node>(
    edge: Edge,
    tables: &T,
    config: &Config,
    cell: &FlowCell<F::Addr>,
    flow: &Flow<F::Addr>,
    by: By,
) -> Result<Hop, PassReason> {
    let here = tables.ifindex();
    let route = Route::from_bits(flow.route);
    if (by == By::Hints || goes_on(edge, here, route, flow))
        && let Some(hop) = by_hints(edge, here, config, flow)
    {
        return Ok(hop);
    }
    let hop = if route == Route::Receive {
        receive::<F, T>(tables, flow.ifindex)?
    } else {
        forward::<F, T>(tables, &flow.to.src, &flow.to.dst)?
    };
    if hop.resolved {
        cell.set_hints(&hop, config.epoch);
    }
    usable_by(hop, edge, here)
}

/// The source address of a full proxy's packets to `dst` by a device: the kernel's choice, where it tells, else the agent's.
#[inline(always)]
pub fn source_by<F: Family, T: Routes<F> + Node>(
    tables: &T,
    config: &Config,
    device: &crate::abi::Device,
    dst: &F::Addr,
) -> Option<F::Addr> {
    if config.flags.contains(ConfigFlags::FIB_SOURCE)
        && let Some(addr) = tables.source(dst)
    {
        return Some(addr);
    }
    let addr: F::Addr = device.addr();
    if addr == F::Addr::ANY {
        None
    } else {
        Some(addr)
    }
}

/// Is this a reply that the stack routes out by another device than the one by which its connection came? It chose by the backend's
/// address; the route of the service's may be another (several NICs, each with a table of its own).
#[inline(always)]
pub fn is_astray<A: Addr>(edge: Edge, here: IfIndex, flow: &Flow<A>) -> bool {
    edge.dir == Dir::Out
        && flow.is_reply()
        && flow.route == Route::Stack as u8
        && flow.ifindex != here
        && flow.ifindex != IfIndex::NONE
}

/// The way of such a reply by a look-up, which renews the hints: out by its connection's device, if the route of the service's address is by that one.
#[inline(always)]
pub fn aside<F: Family, T: Routes<F> + Node>(
    tables: &T,
    config: &Config,
    cell: &FlowCell<F::Addr>,
    flow: &Flow<F::Addr>,
) -> Hop {
    let Ok(mut hop) = forward::<F, T>(tables, &flow.to.src, &flow.to.dst) else {
        return Hop::STACK;
    };
    if hop.ifindex != flow.ifindex {
        // It is by this device, too: so be it from here on.
        cell.leave_by(tables.ifindex());
        return Hop::STACK;
    }
    if hop.resolved {
        cell.set_hints(&hop, config.epoch);
    }
    hop.aside = true;
    hop
}
