//! Warnings of the model, as notices: one for each reason, however many there are.

use std::collections::BTreeMap;

use super::{Notice, Reason, Shape};
use crate::model::{DesiredService, Service, ServiceType, Warning};

/// Warnings that a message has in full; of the rest, the number.
const SHOWN: usize = 5;

/// What the warnings of one Service amount to.
pub fn of_warnings(warnings: &[Warning]) -> Vec<Notice> {
    let mut by_reason: BTreeMap<Reason, Vec<String>> = BTreeMap::new();
    for warning in warnings {
        let (reason, text) = reading(warning);
        by_reason.entry(reason).or_default().push(text);
    }
    let notices = by_reason.into_iter().map(|(reason, texts)| {
        let more = texts.len().saturating_sub(SHOWN);
        let mut message = texts[..texts.len() - more].join("; ");
        if more > 0 {
            message += &format!("; and {more} more");
        }
        Notice::new(reason, message)
    });
    notices.collect()
}

/// What a Service is that is served nowhere: there is no row of a table to tell it.
pub fn shape(service: Option<&Service>, desired: &[DesiredService]) -> Option<Shape> {
    let service = service?;
    if desired.iter().any(|port| !port.frontends.is_empty()) {
        return None;
    }
    let kind = match service.kind {
        ServiceType::ClusterIp => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
    };
    let ports = service.ports.iter();
    let ports = ports.map(|port| match port.node_port {
        Some(node_port) => format!("{}:{node_port}/{}", port.port, port.protocol),
        None => format!("{}/{}", port.port, port.protocol),
    });
    Some(Shape {
        r#type: kind.to_owned(),
        ports: ports.collect(),
    })
}

fn reading(warning: &Warning) -> (Reason, String) {
    match warning {
        Warning::EndpointRefused {
            slice,
            addr,
            reason,
        } => (
            Reason::EndpointRefused,
            format!(
                "endpoint {addr} of EndpointSlice {} is not used: {reason}",
                slice.name
            ),
        ),
        Warning::AddressRefused { addr, reason, .. } => (
            Reason::AddressRefused,
            format!("not served at {addr}: {reason}"),
        ),
        Warning::FrontendConflict { place, winner, .. } => (
            Reason::AddressTaken,
            format!(
                "not served at {place}: Service {winner} claims it and comes first (by age, then by name)"
            ),
        ),
    }
}
