//! Rules that do what those of kube-proxy's nftables mode do: the yardstick.

use std::fmt::Write;

use anyhow::{Result, ensure};
use testbed::address::{Family, Pair};
use testbed::cli;
use testbed::cluster::{PORT, SERVICE_PORT, Vip};
use testbed::topology::{Node, Pod};

/// How rules tell which addresses are the node's.
#[derive(Clone, Copy)]
pub enum Local {
    /// By asking for the kind of the route, which finds no address of a VRF.
    Fib,
    /// By a list.
    Addresses(Pair),
}

/// Serves `vip` on `node` by its rules: what comes from outside gets the node's address.
pub fn install(node: &Node, vip: &Vip, backends: &[&Pod]) -> Result<()> {
    install_at(node, Local::Fib, vip, backends)
}

/// The same on these addresses of the node.
pub fn install_at(node: &Node, local: Local, vip: &Vip, backends: &[&Pod]) -> Result<()> {
    let mut tables = String::new();
    for family in Family::BOTH {
        let ip = match family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        let count = backends.len();
        let choices: Vec<_> = backends
            .iter()
            .enumerate()
            .map(|(number, pod)| format!("{number} : {} . {PORT}", pod.ip.of(family)))
            .collect();
        let choose = format!(
            "dnat to numgen inc mod {count} map {{ {} }}",
            choices.join(", ")
        );
        let local = match local {
            Local::Fib => "fib daddr type local".to_owned(),
            Local::Addresses(own) => format!("{ip} daddr {}", own.of(family)),
        };
        let (port, cluster_ip) = (vip.node_port, vip.ip.of(family));
        let mut rules = String::new();
        for protocol in ["tcp", "udp"] {
            let _ = write!(
                rules,
                "{local} {protocol} dport {port} mark set 0x4000 {choose}\n\
                 {ip} daddr {cluster_ip} {protocol} dport {SERVICE_PORT} {choose}\n"
            );
        }
        let _ = write!(
            tables,
            "table {ip} kube-proxy {{\n\
             chain prerouting {{\n\
             type nat hook prerouting priority dstnat;\n{rules}}}\n\
             chain output {{\n\
             type nat hook output priority -100;\n{rules}}}\n\
             chain postrouting {{\n\
             type nat hook postrouting priority srcnat;\n\
             mark & 0x4000 != 0 masquerade fully-random\n}}\n}}\n"
        );
    }
    node.netns().batch("nft", &["-f", "-"], &tables)
}

/// Takes the rules away as the migration does.
pub fn clean_up(node: &Node) -> Result<()> {
    let said = cli::ask(node, &["cleanup", "--kube-proxy"])?;
    ensure!(said.contains("nft: removed table ip kube-proxy"), "{said}");
    Ok(())
}

/// Takes the rules away where no agent is at hand.
pub const REMOVAL: &str = "delete table ip kube-proxy\ndelete table ip6 kube-proxy\n";
