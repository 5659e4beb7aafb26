//! An API server that is away, comes back and has forgotten.

use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use api_server::ApiServer;
use api_server::client::Client;
use api_server::resource::Resource;
use libtest_mimic::Trial;
use testbed::address::{self, Family};
use testbed::agent::{Agent, Source, Uplink};
use testbed::answer::Answer;
use testbed::ask::dial;
use testbed::cluster::{Cluster, Vip};
use testbed::patience::{eventually, eventually_within, patient};
use testbed::runner::{no_agent, row};
use testbed::sockets::Protocol;
use testbed::topology::{Plan, Pod};

use crate::site::{self, is_long};

const PORT: u16 = 6443;
/// What no object waits longer for, once a server is back.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);
/// For as long the agent waits for the API servers' own service.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn rows() -> Vec<Trial> {
    let api = |name: &str, test: fn(&World) -> Result<()>| {
        row(name, no_agent(), move || {
            let world = World::build()?;
            test(&world).map_err(|error| error.context(world.cluster.logs()))
        })
    };
    vec![
        api(
            "after an outage and a history that is gone, a change arrives within 5 s",
            returns,
        ),
        api(
            "an agent that is restarted does not wait for endpoints that default/kubernetes never had",
            never_had_endpoints,
        ),
        api(
            "default/kubernetes is waited for half a minute, and then stays as it was",
            waits_no_longer,
        ),
    ]
}

// Dropped in this order: the agents end before what they follow.
struct World {
    cluster: Cluster,
    server: ApiServer,
}

impl World {
    fn build() -> Result<Self> {
        let plan = Plan {
            nodes: 1,
            ..Plan::default()
        };
        let mut cluster = Cluster::build(&plan, Uplink::Tc)?;
        let server = ApiServer::serve(listen(&cluster)?)?;
        let kubeconfig = cluster.topology.run.directory("api")?.join("kubeconfig");
        fs::write(&kubeconfig, server.kubeconfig().to_string())?;
        cluster.follow(Source::Kubeconfig(kubeconfig));
        Ok(Self { cluster, server })
    }

    fn api(&self) -> Client<'_> {
        Client::inside(&self.cluster.topology.router.netns, self.server.address())
    }

    fn apply(&self, vip: &Vip, pods: &[&Pod]) -> Result<()> {
        for family in Family::BOTH {
            let name = format!("{}-{family}", vip.name);
            self.api()
                .apply(&vip.endpoints(pods).slice(&name, family))?;
        }
        self.api().apply(&vip.service().object())
    }

    /// Waits until the service answers as wanted; tells how long that took.
    fn await_answer(
        &self,
        limit: Duration,
        vip: &Vip,
        wanted: impl Fn(&Answer) -> bool,
    ) -> Result<Duration> {
        let began = Instant::now();
        let target = vip.on_node(self.cluster.node(1), Family::V4);
        eventually_within(limit, &vip.name, || {
            let client = self.cluster.topology.client();
            let answer = dial(client, Protocol::Tcp, target).ask();
            ensure!(wanted(&answer), "{answer}");
            Ok(())
        })?;
        Ok(began.elapsed())
    }

    /// The agent has said all this in one line, or says it soon.
    fn says(&self, words: &[&str]) -> Result<()> {
        eventually(&format!("the log says {words:?}"), || {
            let agents = self.cluster.agents();
            let mut lines = agents.iter().flat_map(Agent::lines);
            let said = lines.any(|line| words.iter().all(|word| line.contains(word)));
            ensure!(said, "it does not");
            Ok(())
        })
    }

    /// The answers of `/readyz`, `/healthz` and `/livez`.
    fn answers_probes(&self, wanted: [u16; 3]) -> Result<()> {
        site::answers_probes(self.cluster.node(1), wanted)
    }

    fn own(&self) -> Vip {
        Vip {
            name: "kubernetes".to_owned(),
            ..self.cluster.vip("own")
        }
    }
}

fn listen(cluster: &Cluster) -> Result<TcpListener> {
    let at = address::on_segment(0, 1).v4;
    let router = &cluster.topology.router.netns;
    eventually("the API server's address", || {
        Ok(router.run(|| TcpListener::bind((at, PORT)))?)
    })
}

