//! A service with its endpoints, and the objects that say so.

use api_server::resource::Resource;
use serde_json::{Value, json};

use testbed::random::Random;

pub const NAMESPACE: &str = "default";

/// Which addresses a service has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    V4,
    V6,
    Both,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    pub name: String,
    pub protocol: &'static str,
    pub number: u64,
    /// What endpoints listen on.
    pub target: u64,
    pub node_port: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub number: u64,
    pub conditions: Conditions,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conditions {
    Ready,
    NotReady,
    Terminating,
    /// And not serving any more.
    Gone,
}

#[derive(Clone, Debug)]
pub struct Shape {
    pub name: String,
    /// The number of its cluster address.
    pub address: u64,
    pub families: Families,
    pub kind: &'static str,
    pub ports: Vec<Port>,
    pub endpoints: Vec<Endpoint>,
    /// How many slices the endpoints of a family are in.
    pub slices: u64,
    /// Which of them is in which, and in what order.
    pub deal: u64,
    /// An endpoint that is in every slice.
    pub everywhere: Option<u64>,
    pub external_policy: &'static str,
    pub internal_policy: &'static str,
    pub affinity: bool,
    pub external_ip: Option<u64>,
    pub balancer_ip: Option<u64>,
    pub of_other_proxy: bool,
}

impl Shape {
    pub fn service(&self) -> Value {
        let (v4, v6) = addresses(self.address);
        let (families, addresses) = match self.families {
            Families::V4 => (json!(["IPv4"]), json!([v4])),
            Families::V6 => (json!(["IPv6"]), json!([v6])),
            Families::Both => (json!(["IPv4", "IPv6"]), json!([v4, v6])),
        };
        let outside = self.kind != "ClusterIP";
        let ports: Vec<_> = self
            .ports
            .iter()
            .map(|port| {
                let mut object = json!({
                    "name": port.name, "protocol": port.protocol, "port": port.number, "targetPort": port.target,
                });
                if outside {
                    object["nodePort"] = port.node_port.into();
                }
                object
            })
            .collect();
        let mut spec = json!({
            "type": self.kind, "clusterIP": addresses[0], "clusterIPs": addresses, "ipFamilies": families,
            "ipFamilyPolicy": if self.families == Families::Both { "RequireDualStack" } else { "SingleStack" },
            "ports": ports, "internalTrafficPolicy": self.internal_policy,
            "sessionAffinity": if self.affinity { "ClientIP" } else { "None" },
        });
        if outside {
            spec["externalTrafficPolicy"] = self.external_policy.into();
        }
        if let Some(number) = self.external_ip {
            spec["externalIPs"] = json!([format!("203.0.113.{number}")]);
        }
        let mut status = json!({"loadBalancer": {}});
        if let (Some(number), "LoadBalancer") = (self.balancer_ip, self.kind) {
            status["loadBalancer"]["ingress"] =
                json!([{"ip": format!("203.0.113.{}", 100 + number)}]);
            spec["loadBalancerSourceRanges"] =
                json!(["192.0.2.0/24", format!("10.{number}.0.0/16")]);
        }
        let mut labels = json!({});
        if self.of_other_proxy {
            labels["service.kubernetes.io/service-proxy-name"] = "another".into();
        }
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": NAMESPACE, "name": self.name, "labels": labels},
            "spec": spec, "status": status,
        })
    }

    /// The endpoints, as they are dealt out to the slices.
    pub fn slices(&self) -> Vec<((Resource, String), Value)> {
        let families = match self.families {
            Families::V4 => &["IPv4"][..],
            Families::V6 => &["IPv6"],
            Families::Both => &["IPv4", "IPv6"],
        };
        let mut objects = Vec::new();
        for family in families {
            for number in 0..self.slices {
                let endpoints = self.endpoints_of(number, family);
                let name = format!("{}-{}-{number}", self.name, family.to_lowercase());
                let slice = self.slice(&name, family, &endpoints);
                objects.push(((Resource::EndpointSlices, name), slice));
            }
        }
        objects
    }

    /// Those of a slice, in their order. Place and order follow from the deal, so that an edit of one endpoint leaves the
    /// other slices alone.
    fn endpoints_of(&self, slice: u64, family: &str) -> Vec<Value> {
        let mut own: Vec<_> = self
            .endpoints
            .iter()
            .map(|endpoint| {
                (
                    Random::new(endpoint.number ^ self.deal).below(1 << 40),
                    endpoint,
                )
            })
            .filter(|(place, endpoint)| {
                place % self.slices == slice || self.everywhere == Some(endpoint.number)
            })
            .collect();
        own.sort_unstable_by_key(|(place, _)| *place);
        own.into_iter()
            .map(|(place, endpoint)| {
                // Where it is more than once, it is ready once.
                endpoint.object(family, place % self.slices != slice)
            })
            .collect()
    }

    fn slice(&self, name: &str, family: &str, endpoints: &[Value]) -> Value {
        let ports: Vec<_> = self
            .ports
            .iter()
            .map(|port| json!({"name": port.name, "protocol": port.protocol, "port": port.target}))
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": NAMESPACE, "name": name,
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": family, "ports": ports, "endpoints": endpoints,
        })
    }
}

impl Endpoint {
    fn object(&self, family: &str, as_not_ready: bool) -> Value {
        let [high, low] = (self.number as u16).to_be_bytes();
        let address = match family {
            "IPv4" => format!("10.245.{high}.{low}"),
            _ => format!("fd00:10:245::{:x}", self.number),
        };
        let conditions = match self.conditions {
            Conditions::Ready if as_not_ready => {
                json!({"ready": false, "serving": false, "terminating": false})
            }
            Conditions::Ready => json!({"ready": true, "serving": true, "terminating": false}),
            Conditions::NotReady => json!({"ready": false, "serving": false, "terminating": false}),
            Conditions::Terminating => {
                json!({"ready": false, "serving": true, "terminating": true})
            }
            Conditions::Gone => json!({"ready": false, "serving": false, "terminating": true}),
        };
        json!({
            "addresses": [address], "conditions": conditions,
            "nodeName": if self.number.is_multiple_of(3) { "node1" } else { "node2" },
        })
    }
}

/// Out of 10.97.0.0/16 and fd00:10:97::/112, which nobody else here has.
fn addresses(number: u64) -> (String, String) {
    let [high, low] = (number as u16).to_be_bytes();
    (
        format!("10.97.{high}.{low}"),
        format!("fd00:10:97::{number:x}"),
    )
}
