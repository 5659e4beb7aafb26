//! A topology with a cast of pods, echo servers on all of them, manifests, and an agent on each node.
//!
//! The cast: on node N the servers `pN` and `pNb` and the client pod `cN`. The nodes themselves serve, too, as
//! host-network backends. Everything serves [`PORT`] and [`OTHER_PORT`] over TCP, UDP and, where the kernel has it,
//! SCTP, in both families.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard};

use anyhow::Result;
use proxy_agent::datapath::PinDir;
use proxy_common::edge::hook::Hook;
use proxy_common::reason::Reason;

use crate::address::{self, Family, Pair};
use crate::agent::{Agent, Launch, Source, Uplink};
use crate::kube_proxy;
use crate::manifests::{Endpoints, Manifests, Service};
use crate::sockets::Protocol;
use crate::sockets::echo::EchoServer;
use crate::topology::{Host, Node, Plan, Pod, Topology};

/// Where the servers listen.
pub const PORT: u16 = 8080;
pub const OTHER_PORT: u16 = 9090;

/// The port of a service on its cluster address.
pub const SERVICE_PORT: u16 = 80;

const FIRST_NODE_PORT: u16 = 30000;

/// The name of a service's port of this protocol.
pub fn port_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "t",
        Protocol::Udp => "u",
        Protocol::Sctp => "s",
    }
}

// Dropped in this order: agents before what they serve, the topology last.
pub struct Cluster {
    agents: Mutex<Vec<Agent>>,
    _servers: Vec<EchoServer>,
    pods: Vec<Pod>,
    pub manifests: Manifests,
    pub topology: Topology,
    source: Source,
    uplink: Uplink,
    /// Services are served by the kernel's NAT instead of agents.
    by_rules: bool,
    next_service: AtomicU16,
}

/// The addresses that a service was given.
#[derive(Clone, Debug)]
pub struct Vip {
    pub name: String,
    pub ip: Pair,
    pub node_port: u16,
    /// A load balancer's address, where the service has one.
    pub external: Option<Pair>,
}

/// Takes the programs off the nodes' devices.
///
/// The devices go with their namespaces, which the kernel takes apart in its own time: one after the other, and Linux 5.10 waits for ever for a
/// namespace in which something was left of an IPv6 connection ("waiting for lo to become free"). The programs at the devices of all that stand
/// behind it would keep their maps, until a machine has no memory for those of other rows.
impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill_agents();
        for node in &self.topology.nodes {
            let _ = node
                .netns()
                .run(|| proxy_agent::datapath::cleanup(&node.bpffs, None));
        }
    }
}

impl Cluster {
    /// Everything but the agents.
    pub fn build(plan: &Plan, uplink: Uplink) -> Result<Self> {
        let plan = Plan {
            wire_like_uplinks: uplink == Uplink::Xdp,
            ..plan.clone()
        };
        Self::build_as_planned(&plan, uplink)
    }

    /// The same with the plan's own choice of what the uplinks see.
    pub fn build_as_planned(plan: &Plan, uplink: Uplink) -> Result<Self> {
        let topology = Topology::build(plan)?;
        let mut pods = Vec::new();
        for node in &topology.nodes {
            for name in ["p{}", "p{}b", "c{}"] {
                pods.push(node.add_pod(&name.replace("{}", &node.number.to_string()))?);
            }
        }
        let hosts = pods
            .iter()
            .map(|pod| -> &Host { pod })
            .chain(topology.nodes.iter().map(|node| &node.host));
        let servers = hosts.map(serve_both_ports).collect::<Result<Vec<_>>>()?;
        let manifests = Manifests::create(&topology.run)?;
        Ok(Self {
            agents: Mutex::default(),
            _servers: servers.into_iter().flatten().collect(),
            pods,
            source: Source::Manifests(manifests.dir().to_owned()),
            manifests,
            topology,
            uplink,
            by_rules: false,
            next_service: AtomicU16::new(1),
        })
    }

    /// One without agents, on whose nodes rules like kube-proxy's serve what is published.
    pub fn build_with_rules(plan: &Plan) -> Result<Self> {
        let mut cluster = Self::build(plan, Uplink::Xdp)?;
        cluster.by_rules = true;
        Ok(cluster)
    }

