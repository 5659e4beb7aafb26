//! Whole paths over veth: Portside beside direct traffic to the pod and beside nftables rules of kube-proxy's shape,
//! in turn, in one run.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::table::Table;
use super::{cpu, median};
use crate::address::Family;
use crate::agent::Uplink;
use crate::cluster::{Cluster, Vip};
use crate::netns::Netns;
use crate::patience::eventually;
use crate::sockets::http::{self, HttpServer};
use crate::topology::{Plan, Pod};

/// Rounds of all ways in turn; the median counts.
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(2);
/// A UDP flow without replies is confirmed after a second.
const WARM_UP: Duration = Duration::from_millis(1200);
/// With its headers a frame of 64 bytes, the check sequence not counted.
const DATAGRAM: [u8; 18] = [0; 18];
const WEB: u16 = 8000;

/// A cluster that is reached in one way.
struct Way {
    name: &'static str,
    cluster: Cluster,
    target: Target,
    _servers: Vec<HttpServer>,
}

enum Target {
    /// The pod's own address.
    Direct,
    /// A service of it, by NodePort (`p1` local, `p2` remote).
    Service {
        local: Vip,
        remote: Vip,
    },
    Rules,
}

/// What was asked for, by whom.
#[derive(Clone, Copy, PartialEq)]
enum Case {
    Local,
    Remote,
    Hairpin,
}

const CASES: [(Case, &str); 3] = [
    (Case::Local, "outside, local pod"),
    (Case::Remote, "outside, remote pod"),
    (Case::Hairpin, "a pod, itself"),
];

/// Node ports of the nftables rules: the local and the remote pod's.
const RULE_PORTS: [u16; 2] = [31_001, 31_002];

pub fn measure() -> Result<Vec<Table>> {
    let ways = [
        Way::build("direct", Uplink::Tc, false)?,
        Way::build("Portside, XDP", Uplink::Xdp, true)?,
        Way::build("Portside, TC", Uplink::Tc, true)?,
        Way::nftables()?,
    ];
    Ok(vec![connections(&ways)?, datagrams(&ways)?])
}

impl Way {
    fn build(name: &'static str, uplink: Uplink, with_agents: bool) -> Result<Self> {
        let cluster = Cluster::build(&Plan::default(), uplink)?;
        let servers = ["p1", "p2"].map(|pod| HttpServer::start(cluster.pod(pod), pod, WEB));
        let target = if with_agents {
            let [local, remote] = ["p1", "p2"].map(|pod| publish(&cluster, cluster.pod(pod)));
            cluster.start_agents()?;
            Target::Service {
                local: local?,
                remote: remote?,
            }
        } else {
            Target::Direct
        };
        let way = Self {
            name,
            cluster,
            target,
            _servers: servers.into_iter().collect::<Result<_>>()?,
        };
        way.check()?;
        Ok(way)
    }

    fn nftables() -> Result<Self> {
        let mut way = Self::build("nftables", Uplink::Tc, false)?;
        let pods = ["p1", "p2"].map(|pod| way.cluster.pod(pod).ip.v4);
        way.cluster.node(1).netns().batch(
            "nft",
            &["-f", "-"],
            &rules(pods.map(|ip| ip.to_string())),
        )?;
        way.target = Target::Rules;
        way.check()?;
        Ok(way)
    }

    fn check(&self) -> Result<()> {
        for (case, what) in CASES {
            let target = self.target(case, WEB);
            eventually(&format!("{}: {what}", self.name), || {
                http::get(self.from(case), target).map(drop)
            })?;
        }
        Ok(())
    }

    fn from(&self, case: Case) -> &Netns {
        match case {
            Case::Local | Case::Remote => &self.cluster.topology.client().netns,
            Case::Hairpin => &self.cluster.pod("p1").netns,
        }
    }

    fn pod(&self, case: Case) -> &Pod {
        self.cluster
            .pod(if case == Case::Remote { "p2" } else { "p1" })
    }

    /// Where to ask for the pod; `port` is the pod's own.
    fn target(&self, case: Case, port: u16) -> SocketAddr {
        let node = self.cluster.node(1);
        match &self.target {
            Target::Direct => SocketAddr::new(self.pod(case).ip.v4.into(), port),
            Target::Service { remote, .. } if case == Case::Remote => {
                remote.on_node(node, Family::V4)
            }
            Target::Service { local, .. } => local.on_node(node, Family::V4),
            Target::Rules => SocketAddr::new(
                node.host.ip.v4.into(),
                RULE_PORTS[usize::from(case == Case::Remote)],
            ),
        }
    }
}

/// A service whose TCP port leads to the web server and whose UDP port to the echo server's.
fn publish(cluster: &Cluster, pod: &Pod) -> Result<Vip> {
    let vip = cluster.vip("bench");
    cluster
        .manifests
        .apply_endpoints(&vip.endpoints_at(&[pod], WEB))?;
    cluster.manifests.apply(&vip.service())?;
    Ok(vip)
}

