//! Where an agent takes an uplink's packets when it is not told: on a veth as it comes, what XDP sends back is lost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::{Family, Pair};
use testbed::ask::dial;
use testbed::cluster::{Cluster, Vip};
use testbed::netns::Netns;
use testbed::patience::eventually;
use testbed::runner::CannotRun;
use testbed::sockets::Protocol;
use testbed::sockets::http::fetch;
use testbed::topology::{Plan, Segments};

use crate::site::{deciding, doctor, has_said, never_fails, node_port, row, serves};

const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

pub fn rows() -> Vec<Trial> {
    vec![
        row(
            "xdp auto: a veth as it comes serves remote backends",
            Plan::default(),
            |cluster| remote_backends(cluster, "eth0"),
        ),
        row(
            "xdp auto: a veth that the agent finds serves remote backends behind a router",
            Plan {
                segments: Segments::PerNode,
                ..Plan::default()
            },
            |cluster| remote_backends(cluster, "auto"),
        ),
        row(
            "xdp native: doctor says that a veth may lose what is sent back",
            Plan::default(),
            native_is_told,
        ),
        row(
            "xdp auto: TC serves a device from the moment that its driver loses frames",
            Plan::default(),
            given_up,
        ),
        row(
            "stacks: TC serves a NIC whose VLANs have lost their tags before XDP",
            Plan::default(),
            tags_taken_off,
        ),
    ]
}

fn remote_backends(cluster: &mut Cluster, uplinks: &str) -> Result<()> {
    let vip = cluster.publish("remote", &[cluster.pod("p2")])?;
    cluster.start_agent(&deciding(cluster).with_uplinks(uplinks))?;
    let clients = [cluster.topology.client(), &cluster.topology.neighbour].map(|one| &one.netns);
    for target in node_port(cluster, &vip) {
        for client in clients {
            never_fails(client, target, 10)?;
        }
    }
    // To the cluster address, by way of the node.
    for family in Family::BOTH {
        never_fails(
            &cluster.topology.client().netns,
            vip.on_cluster_ip(family),
            3,
        )?;
    }
    has_said(cluster, &["eth0", "TC", "veth"])?;
    doctor(cluster.node(1), &["--xdp", "auto"])?.says("eth0", "fallback", &["TC", "veth"])
}

fn native_is_told(cluster: &mut Cluster) -> Result<()> {
    let vip = cluster.publish("remote", &[cluster.pod("p2")])?;
    cluster.start_agent(&deciding(cluster).with_xdp("native"))?;
    let arguments = ["--uplinks", "eth0", "--xdp", "native"];
    let doctor = || doctor(cluster.node(1), &arguments);
    doctor()?.says("eth0", "note", &["native", "veth", "--xdp auto"])?;
    // What is lost is counted by the driver, and told.
    eventually("doctor tells that frames are lost", || {
        lose_frames(cluster, &vip);
        doctor()?.says("eth0", "problem", &["xdp_tx_errors", "--xdp auto"])
    })?;
    // Packets for this node's pods are not sent back.
    let near = cluster.publish("near", &[cluster.pod("p1")])?;
    let client = cluster.topology.client();
    let served = |target| serves(client, target);
    node_port(cluster, &near).into_iter().try_for_each(served)
}

/// Sends a question to the remote backend by each family, and does not wait for long.
fn lose_frames(cluster: &Cluster, vip: &Vip) {
    for target in node_port(cluster, vip) {
        let ask = dial(cluster.topology.client(), Protocol::Udp, target);
        let _ = ask.within(Duration::from_millis(100)).ask();
    }
}

