//! The testbed itself, without any service: what a proxy is tested on has to be right without the proxy.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::answer::Answer;
use testbed::cluster::{Cluster, PORT};
use testbed::masquerade;
use testbed::netns::Netns;
use testbed::run;
use testbed::runner::{self, Shared, no_testbed, row, testbed_row};
use testbed::sockets::Protocol;
use testbed::sockets::client::{Dial, unique_content};
use testbed::sockets::echo::EchoServer;
use testbed::sockets::http::{self, HttpServer};
use testbed::sockets::ping::ping;
use testbed::topology::{Host, Joined, Plan, PodLinks, Segments, Topology, Tunnel};
use testbed::wire::build::{self, Extra, Link};
use testbed::wire::{Capture, Checksums, PacketSocket};

fn main() -> ExitCode {
    let mut rows = Vec::new();
    for pods in [PodLinks::Ptp, PodLinks::Bridge] {
        for (joined, segments) in [
            (Joined::Routed, Segments::Shared),
            (Joined::Routed, Segments::PerNode),
            (Joined::Vxlan, Segments::Shared),
        ] {
            for uplink in [Uplink::Xdp, Uplink::Tc] {
                let plan = Plan {
                    pods,
                    joined,
                    segments,
                    ..Plan::default()
                };
                rows.extend(reachability(plan, uplink));
            }
        }
    }
    for tunnel in Tunnel::ALL {
        let plan = Plan {
            joined: Joined::Tunnel(tunnel),
            ..Plan::default()
        };
        rows.extend(reachability(plan, Uplink::Tc));
        let plan = Plan {
            segments: Segments::Behind(tunnel),
            ..Plan::default()
        };
        rows.extend(reachability(plan, Uplink::Tc));
    }
    rows.extend([
        testbed_row(
            "a closed port refuses and a dropped packet times out",
            outcomes_are_told_apart,
        ),
        testbed_row(
            "an upload fits through a narrow link beyond the node",
            narrow_router_link,
        ),
        testbed_row("an upload fits through a narrow overlay", narrow_overlay),
        testbed_row("an upload fits through a narrow pod link", narrow_pod_link),
        testbed_row(
            "a capture tells right checksums from wrong ones",
            captured_checksums,
        ),
        testbed_row("a datagram with options arrives", options_arrive),
        testbed_row("a web server says who it is and whom it saw", web_server),
        testbed_row(
            "nothing is left of a topology that was dropped",
            nothing_is_left,
        ),
        testbed_row(
            "what a dead process left behind is reaped",
            leftovers_are_reaped,
        ),
    ]);
    runner::main(rows)
}

/// Every kind of client to every kind of server, by their own addresses.
fn reachability(plan: Plan, uplink: Uplink) -> Vec<Trial> {
    let name = format!(
        "{:?}/{:?}/{:?}/{uplink:?}",
        plan.pods, plan.joined, plan.segments
    )
    .to_lowercase();
    let (joined, missing) = (plan.joined, plan.missing());
    let cluster = Shared::new(move || Cluster::build(&plan, uplink));
    let pairs = [
        ("client", "node1"),
        ("client", "node2"),
        ("neighbour", "node2"),
        ("c1", "p1"),
        ("c1", "p2"),
        ("c1", "node1"),
        ("c1", "node2"),
        ("node1", "p1"),
        ("node1", "p2"),
        ("node1", "node2"),
        ("client", "p1"),
        ("client", "p2"),
        ("c1", "client"),
    ];
    let reachable = |(from, to): &(&str, &str)| {
        // The pods of an overlay are not routed outside.
        joined == Joined::Routed
            || !matches!((*from, *to), ("client", "p1" | "p2") | ("c1", "client"))
    };
    let pair = |(from, to): (&'static str, &'static str)| {
        let cluster: Arc<Shared<Cluster>> = Arc::clone(&cluster);
        row(
            format!("{name}/{from}->{to}"),
            no_testbed().or(missing),
            move || reaches(cluster.get()?, from, to),
        )
    };
    pairs.into_iter().filter(reachable).map(pair).collect()
}