    /// The same with agents that are ready.
    pub fn start(plan: &Plan, uplink: Uplink) -> Result<Self> {
        let cluster = Self::build(plan, uplink)?;
        cluster.start_agents()?;
        Ok(cluster)
    }

    /// From now on agents are started with this source.
    pub fn follow(&mut self, source: Source) {
        self.source = source;
    }

    /// An agent on `node`, to be started.
    pub fn launch<'a>(&'a self, node: &'a Node) -> Launch<'a> {
        Launch::new(node, &self.source, self.uplink)
    }

    /// Starts an agent on each node and does not wait for any.
    pub fn begin_agents(&self) -> Result<()> {
        let begin = |node| Agent::begin(&self.launch(node));
        let agents = self.topology.nodes.iter().map(begin);
        let agents = agents.collect::<Result<Vec<_>>>()?;
        self.agents().extend(agents);
        Ok(())
    }

    /// Starts an agent on each node, all at once, and waits until each has programmed what its source says.
    pub fn start_agents(&self) -> Result<()> {
        let agents = std::thread::scope(|scope| {
            let start = |node| scope.spawn(move || Agent::start(node, &self.source, self.uplink));
            let starting: Vec<_> = self.topology.nodes.iter().map(start).collect();
            let join = |start: std::thread::ScopedJoinHandle<_>| {
                start.join().expect("starting an agent does not panic")
            };
            starting.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        self.agents().extend(agents);
        Ok(())
    }

    /// Starts an agent on the first node alone, which is enough for what goes through that node, and waits until it is ready.
    pub fn start_first_agent(&self) -> Result<()> {
        let agent = Agent::start(self.node(1), &self.source, self.uplink)?;
        self.agents().push(agent);
        Ok(())
    }

    /// Starts an agent as `launch` has it, on the first node, and waits until it is ready.
    pub fn start_agent(&self, launch: &Launch) -> Result<()> {
        let agent = Agent::begin(launch)?;
        // Kept before it is ready, so that a failure shows its log.
        self.agents().push(agent);
        let agents = self.agents();
        agents.last().map_or(Ok(()), Agent::wait_until_ready)
    }

    /// The nodes on which an agent was started, in the order of their numbers.
    pub fn nodes_with_agents(&self) -> &[Node] {
        let agents = self.agents().len();
        assert!(agents > 0, "no agent was started");
        &self.topology.nodes[..agents]
    }

    /// Whether rules like kube-proxy's serve what is published.
    pub fn has_rules(&self) -> bool {
        self.by_rules
    }

    /// Takes a published service away.
    pub fn withdraw(&self, vip: &Vip) -> Result<()> {
        if self.by_rules {
            let mut nodes = self.topology.nodes.iter();
            return nodes.try_for_each(|node| kube_proxy::remove(node, vip));
        }
        self.manifests.delete(&vip.name)
    }

    /// The nodes that serve what is published.
    pub fn serving_nodes(&self) -> &[Node] {
        if self.by_rules {
            &self.topology.nodes
        } else {
            self.nodes_with_agents()
        }
    }

    /// The agents that run, in the order of their nodes.
    pub fn agents(&self) -> MutexGuard<'_, Vec<Agent>> {
        self.agents
            .lock()
            .expect("nobody panics while holding the agents")
    }

    /// Stops all agents and waits until they have ended.
    pub fn stop_agents(&self) {
        self.agents().clear();
    }

    /// Kills all agents and waits until they are gone.
    pub fn kill_agents(&self) {
        self.agents().drain(..).for_each(Agent::kill);
    }

    /// What the datapaths have met, and the ends of all agents' logs.
    pub fn logs(&self) -> String {
        let met = self
            .topology
            .nodes
            .iter()
            .filter_map(met)
            .collect::<String>();
        met + &self.agents().iter().map(Agent::log).collect::<String>()
    }

    /// A pod of the cast.
    pub fn pod(&self, name: &str) -> &Pod {
        let named = self.pods.iter().find(|pod| pod.name == name);
        named.unwrap_or_else(|| panic!("{name} is not in the cast"))
    }

    /// A node, counted from 1.
    pub fn node(&self, number: usize) -> &Node {
        &self.topology.nodes[number - 1]
    }

    /// Addresses for a new service.
    pub fn vip(&self, name: &str) -> Vip {
        let number = self.next_service.fetch_add(1, Ordering::Relaxed);
        Vip {
            name: format!("{name}-{number}"),
            ip: address::service(number),
            node_port: FIRST_NODE_PORT + number,
            external: None,
        }
    }

    /// A new service over TCP and UDP with the pods as its endpoints.
    pub fn publish(&self, name: &str, pods: &[&Pod]) -> Result<Vip> {
        self.publish_at(self.vip(name), pods)
    }

    /// The same at these addresses.
    pub fn publish_at(&self, vip: Vip, pods: &[&Pod]) -> Result<Vip> {
        if self.by_rules {
            for node in &self.topology.nodes {
                kube_proxy::install(node, &vip, pods)?;
            }
        } else {
            self.manifests.apply_endpoints(&vip.endpoints(pods))?;
            self.manifests.apply(&vip.service())?;
        }
        Ok(vip)
    }
}

impl AsRef<Self> for Cluster {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Vip {
    /// With a load balancer's address, too.
    pub fn behind(self, external: Pair) -> Self {
        Self {
            external: Some(external),
            ..self
        }
    }

