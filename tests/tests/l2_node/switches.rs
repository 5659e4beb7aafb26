//! What the programs are told of the node's switches and of connections that rules made before them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::PinDir;
use proxy_common::abi::{ConfigFlags, IfIndex, Sources};
use testbed::address::Family;
use testbed::ask::{dial, open};
use testbed::cluster::Cluster;
use testbed::masquerade;
use testbed::patience::{eventually, patient};
use testbed::runner::CannotRun;
use testbed::sockets::Protocol;
use testbed::topology::{Node, Plan, PodLinks};

use crate::nft;
use crate::site::{deciding, row};

pub fn rows() -> Vec<Trial> {
    let mut rows = vec![
        row(
            "switches: rp_filter is followed while the agent runs",
            Plan::default(),
            |cluster| followed(cluster, "eth0", false),
        ),
        row(
            "switches: of a bridge's port it is the bridge's rp_filter that is followed",
            Plan {
                pods: PodLinks::Bridge,
                ..Plan::default()
            },
            |cluster| followed(cluster, "cni0", true),
        ),
        row(
            "switches: sources are checked as --source-check says",
            Plan::default(),
            as_told,
        ),
    ];
    rows.extend(Family::BOTH.map(|family| {
        row(
            format!(
                "switches: strangers are reset unless connection tracking knows some, {family}"
            ),
            Plan::default(),
            move |cluster| strangers(cluster, family),
        )
    }));
    rows
}

/// What the programs are told of a device's sources.
fn told(node: &Node, device: &str) -> Result<Sources> {
    let index = node.netns().run(|| nix::net::if_::if_nametoindex(device))?;
    let maps = PinDir::new(&node.bpffs).open_maps()?;
    let device = maps
        .devices
        .get(&IfIndex(index), 0)
        .context("no such device")?;
    Ok(device.flags.sources())
}

/// `switched` is the device whose switch counts; of its ports it does, too.
fn followed(cluster: &mut Cluster, switched: &str, port: bool) -> Result<()> {
    let node = cluster.node(1);
    cluster.start_agent(&deciding(cluster))?;
    let asked = if port {
        &cluster.pod("p1").host_interface
    } else {
        switched
    };
    // Of the topology both `all` and each device are strict.
    ensure!(told(node, asked)? == Sources::Strict);
    node.netns().sysctl("net/ipv4/conf/all/rp_filter", "0")?;
    for (value, sources) in [
        ("0", Sources::All),
        ("2", Sources::Loose),
        ("1", Sources::Strict),
    ] {
        let key = format!("net/ipv4/conf/{switched}/rp_filter");
        node.netns().sysctl(&key, value)?;
        eventually(&format!("rp_filter={value}"), || {
            let now = told(node, asked)?;
            ensure!(now == sources, "{now:?}");
            Ok(())
        })?;
    }
    // With routes by several devices, the way back may be by another one.
    if !port {
        let other = &cluster.pod("c1").host_interface;
        node.netns().ip(&format!(
            "route add 198.51.100.0/24 nexthop dev {switched} nexthop dev {other}\n"
        ))?;
        eventually("a multipath route makes it loose", || {
            ensure!(told(node, switched)? == Sources::Loose);
            Ok(())
        })?;
    }
    Ok(())
}

fn as_told(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(1);
    let pod = &cluster.pod("p1").host_interface;
    for device in ["all", "eth0", pod] {
        let key = format!("net/ipv4/conf/{device}/rp_filter");
        node.netns().sysctl(&key, "2")?;
    }
    let (loose, strict) = (Sources::Loose, Sources::Strict);
    for (check, of_nic, of_pod) in [
        ("auto", loose, loose),
        ("strict", loose, strict),
        ("off", Sources::All, Sources::All),
    ] {
        let arguments = ["--source-check", check];
        cluster.start_agent(&deciding(cluster).with(&arguments))?;
        let found = (told(node, "eth0")?, told(node, pod)?);
        ensure!(
            found == (of_nic, of_pod),
            "--source-check {check}: {found:?}"
        );
        cluster.stop_agents();
    }
    Ok(())
}

/// With a connection that rules like kube-proxy's made, and then on a node where there is none.
fn strangers(cluster: &mut Cluster, family: Family) -> Result<()> {
    if !masquerade::available() {
        return Err(CannotRun(masquerade::MISSING).into());
    }
    let vip = cluster.publish("known", &[cluster.pod("p1")])?;
    let node = cluster.node(1);
    nft::install(node, &vip, &[cluster.pod("p1")])?;
    let target = vip.on_cluster_ip(family);
    let mut kept = open(dial(cluster.topology.client(), Protocol::Tcp, target))?;
    ensure!(kept.ask().who().is_some(), "by rules");
    cluster.start_agents()?;
    let resets = |node: &Node| -> Result<bool> {
        let maps = PinDir::new(&node.bpffs).open_maps()?;
        Ok(maps
            .config
            .get(&0, 0)?
            .flags
            .contains(ConfigFlags::RESET_STRANGERS))
    };
    // The other node has had its round, so that this one has, too.
    eventually("a node without such connections resets", || {
        ensure!(resets(cluster.node(2))?);
        Ok(())
    })?;
    std::thread::sleep(patient(Duration::from_secs(2)));
    ensure!(!resets(node)?, "the kernel knows a connection");
    ensure!(kept.ask().who().is_some(), "the connection goes on");
    eventually("it is told", || {
        let said = cluster.logs();
        ensure!(said.contains("go on by connection tracking"), "{said}");
        Ok(())
    })
}
