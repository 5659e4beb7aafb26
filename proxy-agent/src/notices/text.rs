//! Warnings of the model, as notices: one for each reason, however many there are.

use std::collections::BTreeMap;

use super::{Notice, Reason, Shape};
use crate::model::{DesiredService, Service, ServiceType, Warning};

/// Warnings that a message has in full; of the rest, the number.
const SHOWN: usize = 5;

/// What the warnings of one Service amount to. An object of a few KiB may be wrong in thousands of places: only those that
/// are shown are written out.
pub fn of_warnings(warnings: &[Warning]) -> Vec<Notice> {
    let mut by_reason: BTreeMap<Reason, (Vec<String>, usize)> = BTreeMap::new();
    for warning in warnings {
        let (texts, more) = by_reason.entry(reason(warning)).or_default();
        if texts.len() < SHOWN {
            texts.push(text(warning));
        } else {
            *more += 1;
        }
    }
    let notices = by_reason.into_iter().map(|(reason, (texts, more))| {
        let mut message = texts.join("; ");
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

const fn reason(warning: &Warning) -> Reason {
    match warning {
        Warning::EndpointRefused { .. } => Reason::EndpointRefused,
        Warning::AddressRefused { .. } => Reason::AddressRefused,
        Warning::FieldIgnored { .. } => Reason::FieldIgnored,
        Warning::FrontendConflict { .. } => Reason::AddressTaken,
    }
}

fn text(warning: &Warning) -> String {
    match warning {
        Warning::EndpointRefused {
            slice,
            addr,
            reason,
        } => format!(
            "endpoint {addr} of EndpointSlice {} is not used: {reason}",
            slice.name
        ),
        Warning::AddressRefused { addr, reason, .. } => format!("not served at {addr}: {reason}"),
        Warning::FieldIgnored { .. } => warning.to_string(),
        Warning::FrontendConflict {
            address, winner, ..
        } => format!(
            "not served at {address}: Service {winner} claims it and comes first (by age, then by name)"
        ),
    }
}
