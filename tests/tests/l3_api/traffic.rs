//! Requests that go on while something happens, and connections that stay open meanwhile: none may fail.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::address::Family;
use testbed::answer::Answer;
use testbed::ask::{dial, open};
use testbed::cluster::{Cluster, Vip};
use testbed::manifests::Endpoints;
use testbed::netns::Netns;
use testbed::one_cpu::OneCpu;
use testbed::sockets::Protocol;
use testbed::sockets::client::Conversation;
use testbed::sockets::http::{self, HttpServer};
use testbed::topology::{Host, Pod};

use crate::world::World;

const HTTP_PORT: u16 = 8000;

/// On a machine that is busy with other things, a request may take seconds and has not failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// From one request of a client to its next: many, and yet processors to spare.
const PAUSE: Duration = Duration::from_millis(10);

/// A service with web servers as its endpoints, and one with echo servers for connections that stay.
pub struct Served {
    pub web: Vip,
    pub echo: Vip,
    /// One of the web servers itself.
    direct: SocketAddr,
    _servers: Vec<HttpServer>,
}

impl Served {
    /// The pods in `first` are endpoints; all of `pods` can become some.
    pub fn start(world: &World, pods: &[&Pod], first: &[&Pod]) -> Result<Self> {
        let servers = pods
            .iter()
            .map(|pod| HttpServer::start(pod, &pod.name, HTTP_PORT))
            .collect::<Result<_>>()?;
        let web = world.cluster.vip("web");
        world.apply_endpoints(&web, &web_endpoints(&web, first))?;
        world.apply(&web.service())?;
        Ok(Self {
            web,
            // Waited for, and so is what came before it.
            echo: world.serve("echo", first)?,
            direct: SocketAddr::new(pods[0].ip.v4.into(), HTTP_PORT),
            _servers: servers,
        })
    }

    /// Moves both services to other endpoints.
    pub fn move_to(&self, world: &World, pods: &[&Pod]) -> Result<()> {
        world.apply_endpoints(&self.web, &web_endpoints(&self.web, pods))?;
        world.apply_endpoints(&self.echo, &self.echo.endpoints(pods))
    }
}

fn web_endpoints(web: &Vip, pods: &[&Pod]) -> Endpoints {
    web.endpoints_at(pods, HTTP_PORT)
}

/// What went through.
#[derive(Default)]
pub struct Count {
    pub requests: usize,
    slowest: Duration,
    /// The slowest that asked a server itself: what the machine makes of any request.
    slowest_direct: Duration,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self {
            requests,
            slowest,
            slowest_direct,
        } = self;
        write!(
            f,
            "{requests} requests, none failed, the slowest took {slowest:.1?} (without a service {slowest_direct:.1?})"
        )
    }
}

/// Clients outside, in a pod and on a node, each with a target of the service.
fn clients<'a>(cluster: &'a Cluster, vip: &Vip) -> Vec<(&'a Host, SocketAddr)> {
    let nodes = cluster.nodes_with_agents();
    let (first, last) = (&nodes[0], &nodes[nodes.len() - 1]);
    vec![
        (cluster.topology.client(), vip.on_node(first, Family::V4)),
        (cluster.topology.client(), vip.on_node(last, Family::V6)),
        (cluster.pod("c1"), vip.on_cluster_ip(Family::V4)),
        (cluster.pod("c1"), vip.on_cluster_ip(Family::V6)),
        (&first.host, vip.on_cluster_ip(Family::V4)),
    ]
}

/// Runs `work` while every client sends requests of HTTP. The first that fails is the error, and so is that of `work`.
pub fn during<'a, T>(
    cluster: &'a Cluster,
    served: &Served,
    work: impl FnOnce() -> Result<T>,
) -> Result<(Count, T)> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let done = &done;
        let ask =
            |netns: &'a Netns, target| scope.spawn(move || netns.run(|| ask_until(done, target)));
        // It uses no service, so that none of its ports is one of a service's flow.
        let direct = ask(&cluster.topology.neighbour.netns, served.direct);
        let asking: Vec<_> = clients(cluster, &served.web)
            .into_iter()
            .map(|(client, target)| {
                let name = format!("HTTP from {} to {target}", client.name);
                (name, ask(&client.netns, target))
            })
            .collect();
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let mut total = Count::default();
        let direct = direct.join().expect("asking does not panic");
        total.slowest_direct = direct.context("HTTP to a server itself")?.slowest;
        for (name, asking) in asking {
            let count = asking.join().expect("asking does not panic");
            let count = count.with_context(|| name.clone())?;
            ensure!(count.requests > 0, "{name}: not asked once");
            total.requests += count.requests;
            total.slowest = total.slowest.max(count.slowest);
        }
        Ok((total, worked?))
    })
}

fn ask_until(done: &AtomicBool, target: SocketAddr) -> Result<Count> {
    let mut count = Count::default();
    let _on = OneCpu::stay()?;
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        let asked = http::get_here_within(PATIENCE, target);
        asked.with_context(|| format!("after {} good requests", count.requests))?;
        count.requests += 1;
        count.slowest = count.slowest.max(began.elapsed());
        thread::sleep(PAUSE);
    }
    Ok(count)
}

/// Connections through the echo service, over TCP and UDP, from every client.
pub struct Kept(Vec<(Conversation, Protocol, String, String)>);

impl Kept {
    pub fn open(cluster: &Cluster, served: &Served) -> Result<Self> {
        let mut kept = Vec::new();
        for (client, target) in clients(cluster, &served.echo) {
            for protocol in Protocol::BOTH {
                let name = format!("{protocol} from {} to {target}", client.name);
                let opened = open(dial(client, protocol, target));
                let mut connection = opened.with_context(|| name.clone())?;
                let at = who(&name, connection.ask())?;
                kept.push((connection, protocol, name, at));
            }
        }
        Ok(Self(kept))
    }

    /// All answer, and each from where it did at first.
    pub fn stay(&mut self) -> Result<()> {
        for (connection, _, name, at) in &mut self.0 {
            let now = who(name, connection.ask())?;
            ensure!(now == *at, "{name}: moved from {at} to {now}");
        }
        Ok(())
    }

    /// Those over TCP stay although their endpoint may be gone; a UDP flow may have to leave it.
    pub fn stay_over_tcp(mut self) -> Result<()> {
        self.0
            .retain(|(_, protocol, ..)| *protocol == Protocol::Tcp);
        self.stay()
    }
}

fn who(name: &str, answer: Answer) -> Result<String> {
    let who = answer.who().with_context(|| format!("{name}: {answer}"))?;
    Ok(who.to_owned())
}
