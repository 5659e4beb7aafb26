//! The way out, by the manifests' own containers: their arguments, variables, capabilities, mounts and probes.

use std::fs;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::{Holder, Lock};
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::answer::Answer;
use testbed::ask::dial;
use testbed::cluster::{Cluster, Vip};
use testbed::container::{AGENT, CLEANUP, Container};
use testbed::patience::{eventually, is_slow};
use testbed::runner::{self, no_agent};
use testbed::sockets::Protocol;
use testbed::topology::{Node, Plan};

pub fn row() -> Trial {
    runner::row(
        "the agent's container serves, and the clean-up's leaves nothing of it",
        no_agent(),
        || {
            let cluster = Cluster::build(&Plan::default(), Uplink::Tc)?;
            leave(&cluster).map_err(|error| error.context(cluster.logs()))
        },
    )
}

fn leave(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let vip = cluster.publish("left", &[cluster.pod("p1"), cluster.pod("p2")])?;
    let mut container = Container::of(AGENT, "proxy-agent")?
        // What a test has in place of an API server.
        .with(&["--manifests=/manifests"])
        .seeing(cluster.manifests.dir(), "/manifests")
        // Many agents share a machine.
        .with(&[
            "--max-flows=32768",
            "--max-backends=4096",
            "--max-services=1024",
        ]);
    if is_slow() {
        container = container.with(&["--xdp=off"]);
    }
    let mut agent = container.start(node)?;
    for name in ["livenessProbe", "readinessProbe"] {
        let probe = container.probe(name)?;
        // The kubelet asks the pod's address, which is the node's.
        for family in Family::BOTH {
            agent.await_probe(node, node.host.ip.of(family), &probe)?;
        }
    }
    served(cluster, &vip).with_context(|| agent.log())?;
    for switch in ["accept_local", "route_localnet"] {
        let path = format!("/proc/sys/net/ipv4/conf/lo/{switch}");
        let value = node.netns().run(|| fs::read_to_string(&path))?;
        ensure!(value.trim() == "1", "{switch} is {value}: {}", agent.log());
    }

    let cleanup = Container::of(CLEANUP, "cleanup")?;
    let mut early = cleanup.start(node)?;
    let status = early.wait()?;
    ensure!(!status.success(), "beside an agent: {}", early.log());
    ensure!(early.log().contains("an agent"), "{}", early.log());

    let status = agent.stop()?;
    ensure!(status.success(), "{status}: {}", agent.log());
    served(cluster, &vip).context("without an agent")?;
    ensure!(!pins(node)?.is_empty(), "nothing is pinned");

    let mut clean = cleanup.start(node)?;
    let status = clean.wait()?;
    ensure!(status.success(), "{status}: {}", clean.log());
    ensure!(clean.log().contains("removed "), "{}", clean.log());
    is_clean(node).with_context(|| clean.log())?;
    for family in Family::BOTH {
        eventually("nobody serves", || {
            let answer = ask(cluster, &vip, family);
            ensure!(answer == Answer::Refused, "{family}: {answer}");
            Ok(())
        })?;
    }

    let mut stays = Container::of(CLEANUP, "stay")?.start(node)?;
    eventually("it says that nothing is left", || {
        ensure!(stays.log().contains("nothing to remove"), "{}", stays.log());
        Ok(())
    })?;
    // An agent that comes again does not wait for it.
    eventually("the lock is free", || {
        ensure!(Lock::holder(&node.bpffs)? == Holder::Nobody, "it is held");
        Ok(())
    })?;
    ensure!(stays.is_running()?, "it ended: {}", stays.log());
    let status = stays.stop()?;
    ensure!(status.success(), "{status}: {}", stays.log());
    is_clean(node)
}

fn ask(cluster: &Cluster, vip: &Vip, family: Family) -> Answer {
    let at = vip.on_node(cluster.node(1), family);
    dial(cluster.topology.client(), Protocol::Tcp, at).ask()
}

fn served(cluster: &Cluster, vip: &Vip) -> Result<()> {
    for family in Family::BOTH {
        let answer = ask(cluster, vip, family);
        ensure!(answer.who().is_some(), "{family}: {answer}");
    }
    Ok(())
}

/// No pin, no file of the agent's, and no program at any device.
fn is_clean(node: &Node) -> Result<()> {
    let pins = pins(node)?;
    ensure!(pins.is_empty(), "left: {pins:?}");
    let mut directories = vec![node.state.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            ensure!(path.is_dir(), "{} is left", path.display());
            directories.push(path);
        }
    }
    let links = node
        .netns()
        .command("ip")?
        .args(["-details", "link"])
        .output()?;
    let links = String::from_utf8(links.stdout)?;
    for left in ["prog/xdp", "xdpgeneric"] {
        ensure!(!links.contains(left), "{links}");
    }
    Ok(())
}

/// A bpffs may have files of the kernel's own (`maps.debug`, where it preloads iterators).
fn pins(node: &Node) -> Result<Vec<String>> {
    let entries = fs::read_dir(&node.bpffs)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<Vec<_>>>()?;
    Ok(names
        .into_iter()
        .filter(|name| name.starts_with("portside"))
        .collect())
}
