//! Nodes that reach each other's pods, or everybody, by a device without an Ethernet header: what the matrix does not ask of each
//! kind. On a cluster of its own for each, whose tunnel is narrower than the pods know. Rules like kube-proxy's are asked the same.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::answer::Answer;
use testbed::cluster::{Cluster, PORT, Vip};
use testbed::patience::unless_by_name;
use testbed::sockets::Protocol;
use testbed::sockets::client::unique_content;
use testbed::sockets::echo::EchoServer;
use testbed::topology::{Host, Joined, Plan, Pod, Segments, Tunnel};
use testbed::wire::Capture;

use crate::mtu::{BULK, download, upload};
use crate::world::{World, await_everywhere, dial, open, serve};

/// Narrower than what pods send by themselves.
const NARROW: u16 = 1360;
/// Narrower still; IPv6 takes no less than 1280.
const NARROWER: u16 = 1290;

pub fn rows(uplink: Uplink) -> Vec<Trial> {
    let of_tunnel = |tunnel| {
        let in_machines = match (tunnel, uplink) {
            (Tunnel::Tun | Tunnel::IpIp | Tunnel::Gre | Tunnel::WireGuard, _) => InMachines::All,
            (Tunnel::Vti | Tunnel::Xfrm, Uplink::Tc) => InMachines::First,
            (Tunnel::Vti | Tunnel::Xfrm, Uplink::Xdp) => InMachines::None,
        };
        let mut rows = Rows::on(World::of(uplink, between(tunnel)), tunnel, in_machines);
        rows.add_between();
        rows.add("a client behind it is refused at once", refused);
        let mut trials = rows.trials;
        // XDP has no place on such a device, and what comes by the NIC below it is no service's.
        if uplink == Uplink::Tc {
            let world = World::of(uplink, behind(tunnel));
            let mut rows = Rows::on(world, tunnel, InMachines::None);
            rows.add_behind();
            rows.add(
                "a client of a node behind it is refused at once",
                refused_by_node,
            );
            trials.extend(rows.trials);
        }
        trials
    };
    Tunnel::ALL.into_iter().flat_map(of_tunnel).collect()
}

/// What is demanded of rules like kube-proxy's, too.
pub fn rows_of_rules() -> Vec<Trial> {
    let of_tunnel = |tunnel| {
        let [mut rows, mut rows_behind] = [between(tunnel), behind(tunnel)]
            .map(|plan| Rows::on(World::of_rules_on(plan), tunnel, InMachines::None));
        rows.add_between();
        rows_behind.add_behind();
        rows.trials.extend(rows_behind.trials);
        rows.trials
    };
    Tunnel::ALL.into_iter().flat_map(of_tunnel).collect()
}

/// What an emulated machine runs of the rows of a cluster that nobody asks for by name.
#[derive(Clone, Copy)]
enum InMachines {
    All,
    First,
    None,
}

const TOO_LONG: &str = "takes an emulated machine long; by its name it runs there";

/// Those of one cluster.
struct Rows {
    world: World,
    tunnel: Tunnel,
    in_machines: InMachines,
    trials: Vec<Trial>,
}