fn given_up(cluster: &mut Cluster) -> Result<()> {
    let vip = cluster.publish("remote", &[cluster.pod("p2")])?;
    // As if the driver were one that is relied on.
    let trusting = ["--xdp-on-software"];
    cluster.start_agent(&deciding(cluster).with(&trusting))?;
    eventually("the agent gives XDP up", || {
        lose_frames(cluster, &vip);
        has_said(
            cluster,
            &["eth0", "xdp_tx_errors", "TC serves it from now on"],
        )
    })?;
    let client = &cluster.topology.client().netns;
    for target in node_port(cluster, &vip) {
        never_fails(client, target, 10)?;
    }
    let metrics = fetch(cluster.node(1).netns(), METRICS, "/metrics")?.body;
    let counted = "portside_xdp_fallbacks_total{device=\"eth0\"} 1\n";
    ensure!(metrics.contains(counted), "{metrics}");
    let arguments = ["--uplinks", "eth0", "--xdp", "auto"];
    let doctor = || doctor(cluster.node(1), &arguments);
    doctor()?.says("eth0", "fallback", &["TC", "xdp_tx_errors"])?;
    // The next agent does not lose any before it knows.
    cluster.kill_agents();
    cluster.start_agent(&deciding(cluster).with(&trusting))?;
    has_said(cluster, &["eth0 without xdp_uplink", "xdp_tx_errors"])?;
    for target in node_port(cluster, &vip) {
        never_fails(client, target, 3)?;
    }
    // Forgotten with everything else.
    cluster.stop_agents();
    testbed::cli::ask(cluster.node(1), &["cleanup"])?;
    doctor()?.says("eth0", "fallback", &["TC: a veth"])
}

/// The VLAN of the uplink, between the node and the router.
const TAGGED: &str = "eth0.7";
const IN_VLAN: [Pair; 2] = [
    Pair::new([198, 51, 100, 11], [0x2001, 0xdb8, 0x78, 0, 0, 0, 0, 11]),
    Pair::new([198, 51, 100, 1], [0x2001, 0xdb8, 0x78, 0, 0, 0, 0, 1]),
];

/// A veth takes tags off, as NICs do, and leaves them beside the packet.
fn tags_taken_off(cluster: &mut Cluster) -> Result<()> {
    let vip = cluster.publish("remote", &[cluster.pod("p2")])?;
    let (node, router) = (cluster.node(1), &cluster.topology.router.netns);
    let [at_node, at_router] = IN_VLAN;
    let vlan = |netns: &Netns, below: &str, device: &str, own: Pair| {
        netns.ip(&format!(
            "link add link {below} name {device} type vlan id 7\n\
             link set {device} up\n\
             addr add {}/24 dev {device}\n\
             addr add {}/64 dev {device} nodad\n",
            own.v4, own.v6
        ))
    };
    if vlan(node.netns(), "eth0", TAGGED, at_node).is_err() {
        return Err(CannotRun("needs vlan").into());
    }
    vlan(router, node.name(), "tagged", at_router)?;
    // As if the driver were one that is relied on.
    let trusting = ["--xdp-on-software"];
    cluster.start_agent(&deciding(cluster).with_uplinks("auto").with(&trusting))?;
    let said = [
        "eth0 without xdp_uplink",
        TAGGED,
        "ethtool -K eth0 rxvlan off",
    ];
    has_said(cluster, &said)?;
    for family in Family::BOTH {
        let target = SocketAddr::new(at_node.of(family), vip.node_port);
        never_fails(router, target, 5)?;
    }
    for target in node_port(cluster, &vip) {
        never_fails(&cluster.topology.client().netns, target, 3)?;
    }
    let has_xdp = |wanted: bool| {
        let mut command = node.netns().command("ip")?;
        let output = command.args(["link", "show", "dev", "eth0"]).output()?;
        let shown = String::from_utf8(output.stdout)?;
        ensure!(shown.contains("prog/xdp") == wanted, "{shown}");
        Ok(())
    };
    has_xdp(false)?;
    doctor(node, &[])?.says("eth0", "fallback", &["TC: eth0 takes the tags", TAGGED])?;
    // XDP comes back when there is no such VLAN any more, and goes when there is one.
    node.netns().ip(&format!("link del {TAGGED}\n"))?;
    eventually("XDP serves the uplink alone", || has_xdp(true))?;
    vlan(node.netns(), "eth0", TAGGED, at_node)?;
    eventually("TC serves the uplink with a VLAN", || has_xdp(false))?;
    cluster.node(1).host.keep_tags()?;
    eventually("XDP serves the uplink whose tags stay", || has_xdp(true))?;
    cluster.node(1).host.take_tags_off()?;
    // Who insists on XDP has it, and is told.
    cluster.stop_agents();
    cluster.start_agent(&deciding(cluster).with_xdp("native"))?;
    has_said(cluster, &["eth0 takes the tags", "--xdp auto would use TC"])?;
    let arguments = ["--uplinks", "eth0", "--xdp", "native"];
    doctor(node, &arguments)?.says("eth0", "problem", &["attached", "takes the tags"])
}
