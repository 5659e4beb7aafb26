//! Several NICs and routing by rules, as AWS's CNI has it: pods have addresses of a second NIC's network, whose routes are in
//! a table of their own, and that network takes no other sources. A reply leaves by the NIC that its connection came by.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::address::{self, Family, Pair};
use testbed::agent::Uplink;
use testbed::cluster::{Cluster, PORT, Vip};
use testbed::masquerade;
use testbed::patience::eventually;
use testbed::runner::{self, no_agent, no_testbed};
use testbed::sockets::echo::EchoServer;
use testbed::topology::{Plan, Pod};
use testbed::wire::Capture;

use crate::nft;
use crate::site::never_fails;

/// The second NIC, and the router's end of its link.
const NIC: &str = "eth1";
const ROUTER_END: &str = "nic1";
/// The network of the second NIC.
const SEGMENT: u8 = 9;
const ROUTER: u8 = 1;
const NODE: u8 = 11;
const POD: u8 = 33;
const NETWORK_V4: &str = "198.18.9.0/24";
const NETWORK_V6: &str = "2001:db8:2:9::/64";
/// Of the second NIC's routes.
const TABLE: u8 = 2;

pub fn rows() -> Vec<Trial> {
    let rules = (!masquerade::available()).then_some(masquerade::MISSING);
    let mut rows = vec![runner::row(
        "rules: a reply leaves by the NIC of its connection",
        no_testbed().or(rules),
        move || {
            let site = Site::build(Uplink::Tc)?;
            for (vip, pod) in [
                (&site.second, &site.pod),
                (&site.first, site.cluster.pod("p1")),
            ] {
                nft::install(site.cluster.node(1), vip, &[pod])?;
                site.serves(vip)?;
                site.cluster
                    .node(1)
                    .netns()
                    .batch("nft", &["-f", "-"], nft::REMOVAL)?;
            }
            Ok(())
        },
    )];
    for (name, uplink) in [("xdp", Uplink::Xdp), ("tc", Uplink::Tc)] {
        let name = format!("{name}: a reply leaves by the NIC of its connection");
        rows.push(runner::row(name, no_agent().or(rules), move || {
            let site = Site::build(uplink)?;
            let served = || {
                site.cluster.start_first_agent()?;
                site.serves(&site.first)?;
                site.serves(&site.second)
            };
            served().map_err(|error| error.context(site.cluster.logs()))
        }));
    }
    rows
}

struct Site {
    _server: EchoServer,
    /// With an address of the second NIC's network.
    pod: Pod,
    /// Services on a pod of the first NIC's network, and on that of the second's.
    first: Vip,
    second: Vip,
    cluster: Cluster,
}

impl Site {
    fn build(uplink: Uplink) -> Result<Self> {
        let mut cluster = Cluster::build(&Plan::default(), uplink)?;
        cluster.topology.nodes[0].add_uplink(NIC);
        let pod = connect(&cluster)?;
        Ok(Self {
            _server: EchoServer::start(&pod, PORT)?,
            first: cluster.publish("first", &[cluster.pod("p1")])?,
            second: cluster.publish("second", &[&pod])?,
            pod,
            cluster,
        })
    }

