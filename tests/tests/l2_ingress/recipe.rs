//! The manifests of docs/ingress.md, taken from the page as they stand, and what a cluster adds to them: the API server's cluster
//! addresses, a load balancer's status, and the endpoint controller's slices.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::address::{Family, Pair};
use testbed::manifests::Manifests;
use testbed::topology::Pod;

const PAGE: &str = include_str!("../../../docs/ingress.md");

/// The YAML below this heading of the page.
pub fn blocks(heading: &str) -> Result<Vec<Value>> {
    let title = format!("\n## {heading}\n");
    let (_, section) = PAGE
        .split_once(&title)
        .with_context(|| format!("docs/ingress.md has no heading {heading:?}"))?;
    let section = section.split("\n## ").next().unwrap_or(section);
    let texts = section
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let objects = texts
        .map(|text| serde_saphyr::from_str(text).with_context(|| format!("reading\n{text}")))
        .collect::<Result<Vec<Value>>>()?;
    ensure!(!objects.is_empty(), "no YAML below {heading:?}");
    Ok(objects)
}

/// The first of them.
pub fn block(heading: &str) -> Result<Value> {
    Ok(blocks(heading)?.swap_remove(0))
}

/// Ports of a controller, or of a way to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    pub http: u16,
    pub https: u16,
    pub grpc: u16,
}

impl Ports {
    /// Those that this field of entries named so tells.
    pub fn of(entries: &Value, field: &str) -> Result<Self> {
        let port = |name: &str| -> Result<u16> {
            let mut entries = entries.as_array().into_iter().flatten();
            let entry = entries.find(|entry| entry["name"] == name);
            let number = entry.and_then(|entry| entry[field].as_u64());
            Ok(u16::try_from(number.with_context(|| {
                format!("no {field} of {name} in {entries:?}")
            })?)?)
        };
        Ok(Self {
            http: port("http")?,
            https: port("https")?,
            grpc: port("grpc")?,
        })
    }

    /// The ports of the only container of a workload.
    pub fn of_container(workload: &Value, field: &str) -> Result<Self> {
        let containers = &workload["spec"]["template"]["spec"]["containers"];
        Self::of(&containers[0]["ports"], field)
    }
}

/// A pod as the endpoint controller sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    Ready,
    /// It shuts down and still serves.
    Terminating,
}

/// A Service of the page in a cluster.
#[derive(Clone)]
pub struct Published {
    pub object: Value,
    name: String,
}

impl Published {
    /// The Service as the API server has it: with cluster addresses, and with both families.
    pub fn of(recipe: &Value, cluster_ip: Pair) -> Result<Self> {
        let mut object = recipe.clone();
        ensure!(object["kind"] == "Service", "not a Service: {object}");
        let name = object["metadata"]["name"].as_str().context("its name")?;
        let name = name.to_owned();
        let Pair { v4, v6 } = cluster_ip;
        let spec = &mut object["spec"];
        spec["clusterIP"] = json!(v4);
        spec["clusterIPs"] = json!([v4, v6]);
        spec["ipFamilies"] = json!(["IPv4", "IPv6"]);
        spec["ipFamilyPolicy"] = json!("RequireDualStack");
        Ok(Self { object, name })
    }

    /// A controller of load balancers gave it these addresses.
    pub fn at(mut self, external: Pair) -> Self {
        let ingress = Family::BOTH.map(|family| json!({ "ip": external.of(family) }));
        self.object["status"] = json!({ "loadBalancer": { "ingress": ingress } });
        self
    }

    /// Any field of the spec that the API server fills in.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.object["spec"][field] = value;
        self
    }

    /// The API server gave its ports these node ports, from this number on.
    pub fn with_node_ports(mut self, first: u16) -> Self {
        let ports = self.object["spec"]["ports"].as_array_mut();
        for (port, number) in ports.into_iter().flatten().zip(first..) {
            port["nodePort"] = json!(number);
        }
        self
    }

    pub fn ports(&self, field: &str) -> Result<Ports> {
        Ports::of(&self.object["spec"]["ports"], field)
    }

    /// Writes the Service where agents watch.
    pub fn apply(&self, manifests: &Manifests) -> Result<()> {
        manifests.apply_object(&format!("service-{}", self.name), &self.object)
    }

    /// Writes its EndpointSlices as the endpoint controller does.
    pub fn apply_endpoints(&self, manifests: &Manifests, pods: &[(&Pod, Condition)]) -> Result<()> {
        let ports = self.object["spec"]["ports"].as_array();
        let ports: Vec<_> = ports
            .into_iter()
            .flatten()
            .map(|port| {
                let protocol = port.get("protocol").cloned();
                let protocol = protocol.unwrap_or_else(|| json!("TCP"));
                json!({ "name": port["name"], "protocol": protocol, "port": port["targetPort"] })
            })
            .collect();
        for family in Family::BOTH {
            let slice = format!("{}-{family}", self.name);
            let endpoints: Vec<_> = pods
                .iter()
                .map(|(pod, condition)| {
                    let ready = *condition == Condition::Ready;
                    json!({
                        "addresses": [pod.ip.of(family)],
                        "nodeName": pod.node,
                        "conditions": { "ready": ready, "serving": true, "terminating": !ready },
                    })
                })
                .collect();
            let object = json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": slice,
                    "namespace": self.object["metadata"]["namespace"],
                    "labels": { "kubernetes.io/service-name": self.name },
                },
                "addressType": match family {
                    Family::V4 => "IPv4",
                    Family::V6 => "IPv6",
                },
                "ports": ports,
                "endpoints": endpoints,
            });
            manifests.apply_object(&format!("endpoints-{slice}"), &object)?;
        }
        Ok(())
    }
}
