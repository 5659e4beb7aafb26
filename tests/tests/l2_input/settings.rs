//! The node's name, and kube-proxy's settings.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use testbed::address::Family;
use testbed::ask::{await_answer, dial};
use testbed::cluster::{Cluster, SERVICE_PORT};
use testbed::patience::eventually;
use testbed::runner::CannotRun;
use testbed::sockets::Protocol;
use testbed::topology::Node;

use crate::world::{all_probes_are_well, await_said, begin, lone_row, said};

pub fn rows() -> Vec<Trial> {
    vec![
        lone_row(
            "a node's name in capitals and with spaces is that of its endpoints",
            capitals,
        ),
        lone_row("a name that no Node and no endpoint has is told", stranger),
        lone_row("connection tracking gets kube-proxy's settings", tracking),
        lone_row(
            "connection tracking is left alone where nothing is asked for",
            untouched,
        ),
        lone_row(
            "external IPs are served unless they are switched off",
            external_ips,
        ),
        lone_row(
            "addresses that no object may name are those of the flag",
            refused_addresses,
        ),
    ]
}

fn capitals(cluster: &Cluster) -> Result<()> {
    let vip = cluster.vip("local");
    let service = vip.service().with("externalTrafficPolicy", json!("Local"));
    cluster
        .manifests
        .apply_endpoints(&vip.endpoints(&[cluster.pod("p1")]))?;
    cluster.manifests.apply(&service)?;
    let name = format!(" {}\n", cluster.node(1).name().to_uppercase());
    begin(cluster, |launch| {
        launch.named(Box::leak(name.into_boxed_str()))
    })?
    .wait_until_ready()?;
    for family in Family::BOTH {
        let target = vip.on_node(cluster.node(1), family);
        let client = cluster.topology.client();
        await_answer(client, Protocol::Tcp, target, |answer| {
            answer.who() == Some("p1:8080")
        })?;
    }
    let about = |line: &String| line.contains("--node-name");
    ensure!(
        !said(cluster).iter().any(about),
        "a name that is known is told"
    );
    Ok(())
}

fn stranger(cluster: &Cluster) -> Result<()> {
    cluster.publish("of-others", &[cluster.pod("p1")])?;
    begin(cluster, |launch| launch.named("nobody"))?.wait_until_ready()?;
    await_said(
        cluster,
        &["WARN", "\"nobody\"", "--node-name", cluster.node(1).name()],
    )?;
    all_probes_are_well(cluster.node(1))
}

const ESTABLISHED: &str = "nf_conntrack_tcp_timeout_established";
const CLOSE_WAIT: &str = "nf_conntrack_tcp_timeout_close_wait";
const LIBERAL: &str = "nf_conntrack_tcp_be_liberal";

fn setting(node: &Node, name: &str) -> Result<u64> {
    let path = format!("/proc/sys/net/netfilter/{name}");
    let text = node.netns().run(|| fs::read_to_string(&path));
    match text {
        Ok(text) => Ok(text
            .trim()
            .parse()
            .with_context(|| format!("{name}: {text}"))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!(CannotRun("no connection tracking in this kernel"))
        }
        Err(error) => Err(error.into()),
    }
}

fn tracking(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    for (name, other) in [(ESTABLISHED, "432000"), (CLOSE_WAIT, "60"), (LIBERAL, "0")] {
        setting(node, name)?;
        node.netns()
            .sysctl(&format!("net/netfilter/{name}"), other)?;
    }
    begin(cluster, |launch| {
        launch.with(&["--conntrack-tcp-be-liberal"])
    })?
    .wait_until_ready()?;
    for (name, value) in [(ESTABLISHED, 86_400), (CLOSE_WAIT, 3600), (LIBERAL, 1)] {
        eventually(name, || {
            let found = setting(node, name)?;
            ensure!(found == value, "{found}");
            Ok(())
        })?;
    }
    await_said(cluster, &["INFO", CLOSE_WAIT, "60 -> 3600"])?;
    all_probes_are_well(node)
}

fn untouched(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    for name in [ESTABLISHED, CLOSE_WAIT] {
        setting(node, name)?;
        node.netns()
            .sysctl(&format!("net/netfilter/{name}"), "77")?;
    }
    let nothing = [
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ];
    begin(cluster, |launch| launch.with(Box::leak(Box::new(nothing))))?.wait_until_ready()?;
    for name in [ESTABLISHED, CLOSE_WAIT] {
        ensure!(setting(node, name)? == 77, "{name} was set");
    }
    let about = |line: &String| line.contains("nf_conntrack");
    ensure!(!said(cluster).iter().any(about), "{}", cluster.logs());
    Ok(())
}

fn external_ips(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let vip = cluster.vip("outside");
    // An address that the client sends to the node, as it does with the node's own.
    let external = vip.ip.of(Family::V4);
    let service = vip.service().with("externalIPs", json!([external]));
    let service = service
        .with("clusterIP", json!("10.96.240.9"))
        .with("clusterIPs", json!(["10.96.240.9"]));
    let service = service
        .with("ipFamilies", json!(["IPv4"]))
        .with("ipFamilyPolicy", json!("SingleStack"));
    cluster
        .manifests
        .apply_endpoints(&vip.endpoints(&[cluster.pod("p1")]))?;
    cluster.manifests.apply(&service)?;
    let target = (external, SERVICE_PORT).into();
    let client = cluster.topology.client();
    begin(cluster, |launch| launch)?.wait_until_ready()?;
    await_answer(client, Protocol::Tcp, target, |answer| {
        answer.who() == Some("p1:8080")
    })?;
    cluster.stop_agents();
    begin(cluster, |launch| {
        launch.with(&["--allow-service-external-ips=false"])
    })?
    .wait_until_ready()?;
    await_said(
        cluster,
        &[
            &vip.name,
            &external.to_string(),
            "external IPs are switched off",
        ],
    )?;
    await_answer(client, Protocol::Tcp, target, |answer| {
        answer.who().is_none()
    })?;
    let on_node = vip.on_node(node, Family::V4);
    let answer = dial(client, Protocol::Tcp, on_node).ask();
    ensure!(answer.who() == Some("p1:8080"), "{answer}");
    Ok(())
}

fn refused_addresses(cluster: &Cluster) -> Result<()> {
    let (good, bad) = (cluster.pod("p1"), cluster.pod("p1b"));
    let vip = cluster.publish("partly-refused", &[good, bad])?;
    let list = Family::BOTH.map(|family| bad.ip.of(family).to_string());
    let flag = format!("--refused-addresses={}", list.join(","));
    let flag: &'static str = Box::leak(flag.into_boxed_str());
    begin(cluster, |launch| launch.with(Box::leak(Box::new([flag]))))?.wait_until_ready()?;
    for addr in &list {
        await_said(cluster, &[addr, "is not used", "--refused-addresses"])?;
    }
    let ask = |family| {
        let client = cluster.topology.client();
        dial(client, Protocol::Tcp, vip.on_node(cluster.node(1), family)).ask()
    };
    for family in Family::BOTH {
        for _ in 0..10 {
            let answer = ask(family);
            ensure!(answer.who() == Some("p1:8080"), "{answer}");
        }
    }
    all_probes_are_well(cluster.node(1))?;
    cluster.stop_agents();
    begin(cluster, |launch| launch)?.wait_until_ready()?;
    for family in Family::BOTH {
        eventually("the other endpoint is used", || {
            let answer = ask(family);
            ensure!(answer.who() == Some("p1b:8080"), "{answer}");
            Ok(())
        })?;
    }
    Ok(())
}
