//! From kube-proxy's rules to an agent and back, while clients open one connection after the other: none is lost, and
//! none is reset.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::agent::Uplink;
use testbed::ask::dial;
use testbed::cli;
use testbed::cluster::Cluster;
use testbed::masquerade;
use testbed::patience::patient;
use testbed::runner::{self, no_agent};
use testbed::sockets::Protocol;
use testbed::topology::{Host, Plan};

use crate::nft;
use crate::site::PATIENCE;

/// Of what comes after one another, each lasts at least so long, and until so many connections were opened in it.
const STEP: Duration = Duration::from_millis(400);
const CONNECTIONS: usize = 200;

/// How often the agent comes and goes in a row.
const ROUNDS: usize = 3;

pub fn rows() -> Vec<Trial> {
    let missing = || no_agent().or((!masquerade::available()).then_some(masquerade::MISSING));
    let ways = [
        ("xdp", Uplink::Xdp, "auto"),
        ("tc", Uplink::Tc, "auto"),
        ("clsact", Uplink::Tc, "clsact"),
    ];
    let row = |(name, uplink, tc): (&str, _, &'static str)| {
        let name = format!("{name}: from kube-proxy's rules and back no new connection is lost");
        runner::row(name, missing(), move || {
            let cluster = Cluster::build(&Plan::default(), uplink)?;
            there_and_back(&cluster, tc).map_err(|error| error.context(cluster.logs()))
        })
    };
    ways.map(row).into_iter().collect()
}

fn there_and_back(cluster: &Cluster, tc: &str) -> Result<()> {
    let node = cluster.node(1);
    let backends = [cluster.pod("p1"), cluster.pod("p2")];
    let vip = cluster.publish("taken-over", &backends)?;
    nft::install(node, &vip, &backends)?;
    let targets = testbed::address::Family::BOTH.map(|family| {
        let outside: (&Host, _) = (cluster.topology.client(), vip.on_node(node, family));
        let pod: (&Host, _) = (cluster.pod("c1"), vip.on_cluster_ip(family));
        [outside, pod]
    });
    let done = AtomicBool::new(false);
    let opened = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (done, opened) = (&done, &opened);
        let ask = |(client, target): (&'_ Host, _)| {
            let mut good = 0;
            while !done.load(Ordering::Relaxed) {
                let answer = dial(client, Protocol::Tcp, target).within(PATIENCE).ask();
                ensure!(
                    answer.who().is_some(),
                    "{target} from {} after {good} good connections: {answer}",
                    client.name
                );
                good += 1;
                opened.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let clients: Vec<_> = targets
            .into_iter()
            .flatten()
            .map(|way| scope.spawn(move || ask(way)))
            .collect();
        let went_on = |when: &str| -> Result<()> {
            let (began, before) = (Instant::now(), opened.load(Ordering::Relaxed));
            while began.elapsed() < STEP || opened.load(Ordering::Relaxed) < before + CONNECTIONS {
                ensure!(
                    began.elapsed() < patient(3 * PATIENCE)
                        && !clients.iter().any(|one| one.is_finished()),
                    "{when}: clients came to a stop"
                );
                thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        };
        let walk = || -> Result<()> {
            went_on("through kube-proxy's rules")?;
            for _ in 0..ROUNDS {
                cluster.start_agent(&cluster.launch(node).attaching_by(tc))?;
                went_on("with both")?;
                nft::clean_up(node)?;
                went_on("through the agent's programs alone")?;
                nft::install(node, &vip, &backends)?;
                cluster.stop_agents();
                cli::ask(node, &["cleanup"]).context("taking the datapath down")?;
                went_on("through kube-proxy's rules again")?;
            }
            Ok(())
        };
        let began = Instant::now();
        let walked = walk();
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("asking does not panic")?;
        }
        let opened = opened.load(Ordering::Relaxed);
        let each_second = opened as f64 / began.elapsed().as_secs_f64();
        eprintln!("{opened} connections, {each_second:.0} a second");
        walked
    })
}
