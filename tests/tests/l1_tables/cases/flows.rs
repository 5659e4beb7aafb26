//! The life of flows, and whom a service lets in.

use anyhow::{Result, ensure};
use proxy_common::abi::{Service, ServiceFlags};
use proxy_common::edge::hook::Hook;
use proxy_common::reason::Reason;
use testbed::address::Pair;
use testbed::sockets::Protocol;

use super::Case;
use super::forward::{to_gateway, to_other_node};
use crate::frame::{Frame, Tcp};
use crate::node::{Device, OTHER_NODE_MAC};
use crate::world::{BACKEND_PORT, CLIENT_PORT, OTHER_NODE_PORT, SERVICE_PORT, Verdict, World};

const XDP: Hook = Hook::XDP_UPLINK;
const TC: Hook = Hook::TC_UPLINK_IN;

pub const CASES: &[(&str, Case)] = &[
    ("mid_flow_passes_by_xdp", |w| mid_flow(w, XDP)),
    ("mid_flow_passes_by_tc", |w| mid_flow(w, TC)),
    ("one_client_port_to_two_services_by_xdp", |w| {
        collision(w, XDP)
    }),
    ("one_client_port_to_two_services_by_tc", |w| {
        collision(w, TC)
    }),
    ("half_of_an_old_flow_is_no_harm_to_a_new_one_by_xdp", |w| {
        half_lost(w, XDP)
    }),
    ("half_of_an_old_flow_is_no_harm_to_a_new_one_by_tc", |w| {
        half_lost(w, TC)
    }),
    ("a_flow_keeps_its_backend_until_it_ends_by_xdp", |w| {
        reselect(w, XDP)
    }),
    ("a_flow_keeps_its_backend_until_it_ends_by_tc", |w| {
        reselect(w, TC)
    }),
    ("a_backend_that_is_gone_by_xdp", |w| gone(w, XDP)),
    ("a_backend_that_is_gone_by_tc", |w| gone(w, TC)),
    ("source_ranges_drop_by_xdp", |w| source_ranges(w, XDP)),
    ("source_ranges_drop_by_tc", |w| source_ranges(w, TC)),
    ("the_local_policy_drops_by_xdp", |w| local_policy(w, XDP)),
    ("the_local_policy_drops_by_tc", |w| local_policy(w, TC)),
    ("affinity_sticks_by_xdp", |w| affinity(w, XDP)),
    ("affinity_sticks_by_tc", |w| affinity(w, TC)),
];

/// Datagrams have no middle: they open a flow.
fn mid_flow(w: &mut World, hook: Hook) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let ask = w.middle(w.inbound(), w.client(), w.node_port());
    match w.protocol {
        Protocol::Tcp | Protocol::Sctp => {
            w.untouched(hook, Device::Uplink, &ask.bytes(), &[Reason::MidFlow])
        }
        Protocol::Udp => {
            let sent = ask.clone().to(w.backend(w.at.pod_a));
            w.becomes(hook, Device::Uplink, &ask, Verdict::Pass, &sent)
        }
    }
}

/// Behind the rewrite the two flows would look alike: the second one gets another source port, and each its own reply.
fn collision(w: &mut World, hook: Hook) -> Result<()> {
    w.serve(&[w.at.remote])?;
    let (client, backend) = (w.client(), w.backend(w.at.remote));
    let mut ports = Vec::new();
    for frontend in [w.node_port(), w.socket(w.at.node, OTHER_NODE_PORT)] {
        let ask = w.opening(w.inbound(), client, frontend);
        let (ran, _) = w.node.run(&hook, Device::Uplink, &ask.bytes())?;
        let at = ask.transport();
        let port = u16::from_be_bytes([ran.packet[at], ran.packet[at + 1]]);
        let proxy = w.socket(w.at.node, port);
        // Again, now that the port is known.
        let sent = ask
            .clone()
            .forwarded(to_other_node())
            .from(proxy)
            .to(backend);
        w.becomes(hook, Device::Uplink, &ask, Verdict::Send, &sent)?;
        let reply = w.middle([OTHER_NODE_MAC, Device::Uplink.mac()], backend, proxy);
        let restored = reply
            .clone()
            .forwarded(to_gateway())
            .from(frontend)
            .to(client);
        w.becomes(hook, Device::Uplink, &reply, Verdict::Send, &restored)?;
        ports.push(port);
    }
    ensure!(
        ports[0] == CLIENT_PORT && ports[1] != CLIENT_PORT,
        "{ports:?}"
    );
    Ok(())
}

/// A connection of a process on the node has the reply tuple of one from outside, which has ended and lost its own reply's entry.
/// When that client begins anew, the process's replies go on.
fn half_lost(w: &mut World, hook: Hook) -> Result<()> {
    w.serve(&[w.at.remote])?;
    let backend = w.backend(w.at.remote);
    let (client, node) = (w.client(), w.socket(w.at.node, CLIENT_PORT));
    let outside = w.opening(w.inbound(), client, w.node_port());
    w.node.run(&hook, Device::Uplink, &outside.bytes())?;
    let tcp = Tcp {
        fin: true,
        ..outside.tcp
    };
    let last = Frame {
        tcp,
        ..outside.clone()
    };
    w.node.run(&hook, Device::Uplink, &last.bytes())?;
    w.lose_replies()?;
    let ask = w.opening(to_gateway(), node, w.cluster_ip());
    w.node
        .run(&Hook::TC_UPLINK_OUT, Device::Uplink, &ask.bytes())?;
    w.node.run(&hook, Device::Uplink, &outside.bytes())?;
    let reply = w.middle([OTHER_NODE_MAC, Device::Uplink.mac()], backend, node);
    let restored = reply.clone().from(w.cluster_ip());
    w.becomes(hook, Device::Uplink, &reply, Verdict::Pass, &restored)
}

