//! Runs the Pods of all nodes: a namespace with a web server each, whatever the image.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use api_server::objects::Objects;
use api_server::resource::Resource;
use serde_json::{Value, json};
use testbed::address::Family;
use testbed::sockets::http::HttpServer;
use testbed::topology::{Node, Pod, Topology};

use super::object;

/// How long a server goes on after the kubelet asked it to end: it waits until nobody sends it new connections, as servers
/// do that replace without a failed request.
pub const STOPS_AFTER: Duration = Duration::from_millis(500);

/// Where a container listens that names no port.
const DEFAULT_PORT: u16 = 80;

pub struct Kubelet {
    running: BTreeMap<String, Running>,
    // Last, so that pods go before their nodes.
    topology: Arc<Topology>,
}

struct Running {
    /// Dropped before the namespace that it listens in.
    _server: HttpServer,
    pod: Pod,
    ends: Option<Instant>,
}

impl Kubelet {
    pub fn new(topology: Arc<Topology>) -> Self {
        Self {
            running: BTreeMap::new(),
            topology,
        }
    }

    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.topology.nodes.iter().map(Node::name)
    }

    /// Does a pod end soon, without a change that shows it?
    pub fn waits(&self) -> bool {
        self.running.values().any(|one| one.ends.is_some())
    }

    pub fn reconcile(&mut self, objects: &Objects) -> Result<()> {
        for pod in objects.list(Resource::Pods) {
            let mut nodes = self.topology.nodes.iter();
            let Some(node) = nodes.find(|node| pod["spec"]["nodeName"] == node.name()) else {
                continue;
            };
            match self.running.get_mut(object::uid(&pod)) {
                None if object::is_deleted(&pod) => objects.remove(Resource::Pods, &pod)?,
                None => {
                    let running = Running::start(node, &pod)?;
                    let status = running.status(node);
                    self.running.insert(object::uid(&pod).to_owned(), running);
                    objects.change(Resource::Pods, &pod, |pod| pod["status"] = status)?;
                }
                Some(running) if object::is_deleted(&pod) => {
                    let now = Instant::now();
                    if *running.ends.get_or_insert(now + STOPS_AFTER) <= now {
                        self.running.remove(object::uid(&pod));
                        objects.remove(Resource::Pods, &pod)?;
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

impl Running {
    fn start(node: &Node, object: &Value) -> Result<Self> {
        let name = object::name(object);
        let pod = node.add_pod(name)?;
        let port = &object["spec"]["containers"][0]["ports"][0]["containerPort"];
        let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
        let said = format!("{name} on {}", node.name());
        Ok(Self {
            _server: HttpServer::start(&pod, &said, port.unwrap_or(DEFAULT_PORT))?,
            pod,
            ends: None,
        })
    }

    fn status(&self, node: &Node) -> Value {
        let ips = Family::BOTH.map(|family| json!({"ip": self.pod.ip.of(family)}));
        json!({
            "phase": "Running", "podIP": self.pod.ip.v4, "podIPs": ips, "hostIP": node.host.ip.v4,
            "conditions": [{"type": "Ready", "status": "True"}],
        })
    }
}
