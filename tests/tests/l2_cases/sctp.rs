//! SCTP through services, by sockets of the one-to-one style. Both ends are bound to one address, so that an
//! association has one path.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::answer::Answer;
use testbed::cli;
use testbed::cluster::{Cluster, PORT, SERVICE_PORT, Vip, port_name};
use testbed::manifests::{Endpoints, Service};
use testbed::patience::eventually;
use testbed::sockets::Protocol;
use testbed::sockets::client::{Dial, unique_content};
use testbed::topology::{Host, Pod};
use testbed::wire::{Capture, Checksums, Seen};

use crate::world::{World, dial, open};

const SCTP: Protocol = Protocol::Sctp;
const IPPROTO_SCTP: u8 = 132;

/// Many packets, and more than one in a frame where segments are left to the device.
const LONG: usize = 20_000;

/// Not one of another protocol's rows.
const SOURCE_PORT: u16 = 20_040;

pub fn rows(world: &World) -> Vec<Trial> {
    let row = |name, test: fn(&Cluster) -> Result<()>| {
        world.row_unless(SCTP.missing(), format!("sctp: {name}"), test)
    };
    vec![
        row(
            "a pod reaches backends of both nodes by the cluster address",
            from_a_pod,
        ),
        row(
            "an outside client reaches backends of both nodes by a node port",
            from_outside,
        ),
        row(
            "one port of a pod to two services with one backend is two associations",
            |cluster| kept_apart(cluster, cluster.pod("c1"), Vip::on_cluster_ip),
        ),
        row(
            "one port of an outside client to two services with one backend is two associations",
            |cluster| {
                kept_apart(cluster, cluster.topology.client(), |vip, family| {
                    vip.on_node(cluster.node(1), family)
                })
            },
        ),
        row("every checksum on the wire is right", checksums),
        row("the commands show a service and its associations", shown),
    ]
}

/// From the client's address of the target's family.
fn by_one_path(client: &Host, target: SocketAddr, source_port: u16) -> Dial<'_> {
    dial(client, SCTP, target).from(source(client, target, source_port))
}

fn source(client: &Host, target: SocketAddr, port: u16) -> SocketAddr {
    let family = match target {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    };
    SocketAddr::new(client.ip.of(family), port)
}

fn service(vip: &Vip) -> Service {
    Service::new(&vip.name, vip.ip).node_port(port_name(SCTP), SCTP, SERVICE_PORT, vip.node_port)
}

fn endpoints(vip: &Vip) -> Endpoints {
    Endpoints::of(&vip.name).port(port_name(SCTP), SCTP, PORT)
}

/// A service whose port, node port and target port differ, programmed on both nodes.
fn serve(cluster: &Cluster, pod: &Pod) -> Result<Vip> {
    let vip = cluster.vip("sctp");
    cluster
        .manifests
        .apply_endpoints(&endpoints(&vip).pod(pod))?;
    cluster.manifests.apply(&service(&vip))?;
    let client = cluster.topology.client();
    for node in &cluster.topology.nodes {
        for family in Family::BOTH {
            let target = vip.on_node(node, family);
            eventually(&format!("sctp {target}"), || {
                let answer = by_one_path(client, target, 0).ask();
                ensure!(answer.who().is_some(), "{answer}");
                Ok(())
            })?;
        }
    }
    Ok(vip)
}

/// Demands that `server` echoes short and long content, and saw the client at `seen`; `None`: at another address than
/// its own.
fn ask(client: &Host, target: SocketAddr, server: &str, seen: Option<&Host>) -> Result<()> {
    let mut conversation = open(by_one_path(client, target, 0))
        .with_context(|| format!("{} to {target}", client.name))?;
    for length in [1, 64, LONG, 64] {
        let answer = conversation.echo(&unique_content(length));
        let Answer::Ok { who, client: at } = &answer else {
            anyhow::bail!("{} to {target}, {length} bytes: {answer}", client.name);
        };
        ensure!(*who == format!("{server}:{PORT}"), "{target}: {answer}");
        let own = source(seen.unwrap_or(client), target, 0).ip();
        ensure!(
            (at.ip() == own) == seen.is_some(),
            "{target}: {answer}, and {own}"
        );
    }
    Ok(())
}

fn from_a_pod(cluster: &Cluster) -> Result<()> {
    let client = cluster.pod("c1");
    // The last one is the client itself, which it reaches from an address of its node.
    for (server, seen) in [
        ("p1", Some(client as &Host)),
        ("p2", Some(client)),
        ("c1", None),
    ] {
        let vip = serve(cluster, cluster.pod(server))?;
        for family in Family::BOTH {
            ask(client, vip.on_cluster_ip(family), server, seen)?;
        }
    }
    Ok(())
}

