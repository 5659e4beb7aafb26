//! One row per Service object, as `kubectl get services` has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Result;
use proxy_common::abi::{BackendFlags, FrontendKind};
use serde::Serialize;

use super::Named;
use crate::{
    cli::output::Row,
    condition::{ServicePort, View, endpoints},
    notices::{Notice, Shape},
    plan::FrontendAt,
};

#[derive(PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    namespace: String,
    name: String,
    r#type: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: BTreeSet<IpAddr>,
    #[serde(rename = "externalIPs")]
    external_ips: BTreeSet<IpAddr>,
    ports: BTreeSet<Port>,
    endpoints: usize,
    connections: u64,
    refused_packets: u64,
    dropped_packets: u64,
    held_packets: u64,
    /// Why it is not served as its object says.
    notices: Vec<Notice>,
    /// Of one that is served nowhere.
    #[serde(skip)]
    shape: Option<Shape>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    /// Of the service's addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_port: Option<u16>,
    protocol: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
}

/// The type of one that is left out as a whole: its object says it, and is wrong.
const NOT_SERVED: &str = "<none>";

pub fn rows(view: &View) -> Result<Vec<ServiceRow>> {
    let mut objects: BTreeMap<(&str, &str), Vec<&ServicePort>> = BTreeMap::new();
    for service in &view.services {
        let name = (&*service.name.namespace, &*service.name.service);
        objects.entry(name).or_default().push(service);
    }
    let mut told = BTreeMap::new();
    for one in &view.told {
        let name = (&*one.namespace, &*one.name);
        told.insert(name, one);
        // One of which no service port is there.
        objects.entry(name).or_default();
    }
    let mut rows = Vec::new();
    for ((namespace, name), ports) in objects {
        let told = told.get(&(namespace, name));
        let shape = told.and_then(|one| one.shape.clone());
        let mut row = ServiceRow {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            r#type: match (&shape, ports.is_empty()) {
                (Some(shape), _) => shape.r#type.clone(),
                (None, true) => NOT_SERVED.to_owned(),
                (None, false) => kind(&ports).to_owned(),
            },
            cluster_ips: addresses(&ports, &[FrontendKind::ClusterIp]),
            external_ips: addresses(
                &ports,
                &[FrontendKind::LoadBalancer, FrontendKind::ExternalIp],
            ),
            ports: ports.iter().flat_map(|service| port(service)).collect(),
            endpoints: 0,
            connections: 0,
            refused_packets: 0,
            dropped_packets: 0,
            held_packets: 0,
            notices: told.map(|one| one.notices.clone()).unwrap_or_default(),
            shape,
        };
        row.endpoints = endpoints(ports.iter().copied(), BackendFlags::CHOSEN);
        for service in ports {
            let count = view.maps.service_count(service.id)?;
            row.connections += count.connections;
            row.refused_packets += count.refused;
            row.dropped_packets += count.dropped;
            row.held_packets += view.maps.service_held(service.id)?;
        }
        rows.push(row);
    }
    Ok(rows)
}

fn kind(ports: &[&ServicePort]) -> &'static str {
    let kinds = ports.iter().flat_map(|service| service.frontends.values());
    let has = |kind| kinds.clone().any(|found| *found == kind);
    if has(FrontendKind::LoadBalancer) {
        "LoadBalancer"
    } else if has(FrontendKind::NodePort) {
        "NodePort"
    } else {
        "ClusterIP"
    }
}

fn addresses(ports: &[&ServicePort], kinds: &[FrontendKind]) -> BTreeSet<IpAddr> {
    let frontends = ports.iter().flat_map(|service| &service.frontends);
    frontends
        .filter(|(_, kind)| kinds.contains(kind))
        .filter_map(|(at, _)| match at {
            FrontendAt::Port { addr, .. } => Some(*addr),
            _ => None,
        })
        .collect()
}

/// The port of one family; none for a service port without a frontend.
fn port(service: &ServicePort) -> Option<Port> {
    let (mut port, mut node_port, mut protocol) = (None, None, None);
    for at in service.frontends.keys() {
        match *at {
            FrontendAt::Port {
                port: own,
                protocol: of,
                ..
            } => (port, protocol) = (Some(own), Some(of)),
            FrontendAt::NodePort {
                port: own,
                protocol: of,
                ..
            } => (node_port, protocol) = (Some(own), Some(of)),
            FrontendAt::WholeAddress(_) => {}
        }
    }
    Some(Port {
        port,
        node_port,
        protocol: protocol?.to_string(),
        name: service.name.port.clone(),
    })
}

impl Port {
    /// `80:30000/TCP` as kubectl has it; a NodePort without a ClusterIP is `:30000/TCP`.
    fn text(&self) -> String {
        let port = self.port.map(|port| port.to_string()).unwrap_or_default();
        let node_port = self.node_port.map(|port| format!(":{port}"));
        format!("{port}{}/{}", node_port.unwrap_or_default(), self.protocol)
    }
}

impl Row for ServiceRow {
    const KIND: &'static str = "Service";
    const COLUMNS: &'static [&'static str] = &[
        "NAMESPACE",
        "NAME",
        "TYPE",
        "CLUSTER-IP",
        "EXTERNAL-IP",
        "PORT(S)",
        "ENDPOINTS",
        "CONNECTIONS",
        "NOTICES",
        "REFUSED",
        "DROPPED",
        "HELD",
        "MESSAGES",
    ];
    const WIDE: usize = 4;

    fn cells(&self) -> Vec<String> {
        let list = |addresses: &BTreeSet<IpAddr>| {
            if addresses.is_empty() {
                return "<none>".to_owned();
            }
            joined(addresses.iter().map(ToString::to_string))
        };
        vec![
            self.namespace.clone(),
            self.name.clone(),
            self.r#type.to_owned(),
            list(&self.cluster_ips),
            list(&self.external_ips),
            match &self.shape {
                Some(shape) => shape.ports.join(","),
                None => joined(self.ports.iter().map(Port::text)),
            },
            self.endpoints.to_string(),
            self.connections.to_string(),
            joined(self.notices.iter().map(|one| one.reason.text())),
            self.refused_packets.to_string(),
            self.dropped_packets.to_string(),
            self.held_packets.to_string(),
            self.notices
                .iter()
                .map(|one| one.message.as_str())
                .collect::<Vec<_>>()
                .join("; "),
        ]
    }
}

impl Named for ServiceRow {
    const COUNTS: &'static [&'static str] = &["CONNECTIONS", "REFUSED", "DROPPED", "HELD"];

    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn service(&self) -> &str {
        &self.name
    }
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::Port;

    #[test]
    fn ports_read_as_kubectl_prints_them() {
        let text = |port, node_port| {
            Port {
                port,
                node_port,
                protocol: "TCP".to_owned(),
                name: String::new(),
            }
            .text()
        };
        assert_eq!(text(Some(80), None), "80/TCP");
        assert_eq!(text(Some(80), Some(30000)), "80:30000/TCP");
        assert_eq!(text(None, Some(30000)), ":30000/TCP");
    }
}
