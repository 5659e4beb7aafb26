//! What a node may have its addresses on in place of its NIC: each row asks by rules like kube-proxy's first, and then by an
//! agent that finds its uplink. Machines of `cargo xtask vm-test` run these rows of this suite, as their kernels have the devices.

use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::Result;
use libtest_mimic::Trial;
use testbed::address::{self, Family, Mac, Pair};
use testbed::cluster::Cluster;
use testbed::netns::Netns;
use testbed::patience::is_slow;
use testbed::runner::CannotRun;
use testbed::topology::{Node, Plan};

use crate::devices::Services;
use crate::nft;
use crate::site::{deciding, doctor, never_fails, node_port, row};
use crate::team;

/// The tag of those that have one.
const TAG: u16 = 7;

pub fn rows() -> Vec<Trial> {
    let mut rows: Vec<_> = STACKS
        .iter()
        .map(|stack| {
            row(
                format!("stacks: the node's address on {}", stack.name),
                Plan::default(),
                |cluster| stacked(cluster, stack),
            )
        })
        .collect();
    rows.push(row(
        "stacks: the node's NIC in a VRF",
        Plan::default(),
        in_a_vrf,
    ));
    rows
}

/// A device `up0` with the node's addresses, made of `eth0`.
struct Stack {
    name: &'static str,
    /// What the kernel may not have.
    missing: &'static str,
    /// Makes the devices; `MAC` is an address of one's own.
    add: &'static str,
    /// The mode of `up0`, where that is a team.
    team_mode: Option<&'static str>,
    /// Puts them together.
    join: &'static str,
    /// What the router sends on this node's link is under the tag.
    tagged: bool,
    /// Frames for pods come by eth0 itself, and the way back is by `up0`: eth0 must not ask where they come from, as it would, having no
    /// address, even loosely (`fib_validate_source`).
    unasked: bool,
    /// The devices below it, and what doctor says of each besides.
    below: &'static [(&'static str, &'static [&'static str])],
}

static STACKS: [Stack; 6] = [
    Stack {
        name: "a macvlan of its NIC",
        missing: "needs macvlan",
        add: "link add link eth0 name up0 address MAC type macvlan mode bridge\n",
        team_mode: None,
        join: "",
        tagged: false,
        unasked: false,
        below: &[("eth0", &["up0 on it"])],
    },
    Stack {
        name: "an ipvlan of its NIC",
        missing: "needs ipvlan",
        add: "link add link eth0 name up0 type ipvlan mode l2\n",
        team_mode: None,
        join: "",
        tagged: false,
        unasked: true,
        below: &[("eth0", &["up0 on it"])],
    },
    Stack {
        name: "a VLAN of its NIC",
        missing: "needs vlan",
        add: "link add link eth0 name up0 address MAC type vlan id 7\n",
        team_mode: None,
        join: "",
        tagged: true,
        unasked: false,
        below: &[("eth0", &["up0 on it"])],
    },
    Stack {
        name: "a bond of its NIC",
        missing: "needs bonding",
        add: "link add up0 type bond mode active-backup\n",
        team_mode: None,
        join: "link set eth0 down\nlink set eth0 master up0\n",
        tagged: false,
        unasked: false,
        below: &[("eth0", &["a port of up0"])],
    },
    Stack {
        name: "a team of its NIC",
        missing: "needs team",
        add: "link add up0 address MAC type team\n",
        team_mode: Some("roundrobin"),
        join: "link set eth0 down\nlink set eth0 master up0\n",
        tagged: false,
        unasked: false,
        below: &[("eth0", &["a port of up0"])],
    },
    Stack {
        name: "a VLAN of a bond of its NIC",
        missing: "needs bonding and vlan",
        add: "link add both type bond mode active-backup\n\
              link add link both name up0 type vlan id 7\n",
        team_mode: None,
        join: "link set eth0 down\nlink set eth0 master both\nlink set both up\n",
        tagged: true,
        unasked: false,
        below: &[("both", &["up0 on it"]), ("eth0", &["a port of both"])],
    },
];

/// What the node says to itself to have its addresses and routes on `device` in place of eth0.
pub fn move_addresses(node: &Node, device: &str) -> String {
    let Pair { v4, v6 } = node.host.ip;
    let gateway = address::on_segment(0, 1);
    let (pods, other) = (address::pod(2, 0), address::on_segment(0, 12));
    format!(
        "addr flush dev eth0 scope global\n\
         addr add {v4}/24 dev {device}\n\
         addr add {v6}/64 dev {device} nodad\n\
         route replace default via {}\n\
         route replace default via {}\n\
         route replace {}/24 via {}\n\
         route replace {}/64 via {}\n",
        gateway.v4, gateway.v6, pods.v4, other.v4, pods.v6, other.v6
    )
}

