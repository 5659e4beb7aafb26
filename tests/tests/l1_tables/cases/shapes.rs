//! Packets of unusual shape: options, tags, fragments, no checksum, cut off, not ours.

use anyhow::Result;
use proxy_common::edge::hook::Hook;
use proxy_common::reason::Reason;
use testbed::sockets::Protocol;

use super::Case;
use crate::frame::{ETHERNET, Frame};
use crate::node::Device;
use crate::world::{Verdict, World};

const TC: Hook = Hook::TC_UPLINK_IN;

pub const CASES: &[(&str, Case)] = &[
    ("options_and_extension_headers", options),
    ("a_vlan_tag_passes", vlan),
    ("fragments_in_order", fragments),
    ("a_later_fragment_first", late_fragment),
    ("not_for_a_service", stranger),
    ("cut_off", cut_off),
    (
        "without_a_whole_transport_header",
        no_whole_transport_header,
    ),
    ("malformed", malformed),
];

pub const CASES_OF_UDP: &[(&str, Case)] = &[("without_a_udp_checksum", no_checksum)];

fn opening(w: &World) -> Frame {
    w.opening(w.inbound(), w.client(), w.node_port())
}

fn options(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let ask = Frame {
        options: true,
        ..opening(w)
    };
    let sent = ask.clone().to(w.backend(w.at.pod_a));
    for hook in w.ingress() {
        w.becomes(hook, Device::Uplink, &ask, Verdict::Pass, &sent)?;
    }
    Ok(())
}

fn vlan(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let ask = Frame {
        vlan: true,
        ..opening(w)
    };
    for hook in w.ingress() {
        w.untouched(hook, Device::Uplink, &ask.bytes(), &[])?;
    }
    Ok(())
}

fn fragments(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let ask = opening(w);
    let sent = ask.clone().to(w.backend(w.at.pod_a));
    if w.protocol == Protocol::Sctp {
        // Its checksum cannot follow a change of the ports where the length is not to be seen.
        let [first, _] = ask.fragments();
        return w.expect(
            TC,
            Device::Uplink,
            &first,
            Verdict::Drop,
            None,
            &[Reason::EditFailed],
        );
    }
    for (part, expected) in ask.fragments().iter().zip(sent.fragments()) {
        w.left_to_tc(part)?;
        w.expect(
            TC,
            Device::Uplink,
            part,
            Verdict::Pass,
            Some(&expected),
            &[],
        )?;
    }
    Ok(())
}

/// Its ports are not to be seen: it is held until the first one comes, which has it come in anew.
fn late_fragment(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let ask = w.opening(w.inbound(), w.client(), w.cluster_ip());
    for ask in [&opening(w), &ask] {
        let [first, later] = ask.fragments();
        w.expect(TC, Device::Uplink, &later, Verdict::Drop, None, &[])?;
        w.expect(TC, Device::Uplink, &first, Verdict::Send, Some(&first), &[])?;
    }
    if w.protocol == Protocol::Sctp {
        return Ok(());
    }
    let came = ask.fragments();
    let sent = ask.to(w.backend(w.at.pod_a)).fragments();
    for (came, sent) in came.iter().zip(&sent) {
        w.expect(TC, Device::Uplink, came, Verdict::Pass, Some(sent), &[])?;
    }
    Ok(())
}

fn no_checksum(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let ask = Frame {
        no_checksum: true,
        ..opening(w)
    };
    let sent = ask.clone().to(w.backend(w.at.pod_a));
    for hook in w.ingress() {
        w.becomes(hook, Device::Uplink, &ask, Verdict::Pass, &sent)?;
    }
    Ok(())
}

fn stranger(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let (client, node) = (w.client(), w.at.node);
    for (from, to) in [
        (client, w.socket(node, 22)),
        (client, w.backend(w.at.pod_a)),
        (w.backend(w.at.pod_a), client),
    ] {
        let frame = w.opening(w.inbound(), from, to).bytes();
        for hook in w.that_run(Hook::ALL) {
            w.untouched(hook, Device::Uplink, &frame, &[])?;
        }
    }
    Ok(())
}

/// Its IP header tells of more than there is.
fn cut_off(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let ask = opening(w);
    let whole = ask.bytes();
    for len in ETHERNET..whole.len() {
        // The kernel's test run gives TC no packet without a whole IP header.
        let has_ip_header = len >= ask.transport();
        for hook in w.ingress().filter(|hook| hook.is_xdp() || has_ip_header) {
            w.untouched(hook, Device::Uplink, &whole[..len], &[Reason::BadHeader])?;
        }
    }
    Ok(())
}

/// Its IP header tells of no more than there is, which is less than the transport's header.
fn no_whole_transport_header(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    let ask = opening(w);
    for len in 0..ask.transport_len() {
        // SCTP's common header, and no chunk that opens an association.
        let no_chunk = w.protocol == Protocol::Sctp && matches!(len, 12 | 13);
        let reason = match no_chunk {
            true => Reason::MidFlow,
            false => Reason::BadHeader,
        };
        for hook in w.ingress() {
            w.untouched(hook, Device::Uplink, &ask.cut_to(len), &[reason])?;
        }
    }
    Ok(())
}

/// Of another version than the EtherType says; in IPv4 also shorter than a header can be.
fn malformed(w: &mut World) -> Result<()> {
    w.serve(&[w.at.pod_a])?;
    for first in [0x00, 0x75, 0x44] {
        let mut frame = opening(w).bytes();
        frame[ETHERNET] = first;
        for hook in w.ingress() {
            w.untouched(hook, Device::Uplink, &frame, &[Reason::BadHeader])?;
        }
    }
    Ok(())
}