fn returns(world: &World) -> Result<()> {
    let cluster = &world.cluster;
    let vip = cluster.vip("changing");
    let pods = ["p1", "p1b"].map(|name| cluster.pod(name));
    world.apply(&vip, &pods[..1])?;
    cluster.start_agents()?;
    world.await_answer(PATIENCE, &vip, |answer| answer.who() == Some("p1:8080"))?;
    for (number, away) in [if is_long() { 60 } else { 12 }, 2].into_iter().enumerate() {
        let pod = pods[(number + 1) % 2];
        world.server.stop();
        thread::sleep(Duration::from_secs(away));
        // No restart would help, and what is served is served.
        world.answers_probes([200, 200, 200])?;
        // Its history does not reach back to where the watches were.
        world.server.script("gone")?;
        world.server.resume(listen(cluster)?)?;
        world.apply(&vip, &[pod])?;
        let wanted = format!("{}:8080", pod.name);
        let took = world.await_answer(PATIENCE, &vip, |answer| answer.who() == Some(&wanted))?;
        eprintln!("after {away} s without a server, a change took {took:?}");
        ensure!(took < patient(ARRIVES_WITHIN), "it took {took:?}");
        world.says(&["following EndpointSlices again"])?;
        world.answers_probes([200, 200, 200])?;
    }
    Ok(())
}

fn never_had_endpoints(world: &World) -> Result<()> {
    let cluster = &world.cluster;
    let own = world.own();
    world.api().apply(&own.service().object())?;
    let other = cluster.vip("other");
    world.apply(&other, &[cluster.pod("p1")])?;
    cluster.start_agents()?;
    world.await_answer(PATIENCE, &other, |answer| answer.who().is_some())?;
    // The file of names is written a little later.
    eventually("the names", || {
        let shown = testbed::cli::ask(cluster.node(1), &["get", "services", "-A"])?;
        ensure!(shown.contains("kubernetes"), "{shown}");
        Ok(())
    })?;
    cluster.kill_agents();
    let began = Instant::now();
    cluster.start_agents()?;
    let took = began.elapsed();
    world.answers_probes([200, 200, 200])?;
    // On a busy machine an agent that waits takes no longer than one that starts.
    let lines = cluster.agents()[0].lines();
    let waits = lines.iter().find(|line| line.contains("waiting for them"));
    ensure!(waits.is_none(), "{waits:?}");
    ensure!(
        took < patient(Duration::from_secs(15)),
        "ready after {took:?}"
    );
    world.apply(&other, &[cluster.pod("p1b")])?;
    world.await_answer(PATIENCE, &other, |answer| answer.who() == Some("p1b:8080"))?;
    Ok(())
}

fn waits_no_longer(world: &World) -> Result<()> {
    let cluster = &world.cluster;
    let own = world.own();
    world.apply(&own, &[cluster.pod("p1")])?;
    let other = cluster.vip("other");
    world.apply(&other, &[cluster.pod("p1b")])?;
    cluster.start_agents()?;
    let served = |answer: &Answer| answer.who().is_some();
    world.await_answer(PATIENCE, &own, served)?;
    eventually("the names", || {
        let shown = testbed::cli::ask(cluster.node(1), &["get", "services", "-A"])?;
        ensure!(shown.contains("kubernetes"), "{shown}");
        Ok(())
    })?;
    cluster.kill_agents();
    for vip in [&own, &other] {
        for family in Family::BOTH {
            let name = format!("{}-{family}", vip.name);
            world.api().delete(Resource::EndpointSlices, &name)?;
        }
        world.api().delete(Resource::Services, &vip.name)?;
    }
    cluster.begin_agents()?;
    world.says(&["lack Service default/kubernetes", "waiting for them"])?;
    world.answers_probes([503, 200, 200])?;
    let took = world
        .await_answer(2 * PATIENCE, &other, |answer| *answer == Answer::Refused)
        .context("the lists are believed in the end")?;
    ensure!(took > PATIENCE / 2, "after {took:?} already");
    world.says(&["they are believed now", "it stays as it was"])?;
    eventually("the agent is ready", || {
        world.answers_probes([200, 200, 200])
    })?;
    let kept = world.await_answer(ARRIVES_WITHIN, &own, |answer| {
        answer.who() == Some("p1:8080")
    });
    kept.context("default/kubernetes stays as it was")?;
    world.apply(&own, &[cluster.pod("p1b")])?;
    world.await_answer(ARRIVES_WITHIN, &own, |answer| {
        answer.who() == Some("p1b:8080")
    })?;
    Ok(())
}
