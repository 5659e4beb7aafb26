//! A node with a service, clients that ask it all the time, and what they lose.

use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use testbed::address::Family;
use testbed::agent::{Agent, Launch, Tables, Uplink};
use testbed::ask::{await_answer, dial};
use testbed::cluster::{Cluster, Vip};
use testbed::meanwhile::Meanwhile;
use testbed::one_cpu::OneCpu;
use testbed::patience::{eventually_within, patient, pause};
use testbed::runner::{no_agent, row};
use testbed::sockets::{Protocol, http};
use testbed::topology::{Host, Node, Plan};

/// From one request of a client to its next.
const PAUSE: Duration = Duration::from_millis(10);
/// A request without an answer is lost.
const LOST_AFTER: Duration = Duration::from_millis(700);

const TABLES: Tables = Tables {
    flows: 4096,
    backends: 1024,
    services: 256,
};

/// How programs get at packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// XDP at uplinks, and TC links where the kernel has them.
    Links,
    /// TC filters.
    Filters,
}

impl Way {
    pub const BOTH: [Self; 2] = [Self::Links, Self::Filters];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Links => "links",
            Self::Filters => "filters",
        })
    }
}

/// Is all of the suite to run?
pub fn is_long() -> bool {
    std::env::var("PORTSIDE_FAULTS").is_ok_and(|form| form == "long")
}

pub struct Site {
    pub cluster: Cluster,
    pub vip: Vip,
    way: Way,
}

/// What clients asked and did not get.
#[derive(Default, Debug)]
pub struct Tally {
    pub requests: usize,
    pub lost: usize,
    /// The first of them.
    why: Option<String>,
    /// When the first and the last of them were made.
    span: Option<(Instant, Instant)>,
}

impl Tally {
    /// From the first lost request to the last one. Each was waited for a while longer ([`LOST_AFTER`]).
    pub fn gap(&self) -> Duration {
        self.span
            .map_or(Duration::ZERO, |(first, last)| last - first)
    }

    pub fn nothing_is_lost(&self) -> Result<()> {
        let why = self.why.as_deref().unwrap_or_default();
        ensure!(self.lost == 0, "{self}: {why}");
        ensure!(self.requests > 0, "nobody asked");
        Ok(())
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.lost += other.lost;
        self.why = self.why.take().or(other.why);
        self.span = match (self.span, other.span) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, lost, .. } = self;
        write!(
            f,
            "{lost} of {requests} requests lost within {:?}",
            self.gap()
        )
    }
}

impl Site {
    /// Without an agent.
    pub fn build(way: Way) -> Result<Self> {
        let plan = Plan {
            nodes: 1,
            ..Plan::default()
        };
        let uplink = match way {
            Way::Links => Uplink::Xdp,
            Way::Filters => Uplink::Tc,
        };
        let cluster = Cluster::build(&plan, uplink)?;
        let vip = cluster.publish("kept", &[cluster.pod("p1"), cluster.pod("p1b")])?;
        Ok(Self { cluster, vip, way })
    }

    pub fn start(way: Way) -> Result<Self> {
        let site = Self::build(way)?;
        site.start_agent()?;
        site.is_served()?;
        Ok(site)
    }

    pub fn node(&self) -> &Node {
        self.cluster.node(1)
    }

