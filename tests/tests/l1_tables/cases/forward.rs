//! Both directions of a flow, for each kind of client and backend: DNAT alone, or a full proxy.

use anyhow::Result;
use proxy_common::edge::hook::Hook;
use proxy_common::reason::Reason;

use super::Case;
use crate::frame::Link;
use crate::node::{Device, OTHER_NODE_MAC};
use crate::world::{BACKEND_PORT, CLIENT_PORT, Verdict, World};

pub const CASES: &[(&str, Case)] = &[
    ("node_port_to_a_local_backend_by_xdp", |w| {
        outside_to_local(w, Hook::XDP_UPLINK, true)
    }),
    ("node_port_to_a_local_backend_by_tc", |w| {
        outside_to_local(w, Hook::TC_UPLINK_IN, true)
    }),
    ("cluster_ip_to_a_local_backend_by_xdp", |w| {
        outside_to_local(w, Hook::XDP_UPLINK, false)
    }),
    ("node_port_to_a_remote_backend_by_xdp", |w| {
        outside_to_remote(w, Hook::XDP_UPLINK)
    }),
    ("node_port_to_a_remote_backend_by_tc", |w| {
        outside_to_remote(w, Hook::TC_UPLINK_IN)
    }),
    ("node_port_to_a_backend_behind_a_tunnel", outside_to_tunnel),
    ("node_port_to_a_next_hop_to_resolve", outside_to_silent),
    ("pod_to_a_local_backend", pod_to_local),
    ("pod_to_itself", pod_to_itself),
    ("node_to_a_remote_backend_and_back_by_xdp", |w| {
        node_to_remote(w, Hook::XDP_UPLINK)
    }),
    ("node_to_a_remote_backend_and_back_by_tc", |w| {
        node_to_remote(w, Hook::TC_UPLINK_IN)
    }),
];

pub fn to_other_node() -> Link {
    [Device::Uplink.mac(), OTHER_NODE_MAC]
}

pub fn to_gateway() -> Link {
    [Device::Uplink.mac(), Device::Uplink.far_mac()]
}

fn outside_to_local(w: &mut World, hook: Hook, node_port: bool) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let frontend = if node_port {
        w.node_port()
    } else {
        w.cluster_ip()
    };
    let (client, backend) = (w.client(), w.backend(w.at.pod_a));
    let ask = w.opening(w.inbound(), client, frontend);
    w.becomes(
        hook,
        Device::Uplink,
        &ask,
        Verdict::Pass,
        &ask.clone().to(backend),
    )?;
    let reply = w.middle(to_gateway(), backend, client);
    let restored = reply.clone().from(frontend);
    w.becomes(
        Hook::TC_UPLINK_OUT,
        Device::Uplink,
        &reply,
        Verdict::Pass,
        &restored,
    )?;
    // The second round is established: the fast path.
    let ask = w.middle(w.inbound(), client, frontend);
    for _ in 0..2 {
        w.becomes(
            hook,
            Device::Uplink,
            &ask,
            Verdict::Pass,
            &ask.clone().to(backend),
        )?;
        w.becomes(
            Hook::TC_UPLINK_OUT,
            Device::Uplink,
            &reply,
            Verdict::Pass,
            &restored,
        )?;
    }
    Ok(())
}

fn outside_to_remote(w: &mut World, hook: Hook) -> Result<()> {
    w.serve(&[w.at.remote])?;
    let (client, frontend) = (w.client(), w.node_port());
    let (backend, proxy) = (w.backend(w.at.remote), w.socket(w.at.node, CLIENT_PORT));
    let ask = w.opening(w.inbound(), client, frontend);
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
    let ask = w.middle(w.inbound(), client, frontend);
    let sent = ask
        .clone()
        .forwarded(to_other_node())
        .from(proxy)
        .to(backend);
    for _ in 0..2 {
        w.becomes(hook, Device::Uplink, &ask, Verdict::Send, &sent)?;
        w.becomes(hook, Device::Uplink, &reply, Verdict::Send, &restored)?;
    }
    Ok(())
}

