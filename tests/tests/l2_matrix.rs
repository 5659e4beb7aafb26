//! Every kind of client to every kind of backend through a service, over every kind of network.
//!
//! All services exist before the agents start, so a row is one request that has to work at the first try: the right
//! content comes back, and the backend saw the client address that the edge rule promises.
//!
//! Over devices without an Ethernet header, rules of kube-proxy's shape serve the same rows on the same topology: what
//! answers there answers by Portside, too. They differ in the address that the backend sees alone.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use libtest_mimic::Trial;
use testbed::address::{Family, Pair};
use testbed::agent::Uplink;
use testbed::answer::Answer;
use testbed::cluster::{Cluster, PORT, Vip};
use testbed::kube_proxy;
use testbed::masquerade;
use testbed::patience::unless_by_name;
use testbed::runner::{self, Shared, ignorable_cluster_row};
use testbed::sockets::Protocol;
use testbed::sockets::client::Dial;
use testbed::topology::{Host, Joined, Plan, PodLinks, Segments, Tunnel};
use testbed::xdp;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Frontend {
    NodePort,
    ClusterIp,
}

/// Who asks. The service is always reached by way of node1.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    /// Behind the router.
    Outside,
    /// Outside, on the nodes' own segment.
    OnLink,
    /// A pod of node1.
    Pod,
    /// The local service's backend itself: a hairpin.
    Itself,
    /// A process on node1.
    Node,
    /// A pod of node2, to a port of node1.
    OtherPod,
}

/// The only endpoint of the service that is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backend {
    LocalPod,
    RemotePod,
    LocalHost,
    RemoteHost,
}

impl Backend {
    const ALL: [Self; 4] = [
        Self::LocalPod,
        Self::RemotePod,
        Self::LocalHost,
        Self::RemoteHost,
    ];

    fn host(self, cluster: &Cluster) -> &Host {
        match self {
            Self::LocalPod => cluster.pod("p1"),
            Self::RemotePod => cluster.pod("p2"),
            Self::LocalHost => &cluster.node(1).host,
            Self::RemoteHost => &cluster.node(2).host,
        }
    }
}

/// By what the services are served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Served {
    By(Uplink),
    /// The yardstick: see `testbed::kube_proxy`.
    Rules,
}

#[derive(Clone, Copy)]
struct Row {
    served: Served,
    joined: Joined,
    segments: Segments,
    family: Family,
    protocol: Protocol,
    frontend: Frontend,
    client: Client,
    backend: Backend,
}

fn main() -> ExitCode {
    let mut rows = Vec::new();
    for uplink in [Uplink::Xdp, Uplink::Tc] {
        for joined in [Joined::Routed, Joined::Vxlan] {
            for pods in [PodLinks::Ptp, PodLinks::Bridge] {
                // A sample leaves out the mixed ones: each of the four is in one of the others.
                let mixed = (joined == Joined::Routed) != (pods == PodLinks::Ptp);
                if mixed && sample_step().is_some() {
                    continue;
                }
                let plan = Plan {
                    pods,
                    joined,
                    ..Plan::default()
                };
                rows.extend(table(plan, Served::By(uplink)));
            }
        }
    }
    for tunnel in Tunnel::ALL {
        let between = Plan {
            joined: Joined::Tunnel(tunnel),
            ..Plan::default()
        };
        rows.extend(table(between.clone(), Served::By(Uplink::Xdp)));
        let behind = Plan {
            segments: Segments::Behind(tunnel),
            ..Plan::default()
        };
        for plan in [between, behind] {
            rows.extend(table(plan.clone(), Served::By(Uplink::Tc)));
            rows.extend(table(plan, Served::Rules));
        }
    }
    if let Some(step) = sample_step() {
        rows = rows.into_iter().step_by(step).collect();
    }
    runner::main(rows)
}

/// Set where a row takes long: a sample of the table is run, every so many-th row.
const SAMPLE_VARIABLE: &str = vm_protocol::variable::SAMPLE;