fn from_outside(cluster: &Cluster) -> Result<()> {
    let client = cluster.topology.client();
    let node = cluster.node(1);
    // A remote backend is reached through the node as a full proxy.
    for (server, seen) in [("p1", client), ("p2", &node.host)] {
        let vip = serve(cluster, cluster.pod(server))?;
        for family in Family::BOTH {
            ask(client, vip.on_node(node, family), server, Some(seen))?;
        }
    }
    Ok(())
}

/// Both associations are open at once, from one socket address.
fn kept_apart(
    cluster: &Cluster,
    client: &Host,
    target: impl Fn(&Vip, Family) -> SocketAddr,
) -> Result<()> {
    let vips = [
        serve(cluster, cluster.pod("p2"))?,
        serve(cluster, cluster.pod("p2"))?,
    ];
    for family in Family::BOTH {
        let mut conversations = Vec::new();
        for vip in &vips {
            let target = target(vip, family);
            let dial = by_one_path(client, target, SOURCE_PORT);
            conversations.push(open(dial).with_context(|| format!("to {target}"))?);
        }
        for round in 1..=3 {
            let mut seen = Vec::new();
            for conversation in &mut conversations {
                match conversation.ask() {
                    Answer::Ok { client, .. } => seen.push(client),
                    answer => anyhow::bail!("{family}, round {round}: {answer}"),
                }
            }
            ensure!(
                seen[0].port() == SOURCE_PORT && seen[1].port() != SOURCE_PORT,
                "{family}: seen as {seen:?}"
            );
        }
    }
    Ok(())
}

fn checksums(cluster: &Cluster) -> Result<()> {
    let (client, pod) = (cluster.topology.client(), cluster.pod("c1"));
    for backend in ["p1", "p2"] {
        let vip = serve(cluster, cluster.pod(backend))?;
        let places: [&Host; 3] = [client, pod, cluster.pod(backend)];
        // Between two veths a checksum that nobody finishes is checked by nobody.
        places.iter().try_for_each(|host| host.finish_checksums())?;
        let captures = places.map(|host| Capture::start(&host.netns, "eth0"));
        for family in Family::BOTH {
            for (client, target) in [
                (client, vip.on_node(cluster.node(1), family)),
                (pod, vip.on_cluster_ip(family)),
            ] {
                let answer = by_one_path(client, target, 0).ask();
                ensure!(
                    answer.who().is_some(),
                    "{} to {target}: {answer}",
                    client.name
                );
            }
        }
        for (host, capture) in places.iter().zip(captures) {
            let capture = capture?;
            let of_sctp = |seen: &Seen| seen.protocol == IPPROTO_SCTP;
            let what = format!("a checksum that is finished, at {}", host.name);
            capture.find(&what, |seen| {
                of_sctp(seen) && seen.checksums == Checksums::Right
            })?;
            let broken = capture.broken().into_iter().find(of_sctp);
            ensure!(broken.is_none(), "at {}: {broken:#?}", host.name);
        }
    }
    Ok(())
}

fn shown(cluster: &Cluster) -> Result<()> {
    let vip = serve(cluster, cluster.pod("p1"))?;
    let (client, node) = (cluster.pod("c1"), cluster.node(1));
    let target = vip.on_cluster_ip(Family::V4);
    let mut conversation = open(by_one_path(client, target, 0))?;
    let answer = conversation.ask();
    ensure!(answer.who().is_some(), "{answer}");
    let line = |arguments: &[&str], parts: &[&str]| {
        // The names follow the maps by a moment.
        eventually(&format!("{arguments:?} with {parts:?}"), || {
            let text = cli::ask(node, arguments)?;
            let has_all = |line: &str| parts.iter().all(|part| line.contains(part));
            ensure!(text.lines().any(has_all), "{text}");
            Ok(())
        })
    };
    let ports = format!("{SERVICE_PORT}:{}/SCTP", vip.node_port);
    line(&["get", "services", "-A"], &[&vip.name, &ports])?;
    let node_port = vip.node_port.to_string();
    line(
        &["get", "nodeports", "-A"],
        &[&vip.name, &node_port, "SCTP"],
    )?;
    let target = target.to_string();
    line(&["flows"], &[&vip.name, &target, "SCTP", "established"])
}