/// Adds devices, unless the kernel has none of the kind.
fn add(netns: &Netns, lines: &str, missing: &'static str) -> Result<()> {
    let lines = lines.replace("MAC", &Mac::fresh().to_string());
    netns.ip(&lines).map_err(|_| CannotRun(missing).into())
}

fn stacked(cluster: &mut Cluster, stack: &Stack) -> Result<()> {
    let node = cluster.node(1);
    add(node.netns(), stack.add, stack.missing)?;
    if let Some(mode) = stack.team_mode {
        team::set_mode(node.netns(), "up0", mode)?;
    }
    let up = format!("{}link set up0 up\n", stack.join);
    node.netns().ip(&up)?;
    if stack.tagged {
        let (name, router) = (node.name(), &cluster.topology.router.netns);
        router.ip(&format!(
            "link set {name} nomaster\n\
             link add link {name} name tagged type vlan id {TAG}\n\
             link set tagged master seg0 up\n"
        ))?;
    }
    node.netns().ip(&move_addresses(node, "up0"))?;
    if stack.unasked {
        for device in ["all", "eth0"] {
            let key = format!("net/ipv4/conf/{device}/rp_filter");
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
    let report = doctor(cluster.node(1), &[])?;
    report.says("up0", "fallback", &["uplink", "default route"])?;
    for (device, words) in stack.below {
        report.says(device, "ok", &[&["plain device"], *words].concat())?;
    }
    // Each report loads all programs, which an emulated machine is slow at: there, the tallest stack is asked.
    if let Some((device, _)) = stack.below.last()
        && (stack.below.len() > 1 || !is_slow())
    {
        doctor(cluster.node(1), &["--uplinks", device])?.says(device, "problem", &["name up0"])?;
    }
    Ok(())
}

/// As a node with a network of its own for management: the VRF's table has the NIC's routes, and those of the pods are in
/// both. The node's own processes are outside of it, and ask nothing.
fn in_a_vrf(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(1);
    add(
        node.netns(),
        "link add vrf0 type vrf table 10\n",
        "needs VRFs",
    )?;
    let Pair { v4, v6 } = node.host.ip;
    let gateway = address::on_segment(0, 1);
    let (pods, other) = (address::pod(2, 0), address::on_segment(0, 12));
    let mut lines = format!(
        "link set vrf0 up\n\
         link set eth0 master vrf0\n\
         addr flush dev eth0 scope global\n\
         addr add {v4}/24 dev eth0\n\
         addr add {v6}/64 dev eth0 nodad\n\
         route add {}/24 via {} dev eth0 table 10\n\
         route add {}/64 via {} dev eth0 table 10\n",
        pods.v4, other.v4, pods.v6, other.v6
    );
    for (table, onlink) in [("10", ""), ("main", " onlink")] {
        for gateway in Family::BOTH.map(|family| gateway.of(family)) {
            let _ = writeln!(
                lines,
                "route replace default via {gateway} dev eth0 table {table}{onlink}"
            );
        }
    }
    for pod in ["p1", "p1b", "c1"].map(|name| cluster.pod(name)) {
        for family in Family::BOTH {
            let (ip, device) = (pod.ip.of(family), &pod.host_interface);
            let _ = writeln!(lines, "route add {ip} dev {device} table 10");
        }
    }
    node.netns().ip(&lines)?;
    let services = Services::publish(cluster)?;
    let topology = &cluster.topology;
    let ask = |vip: &_, count| -> Result<()> {
        for target in node_port(cluster, vip) {
            never_fails(&topology.client().netns, target, count)?;
            never_fails(&topology.neighbour.netns, target, count)?;
        }
        Ok(())
    };
    services.by_rules_at(cluster, nft::Local::Addresses(node.host.ip), |vip| {
        ask(vip, 2)
    })?;
    cluster.start_agent(&deciding(cluster).with_uplinks("auto"))?;
    for vip in [&services.near, &services.far] {
        ask(vip, 3)?;
        for family in Family::BOTH {
            let target: SocketAddr = vip.on_cluster_ip(family);
            never_fails(&cluster.pod("c1").netns, target, 3)?;
        }
    }
    let report = doctor(node, &[])?;
    report.says("eth0", "fallback", &["uplink", "default route"])?;
    report.says(
        "vrf0",
        "ok",
        &["plain device", "whose ports have the addresses"],
    )
}