fn sample_step() -> Option<usize> {
    let step = std::env::var(SAMPLE_VARIABLE).ok()?;
    match step.parse() {
        Ok(step) if step > 0 => Some(step),
        _ => panic!("{SAMPLE_VARIABLE}={step} is no step"),
    }
}

/// Are there fewer questions of the same kind among the cases of tunnels, which are enough for an emulated machine?
fn is_extra(plan: &Plan, served: Served) -> bool {
    let between = matches!(plan.joined, Joined::Tunnel(Tunnel::Vti | Tunnel::Xfrm));
    between || served == Served::Rules || matches!(plan.segments, Segments::Behind(_))
}

const TOO_LONG: &str = "takes an emulated machine long; by its name it runs there";

fn table(plan: Plan, served: Served) -> Vec<Trial> {
    let joined = match (plan.segments, plan.joined) {
        (Segments::Behind(tunnel), _) => format!("behind-{tunnel}"),
        (_, Joined::Tunnel(tunnel)) => tunnel.to_string(),
        (_, joined) => format!("{joined:?}"),
    };
    let world = format!("{:?}/{joined}/{served}", plan.pods).to_lowercase();
    let too_long = || match is_extra(&plan, served) {
        true => unless_by_name(TOO_LONG),
        false => None,
    };
    let missing = plan.missing().or_else(too_long);
    let (joined, segments) = (plan.joined, plan.segments);
    let cluster = Shared::new(move || World::start(&plan, served));
    let mut trials = Vec::new();
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            for frontend in [Frontend::NodePort, Frontend::ClusterIp] {
                for client in Client::ALL {
                    for backend in Backend::ALL {
                        let row = Row {
                            served,
                            joined,
                            segments,
                            family,
                            protocol,
                            frontend,
                            client,
                            backend,
                        };
                        if row.has_a_meaning() {
                            trials.push(row.trial(&world, missing, &cluster));
                        }
                    }
                }
            }
        }
    }
    trials
}

/// A cluster with one service for each kind of backend.
struct World {
    cluster: Cluster,
    vips: Vec<(Backend, Vip)>,
}

impl World {
    /// Has every service programmed before anybody asks.
    fn start(plan: &Plan, served: Served) -> Result<Self> {
        match served {
            Served::By(uplink) => Self::of_agents(plan, uplink),
            Served::Rules => Self::of_rules(plan),
        }
    }

    fn of_rules(plan: &Plan) -> Result<Self> {
        let cluster = Cluster::build_with_rules(plan)?;
        let mut vips = Vec::new();
        for backend in Backend::ALL {
            let vip = cluster.vip("matrix");
            let endpoint = backend.host(&cluster).ip;
            for node in &cluster.topology.nodes {
                kube_proxy::install_at(node, &kube_proxy::own_table(&vip), &vip, &[endpoint])?;
            }
            vips.push((backend, vip));
        }
        Ok(Self { cluster, vips })
    }

    fn of_agents(plan: &Plan, uplink: Uplink) -> Result<Self> {
        let cluster = Cluster::build(plan, uplink)?;
        let mut vips = Vec::new();
        for backend in Backend::ALL {
            let vip = cluster.vip("matrix");
            let endpoints = match backend {
                Backend::LocalPod => vip.endpoints(&[cluster.pod("p1")]),
                Backend::RemotePod => vip.endpoints(&[cluster.pod("p2")]),
                Backend::LocalHost | Backend::RemoteHost => {
                    vip.no_endpoints().host_network(backend.host(&cluster))
                }
            };
            cluster.manifests.apply_endpoints(&endpoints)?;
            cluster.manifests.apply(&vip.service())?;
            vips.push((backend, vip));
        }
        cluster.start_agents()?;
        Ok(Self { cluster, vips })
    }