/// DNAT by a verdict map, random choice, and masquerading by mark, as kube-proxy's nftables mode writes them.
fn rules([local, remote]: [String; 2]) -> String {
    let [a, b] = RULE_PORTS;
    format!(
        "table ip bench {{
            chain ep-1 {{
                ip saddr {local} meta mark set mark or 0x4000
                meta l4proto {{ tcp, udp }} dnat to {local}:{WEB}
            }}
            chain ep-2 {{
                ip saddr {remote} meta mark set mark or 0x4000
                meta l4proto {{ tcp, udp }} dnat to {remote}:{WEB}
            }}
            chain svc-1 {{
                meta mark set mark or 0x4000
                numgen random mod 1 vmap {{ 0 : goto ep-1 }}
            }}
            chain svc-2 {{
                meta mark set mark or 0x4000
                numgen random mod 1 vmap {{ 0 : goto ep-2 }}
            }}
            map nodeports {{
                type inet_proto . inet_service : verdict
                elements = {{ tcp . {a} : goto svc-1, tcp . {b} : goto svc-2,
                             udp . {a} : goto svc-1, udp . {b} : goto svc-2 }}
            }}
            chain services {{
                fib daddr type local meta l4proto . th dport vmap @nodeports
            }}
            chain prerouting {{
                type nat hook prerouting priority dstnat; policy accept;
                jump services
            }}
            chain output {{
                type nat hook output priority -100; policy accept;
                jump services
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                meta mark and 0x4000 != 0 masquerade fully-random
            }}
        }}\n"
    )
}

/// A figure per second and the CPU time for each.
struct Rate {
    per_second: f64,
    cpu: f64,
}

fn medians(rates: &[Rate]) -> Rate {
    Rate {
        per_second: median(&mut rates.iter().map(|rate| rate.per_second).collect::<Vec<_>>()),
        cpu: median(&mut rates.iter().map(|rate| rate.cpu).collect::<Vec<_>>()),
    }
}

/// Counts for a round, and divides.
fn rate(count: impl FnOnce(Instant) -> Result<u64>) -> Result<Rate> {
    let (began, busy) = (Instant::now(), cpu::busy()?);
    let counted = count(began + ROUND)?;
    let (elapsed, spent) = (began.elapsed(), cpu::busy()? - busy);
    ensure!(counted > 0, "nothing arrived");
    Ok(Rate {
        per_second: counted as f64 / elapsed.as_secs_f64(),
        cpu: spent.as_secs_f64() * 1e6 / counted as f64,
    })
}

/// Every way in turn, several rounds.
fn in_turn(ways: &[Way], mut measure: impl FnMut(&Way) -> Result<Rate>) -> Result<Vec<Rate>> {
    let mut rates: Vec<Vec<Rate>> = ways.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (way, rates) in ways.iter().zip(&mut rates) {
            rates.push(measure(way).with_context(|| way.name.to_owned())?);
        }
    }
    Ok(rates.iter().map(|rates| medians(rates)).collect())
}

fn fill(table: &mut Table, what: &str, ways: &[Way], rates: &[Rate]) {
    let direct = &rates[0];
    for (way, rate) in ways.iter().zip(rates) {
        table.row(vec![
            what.to_owned(),
            way.name.to_owned(),
            format!("{:.0}", rate.per_second),
            format!("{:.2}", rate.cpu),
            format!("{:.2}", rate.cpu / direct.cpu),
        ]);
    }
}

/// Connections one after the other, each with one HTTP request.
fn connections(ways: &[Way]) -> Result<Table> {
    let mut table = Table::new(
        "TCP connections with one HTTP request each, one client, IPv4",
        &[
            "case",
            "way",
            "per second",
            "CPU us each",
            "CPU over direct",
        ],
    );
    for (case, what) in CASES {
        let rates = in_turn(ways, |way| {
            let target = way.target(case, WEB);
            rate(|until| {
                way.from(case).run(|| {
                    let mut made = 0;
                    while Instant::now() < until {
                        http::get_here(target)?;
                        made += 1;
                    }
                    Ok(made)
                })
            })
        })?;
        fill(&mut table, what, ways, &rates);
    }
    Ok(table)
}

/// Datagrams of one flow from one sending thread, counted where the pod's interface receives them.
fn datagrams(ways: &[Way]) -> Result<Table> {
    let mut table = Table::new(
        "UDP, 64-byte frames, one flow, one sending thread, to a NodePort with a remote backend, IPv4",
        &[
            "case",
            "way",
            "packets per second",
            "CPU us each",
            "CPU over direct",
        ],
    );
    let case = Case::Remote;
    let rates = in_turn(ways, |way| {
        let pod = way.pod(case);
        // Nobody reads: what comes is counted and then costs no more.
        let _sink = pod.netns.run(|| UdpSocket::bind((pod.ip.v4, WEB)))?;
        let socket = way.from(case).run(|| UdpSocket::bind("0.0.0.0:0"))?;
        way.from(case)
            .run(|| socket.connect(way.target(case, WEB)))?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // A full queue is what is being measured.
                    let _ = socket.send(&DATAGRAM);
                }
            });
            thread::sleep(WARM_UP);
            let rate = rate(|until| {
                let before = received(pod)?;
                thread::sleep(until.saturating_duration_since(Instant::now()));
                Ok(received(pod)? - before)
            });
            stop.store(true, Ordering::Relaxed);
            rate
        })
    })?;
    fill(&mut table, "outside, remote pod", ways, &rates);
    Ok(table)
}

/// Packets that a pod's interface has received.
fn received(pod: &Pod) -> Result<u64> {
    let counters = pod
        .netns
        .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
    let line = counters
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"))
        .context("the pod has no eth0")?;
    line.split_whitespace()
        .nth(1)
        .context("no packet counter")?
        .parse()
        .context("a packet counter")
}
