//! The API server goes away under traffic, and comes back.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use testbed::cli::{self, Ran};
use testbed::sockets::http;

use crate::traffic::{self, Kept, Served};
use crate::world::{World, lone_row};

/// The variable with the seconds that the server is away.
const SECONDS: &str = "PORTSIDE_OUTAGE_SECONDS";
const DEFAULT_SECONDS: u64 = 10;

/// How often the connections that stay are asked, and the agents' health.
const LOOK: Duration = Duration::from_millis(500);

pub fn rows() -> Vec<Trial> {
    vec![lone_row(
        "no request fails while the API server is away, and what changes after its return arrives",
        2,
        outage,
    )]
}

fn outage(world: &World) -> Result<()> {
    let away = match std::env::var(SECONDS) {
        Ok(text) => text.parse().with_context(|| format!("{SECONDS}={text}"))?,
        Err(_) => DEFAULT_SECONDS,
    };
    let away = Duration::from_secs(away);
    let cluster = &world.cluster;
    cluster.start_agents()?;
    let pods = ["p1", "p2", "p1b"].map(|name| cluster.pod(name));
    let served = Served::start(world, &pods, &pods[..2])?;
    let mut kept = Kept::open(cluster, &served)?;
    let (count, ()) = traffic::during(cluster, &served, || {
        world.server.stop();
        let end = Instant::now() + away;
        while Instant::now() < end {
            kept.stay().context("while the API server is away")?;
            all_alive(world)?;
            thread::sleep(LOOK);
        }
        let node = cluster.node(1);
        let Ran { code, out, .. } = cli::run(node, &["status"])?;
        let says = format!(
            "API server {} is not read: ",
            world.server.url().trim_end_matches("/")
        );
        ensure!(
            code == Some(2) && out.contains(&says),
            "{code:?}, no {says}: {out}"
        );
        world.resume_server()?;
        served.move_to(world, &pods[2..])?;
        world.await_on_nodes(&served.echo, |answer| answer.who() == Some("p1b:8080"))?;
        let new = world.publish("after-the-return", &pods[1..2])?;
        world.await_on_nodes(&new, |answer| answer.who() == Some("p2:8080"))?;
        let Ran { code, out, .. } = cli::run(node, &["status"])?;
        ensure!(code == Some(0), "{code:?}: {out}");
        Ok(())
    })?;
    kept.stay_over_tcp().context("after the change")?;
    eprintln!("API server away for {away:?}: {count}");
    Ok(())
}

/// Restarting an agent would not bring its API server back.
fn all_alive(world: &World) -> Result<()> {
    for node in &world.cluster.topology.nodes {
        for path in ["/livez", "/healthz"] {
            let at = (node.host.ip.v4, 10256).into();
            let answer = http::fetch(node.netns(), at, path)?;
            ensure!(answer.status == 200, "{path}: {}", answer.body);
        }
    }
    Ok(())
}
