//! The address by which the node speaks in a client's place.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::{self, Family, Pair};
use testbed::answer::Answer;
use testbed::ask::{dial, open};
use testbed::cluster::{Cluster, Vip};
use testbed::patience::eventually;
use testbed::sockets::Protocol;
use testbed::topology::{Host, Plan};

use crate::nft;
use crate::site::{deciding, never_fails, node_port, row};

/// Where a node has its address that tells it by BGP.
const ON_LOOPBACK: Pair = Pair::new([203, 0, 113, 111], [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 111]);
/// An address that comes and goes with a virtual router.
const FLOATING: Pair = Pair::new([198, 18, 0, 99], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 99]);

pub fn rows() -> Vec<Trial> {
    vec![
        row(
            "sources: the node's address is on lo, and its NIC has none",
            Plan::default(),
            on_loopback,
        ),
        row(
            "sources: a deprecated address is never one, and comes and goes without harm",
            Plan::default(),
            deprecated,
        ),
    ]
}

/// The links of the node's segment, next hops of IPv6 there: a node answers for an address of its loopback device by ARP,
/// and by nothing of IPv6.
fn link_local(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x5e, number.into())
}

fn on_loopback(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(1);
    let Pair { v4, v6 } = ON_LOOPBACK;
    let (router, neighbour) = (&cluster.topology.router.netns, &cluster.topology.neighbour);
    let others = [
        (1, router, "seg0", address::on_segment(0, 1)),
        (12, cluster.node(2).netns(), "eth0", cluster.node(2).host.ip),
        (200, &neighbour.netns, "eth0", neighbour.ip),
    ];
    let own = link_local(11);
    let mut lines = format!(
        "addr flush dev eth0 scope global\n\
         addr add {own}/64 dev eth0 nodad\n\
         addr add {v4}/32 dev lo\n\
         addr add {v6}/128 dev lo nodad\n"
    );
    let pods = address::pod(1, 0);
    // Whoever is on its segment knows where it is, as by BGP.
    for (number, netns, device, ip) in others {
        let via = link_local(number);
        netns.ip(&format!(
            "addr add {via}/64 dev {device} nodad\n\
             route add {v4} dev {device}\n\
             route add {v6} via {own} dev {device}\n\
             route replace {}/24 via {v4} dev {device} onlink\n\
             route replace {}/64 via {own} dev {device}\n",
            pods.v4, pods.v6
        ))?;
        lines += &format!(
            "route replace {} dev eth0 scope link src {v4}\n\
             route replace {} via {via} dev eth0 src {v6}\n",
            ip.v4, ip.v6
        );
    }
    let (gateway, other, pods) = (
        address::on_segment(0, 1).v4,
        cluster.node(2).host.ip.v4,
        address::pod(2, 0),
    );
    lines += &format!(
        "route replace default via {gateway} src {v4}\n\
         route replace {}/24 via {other} src {v4}\n\
         route replace default via {} dev eth0 src {v6}\n\
         route replace {}/64 via {} dev eth0 src {v6}\n",
        pods.v4,
        link_local(1),
        pods.v6,
        link_local(12)
    );
    node.netns().ip(&lines)?;
    let targets = |vip: &Vip| {
        Family::BOTH.map(|family| std::net::SocketAddr::new(ON_LOOPBACK.of(family), vip.node_port))
    };
    let far = cluster.publish("far", &[cluster.pod("p2")])?;
    let near = cluster.publish("near", &[cluster.pod("p1")])?;
    let client = &cluster.topology.client().netns;
    nft::install(node, &far, &[cluster.pod("p2")])?;
    for target in targets(&far) {
        never_fails(client, target, 2)?;
    }
    nft::clean_up(node)?;
    cluster.start_agent(&deciding(cluster).with_uplinks("auto"))?;
    for vip in [&far, &near] {
        for target in targets(vip) {
            never_fails(client, target, 3)?;
            never_fails(&neighbour.netns, target, 3)?;
            never_fails(node.netns(), target, 3)?;
        }
        for family in Family::BOTH {
            never_fails(node.netns(), vip.on_cluster_ip(family), 3)?;
            never_fails(&cluster.pod("c1").netns, vip.on_cluster_ip(family), 3)?;
        }
    }
    // A pod that reaches itself.
    for family in Family::BOTH {
        never_fails(&cluster.pod("p1").netns, near.on_cluster_ip(family), 3)?;
    }
    for target in targets(&far) {
        let answer = dial(cluster.topology.client(), Protocol::Tcp, target).ask();
        seen(&answer, ON_LOOPBACK)?;
    }
    Ok(())
}

/// Demands that the server saw one of these addresses.
fn seen(answer: &Answer, expected: Pair) -> Result<IpAddr> {
    match answer {
        Answer::Ok { client, .. } => {
            let addr = client.ip();
            ensure!(
                expected.contains(addr),
                "the server saw {addr}, not {expected:?}"
            );
            Ok(addr)
        }
        other => anyhow::bail!("no server answered: {other}"),
    }
}

fn deprecated(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(1);
    let far = cluster.publish("far", &[cluster.pod("p2")])?;
    cluster.start_agent(&deciding(cluster).with_uplinks("auto"))?;
    let client: &Host = cluster.topology.client();
    let own = node.host.ip;
    let Pair { v4, v6 } = FLOATING;
    // Its link gets it first, so that it stands before the node's own.
    node.netns().ip(&format!(
        "addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad preferred_lft 0\n"
    ))?;
    let floating = |family: Family| std::net::SocketAddr::new(FLOATING.of(family), far.node_port);
    eventually("the floating address serves node ports", || {
        for family in Family::BOTH {
            let answer = dial(client, Protocol::Tcp, floating(family)).ask();
            ensure!(answer.who().is_some(), "{family}: {answer}");
        }
        Ok(())
    })?;
    let mut kept = Vec::new();
    for target in node_port(cluster, &far) {
        for protocol in Protocol::BOTH {
            let mut connection = open(dial(client, protocol, target))?;
            let seen = seen(&connection.ask(), own)?;
            kept.push((connection, seen));
        }
    }
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            seen(&dial(client, protocol, floating(family)).ask(), own)?;
        }
    }
    // It moves on to another node.
    node.netns().ip(&format!(
        "addr del {v4}/32 dev eth0\naddr del {v6}/128 dev eth0\n"
    ))?;
    let other = cluster.node(2).netns();
    other.ip(&format!(
        "addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad preferred_lft 0\n"
    ))?;
    for _ in 0..10 {
        for (connection, before) in &mut kept {
            let now = seen(&connection.ask(), own)?;
            ensure!(now == *before, "{now} in place of {before}");
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    for target in node_port(cluster, &far) {
        never_fails(&client.netns, target, 3)?;
    }
    Ok(())
}