impl Rows {
    const fn on(world: World, tunnel: Tunnel, in_machines: InMachines) -> Self {
        Self {
            world,
            tunnel,
            in_machines,
            trials: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, test: impl FnOnce(&Cluster) -> Result<()> + Send + 'static) {
        let Self {
            world,
            tunnel,
            in_machines,
            trials,
        } = self;
        let too_long = match in_machines {
            InMachines::All => None,
            InMachines::First if trials.is_empty() => None,
            InMachines::First | InMachines::None => unless_by_name(TOO_LONG),
        };
        let missing = tunnel.missing().or(too_long);
        trials.push(world.row_unless(missing, format!("{tunnel}: {name}"), test));
    }

    fn add_between(&mut self) {
        self.add(
            "an upload to a backend behind it fits through it",
            |cluster| upload(cluster, cluster.pod("p2")),
        );
        self.add(
            "an upload from a client behind it fits through a narrow pod link",
            upload_from_behind,
        );
        self.add("downloads and uploads both ways arrive whole", bulk);
        self.add("a next connection goes by the same way", again);
    }

    fn add_behind(&mut self) {
        self.add(
            "an upload to another node fits through the default route by it",
            upload_onwards,
        );
        self.add(
            "a download from a node behind it fits through its default route",
            download_behind,
        );
        self.add(
            "downloads and uploads arrive whole by the default route",
            bulk_behind,
        );
        self.add(
            "a next connection goes by the same default route",
            again_behind,
        );
    }
}

/// The nodes reach each other's pods by it.
fn between(tunnel: Tunnel) -> Plan {
    Plan {
        clients: 2,
        joined: Joined::Tunnel(tunnel),
        overlay_mtu: NARROW,
        ..Plan::default()
    }
}

/// Each node's default route is by one.
fn behind(tunnel: Tunnel) -> Plan {
    Plan {
        clients: 2,
        segments: Segments::Behind(tunnel),
        overlay_mtu: NARROW,
        ..Plan::default()
    }
}

/// The node port at the first node's address in the tunnel: the packets come in by it.
fn by_tunnel(cluster: &Cluster, vip: &Vip, family: Family) -> SocketAddr {
    let own = cluster.node(1).address_towards_other_pods();
    SocketAddr::new(own.of(family), vip.node_port)
}

fn upload_from_behind(cluster: &Cluster) -> Result<()> {
    let pod = cluster.node(1).add_pod_behind("narrow", NARROWER)?;
    let _server = EchoServer::start(&pod, PORT)?;
    let vip = serve(cluster, "narrow", &[&pod])?;
    let client: &Pod = cluster.pod("c2");
    for family in Family::BOTH {
        let target = by_tunnel(cluster, &vip, family);
        let capture = Capture::start(&client.netns, "eth0")?;
        let answer = open(dial(client, Protocol::Tcp, target))?.upload(&unique_content(BULK));
        ensure!(answer.who().is_some(), "{target}: {answer}");
        let is_about_the_service = capture
            .packets()
            .into_iter()
            .filter_map(|seen| seen.embedded())
            .any(|about| about.to() == Some(target));
        ensure!(is_about_the_service, "no ICMP error named {target}");
    }
    Ok(())
}

/// Large segments, as the tunnel's ends put them together.
fn bulk(cluster: &Cluster) -> Result<()> {
    let far = serve(cluster, "far", &[cluster.pod("p2")])?;
    let near = serve(cluster, "near", &[cluster.pod("p1")])?;
    for family in Family::BOTH {
        let outside: &Host = cluster.topology.client();
        for (client, target) in [
            (outside, far.on_node(cluster.node(1), family)),
            (cluster.pod("c1"), far.on_cluster_ip(family)),
            (&cluster.node(1).host, far.on_cluster_ip(family)),
            (cluster.pod("c2"), by_tunnel(cluster, &near, family)),
            (cluster.pod("c2"), by_tunnel(cluster, &far, family)),
        ] {
            let answer = open(dial(client, Protocol::Tcp, target))?.download(BULK);
            ensure!(answer.who().is_some(), "down from {target}: {answer}");
            let answer = open(dial(client, Protocol::Tcp, target))?.upload(&unique_content(BULK));
            ensure!(answer.who().is_some(), "up to {target}: {answer}");
        }
    }
    Ok(())
}

fn refused(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "emptied", &[cluster.pod("p1")])?;
    cluster.manifests.apply_endpoints(&vip.no_endpoints())?;
    await_everywhere(cluster, &vip, |answer| *answer == Answer::Refused)?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let target = by_tunnel(cluster, &vip, family);
            let answer = dial(cluster.pod("c2"), protocol, target).ask();
            ensure!(answer == Answer::Refused, "{protocol} {target}: {answer}");
        }
    }
    Ok(())
}