fn reaches(cluster: &Cluster, from: &str, to: &str) -> Result<()> {
    let (client, server) = (host(cluster, from), host(cluster, to));
    for family in Family::BOTH {
        ping(&client.netns, server.ip.of(family))?;
        if to == "client" {
            continue;
        }
        let target = SocketAddr::new(server.ip.of(family), PORT);
        for protocol in Protocol::BOTH {
            let answer = Dial::new(&client.netns, protocol, target).ask();
            let Answer::Ok { who, client: seen } = &answer else {
                bail!("{protocol} to {target}: {answer}");
            };
            ensure!(
                *who == format!("{to}:{PORT}"),
                "{protocol} to {target}: {answer}"
            );
            ensure!(
                is_expected(cluster, from, to, seen.ip()),
                "{protocol} to {target}: {answer}"
            );
        }
    }
    Ok(())
}

/// A node has several addresses, and a pod on an overlay leaves it under its node's.
fn is_expected(cluster: &Cluster, from: &str, to: &str, seen: IpAddr) -> bool {
    let node = cluster.node(1);
    let on_overlay = node.address_towards_other_pods() != node.host.ip;
    let masqueraded = masquerade::available() && on_overlay && to == "node2";
    match from {
        "node1" => cluster.node(1).owns(seen),
        "c1" if masqueraded => cluster.node(1).owns(seen),
        _ => host(cluster, from).ip.contains(seen),
    }
}

fn host<'a>(cluster: &'a Cluster, name: &str) -> &'a Host {
    match name {
        "client" => cluster.topology.client(),
        "neighbour" => &cluster.topology.neighbour,
        "node1" => &cluster.node(1).host,
        "node2" => &cluster.node(2).host,
        pod => cluster.pod(pod),
    }
}

fn outcomes_are_told_apart() -> Result<()> {
    let topology = Topology::build(&Plan::default())?;
    let (client, node) = (topology.client(), topology.nodes[0].host.ip);
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            let closed = SocketAddr::new(node.of(family), 9);
            let answer = Dial::new(&client.netns, protocol, closed).ask();
            ensure!(
                answer == Answer::Refused,
                "{protocol} to a closed port {closed}: {answer}"
            );
        }
    }
    topology.nodes[0].netns().ip("link set eth0 down")?;
    let target = SocketAddr::new(node.of(Family::V4), 9);
    let answer = Dial::new(&client.netns, Protocol::Udp, target)
        .within(Duration::from_millis(200))
        .ask();
    ensure!(answer == Answer::Timeout, "to a node that is off: {answer}");
    Ok(())
}

fn narrow_router_link() -> Result<()> {
    let plan = Plan {
        segments: Segments::PerNode,
        router_mtu_towards: Some((2, 1400)),
        ..Plan::default()
    };
    let cluster = Cluster::build(&plan, Uplink::Xdp)?;
    upload(&cluster.node(1).host, cluster.pod("p2"))
}

fn narrow_overlay() -> Result<()> {
    let plan = Plan {
        joined: Joined::Vxlan,
        overlay_mtu: 1400,
        ..Plan::default()
    };
    let cluster = Cluster::build(&plan, Uplink::Xdp)?;
    upload(cluster.pod("c1"), cluster.pod("p2"))
}

fn narrow_pod_link() -> Result<()> {
    let cluster = Cluster::build(&Plan::default(), Uplink::Xdp)?;
    let pod = cluster.node(1).add_pod_behind("narrow", 1400)?;
    let _server = EchoServer::start(&pod, PORT)?;
    upload(cluster.topology.client(), &pod)
}

/// Uploads a megabyte, and wants to have seen an ICMP error on the way: without one the link was not narrow at all.
fn upload(from: &Host, to: &Host) -> Result<()> {
    for family in Family::BOTH {
        let capture = Capture::start(&from.netns, "eth0")?;
        let target = SocketAddr::new(to.ip.of(family), PORT);
        let mut connection = Dial::new(&from.netns, Protocol::Tcp, target)
            .open()
            .map_err(|answer| anyhow!("{answer}"))?;
        let answer = connection.upload(&unique_content(1 << 20));
        ensure!(answer.who().is_some(), "{family}: {answer}");
        capture.find("the ICMP error", |seen| {
            matches!(seen.icmp, Some((3, 4) | (2, 0))) && !seen.outgoing
        })?;
    }
    Ok(())
}