fn outside_to_tunnel(w: &mut World) -> Result<()> {
    w.serve(&[w.at.tunnelled])?;
    let ask = w.opening(w.inbound(), w.client(), w.node_port());
    let bytes = ask.bytes();
    w.untouched(
        Hook::XDP_UPLINK,
        Device::Uplink,
        &bytes,
        &[Reason::OtherDevice],
    )?;
    let sent = ask
        .clone()
        .forwarded([Device::Tunnel.mac(), Device::Tunnel.far_mac()])
        .from(w.socket(w.at.node, CLIENT_PORT))
        .to(w.backend(w.at.tunnelled));
    w.becomes(
        Hook::TC_UPLINK_IN,
        Device::Uplink,
        &ask,
        Verdict::Send,
        &sent,
    )
}

/// The kernel writes the Ethernet header when it has resolved the next hop.
fn outside_to_silent(w: &mut World) -> Result<()> {
    w.serve(&[w.at.silent])?;
    let ask = w.opening(w.inbound(), w.client(), w.node_port());
    let bytes = ask.bytes();
    w.untouched(
        Hook::XDP_UPLINK,
        Device::Uplink,
        &bytes,
        &[Reason::OtherDevice],
    )?;
    let sent = ask
        .clone()
        .forwarded(w.inbound())
        .from(w.socket(w.at.node, CLIENT_PORT))
        .to(w.backend(w.at.silent));
    w.becomes(
        Hook::TC_UPLINK_IN,
        Device::Uplink,
        &ask,
        Verdict::Send,
        &sent,
    )
}

fn pod_to_local(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_b])?;
    let (pod, frontend) = (w.socket(w.at.pod_a, CLIENT_PORT), w.cluster_ip());
    let backend = w.backend(w.at.pod_b);
    let link = [Device::PodA.far_mac(), Device::PodA.mac()];
    let ask = w.opening(link, pod, frontend);
    let sent = ask.clone().to(backend);
    w.becomes(
        Hook::TC_WORKLOAD_IN,
        Device::PodA,
        &ask,
        Verdict::Pass,
        &sent,
    )?;
    let reply = w.middle([Device::PodA.mac(), Device::PodA.far_mac()], backend, pod);
    let restored = reply.clone().from(frontend);
    w.becomes(
        Hook::TC_WORKLOAD_OUT,
        Device::PodA,
        &reply,
        Verdict::Pass,
        &restored,
    )?;
    // The backend's own edge leaves the same packet alone: a reply is restored at its client's edge.
    let same = reply.bytes();
    w.untouched(Hook::TC_WORKLOAD_IN, Device::PodB, &same, &[])
}

fn pod_to_itself(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let (pod, frontend) = (w.socket(w.at.pod_a, CLIENT_PORT), w.cluster_ip());
    let (backend, proxy) = (
        w.socket(w.at.pod_a, BACKEND_PORT),
        w.socket(w.at.node, CLIENT_PORT),
    );
    let link = [Device::PodA.far_mac(), Device::PodA.mac()];
    let back = [Device::PodA.mac(), Device::PodA.far_mac()];
    let ask = w.opening(link, pod, frontend);
    let sent = ask.clone().forwarded(back).from(proxy).to(backend);
    w.becomes(
        Hook::TC_WORKLOAD_IN,
        Device::PodA,
        &ask,
        Verdict::Send,
        &sent,
    )?;
    let reply = w.middle(link, backend, proxy);
    let restored = reply.clone().forwarded(back).from(frontend).to(pod);
    w.becomes(
        Hook::TC_WORKLOAD_IN,
        Device::PodA,
        &reply,
        Verdict::Send,
        &restored,
    )
}

fn node_to_remote(w: &mut World, hook: Hook) -> Result<()> {
    w.serve(&[w.at.remote])?;
    let (node, backend) = (w.socket(w.at.node, CLIENT_PORT), w.backend(w.at.remote));
    let ask = w.opening(to_gateway(), node, w.cluster_ip());
    let sent = ask.clone().forwarded(to_other_node()).to(backend);
    w.becomes(
        Hook::TC_UPLINK_OUT,
        Device::Uplink,
        &ask,
        Verdict::Pass,
        &sent,
    )?;
    let reply = w.middle([OTHER_NODE_MAC, Device::Uplink.mac()], backend, node);
    let restored = reply.clone().from(w.cluster_ip());
    for is_late in [false, true] {
        if is_late {
            w.let_flows_age()?;
        }
        w.becomes(hook, Device::Uplink, &reply, Verdict::Pass, &restored)?;
    }
    Ok(())
}
