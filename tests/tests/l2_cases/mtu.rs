//! Path MTU discovery works through a service address, in both directions.
//!
//! The sender sends a megabyte with don't-fragment set, as Linux does by default, and its peer announces a full-sized
//! segment: only an ICMP error that names the connection as the sender knows it makes the sender send smaller ones.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::cluster::{Cluster, PORT, Vip};
use testbed::sockets::Protocol;
use testbed::sockets::client::unique_content;
use testbed::sockets::echo::EchoServer;
use testbed::topology::{Joined, Plan, Pod, Segments};
use testbed::wire::Capture;

use crate::broken;
use crate::world::{World, dial, open, serve};

const NARROW: u16 = 1400;
pub const BULK: usize = 1 << 20;

pub fn rows(world: &World) -> Vec<Trial> {
    vec![world.row(
        "an upload through a node port fits through a narrow pod link",
        narrow_pod_link,
    )]
}

/// On topologies of their own.
pub fn rows_of_other_plans(uplink: Uplink) -> Vec<Trial> {
    let overlay = Plan {
        joined: Joined::Vxlan,
        overlay_mtu: NARROW,
        ..Plan::default()
    };
    let beyond = Plan {
        segments: Segments::PerNode,
        router_mtu_towards: Some((2, NARROW)),
        ..Plan::default()
    };
    let clients = Plan {
        router_mtu_towards_clients: NARROW,
        ..Plan::default()
    };
    let upload_to_the_other_node = |cluster: &Cluster| upload(cluster, cluster.pod("p2"));
    let [overlay, beyond, clients] =
        [overlay, beyond, clients].map(|plan| World::with_first_agent(uplink, plan));
    vec![
        overlay.row_beside_xdp(
            "an upload through a node port fits through a narrow overlay",
            upload_to_the_other_node,
        ),
        overlay.row_beside_xdp(
            "a datagram that is too big for an overlay makes no flow",
            broken::too_big,
        ),
        beyond.row(
            "an upload through a node port fits through a narrow link beyond the node",
            upload_to_the_other_node,
        ),
        clients.row(
            "a download from a local backend fits through a narrow link to the client",
            |cluster| download(cluster, cluster.pod("p1")),
        ),
        clients.row(
            "a download from a remote backend fits through a narrow link to the client",
            |cluster| download(cluster, cluster.pod("p2")),
        ),
    ]
}

fn narrow_pod_link(cluster: &Cluster) -> Result<()> {
    let pod = cluster.node(1).add_pod_behind("narrow", NARROW)?;
    let _server = EchoServer::start(&pod, PORT)?;
    upload(cluster, &pod)
}

pub fn upload(cluster: &Cluster, backend: &Pod) -> Result<()> {
    let vip = serve(cluster, "narrow", &[backend])?;
    Family::BOTH
        .into_iter()
        .try_for_each(|family| upload_to(cluster, &vip, family))
}

/// By the last client: the kernel of one that has sent much to the node already, for another row, knows that the way is narrow.
fn upload_to(cluster: &Cluster, vip: &Vip, family: Family) -> Result<()> {
    let client = cluster.topology.clients.last().context("no client")?;
    let target = vip.on_node(cluster.node(1), family);
    let capture = Capture::start(&client.netns, "eth0")?;
    let answer = open(dial(client, Protocol::Tcp, target))?.upload(&unique_content(BULK));
    let errors: Vec<_> = capture
        .packets()
        .into_iter()
        .filter(|seen| seen.icmp.is_some())
        .collect();
    ensure!(
        answer.who().is_some(),
        "{target}: {answer}; ICMP at the client: {errors:#?}"
    );
    let about_the_service = errors
        .iter()
        .filter_map(|error| error.embedded())
        .any(|about| about.to() == Some(target));
    ensure!(
        about_the_service,
        "no ICMP error named {target}: the link was not narrow. {errors:#?}"
    );
    Ok(())
}

pub fn download(cluster: &Cluster, backend: &Pod) -> Result<()> {
    let vip = serve(cluster, "narrow", &[backend])?;
    Family::BOTH
        .into_iter()
        .try_for_each(|family| download_from(cluster, &vip, backend, family))
}

fn download_from(cluster: &Cluster, vip: &Vip, backend: &Pod, family: Family) -> Result<()> {
    let target = vip.on_node(cluster.node(1), family);
    let capture = Capture::start(&backend.netns, "eth0")?;
    let answer = open(dial(cluster.topology.client(), Protocol::Tcp, target))?.download(BULK);
    let errors: Vec<_> = capture
        .packets()
        .into_iter()
        .filter(|seen| seen.icmp.is_some())
        .collect();
    ensure!(
        answer.who().is_some(),
        "{target}: {answer}; ICMP at the backend: {errors:#?}"
    );
    let own = SocketAddr::new(backend.ip.of(family), PORT);
    let about_the_backend = errors
        .iter()
        .filter_map(|error| error.embedded())
        .any(|about| about.from() == Some(own));
    ensure!(
        about_the_backend,
        "no ICMP error named {own}: the link was not narrow. {errors:#?}"
    );
    Ok(())
}
