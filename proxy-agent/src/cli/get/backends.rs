//! One row per endpoint of a service port.

use std::net::SocketAddr;

use anyhow::Result;
use serde::Serialize;

use super::Named;
use crate::{
    cli::output::Row,
    condition::{View, place_of, state_of},
};

#[derive(PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRow {
    namespace: String,
    service: String,
    port: String,
    endpoint: SocketAddr,
    /// `in-use`, or `draining`: connections that are open go on.
    state: &'static str,
    /// `this-node` (its host network), `local` or `remote`.
    r#where: &'static str,
    connections: u64,
    packets: u64,
    bytes: u64,
    reply_packets: u64,
    reply_bytes: u64,
    id: u32,
}

pub fn rows(view: &View) -> Result<Vec<BackendRow>> {
    let mut rows = Vec::new();
    for service in &view.services {
        for (id, entry) in &service.backends {
            let count = view.maps.backend_count(*id)?;
            rows.push(BackendRow {
                namespace: service.name.namespace.clone(),
                service: service.name.service.clone(),
                port: service.name.port.clone(),
                endpoint: entry.socket,
                state: state_of(entry.flags),
                r#where: place_of(entry.flags),
                connections: count.connections,
                packets: count.packets,
                bytes: count.bytes,
                reply_packets: count.reply_packets,
                reply_bytes: count.reply_bytes,
                id: id.0,
            });
        }
    }
    Ok(rows)
}

impl Row for BackendRow {
    const KIND: &'static str = "Backend";
    const COLUMNS: &'static [&'static str] = &[
        "NAMESPACE",
        "SERVICE",
        "PORT",
        "ENDPOINT",
        "STATE",
        "WHERE",
        "CONNECTIONS",
        "PACKETS",
        "BYTES",
        "REPLY-PACKETS",
        "REPLY-BYTES",
        "ID",
    ];
    const WIDE: usize = 1;

    fn cells(&self) -> Vec<String> {
        vec![
            self.namespace.clone(),
            self.service.clone(),
            self.port.clone(),
            self.endpoint.to_string(),
            self.state.to_owned(),
            self.r#where.to_owned(),
            self.connections.to_string(),
            self.packets.to_string(),
            self.bytes.to_string(),
            self.reply_packets.to_string(),
            self.reply_bytes.to_string(),
            self.id.to_string(),
        ]
    }
}

impl Named for BackendRow {
    const COUNTS: &'static [&'static str] = &[
        "CONNECTIONS",
        "PACKETS",
        "BYTES",
        "REPLY-PACKETS",
        "REPLY-BYTES",
    ];

    fn key(&self) -> String {
        self.id.to_string()
    }

    fn service(&self) -> &str {
        &self.service
    }
}
