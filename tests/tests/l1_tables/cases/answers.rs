//! What the node answers itself, and errors about packets of a flow.

use anyhow::Result;
use proxy_common::abi::{Service, ServiceFlags};
use proxy_common::edge::hook::Hook;
use proxy_common::reason::Reason;
use testbed::sockets::Protocol;

use super::Case;
use super::forward::{to_gateway, to_other_node};
use crate::frame::{Error, Frame, Tcp, count_down, icmp_error};
use crate::node::{Device, NARROW_MTU, OTHER_NODE_MAC, need_mtu_of_routes};
use crate::world::{CLIENT_PORT, Verdict, World};

const TC: Hook = Hook::TC_UPLINK_IN;

pub const CASES: &[(&str, Case)] = &[
    ("no_endpoints_are_refused", no_endpoints),
    ("first_packets_are_held", held),
    ("an_unused_port_of_a_cluster_ip_is_refused", unused_port),
    ("the_hop_limit_ends", hop_limit),
    ("too_big_for_the_path", too_big),
    ("an_error_from_the_backends_side", error_from_backend),
    ("an_error_from_the_clients_side", error_from_client),
];

/// XDP leaves the answer to TC.
fn refused(w: &mut World, ask: &Frame) -> Result<()> {
    let bytes = ask.bytes();
    w.left_to_tc(&bytes)?;
    let answer = match w.protocol {
        Protocol::Tcp => Frame {
            link: to_gateway(),
            source: ask.destination,
            destination: ask.source,
            ttl: 64,
            tcp: Tcp {
                rst: true,
                ack: true,
                // One more than the highest number.
                acknowledgment: 0,
                ..Tcp::default()
            },
            payload: Vec::new(),
            ..ask.clone()
        }
        .bytes(),
        Protocol::Udp | Protocol::Sctp => icmp_error(
            to_gateway(),
            ask.destination.ip(),
            ask.source.ip(),
            Error::PortUnreachable,
            &ask.quotation(ask.transport_len()),
        ),
    };
    w.expect(
        TC,
        Device::Uplink,
        &bytes,
        Verdict::Send,
        Some(&answer),
        &[Reason::Refused],
    )
}

fn no_endpoints(w: &mut World) -> Result<()> {
    w.serve(&[])?;
    for frontend in [w.node_port(), w.cluster_ip()] {
        let ask = w.opening(w.inbound(), w.client(), frontend);
        refused(w, &ask)?;
    }
    Ok(())
}

fn held(w: &mut World) -> Result<()> {
    let flags = ServiceFlags::HOLD;
    w.serve_as(
        &[],
        Service {
            flags,
            ..Service::default()
        },
    )?;
    for hook in [Hook::XDP_UPLINK, TC] {
        let ask = w.opening(w.inbound(), w.client(), w.node_port()).bytes();
        w.expect(
            hook,
            Device::Uplink,
            &ask,
            Verdict::Drop,
            None,
            &[Reason::Held],
        )?;
    }
    Ok(())
}

fn unused_port(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let ask = w.opening(w.inbound(), w.client(), w.socket(w.at.service, 81));
    refused(w, &ask)
}

fn hop_limit(w: &mut World) -> Result<()> {
    w.serve(&[w.at.remote])?;
    for hook in w.ingress() {
        let ask = Frame {
            ttl: 1,
            ..w.opening(w.inbound(), w.client(), w.node_port())
        };
        w.expect(
            hook,
            Device::Uplink,
            &ask.bytes(),
            Verdict::Drop,
            None,
            &[Reason::HopLimit],
        )?;
    }
    Ok(())
}

fn too_big(w: &mut World) -> Result<()> {
    need_mtu_of_routes()?;
    w.serve(&[w.at.narrow])?;
    let small = w.opening(w.inbound(), w.client(), w.node_port());
    let payload = vec![5; usize::from(NARROW_MTU)];
    let ask = Frame {
        payload,
        ..small.clone()
    };
    let bytes = ask.bytes();
    w.left_to_tc(&bytes)?;
    let answer = icmp_error(
        to_gateway(),
        ask.destination.ip(),
        ask.source.ip(),
        Error::TooBig(NARROW_MTU),
        &ask.quotation(ask.transport_len()),
    );
    w.expect(
        TC,
        Device::Uplink,
        &bytes,
        Verdict::Send,
        Some(&answer),
        &[Reason::TooBig],
    )?;
    let sent = small
        .clone()
        .forwarded(to_other_node())
        .from(w.socket(w.at.node, CLIENT_PORT))
        .to(w.backend(w.at.narrow));
    w.becomes(TC, Device::Uplink, &small, Verdict::Send, &sent)
}

/// The quotation that the receiver is shown: its own packet's addresses and ports, all else as it came back.
fn restored(own: &Frame, quoted: &Frame) -> Vec<u8> {
    let shown = Frame {
        ttl: quoted.ttl,
        ..own.clone()
    };
    let mut quotation = shown.quotation(8);
    if own.protocol == Protocol::Udp {
        // The checksum of the quoted datagram, which no receiver can check without its payload, stays.
        let from = quoted.quotation(8);
        let at = quotation.len() - 2;
        quotation[at..].copy_from_slice(&from[at..]);
    }
    quotation
}

fn error_from_backend(w: &mut World) -> Result<()> {
    w.serve(&[w.at.remote])?;
    let (client, frontend) = (w.client(), w.node_port());
    let ask = w.opening(w.inbound(), client, frontend);
    let sent = ask
        .clone()
        .forwarded(to_other_node())
        .from(w.socket(w.at.node, CLIENT_PORT))
        .to(w.backend(w.at.remote));
    w.becomes(TC, Device::Uplink, &ask, Verdict::Send, &sent)?;
    let (router, error) = (w.at.tunnelled.of(w.family), Error::TooBig(1300));
    let inbound = [OTHER_NODE_MAC, Device::Uplink.mac()];
    let came = icmp_error(inbound, router, frontend.ip(), error, &sent.quotation(8));
    w.left_to_tc(&came)?;
    // As the rest of the flow, the error seems to come from the node, and has gone on by one hop.
    let shown = restored(&ask, &sent);
    let mut goes = icmp_error(to_gateway(), frontend.ip(), client.ip(), error, &shown);
    count_down(&mut goes);
    w.expect(TC, Device::Uplink, &came, Verdict::Send, Some(&goes), &[])
}

fn error_from_client(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let (client, frontend, backend) = (w.client(), w.node_port(), w.backend(w.at.pod_a));
    let ask = w.opening(w.inbound(), client, frontend);
    w.becomes(
        TC,
        Device::Uplink,
        &ask,
        Verdict::Pass,
        &ask.clone().to(backend),
    )?;
    let reply = w.middle(to_gateway(), backend, client);
    let sent = reply.clone().from(frontend);
    w.becomes(
        Hook::TC_UPLINK_OUT,
        Device::Uplink,
        &reply,
        Verdict::Pass,
        &sent,
    )?;
    let (router, error) = (w.at.tunnelled.of(w.family), Error::TooBig(1300));
    let came = icmp_error(
        w.inbound(),
        router,
        frontend.ip(),
        error,
        &sent.quotation(8),
    );
    let shown = restored(&reply, &sent);
    let goes = icmp_error(w.inbound(), router, backend.ip(), error, &shown);
    w.expect(TC, Device::Uplink, &came, Verdict::Pass, Some(&goes), &[])
}