    /// By the address of the first NIC, for each client; nothing of it is to be seen at the second one.
    fn serves(&self, vip: &Vip) -> Result<()> {
        let topology = &self.cluster.topology;
        let node = self.cluster.node(1);
        let at_second = Capture::start(&topology.router.netns, ROUTER_END)?;
        for family in Family::BOTH {
            let target = vip.on_node(node, family);
            never_fails(&topology.client().netns, target, 3)?;
            never_fails(&topology.neighbour.netns, target, 3)?;
        }
        // What the second NIC shows at all.
        for family in Family::BOTH {
            let target = SocketAddr::new(self.pod.ip.of(family), PORT);
            never_fails(&topology.client().netns, target, 1)
                .context("the pod itself, by the second NIC")?;
        }
        let ours = |port| vip.node_port == port;
        eventually("what passes the second NIC is seen", || {
            let packets = at_second.packets();
            let straight = packets.iter().filter(|seen| seen.has_port(PORT)).count();
            ensure!(straight > 0, "{} packets", packets.len());
            Ok(())
        })?;
        let packets = at_second.packets();
        let strayed = packets
            .iter()
            .find(|seen| seen.from().is_some_and(|from| ours(from.port())));
        ensure!(strayed.is_none(), "by the second NIC: {strayed:?}");
        // The pod of the second network, by that NIC's own address.
        if vip.name == self.second.name {
            for family in Family::BOTH {
                let own = address::on_segment(SEGMENT, NODE).of(family);
                let target = SocketAddr::new(own, vip.node_port);
                never_fails(&topology.client().netns, target, 3)
                    .context("by the second NIC's address")?;
            }
        }
        Ok(())
    }
}

/// Gives the first node its second NIC, with a pod of that network.
fn connect(cluster: &Cluster) -> Result<Pod> {
    let (node, router) = (cluster.node(1), &cluster.topology.router.netns);
    let [at_router, at_node, pod] =
        [ROUTER, NODE, POD].map(|number| address::on_segment(SEGMENT, number));
    let Pair { v4, v6 } = at_router;
    router.ip(&format!(
        "link add {ROUTER_END} type veth peer name {NIC} netns {}\n\
         link set {ROUTER_END} up\n\
         addr add {v4}/24 dev {ROUTER_END}\n\
         addr add {v6}/64 dev {ROUTER_END} nodad\n\
         route add {} via {}\n\
         route add {} via {}\n",
        node.netns().name(),
        pod.v4,
        at_node.v4,
        pod.v6,
        at_node.v6
    ))?;
    // The provider's check: a network takes its own sources only.
    router.batch(
        "nft",
        &["-f", "-"],
        &format!(
            "table ip provider {{ chain forward {{ type filter hook forward priority 0; \
             iifname {ROUTER_END} ip saddr != {NETWORK_V4} drop; }}; }}\n\
             table ip6 provider {{ chain forward {{ type filter hook forward priority 0; \
             iifname {ROUTER_END} ip6 saddr != {NETWORK_V6} drop; }}; }}\n"
        ),
    )?;
    let Pair { v4, v6 } = at_node;
    node.netns().ip(&format!(
        "link set {NIC} up\n\
         addr add {v4}/24 dev {NIC}\n\
         addr add {v6}/64 dev {NIC} nodad\n\
         route add default via {} dev {NIC} table {TABLE}\n\
         route add default via {} dev {NIC} table {TABLE}\n",
        at_router.v4, at_router.v6
    ))?;
    // As this CNI sets it: the way back to a client is by the first NIC.
    for device in ["eth0", NIC] {
        let key = format!("net/ipv4/conf/{device}/rp_filter");
        node.netns().sysctl(&key, "2")?;
    }
    let pod = node.add_pod_at("p3", pod)?;
    for family in Family::BOTH {
        let ip = pod.ip.of(family);
        let version = if family == Family::V4 { "-4" } else { "-6" };
        let rules = format!(
            "rule add to {ip} lookup main prio 512\n\
             rule add fwmark 0x80/0x80 lookup main prio 1024\n\
             rule add from {ip} lookup {TABLE} prio 1536\n"
        );
        node.netns()
            .batch("ip", &[version, "-batch", "-"], &rules)?;
    }
    // What came by the first NIC for the node is remembered, and its replies get the mark.
    let marks: String = ["ip", "ip6"]
        .map(|ip| {
            format!(
                "table {ip} cni {{ chain prerouting {{ type filter hook prerouting priority mangle; \
                 iifname eth0 fib daddr . iif type local ct mark set ct mark or 0x80; \
                 iifname \"veth*\" meta mark set ct mark and 0x80; }}; }}\n"
            )
        })
        .concat();
    node.netns().batch("nft", &["-f", "-"], &marks)?;
    Ok(pod)
}
