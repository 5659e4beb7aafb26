//! Connections that kube-proxy's NAT translates, while Portside starts and kube-proxy's rules go.

use anyhow::{Result, anyhow, bail, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::answer::Answer;
use testbed::cluster::{Cluster, PORT};
use testbed::runner::{self, no_agent};
use testbed::sockets::Protocol;
use testbed::sockets::client::{Conversation, Dial, unique_content};
use testbed::topology::Plan;
use testbed::xdp;

use crate::cleanup::cleanup;

/// More than any buffer on the way holds.
const LENGTH: usize = 1 << 20;

pub fn row(uplink: Uplink) -> Trial {
    let name = match uplink {
        Uplink::Xdp => "xdp: connections of kube-proxy outlive the switch",
        Uplink::Tc => "tc: connections of kube-proxy outlive the switch",
    };
    runner::row(name, no_agent(), move || switch(uplink))
}

fn switch(uplink: Uplink) -> Result<()> {
    let cluster = Cluster::build(&Plan::default(), uplink)?;
    let outlived = match uplink {
        Uplink::Xdp => xdp::takes(&cluster, || outlive(&cluster)),
        Uplink::Tc => outlive(&cluster),
    };
    outlived.map_err(|error| error.context(cluster.logs()))
}

fn outlive(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let pods = [cluster.pod("p1"), cluster.pod("p2")];
    // The second pod is on the other node: its answers come back only because the node's address is the source.
    let vip = cluster.publish("taken-over", &pods)?;
    let mut tables = String::new();
    for family in Family::BOTH {
        let ip = if family == Family::V4 { "ip" } else { "ip6" };
        let [local, remote] = pods.map(|pod| std::net::SocketAddr::new(pod.ip.of(family), PORT));
        let port = vip.node_port;
        tables += &format!(
            "table {ip} kube-proxy {{
                chain prerouting {{
                    type nat hook prerouting priority dstnat;
                    fib daddr type local tcp dport {port} mark set 0x4000 dnat to numgen inc mod 2 map {{ 0 : {} . {PORT}, 1 : {} . {PORT} }}
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat;
                    mark & 0x4000 != 0 masquerade
                }}
            }}\n",
            local.ip(), remote.ip()
        );
    }
    node.netns().batch("nft", &["-f", "-"], &tables)?;
    let client = cluster.topology.client();
    let mut connections = Vec::new();
    for family in Family::BOTH {
        // One to each pod.
        for _ in pods {
            let dial = Dial::new(&client.netns, Protocol::Tcp, vip.on_node(node, family));
            let opened = dial
                .open()
                .map_err(|answer| anyhow!("{family:?}: {answer}"))?;
            connections.push(opened);
        }
    }
    go_on(&mut connections, "through kube-proxy")?;
    cluster.start_first_agent()?;
    go_on(&mut connections, "with Portside beside it")?;
    let said = cleanup(node.netns())?;
    ensure!(said.contains("nft: removed table ip kube-proxy"), "{said}");
    go_on(&mut connections, "without kube-proxy's rules")?;
    // What is new is served by Portside alone.
    for family in Family::BOTH {
        let answer = Dial::new(&client.netns, Protocol::Tcp, vip.on_node(node, family)).ask();
        ensure!(answer.who().is_some(), "a new connection: {answer}");
    }
    Ok(())
}

/// Every byte that is sent comes back, on every connection.
fn go_on(connections: &mut [Conversation], when: &str) -> Result<()> {
    for (number, connection) in connections.iter_mut().enumerate() {
        let answer: Answer = connection.echo(&unique_content(LENGTH));
        if answer.who().is_none() {
            bail!("connection {number}, {when}: {answer}");
        }
    }
    Ok(())
}