fn captured_checksums() -> Result<()> {
    let topology = Topology::build(&Plan::default())?;
    let (sender, node) = (&topology.neighbour, &topology.nodes[0].host);
    let link = Link {
        source: sender.mac,
        destination: node.mac,
        vlan: None,
    };
    let socket = PacketSocket::open(&sender.netns, "eth0")?;
    for family in Family::BOTH {
        let capture = Capture::start(&node.netns, "eth0")?;
        let (from, to) = (
            SocketAddr::new(sender.ip.of(family), 1234),
            SocketAddr::new(node.ip.of(family), 4321),
        );
        let mut frame = build::udp(link, from, to, Extra::Nothing, b"sound")?;
        socket.send(&frame)?;
        let sound = capture.find("the sound packet", |seen| seen.payload == b"sound")?;
        ensure!(
            sound.from() == Some(from) && sound.to() == Some(to),
            "not what was sent: {sound:?}"
        );
        ensure!(
            sound.checksums == Checksums::Right && capture.broken().is_empty(),
            "{sound:?}"
        );

        *frame.last_mut().expect("the frame has a payload") ^= 1;
        socket.send(&frame)?;
        let broken = capture.find("the broken packet", |seen| seen.payload == b"soune")?;
        ensure!(broken.checksums == Checksums::WrongTransport, "{broken:?}");
        ensure!(capture.broken() == [broken]);
    }
    Ok(())
}

fn options_arrive() -> Result<()> {
    let cluster = Cluster::build(&Plan::default(), Uplink::Xdp)?;
    let (sender, node) = (&cluster.topology.neighbour, &cluster.node(1).host);
    let link = Link {
        source: sender.mac,
        destination: node.mac,
        vlan: None,
    };
    for family in Family::BOTH {
        let capture = Capture::start(&sender.netns, "eth0")?;
        let (from, to) = (
            SocketAddr::new(sender.ip.of(family), 1234),
            SocketAddr::new(node.ip.of(family), PORT),
        );
        let frame = build::udp(link, from, to, Extra::Options, b"optional")?;
        PacketSocket::open(&sender.netns, "eth0")?.send(&frame)?;
        capture.find("the echo", |seen| {
            seen.from() == Some(to) && seen.payload.ends_with(b"optional")
        })?;
    }
    Ok(())
}

fn web_server() -> Result<()> {
    let topology = Topology::build(&Plan::default())?;
    let pod = topology.nodes[1].add_pod("web")?;
    let _server = HttpServer::start(&pod, &pod.name, 80)?;
    for family in Family::BOTH {
        let page = http::get(
            &topology.client().netns,
            SocketAddr::new(pod.ip.of(family), 80),
        )?;
        let client = topology.client().ip.of(family);
        ensure!(
            page.starts_with("web saw ") && page.contains(&client.to_string()),
            "{page:?}"
        );
    }
    Ok(())
}

fn nothing_is_left() -> Result<()> {
    let topology = Topology::build(&Plan::default())?;
    let node = &topology.nodes[0];
    let left = [
        Path::new("/run/netns").join(node.netns().name()),
        node.bpffs.clone(),
        node.cgroup.clone(),
    ];
    ensure!(
        left.iter().all(|path| path.exists()),
        "not all of {left:?} are there"
    );
    drop(topology);
    ensure!(
        !left.iter().any(|path| path.exists()),
        "some of {left:?} are left"
    );
    Ok(())
}

fn leftovers_are_reaped() -> Result<()> {
    let mut dead = std::process::Command::new("true").spawn()?;
    let (orphan, own) = (
        format!("psd{}-0-x", dead.id()),
        format!("psd{}-x", std::process::id()),
    );
    dead.wait()?;
    let namespaces = [Netns::create(orphan)?, Netns::create(own)?];
    let exists = |netns: &Netns| Path::new("/run/netns").join(netns.name()).exists();
    // Another run may be reaping at this moment, too.
    run::reap();
    ensure!(
        namespaces.each_ref().map(exists) == [false, true],
        "the wrong ones were reaped"
    );
    Ok(())
}
