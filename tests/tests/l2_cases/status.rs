//! `proxy-agent status`: each thing that may be wrong is planted, and ends in the one line that says it.

use std::fs;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use proxy_agent::datapath::PinDir;
use proxy_agent::state::{Names, Place};
use proxy_common::abi::{IfIndex, ServiceId};
use serde_json::Value;
use testbed::address::Family;
use testbed::agent::Uplink;
use testbed::answer::Answer;
use testbed::cli::{self, Ran};
use testbed::cluster::Cluster;
use testbed::kube_proxy;
use testbed::masquerade;
use testbed::patience::eventually;
use testbed::pinned;
use testbed::sockets::Protocol;
use testbed::tamper;
use testbed::topology::{Node, Plan};

use crate::world::{World, await_answer, serve};

/// How wide a terminal is.
const WIDTH: usize = 80;

pub fn rows(uplink: Uplink) -> Vec<Trial> {
    let world = || World::with_first_agent(uplink, Plan::default());
    let mut rows = vec![world().row_beside_xdp(
        "status says on one page that all is well, and what is served",
        move |cluster| well(cluster, uplink),
    )];
    // What is wrong has the same words whatever serves the uplink.
    if uplink == Uplink::Tc {
        rows.extend([
            world().row("status names a hook that is gone", hook_gone),
            world().row("status and get say first that the agent is dead", dead),
            world().row("status says that the folder is gone", folder_gone),
            world().row("status says what is wanted and not in the maps", differs),
            world().row_unless(
                (!masquerade::available()).then_some(masquerade::MISSING),
                "status says that rules of kube-proxy are there",
                rules_there,
            ),
        ]);
    }
    rows
}

fn status(node: &Node) -> Result<Ran> {
    cli::run(node, &["status"])
}

/// The document; its exit code is as `ok` says.
fn document(node: &Node) -> Result<Value> {
    let Ran { code, out, err } = cli::run(node, &["status", "-o", "json"])?;
    let document: Value = serde_json::from_str(&out).with_context(|| format!("{out}{err}"))?;
    let expected = if document["ok"] == true { 0 } else { 2 };
    ensure!(code == Some(expected), "{code:?}: {out}");
    Ok(document)
}

/// All is well.
fn works(node: &Node) -> Result<()> {
    let Ran { code, out, err } = status(node)?;
    ensure!(
        code == Some(0) && out.starts_with("Portside works.\n"),
        "{code:?}: {out}{err}"
    );
    Ok(())
}

/// The first problem, of one or more, and the exit code of a script.
fn first_problem(node: &Node, says: &[&str]) -> Result<()> {
    let Ran { code, out, err } = status(node)?;
    let mut lines = out.lines();
    let head = lines.next().unwrap_or_default();
    let first = lines.next().unwrap_or_default();
    ensure!(
        code == Some(2) && head.contains("problem") && says.iter().all(|text| first.contains(text)),
        "{code:?}: no {says:?} in the first problem: {out}{err}"
    );
    Ok(())
}

fn well(cluster: &Cluster, uplink: Uplink) -> Result<()> {
    let node = cluster.node(1);
    works(node)?;
    let before = document(node)?;
    let vip = serve(cluster, "status", &[cluster.pod("p1"), cluster.pod("p2")])?;
    let empty = cluster.vip("empty");
    cluster.manifests.apply(&empty.service())?;
    let (client, target) = (cluster.pod("c1"), empty.on_cluster_ip(Family::V4));
    await_answer(client, Protocol::Tcp, target, |answer| {
        *answer == Answer::Refused
    })?;
    eventually("the names are written", || works(node))?;
    let after = document(node)?;

    let pid = cluster.agents()[0].pid().as_raw();
    let agent = &after["agent"];
    ensure!(
        agent["running"] == true && agent["ready"] == true && agent["process"] == pid,
        "{agent:#}"
    );
    ensure!(agent["version"] == env!("CARGO_PKG_VERSION"), "{agent:#}");
    let source = after["source"]["name"].as_str().unwrap_or_default();
    let folder = cluster.manifests.dir().display().to_string();
    ensure!(source == format!("folder {folder}"), "{source}");

    // Two Services, of four ports each; the endpoints are pods, not sockets.
    for (field, more) in [("services", 2), ("servicePorts", 8), ("endpoints", 2)] {
        let count = |document: &Value| document["services"][field].as_u64().context(field);
        let (before, after) = (count(&before)?, count(&after)?);
        ensure!(
            after == before + more,
            "{field}: {before}, and then {after}"
        );
    }
    let without = &after["services"]["withoutEndpoints"];
    let name = format!("default/{}", empty.name);
    ensure!(
        without
            .as_array()
            .is_some_and(|all| all.iter().any(|one| *one == name)),
        "no {name} in {without}"
    );

    // The kernel has as many links as are said to be attached; without links they are filters.
    let programs = after["programs"].as_array().context("programs")?;
    let attached = |program: &&Value| program.get("lost").is_none();
    let by_link = |program: &&Value| program["mode"] != "clsact";
    let links = programs.iter().filter(attached).filter(by_link).count();
    let pinned = pinned::links(node)?.len();
    ensure!(
        links == pinned && !programs.is_empty(),
        "{links} links of {pinned}: {programs:#?}"
    );
    let mode = |hook: &str| {
        let found = programs
            .iter()
            .find(|one| one["hook"] == hook && one["device"] == "eth0");
        found.map(|one| one["mode"].as_str().unwrap_or_default().to_owned())
    };
    let expected = (uplink == Uplink::Xdp).then(|| "native".to_owned());
    ensure!(mode("xdp_uplink") == expected, "{:?}", mode("xdp_uplink"));
    let tc = mode("tc_uplink_in").context("no program at eth0")?;
    ensure!(["tcx", "clsact"].contains(&&*tc), "{tc}");

    let used = |document: &Value| -> Option<u64> {
        let tables = document["tables"].as_array()?;
        tables.iter().find(|one| one["map"] == "SERVICES")?["used"].as_u64()
    };
    ensure!(
        used(&after) == used(&before).map(|used| used + 8),
        "{:?}",
        used(&after)
    );
    let refused = after["drops"].as_array().and_then(|all| {
        let refused = all.iter().find(|one| one["reason"] == "refused")?;
        refused["packets"].as_u64()
    });
    ensure!(
        refused >= Some(1),
        "no packet is refused: {:#}",
        after["drops"]
    );

    let page = status(node)?.out;
    for line in page.lines().take_while(|line| *line != "notes:") {
        // The folder's name is the test's.
        let long = line.chars().count() > WIDTH && !line.starts_with("source");
        ensure!(!long, "wider than {WIDTH}: {line}");
    }
    drop(vip);
    Ok(())
}

