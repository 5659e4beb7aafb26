//! Services and EndpointSlices, written where agents watch for them.
//!
//! The objects are those of the Kubernetes API, in JSON, which is YAML. A file appears and changes by one rename, so
//! that an agent never reads half of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::address::{Family, Pair};
use crate::run::Run;
use crate::sockets::Protocol;
use crate::topology::{Host, Pod};

const NAMESPACE: &str = "default";

/// A directory of manifests.
pub struct Manifests {
    dir: PathBuf,
    draft: PathBuf,
}

impl Manifests {
    pub fn create(run: &Run) -> Result<Self> {
        Ok(Self {
            dir: run.directory("manifests")?,
            draft: run.directory("drafts")?,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates or replaces a Service.
    pub fn apply(&self, service: &Service) -> Result<()> {
        self.write(&format!("service-{}", service.name), &service.object())
    }

    /// Creates or replaces the EndpointSlices of a service, one for each family.
    pub fn apply_endpoints(&self, endpoints: &Endpoints) -> Result<()> {
        for family in Family::BOTH {
            let slice = format!("{}{}-{family}", endpoints.service, endpoints.part);
            self.write(
                &format!("endpoints-{slice}"),
                &endpoints.slice(&slice, family),
            )?;
        }
        Ok(())
    }

    /// Creates or replaces any object, in a file of this name.
    pub fn apply_object(&self, file: &str, object: &Value) -> Result<()> {
        self.write(file, object)
    }

    /// Deletes a Service; its EndpointSlices stay until they are deleted, too.
    pub fn delete(&self, service: &str) -> Result<()> {
        self.remove(&format!("service-{service}"))
    }

    /// Creates or replaces a Node.
    pub fn apply_node(&self, name: &str, spec: &Value) -> Result<()> {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name },
            "spec": spec,
        });
        self.write(&format!("node-{name}"), &object)
    }

    pub fn delete_node(&self, name: &str) -> Result<()> {
        self.remove(&format!("node-{name}"))
    }

    fn write(&self, name: &str, object: &Value) -> Result<()> {
        let draft = self.draft.join(name);
        fs::write(&draft, serde_json::to_vec_pretty(object)?)
            .with_context(|| format!("writing {name}"))?;
        fs::rename(&draft, self.file(name)).with_context(|| format!("publishing {name}"))
    }

    fn remove(&self, name: &str) -> Result<()> {
        fs::remove_file(self.file(name)).with_context(|| format!("removing {name}"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }
}

/// A Service of type ClusterIP, NodePort or LoadBalancer, in both families.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    cluster_ip: Pair,
    ports: Vec<Value>,
    has_node_port: bool,
    ingress: Vec<Value>,
    more: Map<String, Value>,
    annotations: Map<String, Value>,
}

impl Service {
    pub fn new(name: &str, cluster_ip: Pair) -> Self {
        Self {
            name: name.to_owned(),
            cluster_ip,
            ports: Vec::new(),
            has_node_port: false,
            ingress: Vec::new(),
            more: Map::new(),
            annotations: Map::new(),
        }
    }

    /// A port; the EndpointSlice port of the same name belongs to it.
    pub fn port(mut self, name: &str, protocol: Protocol, port: u16) -> Self {
        self.ports
            .push(json!({ "name": name, "protocol": upper(protocol), "port": port }));
        self
    }

    /// The same with a node port.
    pub fn node_port(mut self, name: &str, protocol: Protocol, port: u16, node_port: u16) -> Self {
        let port = json!({ "name": name, "protocol": upper(protocol), "port": port, "nodePort": node_port });
        self.ports.push(port);
        self.has_node_port = true;
        self
    }

    /// A load balancer brings traffic to these addresses.
    pub fn load_balancer(mut self, addresses: Pair) -> Self {
        self.ingress = Family::BOTH
            .iter()
            .map(|family| json!({ "ip": addresses.of(*family) }))
            .collect();
        self
    }

