//! The demo's cluster: nodes, pods, agents, manifests.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::manifest;
use api_server::ApiServer;
use api_server::resource::Resource;
use testbed::address::{self, Family, Pair};
use testbed::agent::{self, Agent, Source, Uplink};
use testbed::cli::{self, output};
use testbed::manifests::{Endpoints, Manifests};
use testbed::patience::eventually;
use testbed::sockets::Protocol;
use testbed::sockets::http::{self, HttpServer};
use testbed::topology::{Host, Plan, Pod, Topology};

/// The number of pods that can be scaled to.
const PODS: usize = 4;

pub(super) const AT_FIRST: usize = 2;

const API_PORT: u16 = 6443;

// Dropped in this order: agents before what they serve, the topology last.
pub(super) struct Scene {
    _agents: Vec<Agent>,
    backends: Vec<Backend>,
    /// A pod that only asks.
    pub visitor: Pod,
    published: Published,
    pub cluster_ip: Pair,
    pub topology: Topology,
}

/// Where the agents read of the Service.
enum Published {
    Files(Manifests),
    Api {
        server: ApiServer,
        kubeconfig: PathBuf,
    },
}

struct Backend {
    /// None while the pod is scaled away.
    server: Option<HttpServer>,
    pod: Pod,
}

impl Scene {
    /// With a Service that the agents read from files, and that answers.
    pub fn build() -> Result<Self> {
        let mut scene = Self::set(|topology| {
            let manifests = Manifests::create(&topology.run)?;
            Ok(Published::Files(manifests))
        })?;
        let service = manifest::SERVICE.to_owned() + &manifest::allocated(scene.cluster_ip);
        let file = scene.manifests()?.dir().join("np-svc.yaml");
        fs::write(file, service).context("writing the Service")?;
        scene.scale(AT_FIRST)?;
        scene.start_agents(&Source::Manifests(scene.manifests()?.dir().to_owned()))?;
        eventually("the service answers", || {
            let target = SocketAddr::new(scene.cluster_ip.v4.into(), manifest::PORT);
            http::get(&scene.visitor.netns, target).map(drop)
        })?;
        Ok(scene)
    }

    /// With an API server beside the router, which has the nodes and nothing else.
    pub fn build_on_api() -> Result<Self> {
        let mut scene = Self::set(|topology| {
            let at = (address::on_segment(0, 1).v4, API_PORT);
            let listener = topology.router.netns.run(|| TcpListener::bind(at));
            let server = ApiServer::serve(listener.context("the API server's address")?)?;
            for node in &topology.nodes {
                server.put(Resource::Nodes, "", node.name(), json!({"metadata": {}}));
            }
            let kubeconfig = topology.run.directory("api")?.join("kubeconfig");
            fs::write(&kubeconfig, server.kubeconfig().to_string())
                .with_context(|| format!("writing {}", kubeconfig.display()))?;
            Ok(Published::Api { server, kubeconfig })
        })?;
        scene.start_agents(&Source::Kubeconfig(scene.kubeconfig()?.to_owned()))?;
        Ok(scene)
    }

    fn set(publish: impl FnOnce(&Topology) -> Result<Published>) -> Result<Self> {
        let topology = Topology::build(&Plan::default())?;
        let visitor = topology.nodes[0].add_pod("visitor")?;
        let backends = (0..PODS)
            .map(|n| {
                let pod = topology.nodes[n % topology.nodes.len()]
                    .add_pod(&format!("np-pod-{}", n + 1))?;
                Ok(Backend { server: None, pod })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            _agents: Vec::new(),
            backends,
            visitor,
            published: publish(&topology)?,
            cluster_ip: address::service(1),
            topology,
        })
    }

    fn start_agents(&mut self, source: &Source) -> Result<()> {
        let nodes = self.topology.nodes.iter();
        let agents = nodes.map(|node| Agent::start(node, source, Uplink::Xdp));
        self._agents = agents.collect::<Result<_>>()?;
        Ok(())
    }

    pub fn manifests(&self) -> Result<&Manifests> {
        match &self.published {
            Published::Files(manifests) => Ok(manifests),
            Published::Api { .. } => bail!("this cluster has an API server and no manifests"),
        }
    }

    pub fn server(&self) -> Result<&ApiServer> {
        match &self.published {
            Published::Api { server, .. } => Ok(server),
            Published::Files(_) => bail!("this cluster has no API server"),
        }
    }

    pub fn kubeconfig(&self) -> Result<&Path> {
        match &self.published {
            Published::Api { kubeconfig, .. } => Ok(kubeconfig),
            Published::Files(_) => bail!("this cluster has no API server"),
        }
    }

    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.backends.iter().map(|backend| &backend.pod)
    }

    /// Makes the first `pods` pods the service's endpoints, with servers that listen already. The servers of the
    /// others go on until [`Self::end_grace`].
    pub fn scale(&mut self, pods: usize) -> Result<()> {
        self.serve(pods)?;
        self.manifests()?.apply_endpoints(&self.endpoints(pods))
    }

    /// Lets the first `pods` pods serve.
    pub fn serve(&mut self, pods: usize) -> Result<()> {
        for Backend { server, pod } in &mut self.backends[..pods] {
            if server.is_none() {
                let name = format!("{} on {}", pod.name, pod.node);
                *server = Some(HttpServer::start(pod, &name, manifest::PORT)?);
            }
        }
        Ok(())
    }

    /// The first `pods` pods as endpoints of the service.
    pub fn endpoints(&self, pods: usize) -> Endpoints {
        let none =
            Endpoints::of(manifest::NAME).port(manifest::PORT_NAME, Protocol::Tcp, manifest::PORT);
        self.first_pods(pods, none)
    }

    /// `endpoints` with the first `pods` pods.
    pub fn first_pods(&self, pods: usize, endpoints: Endpoints) -> Endpoints {
        self.pods()
            .take(pods)
            .fold(endpoints, |endpoints, pod| endpoints.pod(pod))
    }

    /// Waits until the first `pods` pods, and no others, are backends on every node.
    pub fn await_endpoints(&self, pods: usize) -> Result<()> {
        for node in &self.topology.nodes {
            eventually(
                &format!("{pods} pods are backends on {}", node.name()),
                || {
                    let backends = cli::ask(node, &["get", "backends", "-A"])?;
                    let is_there = |pod: &Pod| {
                        Family::BOTH.iter().all(|&family| {
                            let socket = SocketAddr::new(pod.ip.of(family), manifest::PORT);
                            backends.contains(&socket.to_string())
                        })
                    };
                    let found: Vec<_> = self.pods().map(is_there).collect();
                    let wanted = (0..found.len()).map(|number| number < pods);
                    ensure!(wanted.eq(found.iter().copied()), "{backends}");
                    Ok(())
                },
            )?;
        }
        Ok(())
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