    pub fn launch(&self) -> Launch<'_> {
        let launch = self.cluster.launch(self.node()).with_tables(TABLES);
        match self.way {
            Way::Links => launch,
            Way::Filters => launch.attaching_by("clsact"),
        }
    }

    pub fn start_agent(&self) -> Result<()> {
        self.begin_agent()?;
        self.cluster.agents()[0].wait_until_ready()
    }

    pub fn begin_agent(&self) -> Result<()> {
        let agent = Agent::begin(&self.launch())?;
        self.cluster.agents().push(agent);
        Ok(())
    }

    /// Outside, in a pod and on the node, in both families and protocols.
    pub fn clients(&self) -> Vec<(&Host, Protocol, SocketAddr)> {
        let mut clients = Vec::new();
        for family in Family::BOTH {
            for protocol in Protocol::BOTH {
                let cluster_ip = self.vip.on_cluster_ip(family);
                let node_port = self.vip.on_node(self.node(), family);
                let pod: &Host = self.cluster.pod("c1");
                clients.extend([
                    (self.cluster.topology.client(), protocol, node_port),
                    (pod, protocol, cluster_ip),
                    (&self.node().host, protocol, cluster_ip),
                ]);
            }
        }
        clients
    }

    /// Every kind of client gets answers in the end.
    pub fn is_served(&self) -> Result<()> {
        for (client, protocol, target) in self.clients() {
            await_answer(client, protocol, target, |answer| answer.who().is_some())?;
        }
        Ok(())
    }

    /// Does `work` while all clients ask.
    pub fn under_traffic<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Tally)> {
        let meanwhile = &Meanwhile::default();
        thread::scope(|scope| {
            let asking: Vec<_> = self
                .clients()
                .into_iter()
                .map(|client| scope.spawn(move || ask_until_over(meanwhile, client)))
                .collect();
            let worked = meanwhile.work(asking.len(), work);
            let mut tally = Tally::default();
            for asking in asking {
                tally.add(asking.join().expect("asking does not panic")?);
            }
            eprintln!("{tally}");
            Ok((worked?, tally))
        })
    }

    /// What a probe of the node answers.
    pub fn probe(&self, path: &str) -> Result<(u16, String)> {
        probe(self.node(), path)
    }

    /// The answers of `/readyz`, `/healthz` and `/livez`.
    pub fn answers_probes(&self, wanted: [u16; 3]) -> Result<()> {
        answers_probes(self.node(), wanted)
    }

    /// A counter of the agent's.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let at = ([127, 0, 0, 1], 10249).into();
        let text = http::fetch(self.node().netns(), at, "/metrics")?.body;
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.with_context(|| format!("no metric {name}"))?;
        let (_, value) = line.rsplit_once(' ').context("a metric without a value")?;
        Ok(value.parse()?)
    }

    /// Waits until an agent that runs has said all this in a line.
    pub fn await_said(&self, words: &[&str]) -> Result<()> {
        eventually_within(
            Duration::from_secs(15),
            &format!("the log says {words:?}"),
            || {
                let agents = self.cluster.agents();
                let mut lines = agents.iter().flat_map(Agent::lines);
                let said = lines.any(|line| words.iter().all(|word| line.contains(word)));
                ensure!(said, "not said");
                Ok(())
            },
        )
    }

    /// A change of endpoints reaches the clients.
    pub fn follows(&self) -> Result<()> {
        let cluster = &self.cluster;
        let (both, one) = (
            [cluster.pod("p1"), cluster.pod("p1b")],
            [cluster.pod("p1b")],
        );
        cluster
            .manifests
            .apply_endpoints(&self.vip.no_endpoints())?;
        let client = cluster.topology.client();
        let target = self.vip.on_node(self.node(), Family::V4);
        await_answer(client, Protocol::Tcp, target, |answer| {
            answer.who().is_none()
        })?;
        cluster
            .manifests
            .apply_endpoints(&self.vip.endpoints(&one))?;
        await_answer(client, Protocol::Tcp, target, |answer| {
            answer.who() == Some("p1b:8080")
        })?;
        cluster
            .manifests
            .apply_endpoints(&self.vip.endpoints(&both))?;
        self.is_served()
    }
}

fn probe(node: &Node, path: &str) -> Result<(u16, String)> {
    let at = (node.host.ip.v4, 10256).into();
    let answer = http::fetch(node.netns(), at, path)?;
    Ok((answer.status, answer.body))
}

/// The answers of `/readyz`, `/healthz` and `/livez` on a node.
pub fn answers_probes(node: &Node, wanted: [u16; 3]) -> Result<()> {
    let paths = ["/readyz", "/healthz", "/livez"];
    for (path, wanted) in paths.into_iter().zip(wanted) {
        let (status, body) = probe(node, path)?;
        ensure!(status == wanted, "{path}: {status} {body}");
    }
    Ok(())
}

fn ask_until_over(meanwhile: &Meanwhile, client: (&Host, Protocol, SocketAddr)) -> Result<Tally> {
    let (host, protocol, target) = client;
    let _on = OneCpu::stay()?;
    let mut tally = Tally::default();
    meanwhile.repeat(|| {
        let began = Instant::now();
        let answer = dial(host, protocol, target)
            .within(patient(LOST_AFTER))
            .ask();
        tally.requests += 1;
        if answer.who().is_none() {
            tally.lost += 1;
            tally.span = Some((tally.span.map_or(began, |(first, _)| first), began));
            tally
                .why
                .get_or_insert_with(|| format!("{protocol} {target} from {}: {answer}", host.name));
        }
        thread::sleep(pause(PAUSE));
        Ok(())
    })?;
    Ok(tally)
}

/// A row on a site of its own, on which no agent runs yet.
pub fn lone_row(
    name: impl Into<String>,
    way: Way,
    test: impl FnOnce(&Site) -> Result<()> + Send + 'static,
) -> Trial {
    row(name, no_agent(), move || {
        let site = Site::build(way)?;
        test(&site).map_err(|error| error.context(site.cluster.logs()))
    })
}
