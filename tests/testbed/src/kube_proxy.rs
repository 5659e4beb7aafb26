//! What kube-proxy's nftables mode would install for a service of the testbed: the yardstick beside an agent.
//!
//! In: a node, a service's addresses, its pods. Out: a table of the service's own for each family. New connections to the
//! cluster address, the node port and the load balancer's address are translated before routing, those of the node's own
//! on their way out; what comes from outside, and a pod that reaches itself, is masqueraded. As in kube-proxy's
//! rules, forwarded packets that fit no connection are dropped (`ct state invalid`).
//!
//! Where a service has no endpoint there is no rule: kube-proxy's refusal is not of this mode's translation.

use std::fmt::Write as _;

use anyhow::Result;

use crate::address::{Family, POD_RANGE_V4, POD_RANGE_V6, Pair};
use crate::cluster::{PORT, SERVICE_PORT, Vip};
use crate::sockets::Protocol;
use crate::topology::{Node, Pod};

/// The bit of the packet's mark that asks for masquerading; kube-proxy's default.
const MASQUERADE: &str = "0x4000";

/// The name of kube-proxy's own tables.
pub const TABLE: &str = "kube-proxy";

/// Serves the service by rules on `node`, beside those of others.
pub fn install(node: &Node, vip: &Vip, pods: &[&Pod]) -> Result<()> {
    install_as(node, &own_table(vip), vip, pods)
}

/// The same by tables of this name, which are to have no other service.
pub fn install_as(node: &Node, table: &str, vip: &Vip, pods: &[&Pod]) -> Result<()> {
    let addresses: Vec<_> = pods.iter().map(|pod| pod.ip).collect();
    install_at(node, table, vip, &addresses)
}

/// The same with endpoints at these addresses, which need not be pods'.
pub fn install_at(node: &Node, table: &str, vip: &Vip, endpoints: &[Pair]) -> Result<()> {
    let script: String = Family::BOTH
        .iter()
        .map(|family| script(*family, table, vip, endpoints))
        .collect();
    node.netns().batch("nft", &["-f", "-"], &script)
}

/// Leads the service to other pods, at once: one transaction, as kube-proxy writes it.
pub fn replace(node: &Node, vip: &Vip, pods: &[&Pod]) -> Result<()> {
    let table = own_table(vip);
    let addresses: Vec<_> = pods.iter().map(|pod| pod.ip).collect();
    let script: String = Family::BOTH
        .iter()
        .map(|family| {
            let rules = script(*family, &table, vip, &addresses);
            format!("flush table {} {table}\n{rules}", word(*family))
        })
        .collect();
    node.netns().batch("nft", &["-f", "-"], &script)
}

/// Takes the rules of the service away again; the connections that they made stay known to the kernel.
pub fn remove(node: &Node, vip: &Vip) -> Result<()> {
    let table = own_table(vip);
    let script: String = Family::BOTH
        .iter()
        .map(|family| format!("delete table {} {table}\n", word(*family)))
        .collect();
    node.netns().batch("nft", &["-f", "-"], &script)
}

/// The name of the tables that this service has to itself.
pub fn own_table(vip: &Vip) -> String {
    format!("{TABLE}-{}", vip.name)
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn script(family: Family, table: &str, vip: &Vip, endpoints: &[Pair]) -> String {
    let ip = word(family);
    let (pod_range, loopback) = match family {
        Family::V4 => (POD_RANGE_V4, "127.0.0.0/8"),
        Family::V6 => (POD_RANGE_V6, "::1"),
    };
    let mark = format!("meta mark set meta mark or {MASQUERADE}");
    let mut services = String::new();
    for protocol in Protocol::BOTH {
        let to = target(family, endpoints);
        if to.is_empty() {
            continue;
        }
        let service = format!("{protocol} dport {SERVICE_PORT}");
        let cluster_ip = format!("{ip} daddr {} {service}", vip.ip.of(family));
        let node_port = format!(
            "fib daddr type local {ip} daddr != {loopback} {protocol} dport {}",
            vip.node_port
        );
        let mut rules = vec![
            format!("{cluster_ip} {ip} saddr != {pod_range} {mark}"),
            format!("{cluster_ip} dnat to {to}"),
            format!("{node_port} {mark}"),
            format!("{node_port} dnat to {to}"),
        ];
        if let Some(external) = vip.external {
            let external = format!("{ip} daddr {} {service}", external.of(family));
            rules.push(format!("{external} {mark}"));
            rules.push(format!("{external} dnat to {to}"));
        }
        for rule in rules {
            let _ = writeln!(services, "{rule}");
        }
    }
    let hairpins: String = endpoints
        .iter()
        .map(|endpoint| {
            let own = endpoint.of(family);
            format!("{ip} saddr {own} {ip} daddr {own} masquerade\n")
        })
        .collect();
    format!(
        "table {ip} {table} {{\n\
         chain services {{\n{services}}}\n\
         chain prerouting {{\ntype nat hook prerouting priority -100;\njump services\n}}\n\
         chain output {{\ntype nat hook output priority -100;\njump services\n}}\n\
         chain postrouting {{\ntype nat hook postrouting priority 100;\n\
         meta mark and {MASQUERADE} != 0 masquerade\n{hairpins}}}\n\
         chain forward {{\ntype filter hook forward priority 0;\nct state invalid drop\n}}\n\
         }}\n"
    )
}

/// One of the endpoints, as the target of a translation; nothing where there is none.
fn target(family: Family, endpoints: &[Pair]) -> String {
    match endpoints {
        [] => String::new(),
        [only] => match family {
            Family::V4 => format!("{}:{PORT}", only.v4),
            Family::V6 => format!("[{}]:{PORT}", only.v6),
        },
        several => {
            let map: Vec<_> = several
                .iter()
                .enumerate()
                .map(|(number, endpoint)| format!("{number} : {} . {PORT}", endpoint.of(family)))
                .collect();
            format!(
                "numgen random mod {} map {{ {} }}",
                several.len(),
                map.join(", ")
            )
        }
    }
}