/// The first node says that its own end is narrow, and says it of the service. The router's end is narrow, too, but less.
fn upload_onwards(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "onwards", &[cluster.pod("p2")])?;
    // Nobody else asks from there, so that it knows of no narrow path yet.
    let client: &Host = &cluster.topology.clients[1];
    for family in Family::BOTH {
        let target = vip.on_node(cluster.node(1), family);
        let capture = Capture::start(&client.netns, "eth0")?;
        let answer = open(dial(client, Protocol::Tcp, target))?.upload(&unique_content(BULK));
        let own = cluster.node(1).host.ip.of(family);
        let errors: Vec<_> = capture
            .packets()
            .into_iter()
            .filter(|seen| seen.icmp.is_some() && seen.source == own)
            .collect();
        ensure!(answer.who().is_some(), "{target}: {answer}; {errors:#?}");
        let is_about_the_service = errors
            .iter()
            .filter_map(|seen| seen.embedded())
            .any(|about| about.to() == Some(target));
        ensure!(
            is_about_the_service,
            "no ICMP error of {own} named {target}: {errors:#?}"
        );
    }
    Ok(())
}

/// Of pods that have sent nothing yet, and so know of no narrow path.
fn download_behind(cluster: &Cluster) -> Result<()> {
    for node in &cluster.topology.nodes {
        let pod = node.add_pod("fresh")?;
        let _server = EchoServer::start(&pod, PORT)?;
        download(cluster, &pod)?;
    }
    Ok(())
}

fn refused_by_node(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, "emptied", &[cluster.pod("p1")])?;
    cluster.manifests.apply_endpoints(&vip.no_endpoints())?;
    await_everywhere(cluster, &vip, |answer| *answer == Answer::Refused)
}

/// Who asks, and what, where each node is behind a tunnel: in both directions through one, and through two.
fn asked_behind<'a>(
    cluster: &'a Cluster,
    [near, far]: &[Vip; 2],
    family: Family,
) -> [(&'a Host, SocketAddr); 6] {
    let outside: &Host = cluster.topology.client();
    let (first, pod) = (cluster.node(1), cluster.pod("c1"));
    [
        (outside, near.on_node(first, family)),
        (outside, far.on_node(first, family)),
        (pod, far.on_cluster_ip(family)),
        (&first.host, far.on_cluster_ip(family)),
        (cluster.pod("c2"), near.on_node(first, family)),
        (cluster.pod("c2"), far.on_node(first, family)),
    ]
}

fn served_behind(cluster: &Cluster) -> Result<[Vip; 2]> {
    let near = serve(cluster, "near", &[cluster.pod("p1")])?;
    Ok([near, serve(cluster, "far", &[cluster.pod("p2")])?])
}

fn bulk_behind(cluster: &Cluster) -> Result<()> {
    let vips = served_behind(cluster)?;
    for family in Family::BOTH {
        for (client, target) in asked_behind(cluster, &vips, family) {
            let answer = open(dial(client, Protocol::Tcp, target))?.download(BULK);
            ensure!(answer.who().is_some(), "down from {target}: {answer}");
            let answer = open(dial(client, Protocol::Tcp, target))?.upload(&unique_content(BULK));
            ensure!(answer.who().is_some(), "up to {target}: {answer}");
        }
    }
    Ok(())
}

fn again_behind(cluster: &Cluster) -> Result<()> {
    let vips = served_behind(cluster)?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for (client, target) in asked_behind(cluster, &vips, family) {
                for _ in 0..10 {
                    let answer = dial(client, protocol, target).ask();
                    ensure!(answer.who().is_some(), "{protocol} {target}: {answer}");
                }
            }
        }
    }
    Ok(())
}

/// More packets than a flow's first ones, so that the fast path carries them.
fn again(cluster: &Cluster) -> Result<()> {
    let far = serve(cluster, "far", &[cluster.pod("p2")])?;
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let outside: &Host = cluster.topology.client();
            for (client, target) in [
                (outside, far.on_node(cluster.node(1), family)),
                (&cluster.node(1).host, far.on_node(cluster.node(1), family)),
                (cluster.pod("c2"), by_tunnel(cluster, &far, family)),
            ] {
                for _ in 0..10 {
                    let answer = dial(client, protocol, target).ask();
                    ensure!(answer.who().is_some(), "{protocol} {target}: {answer}");
                }
            }
        }
    }
    Ok(())
}
