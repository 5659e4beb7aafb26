//! One row per NodePort and family.

use anyhow::Result;
use proxy_common::abi::BackendFlags;
use serde::Serialize;

use super::Named;
use crate::{cli::output::Row, condition::View, plan::FrontendAt};

#[derive(PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePortRow {
    namespace: String,
    node_port: u16,
    protocol: String,
    family: String,
    service: String,
    port: String,
    endpoints: usize,
    connections: u64,
}

pub fn rows(view: &View) -> Result<Vec<NodePortRow>> {
    let mut rows = Vec::new();
    for service in &view.services {
        for at in service.frontends.keys() {
            let FrontendAt::NodePort {
                family,
                port,
                protocol,
            } = *at
            else {
                continue;
            };
            rows.push(NodePortRow {
                namespace: service.name.namespace.clone(),
                node_port: port,
                protocol: protocol.to_string(),
                family: family.to_string(),
                service: service.name.service.clone(),
                port: service.name.port.clone(),
                endpoints: service.count(BackendFlags::IN_EXTERNAL),
                connections: view.maps.service_count(service.id)?.connections,
            });
        }
    }
    Ok(rows)
}

impl Row for NodePortRow {
    const KIND: &'static str = "NodePort";
    const COLUMNS: &'static [&'static str] = &[
        "NAMESPACE",
        "NODEPORT",
        "FAMILY",
        "SERVICE",
        "PORT",
        "ENDPOINTS",
        "CONNECTIONS",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.namespace.clone(),
            format!("{}/{}", self.node_port, self.protocol),
            self.family.clone(),
            self.service.clone(),
            self.port.clone(),
            self.endpoints.to_string(),
            self.connections.to_string(),
        ]
    }
}

impl Named for NodePortRow {
    const COUNTS: &'static [&'static str] = &["CONNECTIONS"];

    fn key(&self) -> String {
        format!("{}/{} {}", self.node_port, self.protocol, self.family)
    }

    fn service(&self) -> &str {
        &self.service
    }
}
