//! The main job on real packets, for people to watch: a client, two nodes with an agent each, pods that serve HTTP,
//! one Service; requests from everywhere; scaling under traffic. The agents read of it from files, or, in [`api`], from an
//! API server. [`tour`] shows what stands on Services.

pub mod api;
mod interrupt;
mod manifest;
mod picture;
mod scene;
pub mod tour;
mod traffic;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use scene::Scene;
use testbed::address::Family;
use testbed::topology::Host;
use traffic::Traffic;

/// How long a pod that is scaled away goes on serving, as in Kubernetes (where it is 30 seconds).
const GRACE: Duration = Duration::from_millis(500);

/// How long each scale is kept up under traffic after that.
const SCALE_FOR: Duration = Duration::from_secs(1);

/// Pods at each step of the scaling.
const SCALES: [usize; 7] = [1, 3, 2, 4, 1, 4, 2];

/// What is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Show {
    /// A Service that agents read from files.
    Files,
    /// The same by way of an API server.
    Api,
    /// What stands on Services.
    Tour,
}

/// Runs the demo; with `keep`, leaves the cluster up until Enter or a signal.
pub fn run(what: Show, keep: bool) -> Result<()> {
    interrupt::listen()?;
    let out = &mut io::stdout();
    let shown = match what {
        Show::Files => show(keep, out),
        Show::Api => api::show(keep, out),
        Show::Tour => tour::show(out),
    };
    if shown.is_err() {
        // Ctrl-C reaches curl and the agents, too: what they say of it is not the news.
        interrupt::check()?;
    }
    shown
}

fn show(keep: bool, out: &mut dyn Write) -> Result<()> {
    heading(out, "Building a cluster of network namespaces")?;
    let mut scene = Scene::build()?;
    println!("{}", picture::draw(&scene));

    heading(out, "The Service, as the agents read it")?;
    println!("{}", manifest::SERVICE);
    println!("  and what an API server would have filled in:");
    println!("{}", manifest::allocated(scene.cluster_ip));

    heading(out, "Requests")?;
    for family in Family::BOTH {
        requests(&scene, family)?;
    }

    heading(out, "Scaling the backends up and down under traffic")?;
    scale(&mut scene)?;

    heading(out, "What the agent of node1 says")?;
    for command in [
        vec!["get", "services", "-A"],
        vec!["get", "backends", "-A"],
        vec!["drops"],
    ] {
        println!("  $ proxy-agent {}", command.join(" "));
        println!("{}", indent(&scene.ask_agent(&command)?));
    }

    if keep {
        heading(out, "Left up for you")?;
        println!("{}", picture::ways_in(&scene));
        interrupt::wait_for_enter();
    }
    heading(out, "Cleaning up")?;
    drop(scene);
    println!("  every namespace, mount and process of the demo is gone");
    println!("\nDone: every request was answered, none failed while scaling.");
    Ok(())
}

/// One `curl` by each way to the service.
fn requests(scene: &Scene, family: Family) -> Result<()> {
    let [node1, node2] = [0, 1].map(|n| &scene.topology.nodes[n].host);
    let node_port = |node: &Host| SocketAddr::new(node.ip.of(family), manifest::NODE_PORT);
    let cluster_ip = SocketAddr::new(scene.cluster_ip.of(family), manifest::PORT);
    let client = scene.topology.client();
    let ways: [(&Host, SocketAddr, &str); 6] = [
        (client, node_port(node1), "outside  -> NodePort of node1"),
        (client, node_port(node2), "outside  -> NodePort of node2"),
        (client, cluster_ip, "outside  -> ClusterIP"),
        (&scene.visitor, cluster_ip, "a pod    -> ClusterIP"),
        (
            &scene.visitor,
            node_port(node1),
            "a pod    -> NodePort of node1",
        ),
        (node1, cluster_ip, "the node -> ClusterIP"),
    ];
    for (from, target, way) in ways {
        interrupt::check()?;
        for _ in 0..2 {
            let answer = scene.curl(from, target)?;
            println!("  {way:<30} curl http://{target:<24} {answer}");
        }
    }
    Ok(())
}

fn scale(scene: &mut Scene) -> Result<()> {
    let traffic = Traffic::start(scene);
    for pods in SCALES {
        interrupt::check()?;
        scene.scale(pods)?;
        thread::sleep(GRACE);
        scene.end_grace(pods);
        println!("  scaled to {pods}:    {}", traffic.since_last());
        thread::sleep(SCALE_FOR);
        println!("  with {pods} pod(s):  {}", traffic.since_last());
    }
    let total = traffic.stop();
    println!("  in all:         {total}");
    ensure!(total.requests > 0, "no request was made");
    ensure!(
        total.failures.is_empty(),
        "requests failed while scaling: {:#?}",
        total.failures
    );
    Ok(())
}

fn heading(out: &mut dyn Write, text: &str) -> Result<()> {
    Ok(writeln!(out, "\n== {text}")?)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
