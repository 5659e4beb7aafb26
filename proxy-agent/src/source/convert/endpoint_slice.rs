//! EndpointSlice.

use std::time::SystemTime;

use jiff::Timestamp;

use super::{
    Converted, FieldError, Result, address, annotations, family, label, list, names, non_empty,
    object_name, objects as k8s, optional_port, port_name, protocol,
};
use crate::model::{Conditions, EndpointSlice, Family, SliceEndpoint, SlicePort};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

pub fn endpoint_slice(object: &k8s::EndpointSlice) -> Result<Converted<EndpointSlice>> {
    let name = object_name(&object.metadata, names::subdomain)?;
    if label(&object.metadata, HEADLESS_LABEL).is_some() {
        return Ok(Converted::skipped("it belongs to a headless service"));
    }
    let Some(service) = label(&object.metadata, SERVICE_NAME_LABEL).filter(|s| !s.is_empty())
    else {
        return Ok(Converted::useless(
            "metadata.labels: no label kubernetes.io/service-name says whose it is",
        ));
    };
    names::label(&format!("metadata.labels[{SERVICE_NAME_LABEL}]"), service)?;
    if object.address_type == "FQDN" {
        return Ok(Converted::useless(
            "addressType: its addresses are names, to which no packet can be sent",
        ));
    }
    let family = family("addressType", &object.address_type)?;
    let (weight, ignored) = annotations::weight(&object.metadata);
    let mut endpoints = list(&object.endpoints)
        .iter()
        .enumerate()
        .map(|(i, endpoint)| slice_endpoint(&format!("endpoints[{i}]"), endpoint, family, weight))
        .collect::<Result<Vec<_>>>()?;
    // There may be a hundred thousand of them, and they stay.
    endpoints.shrink_to_fit();
    Ok(Converted::Served(EndpointSlice {
        name,
        service: service.into(),
        family,
        ports: ports(list(&object.ports))?,
        endpoints,
        ignored,
        triggered: triggered(&object.metadata),
    }))
}

/// It only serves a measurement: a time that cannot be read counts as none.
fn triggered(meta: &k8s::Metadata) -> Option<SystemTime> {
    let text = meta.annotations.as_ref()?.get(TRIGGER_ANNOTATION)?;
    Some(text.parse::<Timestamp>().ok()?.into())
}

/// A port without a number stands for all ports and is of no use to a proxy.
fn ports(given: &[k8s::EndpointPort]) -> Result<Vec<SlicePort>> {
    let mut ports = Vec::new();
    for (i, port) in given.iter().enumerate() {
        let protocol = protocol(&format!("ports[{i}].protocol"), &port.protocol)?;
        if let Some(number) = optional_port(&format!("ports[{i}].port"), port.port)? {
            ports.push(SlicePort {
                name: port_name(&format!("ports[{i}].name"), &port.name)?,
                protocol,
                number,
            });
        }
    }
    Ok(ports)
}

/// Only the first address counts: Kubernetes says that all of them are the same endpoint.
fn slice_endpoint(
    place: &str,
    endpoint: &k8s::Endpoint,
    family: Family,
    weight: u16,
) -> Result<SliceEndpoint> {
    let Some(first) = endpoint.addresses.first() else {
        return Err(FieldError::new(format!("{place}.addresses"), "is empty"));
    };
    let field = format!("{place}.addresses[0]");
    let addr = address(&field, first)?;
    if Family::of(addr) != family {
        return Err(FieldError::new(
            field,
            format!("{addr} is not of addressType {family}"),
        ));
    }
    let node = non_empty(&endpoint.node_name);
    if let Some(node) = node {
        names::subdomain(&format!("{place}.nodeName"), node)?;
    }
    let hints = endpoint.hints.as_ref();
    Ok(SliceEndpoint {
        addr,
        node: node.map(Into::into),
        conditions: conditions(endpoint.conditions.as_ref()),
        weight,
        zone_hints: hints
            .map(|hints| list(&hints.for_zones))
            .unwrap_or_default()
            .iter()
            .map(|zone| zone.name.as_str().into())
            .collect(),
        node_hints: hints
            .map(|hints| list(&hints.for_nodes))
            .unwrap_or_default()
            .iter()
            .map(|node| node.name.as_str().into())
            .collect(),
    })
}

/// An unknown state counts as good: ready, serving, not terminating.
fn conditions(given: Option<&k8s::EndpointConditions>) -> Conditions {
    Conditions {
        ready: given.and_then(|c| c.ready).unwrap_or(true),
        serving: given.and_then(|c| c.serving).unwrap_or(true),
        terminating: given.and_then(|c| c.terminating).unwrap_or(false),
    }
}