fn from_uplink(w: &mut World, hook: Hook, ask: &Frame, backend: Pair) -> Result<()> {
    let sent = ask.clone().to(w.backend(backend));
    w.becomes(hook, Device::Uplink, ask, Verdict::Pass, &sent)
}

fn reselect(w: &mut World, hook: Hook) -> Result<()> {
    let [first, second] = [w.at.pod_a, w.at.pod_b];
    w.serve(&[first, second])?;
    w.choose_only(1, 2)?;
    let mut ask = w.opening(w.inbound(), w.client(), w.node_port());
    ask.tcp.sequence = 1000;
    from_uplink(w, hook, &ask, first)?;
    w.choose_only(2, 2)?;
    from_uplink(w, hook, &ask, first)?;
    // Its numbers are of no end of the connection: nobody's word.
    let blind = Tcp {
        rst: true,
        syn: false,
        sequence: 0x8000_0000,
        acknowledgment: 0x8000_0000,
        ..ask.tcp
    };
    let end = |tcp| Frame { tcp, ..ask.clone() };
    from_uplink(w, hook, &end(blind), first)?;
    from_uplink(w, hook, &ask, first)?;
    let fitting = Tcp {
        sequence: 1001,
        acknowledgment: 1000,
        ..blind
    };
    from_uplink(w, hook, &end(fitting), first)?;
    // A datagram cannot say that it is the last one.
    let then = if w.protocol == Protocol::Udp {
        first
    } else {
        second
    };
    from_uplink(w, hook, &ask, then)
}

/// UDP leaves it at once; a TCP connection or SCTP association goes on to its end.
fn gone(w: &mut World, hook: Hook) -> Result<()> {
    let [first, second] = [w.at.pod_a, w.at.pod_b];
    w.serve(&[first, second])?;
    w.choose_only(1, 2)?;
    let ask = w.opening(w.inbound(), w.client(), w.node_port());
    from_uplink(w, hook, &ask, first)?;
    w.choose_only(2, 2)?;
    w.retire(1, first)?;
    let next = w.middle(w.inbound(), w.client(), w.node_port());
    let then = if w.protocol == Protocol::Udp {
        second
    } else {
        first
    };
    from_uplink(w, hook, &next, then)
}

fn source_ranges(w: &mut World, hook: Hook) -> Result<()> {
    let flags = ServiceFlags::SOURCE_RANGES;
    w.serve_as(
        &[w.at.pod_a],
        Service {
            flags,
            ..Service::default()
        },
    )?;
    let balancer = w.socket(w.at.balancer, SERVICE_PORT);
    let ask = w.opening(w.inbound(), w.client(), balancer);
    w.expect(
        hook,
        Device::Uplink,
        &ask.bytes(),
        Verdict::Drop,
        None,
        &[Reason::SourceRange],
    )?;
    // Ranges are the load balancer's alone.
    let other_client = w.socket(w.at.client, CLIENT_PORT + 1);
    let node_port = w.opening(w.inbound(), other_client, w.node_port());
    from_uplink(w, hook, &node_port, w.at.pod_a)?;
    w.allow(w.at.client, [24, 64])?;
    from_uplink(w, hook, &ask, w.at.pod_a)
}

fn local_policy(w: &mut World, hook: Hook) -> Result<()> {
    let flags = ServiceFlags::EXTERNAL_DROP;
    w.serve_as(
        &[],
        Service {
            flags,
            ..Service::default()
        },
    )?;
    let ask = w.opening(w.inbound(), w.client(), w.node_port()).bytes();
    w.expect(
        hook,
        Device::Uplink,
        &ask,
        Verdict::Drop,
        None,
        &[Reason::NoLocalEndpoint],
    )
}

fn affinity(w: &mut World, hook: Hook) -> Result<()> {
    let [first, second] = [w.at.pod_a, w.at.pod_b];
    w.serve_as(
        &[first, second],
        Service {
            affinity: 1 << 20,
            ..Service::default()
        },
    )?;
    w.choose_only(1, 2)?;
    let ask = w.opening(w.inbound(), w.client(), w.node_port());
    from_uplink(w, hook, &ask, first)?;
    w.choose_only(2, 2)?;
    for port in CLIENT_PORT + 1..CLIENT_PORT + 9 {
        let again = ask.clone().from(w.socket(w.at.client, port));
        from_uplink(w, hook, &again, first)?;
    }
    // Another client is free.
    let other = ask.from(w.socket(w.at.tunnelled, BACKEND_PORT));
    from_uplink(w, hook, &other, second)
}
