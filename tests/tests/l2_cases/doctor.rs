//! `proxy-agent doctor` beside a running agent.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use testbed::agent::{self, Uplink};
use testbed::cluster::Cluster;
use testbed::deployment;
use testbed::netns::Netns;
use testbed::pass;
use testbed::topology::Node;

use crate::world::World;

pub fn rows(world: &World, uplink: Uplink) -> Vec<Trial> {
    let served = world.row_beside_xdp(
        "doctor says how the uplink is served, and leaves the node as it is",
        move |cluster| uplink_is_served(cluster, uplink),
    );
    // What rights it has is the same for both.
    let [stranger, rights] = match uplink {
        Uplink::Tc => [
            world.row_beside_xdp("doctor sees a TC filter of somebody else", strange_filter),
            world.row_beside_xdp("doctor has the rights of the container", confined),
        ],
        Uplink::Xdp => [
            world.row_beside_xdp("doctor sees an XDP program of somebody else", stranger),
            world.row_beside_xdp("doctor without rights names them", without_rights),
        ],
    };
    vec![served, stranger, rights]
}

/// As the agent of the node was started.
fn doctor(node: &Node, arguments: &[&str]) -> Result<Command> {
    doctor_in(node.netns(), &node.bpffs, arguments)
}

fn doctor_in(netns: &Netns, bpffs: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = netns.command(agent::binary().context("no agent")?)?;
    command
        .args(["doctor", "--output", "json"])
        .arg("--bpffs")
        .arg(bpffs)
        .args(arguments);
    Ok(command)
}

fn report(output: &Output) -> Result<Value> {
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "doctor printed no report: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// The check of this name.
fn check<'a>(report: &'a Value, name: &str) -> Result<&'a Value> {
    let checks = report["checks"].as_array().context("no checks")?;
    let found = checks.iter().find(|check| check["name"] == name);
    found.with_context(|| format!("no check {name} in {report:#}"))
}

/// Demands that all is well.
fn healthy(command: &mut Command) -> Result<Value> {
    let output = command.output()?;
    let report = report(&output)?;
    ensure!(
        output.status.success() && report["ok"] == true,
        "{}: {report:#}",
        output.status
    );
    Ok(report)
}

fn uplink_is_served(cluster: &Cluster, uplink: Uplink) -> Result<()> {
    // Other rows add pods to the first node meanwhile.
    let node = cluster.node(2);
    let (mode, expected) = match uplink {
        Uplink::Xdp => ("native", "native XDP and TC: they are attached"),
        Uplink::Tc => ("off", "TC: --xdp off"),
    };
    let arguments = ["--uplinks", "eth0", "--xdp", mode];
    let before = traces(node)?;
    let report = healthy(&mut doctor(node, &arguments)?)?;
    let after = traces(node)?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    let served = check(&report, "eth0")?;
    ensure!(
        served["found"] == "uplink"
            && served["follows"]
                .as_str()
                .is_some_and(|text| text.starts_with(expected)),
        "{served:#}"
    );
    // One of the two ways is chosen, and it is one that was tried.
    let [links, filters] = ["TC links (tcx)", "clsact filters"].map(|name| check(&report, name));
    let chosen = |check: &Value| {
        check["verdict"] == "ok"
            && check["found"] == "yes"
            && check["follows"]
                .as_str()
                .is_some_and(|text| text.starts_with("chosen"))
    };
    let (links, filters) = (links?, filters?);
    ensure!(chosen(links) != chosen(filters), "{links:#} {filters:#}");
    Ok(())
}

/// What a node shows of what was done to it: devices with their programs, queueing disciplines, pins, switches.
fn traces(node: &Node) -> Result<String> {
    let mut text = String::new();
    for arguments in [
        ["-details", "link"],
        ["-details", "address"],
        ["route", "list"],
    ] {
        let output = node.netns().command("ip")?.args(arguments).output()?;
        ensure!(
            output.status.success(),
            "ip {arguments:?}: {}",
            output.status
        );
        text += &String::from_utf8_lossy(&output.stdout);
    }
    for switch in [
        "net/ipv4/conf/lo/accept_local",
        "net/ipv4/conf/all/rp_filter",
    ] {
        text += &node
            .netns()
            .run(|| fs::read_to_string(format!("/proc/sys/{switch}")))?;
    }
    let mut pins = files(&node.bpffs)?;
    pins.sort();
    Ok(text + &pins.join("\n"))
}

fn files(directory: &Path) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(files(&path)?);
        }
        all.push(path.display().to_string());
    }
    Ok(all)
}

/// It finds no way to try the hooks then, and says so.
fn confined(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let mut command = doctor(node, &["--uplinks", "eth0"])?;
    deployment::confine(&mut command)?;
    let report = healthy(&mut command)?;
    let links = check(&report, "TC links (tcx)")?;
    ensure!(
        links["found"] == "unknown" && links["verdict"] == "note",
        "{links:#}"
    );
    ensure!(check(&report, "the datapath loads")?["found"] == "yes");
    Ok(())
}

fn without_rights(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let mut command = doctor(node, &["--uplinks", "eth0"])?;
    deployment::confine_to(&mut command, [])?;
    let output = command.output()?;
    let report = report(&output)?;
    ensure!(
        output.status.code() == Some(1) && report["ok"] == false,
        "{}",
        output.status
    );
    for name in ["CAP_BPF", "CAP_NET_ADMIN", "the datapath loads"] {
        let found = check(&report, name)?;
        ensure!(
            found["found"] == "no" && found["verdict"] == "problem",
            "{found:#}"
        );
    }
    Ok(())
}

/// At the router's end of the uplink is one, so that it polls.
fn stranger(cluster: &Cluster) -> Result<()> {
    let port = cluster.node(1).name();
    let netns = &cluster.topology.router.netns;
    // Where nothing of ours is pinned: no agent runs there.
    let bpffs = cluster.node(1).bpffs.join("router");
    fs::create_dir(&bpffs).with_context(|| format!("creating {}", bpffs.display()))?;
    let report = report(&doctor_in(netns, &bpffs, &["--uplinks", port])?.output()?)?;
    let found = check(&report, port)?;
    let Some(text) = found["follows"].as_str() else {
        bail!("{found:#}");
    };
    ensure!(
        found["verdict"] == "fallback" && text.starts_with("TC: an XDP program of somebody else"),
        "{found:#}"
    );
    Ok(())
}

fn strange_filter(cluster: &Cluster) -> Result<()> {
    let (node, netns) = (cluster.node(2), &cluster.topology.router.netns);
    let port = node.name();
    // The second node is to have no new pins while another row looks at it.
    let pin = cluster.node(1).bpffs.join("a-filter");
    pass::filter(netns, port, &pin)?;
    fs::remove_file(&pin)?;
    let report = report(&doctor_in(netns, &node.bpffs, &["--uplinks", port])?.output()?)?;
    let found = check(&report, &format!("others' programs at {port}"))?;
    let names = found["found"].as_str().unwrap_or_default();
    ensure!(
        found["verdict"] == "note" && names.contains("lets_pass"),
        "{found:#}"
    );
    Ok(())
}
