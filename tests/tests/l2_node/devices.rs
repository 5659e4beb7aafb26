//! Devices as nodes have them, found by the agent itself: each row asks by rules like kube-proxy's first, and then by an
//! agent.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::address::{self, Family, Pair};
use testbed::cluster::{Cluster, Vip};
use testbed::masquerade;
use testbed::netns::Netns;
use testbed::runner::CannotRun;
use testbed::topology::Plan;

use crate::nft::{self, Local};
use crate::site::{deciding, doctor, has_said, never_fails, node_port, row};
use crate::stacks::move_addresses;

pub fn rows() -> Vec<Trial> {
    vec![
        row(
            "devices: an uplink that is a port of a bridge with the address",
            Plan::default(),
            bridge,
        ),
        row(
            "devices: a second NIC without a default route, a veth as the first",
            Plan::default(),
            second_nic,
        ),
        row(
            "devices: what each is taken for follows the routes while the agent runs",
            Plan::default(),
            routes_change,
        ),
    ]
}

/// Services on this node's pod and on the other's.
pub struct Services {
    pub near: Vip,
    pub far: Vip,
}

impl Services {
    pub fn publish(cluster: &Cluster) -> Result<Self> {
        Ok(Self {
            near: cluster.publish("near", &[cluster.pod("p1")])?,
            far: cluster.publish("far", &[cluster.pod("p2")])?,
        })
    }

    /// From outside, from the node's own segment, from a pod and from the node: all are served.
    pub fn serve_everybody(&self, cluster: &Cluster) -> Result<()> {
        let topology = &cluster.topology;
        for vip in [&self.near, &self.far] {
            for target in node_port(cluster, vip) {
                never_fails(&topology.client().netns, target, 3)?;
                never_fails(&topology.neighbour.netns, target, 3)?;
            }
            for family in Family::BOTH {
                let target = vip.on_cluster_ip(family);
                never_fails(&cluster.pod("c1").netns, target, 3)?;
                never_fails(cluster.node(1).netns(), target, 3)?;
            }
        }
        Ok(())
    }

    /// The same by rules, one service after the other.
    pub fn by_rules(&self, cluster: &Cluster, ask: impl Fn(&Vip) -> Result<()>) -> Result<()> {
        self.by_rules_at(cluster, Local::Fib, ask)
    }

    /// The same by rules that tell the node's addresses in this way.
    pub fn by_rules_at(
        &self,
        cluster: &Cluster,
        local: Local,
        ask: impl Fn(&Vip) -> Result<()>,
    ) -> Result<()> {
        if !masquerade::available() {
            return Err(CannotRun(masquerade::MISSING).into());
        }
        let node = cluster.node(1);
        for (vip, pod) in [(&self.near, "p1"), (&self.far, "p2")] {
            nft::install_at(node, local, vip, &[cluster.pod(pod)])?;
            ask(vip).context("by rules like kube-proxy's")?;
            nft::clean_up(node)?;
        }
        Ok(())
    }
}

/// As a node with virtual machines has it.
fn bridge(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(1);
    let mac = node.host.mac;
    let mut lines = format!(
        "link add br-ext address {mac} type bridge mcast_snooping 0\n\
         link set eth0 master br-ext\n\
         link set br-ext up\n"
    );
    lines += &move_addresses(node, "br-ext");
    node.netns().ip(&lines)?;
    // Where this is loaded, rules of IP see bridged frames, too, and do not know where they go.
    for family in ["ip", "ip6"] {
        let key = format!("net/bridge/bridge-nf-call-{family}tables");
        if node
            .netns()
            .run(|| Path::new("/proc/sys").join(&key).exists())
        {
            node.netns().sysctl(&key, "0")?;
        }
    }
    let services = Services::publish(cluster)?;
    services.by_rules(cluster, |vip| {
        node_port(cluster, vip)
            .into_iter()
            .try_for_each(|target| never_fails(&cluster.topology.client().netns, target, 2))
    })?;
    cluster.start_agent(&deciding(cluster).with_uplinks("auto"))?;
    services.serve_everybody(cluster)?;
    has_said(cluster, &["br-ext", "uplink"])?;
    let report = doctor(cluster.node(1), &[])?;
    report.says("br-ext", "fallback", &["uplink", "eth0", "default route"])?;
    report.says("eth0", "ok", &["plain device", "a port of br-ext"])?;
    // To name the port says what to name in its place.
    cluster.stop_agents();
    cluster.start_agent(&deciding(cluster).with_uplinks("eth0"))?;
    has_said(cluster, &["eth0 is a port of br-ext", "name br-ext"])?;
    doctor(cluster.node(1), &["--uplinks", "eth0"])?.says("eth0", "problem", &["name br-ext"])
}

