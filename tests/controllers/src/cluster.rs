//! A whole cluster: an API server that is a process of the first node, controllers, kubelets, and an agent on each node.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api_server::ApiServer;
use api_server::client::Client;
use api_server::objects::Objects;
use api_server::resource::Resource;
use serde_json::json;
use testbed::agent::{Agent, Launch, Source, Uplink};
use testbed::cli;
use testbed::sockets::http;
use testbed::topology::{Plan, Topology};

use super::Controllers;
use super::autoscaler::Autoscaler;

const API_PORT: u16 = 6443;

/// Where an agent tells its metrics, on its node.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

/// A real autoscaler looks every 15 s; tests have less patience.
pub const AUTOSCALES_EVERY: Duration = Duration::from_millis(200);

// Dropped in this order: who writes objects, then who reads them, the topology last.
pub struct LiveCluster {
    _autoscaler: Autoscaler,
    _controllers: Controllers,
    _agents: Vec<Agent>,
    pub server: ApiServer,
    kubeconfig: PathBuf,
    cache: PathBuf,
    pub topology: Arc<Topology>,
}

impl LiveCluster {
    pub fn build(uplink: Uplink) -> Result<Self> {
        Self::build_with(uplink, &[])
    }

    /// With more arguments for the agents.
    pub fn build_with(uplink: Uplink, arguments: &[&str]) -> Result<Self> {
        let topology = Arc::new(Topology::build(&Plan::default())?);
        let control = &topology.nodes[0];
        let at = SocketAddr::new(control.host.ip.v4.into(), API_PORT);
        let listener = control.netns().run(|| TcpListener::bind(at));
        let server = ApiServer::serve(listener.context("the API server's address")?)?;
        let dialing = Arc::clone(&topology);
        server.dial_by(Arc::new(move |to| {
            let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(5));
            dialing.nodes[0].netns().run(connect)
        }));
        for node in &topology.nodes {
            server.put(Resource::Nodes, "", node.name(), json!({"metadata": {}}));
        }
        let directory = topology.run.directory("api")?;
        let kubeconfig = directory.join("kubeconfig");
        fs::write(&kubeconfig, server.kubeconfig().to_string())
            .with_context(|| format!("writing {}", kubeconfig.display()))?;
        let source = Source::Kubeconfig(kubeconfig.clone());
        let agents = topology.nodes.iter();
        let agents = agents.map(|node| {
            let agent = Agent::begin(&Launch::new(node, &source, uplink).with(arguments))?;
            agent.wait_until_ready()?;
            Ok(agent)
        });
        let agents = agents.collect::<Result<Vec<_>>>()?;
        let controllers = Controllers::start(server.objects(), Arc::clone(&topology))?;
        let autoscaler = Autoscaler::start(
            server.objects(),
            Arc::clone(&topology),
            at,
            AUTOSCALES_EVERY,
        )?;
        Ok(Self {
            _autoscaler: autoscaler,
            _controllers: controllers,
            _agents: agents,
            server,
            kubeconfig,
            cache: directory.join("cache"),
            topology,
        })
    }

    pub fn objects(&self) -> Objects {
        self.server.objects()
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client of the API server, on its node.
    pub fn client(&self) -> Client<'_> {
        Client::inside(self.topology.nodes[0].netns(), self.server.address())
    }

    /// `kubectl` on the API server's node.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        cli::output(self.kubectl_command(arguments)?)
    }

    /// The same with `input` on its standard input.
    pub fn kubectl_fed(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut kubectl = self.kubectl_command(arguments)?;
        let mut child = kubectl
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        let ran = child.wait_with_output()?;
        let complaint = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success(), "kubectl {arguments:?}: {complaint}");
        Ok(String::from_utf8(ran.stdout)?)
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut kubectl = self.topology.nodes[0].netns().command(cli::kubectl())?;
        kubectl
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .args(arguments);
        Ok(kubectl)
    }

    /// The sum of a metric over all nodes and all of its series that are of the Service of this name in `default`.
    pub fn metric(&self, name: &str, service: &str) -> Result<u64> {
        sum(&self.topology, name, service)
    }
}

/// The same of a topology alone.
pub fn sum(topology: &Topology, name: &str, service: &str) -> Result<u64> {
    let mut sum = 0;
    for node in &topology.nodes {
        let text = http::fetch(node.netns(), METRICS, "/metrics")?.body;
        sum += read(&text, name, service)?;
    }
    Ok(sum)
}

fn read(text: &str, name: &str, service: &str) -> Result<u64> {
    let of_namespace = "service_namespace=\"default\"".to_owned();
    let of_service = format!("service_name=\"{service}\"");
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix(name)?.strip_prefix('{')?;
            let (labels, value) = rest.rsplit_once("} ")?;
            let mut labels = labels.split(',');
            let has = |wanted: &String| labels.clone().any(|one| one == wanted);
            let fits = has(&of_namespace) && has(&of_service);
            labels.next().filter(|_| fits).map(|_| value)
        })
        .map(|value| {
            value
                .parse::<u64>()
                .with_context(|| format!("{name}: {value}"))
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_the_ports_of_one_service() {
        let text = "# TYPE m counter\n\
            m_total{service_namespace=\"default\",service_name=\"web\",port=\"a\"} 3\n\
            m_total{service_namespace=\"default\",service_name=\"web\",port=\"b\"} 4\n\
            m_total{service_namespace=\"default\",service_name=\"web2\",port=\"a\"} 5\n\
            m_total_more{service_namespace=\"default\",service_name=\"web\"} 6\n";
        assert_eq!(read(text, "m_total", "web").unwrap(), 7);
    }
}