    /// Any other field of the spec.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.more.insert(field.to_owned(), value);
        self
    }

    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.into());
        self
    }

    /// The object of the Kubernetes API.
    pub fn object(&self) -> Value {
        let Pair { v4, v6 } = self.cluster_ip;
        let mut spec = json!({
            "type": match self {
                Self { ingress, .. } if !ingress.is_empty() => "LoadBalancer",
                Self { has_node_port: true, .. } => "NodePort",
                _ => "ClusterIP",
            },
            "clusterIP": v4,
            "clusterIPs": [v4, v6],
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
            "ports": self.ports,
        });
        spec.as_object_mut()
            .expect("the spec is an object")
            .extend(self.more.clone());
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": self.name, "namespace": NAMESPACE },
            "spec": spec,
        });
        if !self.annotations.is_empty() {
            object["metadata"]["annotations"] = Value::Object(self.annotations.clone());
        }
        if !self.ingress.is_empty() {
            object["status"] = json!({ "loadBalancer": { "ingress": self.ingress } });
        }
        object
    }
}

/// All endpoints of a service.
#[derive(Clone, Debug)]
pub struct Endpoints {
    service: String,
    ports: Vec<Value>,
    endpoints: Vec<(Pair, Value)>,
    /// In the names of the slices, where these are not all of the service.
    part: String,
    annotations: Map<String, Value>,
}

impl Endpoints {
    pub fn of(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            ports: Vec::new(),
            endpoints: Vec::new(),
            part: String::new(),
            annotations: Map::new(),
        }
    }

    /// One part of several that a service's endpoints have.
    pub fn part(self, part: &str) -> Self {
        Self {
            part: format!("-{part}"),
            ..self
        }
    }

    /// The slices have this annotation.
    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.into());
        self
    }

    /// A port of the endpoints.
    pub fn port(mut self, name: &str, protocol: Protocol, port: u16) -> Self {
        self.ports
            .push(json!({ "name": name, "protocol": upper(protocol), "port": port }));
        self
    }

    /// A pod that is ready.
    pub fn pod(self, pod: &Pod) -> Self {
        let node = pod.node.clone();
        self.endpoint(
            pod,
            &node,
            json!({ "ready": true, "serving": true, "terminating": false }),
        )
    }

    /// A pod that shuts down and still serves.
    pub fn terminating_pod(self, pod: &Pod) -> Self {
        let node = pod.node.clone();
        self.endpoint(
            pod,
            &node,
            json!({ "ready": false, "serving": true, "terminating": true }),
        )
    }

    /// A host-network pod of a node.
    pub fn host_network(self, node: &Host) -> Self {
        self.endpoint(node, &node.name, json!({ "ready": true }))
    }

    /// An address that is ready, of no node's pod.
    pub fn at(mut self, ip: Pair) -> Self {
        self.endpoints
            .push((ip, json!({ "conditions": { "ready": true } })));
        self
    }

    fn endpoint(mut self, host: &Host, node: &str, conditions: Value) -> Self {
        self.endpoints.push((
            host.ip,
            json!({ "nodeName": node, "conditions": conditions }),
        ));
        self
    }

    /// The EndpointSlice of this name with the endpoints' addresses in one family.
    pub fn slice(&self, slice: &str, family: Family) -> Value {
        let endpoints: Vec<_> = self
            .endpoints
            .iter()
            .map(|(ip, endpoint)| {
                let mut endpoint = endpoint.clone();
                endpoint["addresses"] = json!([ip.of(family)]);
                endpoint
            })
            .collect();
        let mut object = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": slice,
                "namespace": NAMESPACE,
                "labels": { "kubernetes.io/service-name": self.service },
            },
            "addressType": match family {
                Family::V4 => "IPv4",
                Family::V6 => "IPv6",
            },
            "ports": self.ports,
            "endpoints": endpoints,
        });
        if !self.annotations.is_empty() {
            object["metadata"]["annotations"] = Value::Object(self.annotations.clone());
        }
        object
    }
}

fn upper(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}
