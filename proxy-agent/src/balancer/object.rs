//! The objects that the controller reads, reduced to what decides.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

use crate::source::convert::objects::{Metadata, ServicePort, ServiceStatus, or_default};

#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(default)]
pub struct Service {
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    pub spec: Option<ServiceSpec>,
    pub status: Option<ServiceStatus>,
}

#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    pub external_traffic_policy: Option<String>,
    pub ip_families: Option<Vec<String>>,
    pub ip_family_policy: Option<String>,
    pub load_balancer_class: Option<String>,
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Option<String>,
    pub ports: Option<Vec<ServicePort>>,
    pub selector: Option<BTreeMap<String, String>>,
    #[serde(rename = "type")]
    pub type_: Option<String>,
}

impl ServiceSpec {
    pub fn cluster_ips(&self) -> Vec<IpAddr> {
        let all = self.cluster_ips.as_deref().unwrap_or_default();
        let alone = self.cluster_ip.iter().filter(|_| all.is_empty());
        all.iter()
            .chain(alone)
            .filter_map(|text| text.parse().ok())
            .collect()
    }
}

impl Service {
    /// The addresses of its status.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let status = self
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|balancer| balancer.ingress.as_deref());
        let texts = ingress
            .unwrap_or_default()
            .iter()
            .filter_map(|one| one.ip.as_deref());
        texts.filter_map(|text| text.parse().ok()).collect()
    }
}