    fn vip(&self, backend: Backend) -> &Vip {
        let of_backend = self.vips.iter().find(|(of, _)| *of == backend);
        &of_backend
            .expect("there is a service for every kind of backend")
            .1
    }
}

impl AsRef<Cluster> for World {
    fn as_ref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Client {
    const ALL: [Self; 6] = [
        Self::Outside,
        Self::OnLink,
        Self::Pod,
        Self::Itself,
        Self::Node,
        Self::OtherPod,
    ];

    fn host(self, cluster: &Cluster) -> &Host {
        match self {
            Self::Outside => cluster.topology.client(),
            Self::OnLink => &cluster.topology.neighbour,
            Self::Pod => cluster.pod("c1"),
            Self::Itself => cluster.pod("p1"),
            Self::Node => &cluster.node(1).host,
            Self::OtherPod => cluster.pod("c2"),
        }
    }
}

/// What the backend is to see as its client's address.
enum Seen {
    /// The client's own.
    Kept,
    /// That of the device through which node1 reaches the backend.
    Egress(Pair),
    /// Any of node1's.
    Node1,
    /// The same, or that of a link below its tunnel: what never leaves the node is masqueraded by the first of all addresses.
    AnyOfNode1,
}

impl Row {
    fn trial(
        self,
        world: &str,
        missing: Option<&'static str>,
        shared: &Arc<Shared<World>>,
    ) -> Trial {
        let needs_nft = self.rests_on_masquerade() || self.served == Served::Rules;
        let no_nft = needs_nft && !masquerade::available();
        let missing = missing.or(no_nft.then_some(masquerade::MISSING));
        ignorable_cluster_row(format!("{world}/{self}"), missing, shared, move |world| {
            if self.is_taken_by_xdp() {
                xdp::takes(&world.cluster, || self.run(world))
            } else {
                self.run(world)
            }
        })
    }

    fn run(self, world: &World) -> Result<()> {
        let cluster = &world.cluster;
        let (client, backend) = (self.client.host(cluster), self.backend.host(cluster));
        let target = self.target(cluster, world.vip(self.backend));
        let answer = Dial::new(&client.netns, self.protocol, target).ask();
        let Answer::Ok { who, client: seen } = &answer else {
            bail!("{} asked {target}: {answer}", client.name);
        };
        ensure!(
            *who == format!("{}:{PORT}", backend.name),
            "{} asked {target}: {answer}",
            client.name
        );
        self.check_address(cluster, client, seen.ip())
    }

    fn target(self, cluster: &Cluster, vip: &Vip) -> SocketAddr {
        match self.frontend {
            // The packets come in by the tunnel.
            Frontend::NodePort
                if self.client == Client::OtherPod && self.joined != Joined::Routed =>
            {
                let own = cluster.node(1).address_towards_other_pods();
                SocketAddr::new(own.of(self.family), vip.node_port)
            }
            Frontend::NodePort => vip.on_node(cluster.node(1), self.family),
            Frontend::ClusterIp => vip.on_cluster_ip(self.family),
        }
    }

    fn check_address(self, cluster: &Cluster, client: &Host, seen: IpAddr) -> Result<()> {
        let own = client.ip.of(self.family);
        let expected = match self.served {
            Served::By(_) => self.expected(cluster),
            Served::Rules => self.expected_by_rules(cluster),
        };
        match expected {
            Seen::Kept => ensure!(
                seen == own,
                "the backend saw {seen}, not the client's own {own}"
            ),
            Seen::Egress(pair) => {
                let egress = pair.of(self.family);
                ensure!(
                    seen == egress,
                    "the backend saw {seen}, not the egress device's {egress}"
                );
            }
            Seen::Node1 => ensure!(
                cluster.node(1).owns(seen),
                "the backend saw {seen}, none of node1's addresses"
            ),
            Seen::AnyOfNode1 => ensure!(
                cluster.node(1).owns(seen) || cluster.node(1).is_below(seen),
                "the backend saw {seen}, not even an address below node1's tunnel"
            ),
        }
        Ok(())
    }

