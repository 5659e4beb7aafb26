//! Path MTU discovery works through a service address, in both directions.
//!
//! The sender sends a megabyte with don't-fragment set, as Linux does by default, and its peer announces a full-sized
//! segment: only an ICMP error that names the connection as the sender knows it makes the sender send smaller ones.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use tests::address::Family;
use tests::agent::Uplink;
use tests::cluster::{Cluster, PORT, Vip};
use tests::runner::{no_agent, row};
use tests::sockets::Protocol;
use tests::sockets::client::unique_content;
use tests::sockets::echo::EchoServer;
use tests::topology::{Joined, Plan, Pod, Segments};
use tests::wire::Capture;

use crate::world::{dial, open, row_name};

const NARROW: u16 = 1400;
const BULK: usize = 1 << 20;

pub fn rows(uplink: Uplink) -> Vec<Trial> {
    let row = |name: &str, test: fn(Uplink) -> Result<()>| {
        row(row_name(uplink, name), no_agent(), move || test(uplink))
    };
    vec![
        row(
            "an upload through a node port fits through a narrow pod link",
            narrow_pod_link,
        ),
        row(
            "an upload through a node port fits through a narrow overlay",
            narrow_overlay,
        ),
        row(
            "an upload through a node port fits through a narrow link beyond the node",
            narrow_beyond,
        ),
        row(
            "a download from a local backend fits through a narrow link to the client",
            |uplink| download(uplink, "p1"),
        ),
        row(
            "a download from a remote backend fits through a narrow link to the client",
            |uplink| download(uplink, "p2"),
        ),
    ]
}

fn narrow_pod_link(uplink: Uplink) -> Result<()> {
    let cluster = Cluster::build(&Plan::default(), uplink)?;
    let pod = cluster.node(1).add_pod_behind("narrow", NARROW)?;
    let _server = EchoServer::start(&pod, PORT)?;
    upload(&cluster, &pod)
}

fn narrow_overlay(uplink: Uplink) -> Result<()> {
    let plan = Plan {
        joined: Joined::Vxlan,
        overlay_mtu: NARROW,
        ..Plan::default()
    };
    let cluster = Cluster::build(&plan, uplink)?;
    upload(&cluster, cluster.pod("p2"))
}

fn narrow_beyond(uplink: Uplink) -> Result<()> {
    let plan = Plan {
        segments: Segments::PerNode,
        router_mtu_towards: Some((2, NARROW)),
        ..Plan::default()
    };
    let cluster = Cluster::build(&plan, uplink)?;
    upload(&cluster, cluster.pod("p2"))
}

fn upload(cluster: &Cluster, backend: &Pod) -> Result<()> {
    let vip = cluster.publish("narrow", &[backend])?;
    cluster.start_first_agent()?;
    for family in Family::BOTH {
        upload_to(cluster, &vip, family).map_err(|error| error.context(cluster.logs()))?;
    }
    Ok(())
}

fn upload_to(cluster: &Cluster, vip: &Vip, family: Family) -> Result<()> {
    let client = cluster.topology.client();
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

fn download(uplink: Uplink, backend: &str) -> Result<()> {
    let plan = Plan {
        router_mtu_towards_clients: NARROW,
        ..Plan::default()
    };
    let cluster = Cluster::build(&plan, uplink)?;
    let vip = cluster.publish("narrow", &[cluster.pod(backend)])?;
    cluster.start_first_agent()?;
    for family in Family::BOTH {
        download_from(&cluster, &vip, backend, family)
            .map_err(|error| error.context(cluster.logs()))?;
    }
    Ok(())
}

fn download_from(cluster: &Cluster, vip: &Vip, backend: &str, family: Family) -> Result<()> {
    let target = vip.on_node(cluster.node(1), family);
    let capture = Capture::start(&cluster.pod(backend).netns, "eth0")?;
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
    let own = SocketAddr::new(cluster.pod(backend).ip.of(family), PORT);
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