    /// The service with a port for each protocol, on the cluster address, as a node port, and on a load balancer's
    /// address, if it has one.
    pub fn service(&self) -> Service {
        let service = Protocol::BOTH.into_iter().fold(
            Service::new(&self.name, self.ip),
            |service, protocol| {
                service.node_port(port_name(protocol), protocol, SERVICE_PORT, self.node_port)
            },
        );
        match self.external {
            Some(address) => service.load_balancer(address),
            None => service,
        }
    }

    /// Endpoints of the service, with no pod yet.
    pub fn no_endpoints(&self) -> Endpoints {
        self.no_endpoints_at(PORT)
    }

    fn no_endpoints_at(&self, port: u16) -> Endpoints {
        Protocol::BOTH
            .into_iter()
            .fold(Endpoints::of(&self.name), |endpoints, protocol| {
                endpoints.port(port_name(protocol), protocol, port)
            })
    }

    /// The pods as endpoints at another port than [`PORT`].
    pub fn endpoints_at(&self, pods: &[&Pod], port: u16) -> Endpoints {
        pods.iter()
            .fold(self.no_endpoints_at(port), |endpoints, pod| {
                endpoints.pod(pod)
            })
    }

    pub fn endpoints(&self, pods: &[&Pod]) -> Endpoints {
        pods.iter()
            .fold(self.no_endpoints(), |endpoints, pod| endpoints.pod(pod))
    }

    pub fn on_cluster_ip(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.ip.of(family), SERVICE_PORT)
    }

    /// # Panics
    /// Where the service has no load balancer.
    pub fn on_external(&self, family: Family) -> SocketAddr {
        let address = self.external.expect("a load balancer's address");
        SocketAddr::new(address.of(family), SERVICE_PORT)
    }

    pub fn on_node(&self, node: &Node, family: Family) -> SocketAddr {
        SocketAddr::new(node.host.ip.of(family), self.node_port)
    }
}

fn serve_both_ports(host: &Host) -> Result<Vec<EchoServer>> {
    [PORT, OTHER_PORT]
        .iter()
        .map(|port| EchoServer::start(host, *port))
        .collect()
}

/// How often a node's datapath has met each reason, from its beginning; nothing where it has none.
fn met(node: &Node) -> Option<String> {
    let maps = PinDir::new(&node.bpffs).open_maps().ok()?;
    let counts = Hook::ALL.iter().flat_map(|hook| {
        Reason::ALL.iter().filter_map(|reason| {
            let count = maps.reason_count(hook, *reason).ok()?;
            (count > 0).then(|| format!(", {} {} {count}", hook.name, reason.text()))
        })
    });
    let counts: String = counts.collect();
    Some(format!("--- met at {}{counts}\n", node.name()))
}