    /// The edge rule: only a remote backend of an outside client, a hairpin, and the CNI itself hide the client.
    fn expected(self, cluster: &Cluster) -> Seen {
        match self.client {
            Client::Node => Seen::Node1,
            Client::Itself if self.backend == Backend::LocalPod => Seen::Node1,
            Client::Pod | Client::Itself if self.rests_on_masquerade() => {
                Seen::Egress(cluster.node(1).host.ip)
            }
            Client::Pod | Client::Itself => Seen::Kept,
            Client::Outside | Client::OnLink | Client::OtherPod => match self.backend {
                Backend::LocalPod | Backend::LocalHost => Seen::Kept,
                Backend::RemotePod => Seen::Egress(cluster.node(1).address_towards_other_pods()),
                Backend::RemoteHost => Seen::Egress(cluster.node(1).host.ip),
            },
        }
    }

    /// What comes to a NodePort, and what comes from no pod, leaves under the node's address, unless it stays on the node.
    fn expected_by_rules(self, cluster: &Cluster) -> Seen {
        match (self.client, self.backend) {
            (Client::Node, Backend::LocalHost) => Seen::AnyOfNode1,
            (Client::Node, _) | (Client::Itself, Backend::LocalPod) => Seen::Node1,
            (_, Backend::LocalHost) => Seen::Kept,
            (Client::Pod, _) if self.frontend == Frontend::ClusterIp => self.expected(cluster),
            (_, Backend::LocalPod) => Seen::Node1,
            (_, Backend::RemotePod) => Seen::Egress(cluster.node(1).address_towards_other_pods()),
            (_, Backend::RemoteHost) => Seen::Egress(cluster.node(1).host.ip),
        }
    }

    /// A pod on an overlay reaches another node's own address only under its node's.
    fn rests_on_masquerade(self) -> bool {
        let pod = matches!(self.client, Client::Pod | Client::Itself);
        self.joined != Joined::Routed && pod && self.backend == Backend::RemoteHost
    }

    /// Its first packet is: to a backend elsewhere it may be TC's, which finds the next hop.
    fn is_taken_by_xdp(self) -> bool {
        let from_outside = matches!(self.client, Client::Outside | Client::OnLink);
        let is_here = matches!(self.backend, Backend::LocalPod | Backend::LocalHost);
        self.served == Served::By(Uplink::Xdp) && from_outside && is_here
    }

    fn has_a_meaning(self) -> bool {
        match self.client {
            // Other backends are the business of the client pod.
            Client::Itself => self.backend == Backend::LocalPod,
            // A cluster address is translated on node2 already, and an overlay does not route pods to the uplink.
            Client::OtherPod => self.frontend == Frontend::NodePort && self.joined != Joined::Vxlan,
            // A cluster address on the segment is reached by way of the router, like from behind it.
            // Nor is anybody on the link of a device that leads to the router alone.
            Client::OnLink => {
                let has_link = !matches!(self.segments, Segments::Behind(_));
                self.frontend == Frontend::NodePort && has_link
            }
            Client::Outside | Client::Pod | Client::Node => true,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self {
            family,
            protocol,
            frontend,
            client,
            backend,
            joined: _,
            segments: _,
            served: _,
        } = self;
        write!(f, "{family}/{protocol}/{frontend}/{client}->{backend}")
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::By(uplink) => write!(f, "{uplink:?}"),
            Self::Rules => f.write_str("rules"),
        }
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::NodePort => "nodeport",
            Self::ClusterIp => "clusterip",
        })
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Outside => "outside",
            Self::OnLink => "on-link",
            Self::Pod => "pod",
            Self::Itself => "itself",
            Self::Node => "node",
            Self::OtherPod => "other-nodes-pod",
        })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::LocalPod => "local-pod",
            Self::RemotePod => "remote-pod",
            Self::LocalHost => "local-host",
            Self::RemoteHost => "remote-host",
        })
    }
}
