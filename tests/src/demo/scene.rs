//! The demo's cluster: nodes, pods, agents, manifests.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::manifest;
use crate::address::{self, Pair};
use crate::agent::{self, Agent, Source, Uplink};
use crate::cli::{self, output};
use crate::manifests::{Endpoints, Manifests};
use crate::patience::eventually;
use crate::sockets::Protocol;
use crate::sockets::http::{self, HttpServer};
use crate::topology::{Host, Plan, Pod, Topology};

/// The number of pods that can be scaled to.
const PODS: usize = 4;

const AT_FIRST: usize = 2;

// Dropped in this order: agents before what they serve, the topology last.
pub(super) struct Scene {
    _agents: Vec<Agent>,
    backends: Vec<Backend>,
    /// A pod that only asks.
    pub visitor: Pod,
    pub manifests: Manifests,
    pub cluster_ip: Pair,
    pub topology: Topology,
}

struct Backend {
    /// None while the pod is scaled away.
    server: Option<HttpServer>,
    pod: Pod,
}

impl Scene {
    pub fn build() -> Result<Self> {
        let topology = Topology::build(&Plan::default())?;
        let visitor = topology.nodes[0].add_pod("visitor")?;
        let backends = (0..PODS)
            .map(|n| {
                let pod = topology.nodes[n % topology.nodes.len()]
                    .add_pod(&format!("np-pod-{}", n + 1))?;
                Ok(Backend { server: None, pod })
            })
            .collect::<Result<Vec<_>>>()?;
        let manifests = Manifests::create(&topology.run)?;
        let cluster_ip = address::service(1);
        let service = manifest::SERVICE.to_owned() + &manifest::allocated(cluster_ip);
        fs::write(manifests.dir().join("np-svc.yaml"), service).context("writing the Service")?;
        let mut scene = Self {
            _agents: Vec::new(),
            backends,
            visitor,
            manifests,
            cluster_ip,
            topology,
        };
        scene.scale(AT_FIRST)?;
        let source = Source::Manifests(scene.manifests.dir().to_owned());
        scene._agents = scene
            .topology
            .nodes
            .iter()
            .map(|node| Agent::start(node, &source, Uplink::Xdp))
            .collect::<Result<_>>()?;
        eventually("the service answers", || {
            let target = SocketAddr::new(cluster_ip.v4.into(), manifest::PORT);
            http::get(&scene.visitor.netns, target).map(drop)
        })?;
        Ok(scene)
    }

    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.backends.iter().map(|backend| &backend.pod)
    }

    /// Makes the first `pods` pods the service's endpoints, with servers that listen already. The servers of the
    /// others go on until [`Self::end_grace`].
    pub fn scale(&mut self, pods: usize) -> Result<()> {
        for Backend { server, pod } in &mut self.backends[..pods] {
            if server.is_none() {
                let name = format!("{} on {}", pod.name, pod.node);
                *server = Some(HttpServer::start(pod, &name, manifest::PORT)?);
            }
        }
        let none =
            Endpoints::of(manifest::NAME).port(manifest::PORT_NAME, Protocol::Tcp, manifest::PORT);
        self.manifests.apply_endpoints(
            &self
                .pods()
                .take(pods)
                .fold(none, |endpoints, pod| endpoints.pod(pod)),
        )
    }

    /// The termination grace is over for all pods but the first `pods`: their servers refuse new connections.
    pub fn end_grace(&mut self, pods: usize) {
        for backend in &mut self.backends[pods..] {
            backend.server = None;
        }
    }

    /// Asks with `curl` from a host's namespace.
    pub fn curl(&self, from: &Host, target: SocketAddr) -> Result<String> {
        let mut curl = from.netns.command("curl")?;
        curl.args(["--silent", "--show-error", "--globoff", "--max-time", "5"])
            .arg(format!("http://{target}/"));
        output(curl).with_context(|| format!("curl http://{target}/ from {}", from.name))
    }

    /// What a command of node1's agent prints.
    pub fn ask_agent(&self, command: &[&str]) -> Result<String> {
        cli::ask(&self.topology.nodes[0], command)
    }

    /// The same command as a line for a shell.
    pub fn agent_command(&self, command: &[&str]) -> String {
        let node = &self.topology.nodes[0];
        format!(
            "{} {} --bpffs {} --state-dir {}",
            agent::binary().unwrap_or_default().display(),
            command.join(" "),
            node.bpffs.display(),
            node.state.display()
        )
    }
}
