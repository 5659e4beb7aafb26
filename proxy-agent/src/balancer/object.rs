//! The objects that the controller reads, reduced to what decides.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

use super::crd::{GROUP, IPAddressPoolSpec, IPAddressPoolStatus};
use crate::source::{
    convert::objects::{Metadata, ServicePort, ServiceStatus, or_default},
    kube::Listed,
};

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

impl Listed for Service {
    const KIND: &'static str = "Service";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "services";

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct IPAddressPool {
    pub metadata: Metadata,
    pub spec: IPAddressPoolSpec,
    #[serde(default)]
    pub status: Option<IPAddressPoolStatus>,
}

impl Listed for IPAddressPool {
    const KIND: &'static str = "IPAddressPool";
    const GROUP: &'static str = GROUP;
    const VERSION: &'static str = "v1beta1";
    const PLURAL: &'static str = "ipaddresspools";

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(default)]
pub struct Namespace {
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
}

impl Listed for Namespace {
    const KIND: &'static str = "Namespace";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "namespaces";

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}

/// Of MetalLB's controller: does it run, and for which class?
#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(default)]
pub struct Deployment {
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    pub spec: DeploymentSpec,
}

#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(default)]
pub struct DeploymentSpec {
    pub replicas: Option<i32>,
    pub template: PodTemplate,
}

#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(default)]
pub struct PodTemplate {
    pub spec: PodSpec,
}

#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(default)]
pub struct PodSpec {
    pub containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(default)]
pub struct Container {
    pub args: Option<Vec<String>>,
}

impl Listed for Deployment {
    const KIND: &'static str = "Deployment";
    const GROUP: &'static str = "apps";
    const PLURAL: &'static str = "deployments";

    fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }
}