/// A network of its own between the first node and a client, where the node has an address and no route beyond.
struct Second {
    client: Netns,
    node: Pair,
}

impl Second {
    fn connect(cluster: &Cluster) -> Result<Self> {
        let client = Netns::create(cluster.topology.run.netns_name("second"))?;
        let (node, own) = (address::on_segment(9, 11), address::on_segment(9, 50));
        let mut lines = format!(
            "link add eth9 type veth peer name eth0 netns {}\nlink set eth9 up\n",
            client.name()
        );
        let _ = write!(
            lines,
            "addr add {}/24 dev eth9\naddr add {}/64 dev eth9 nodad\n",
            node.v4, node.v6
        );
        cluster.node(1).netns().ip(&lines)?;
        client.ip(&format!(
            "link set eth0 up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n",
            own.v4, own.v6
        ))?;
        Ok(Self { client, node })
    }

    fn is_served_soon(&self, vip: &Vip) -> Result<()> {
        testbed::patience::eventually("the second NIC is served", || self.is_served(vip, 1))
    }

    fn is_served(&self, vip: &Vip, count: usize) -> Result<()> {
        Family::BOTH.into_iter().try_for_each(|family| {
            let target = std::net::SocketAddr::new(self.node.of(family), vip.node_port);
            never_fails(&self.client, target, count)
        })
    }
}

fn second_nic(cluster: &mut Cluster) -> Result<()> {
    let second = Second::connect(cluster)?;
    let services = Services::publish(cluster)?;
    services.by_rules(cluster, |vip| second.is_served(vip, 2))?;
    cluster.start_agent(&deciding(cluster).with_uplinks("auto"))?;
    for vip in [&services.near, &services.far] {
        second.is_served(vip, 5)?;
    }
    services.serve_everybody(cluster)?;
    let report = doctor(cluster.node(1), &[])?;
    report.says("eth9", "fallback", &["uplink", "a veth with the subnet of"])?;
    report.says(
        "eth0",
        "fallback",
        &["uplink", "a veth with the default route"],
    )?;
    let pods = ["p1", "p1b", "c1"].map(|name| cluster.pod(name).host_interface.as_str());
    report.says("pods' interfaces", "ok", &pods)
}

/// The agent runs when the second NIC comes, before it has an address.
fn routes_change(cluster: &mut Cluster) -> Result<()> {
    let services = Services::publish(cluster)?;
    cluster.start_agent(&deciding(cluster).with_uplinks("auto"))?;
    let second = Second::connect(cluster)?;
    testbed::patience::eventually("the second NIC is found", || {
        has_said(cluster, &["eth9", "uplink"])
    })?;
    for vip in [&services.near, &services.far] {
        // What is found is said before the programs are there.
        second.is_served_soon(vip)?;
        second.is_served(vip, 3)?;
    }
    // With its addresses it loses what made it a NIC.
    cluster
        .node(1)
        .netns()
        .ip("addr flush dev eth9 scope global\n")?;
    testbed::patience::eventually("the second NIC is one no more", || {
        let agents = cluster.agents();
        let lines = agents[0].lines();
        let last = lines.iter().rfind(|line| line.contains("eth9"));
        ensure!(
            last.is_some_and(|line| line.contains("workload")),
            "{last:?}"
        );
        Ok(())
    })
}