/// The agent is held meanwhile: it would put the hook back within a second.
fn hook_gone(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    works(node)?;
    let pid = cluster.agents()[0].pid();
    kill(pid, Signal::SIGSTOP)?;
    let taken =
        take_away(node).and_then(|()| first_problem(node, &["eth0 lacks tc_uplink_in: its "]));
    kill(pid, Signal::SIGCONT)?;
    taken?;
    eventually("the agent has put it back", || works(node))?;
    let page = status(node)?.out;
    ensure!(page.contains("what the agent put back: 1 hook"), "{page}");
    Ok(())
}

fn take_away(node: &Node) -> Result<()> {
    let pins = PinDir::new(&node.bpffs);
    let index = node.netns().run(|| nix::net::if_::if_nametoindex("eth0"))?;
    let pin = pins.link("tc_uplink_in", IfIndex(index));
    if pin.exists() {
        return tamper::detach(&pin);
    }
    tamper::delete_filter(node.netns(), "eth0")
}

fn dead(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let vip = serve(cluster, "dead", &[cluster.pod("p1")])?;
    eventually("the name is written", || works(node))?;
    let pid = cluster.agents()[0].pid().to_string();
    cluster.kill_agents();
    first_problem(node, &["no agent runs", &format!("process {pid} ")])?;
    let Ran { code, out, err } = cli::run(node, &["get", "services"])?;
    ensure!(
        code == Some(0) && out.contains(&vip.name) && err.starts_with("no agent runs"),
        "{code:?}: {out}{err}"
    );
    // What is programmed is served still, and is all there.
    let document = document(node)?;
    ensure!(
        document["problems"]
            .as_array()
            .is_some_and(|all| all.len() == 1),
        "{document:#}"
    );
    cluster.start_first_agent()?;
    works(node)?;
    let err = cli::run(node, &["get", "services"])?.err;
    ensure!(err.is_empty(), "{err}");
    cluster.stop_agents();
    cli::ask(node, &["cleanup"])?;
    first_problem(node, &["no agent runs"])?;
    let page = status(node)?.out;
    ensure!(page.starts_with("2 problems:\n"), "{page}");
    Ok(())
}

fn folder_gone(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    works(node)?;
    let (dir, away) = (
        cluster.manifests.dir(),
        cluster.manifests.dir().with_extension("away"),
    );
    fs::rename(dir, &away)?;
    let folder = format!("folder {} is not read", dir.display());
    let said = eventually("the loss is said", || first_problem(node, &[&folder]));
    fs::rename(&away, dir)?;
    said?;
    eventually("it is read again", || works(node))
}

/// Somebody deletes a service from the map behind the agent's back.
fn differs(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let vip = serve(cluster, "differs", &[cluster.pod("p1")])?;
    eventually("the name is written", || works(node))?;
    let mut maps = PinDir::new(&node.bpffs).open_maps()?;
    let place = Place {
        bpffs: node.bpffs.clone(),
        state_dir: node.state.clone(),
    };
    let names = Names::read(&place.names())?;
    let (id, _) = names
        .0
        .iter()
        .find(|(_, name)| name.service == vip.name)
        .context("the service has an id")?;
    maps.services.remove(&ServiceId(*id))?;
    first_problem(
        node,
        &[
            "1 service ports are wanted and not in the maps: ",
            &vip.name,
        ],
    )
}

fn rules_there(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let page = status(node)?.out;
    ensure!(!page.contains("rules of kube-proxy"), "{page}");
    let vip = cluster.vip("rules");
    kube_proxy::install_as(node, kube_proxy::TABLE, &vip, &[cluster.pod("p1")])?;
    let Ran { code, out, .. } = status(node)?;
    // Beside kube-proxy is how a node is switched: no fault.
    ensure!(
        code == Some(0) && out.contains("rules of kube-proxy: nft table ip kube-proxy"),
        "{code:?}: {out}"
    );
    Ok(())
}
