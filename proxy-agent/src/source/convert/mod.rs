//! Kubernetes objects into the model's: every default filled in as the API server does it, every value checked.
//!
//! The object may come from an API server or from a file that no API server has seen, so that what admission would have
//! refused is refused here, by the name of its field.

mod annotations;
mod endpoint_slice;
mod names;
mod node;
pub mod objects;
mod service;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, sync::Arc};

use self::objects::Metadata;
use crate::model::{self, Family, ObjectName, Protocol};

pub use endpoint_slice::endpoint_slice;
pub use node::node;
pub use service::service;

/// A valid object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Converted<T> {
    Served(T),
    /// It is not for this proxy; a source treats it as if it were not there.
    Skipped(Skip),
}

/// Why an object is not for this proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skip {
    pub why: &'static str,
    /// Its author may expect it to be served.
    pub is_surprising: bool,
}

impl<T> Converted<T> {
    pub fn map<U>(self, object: impl FnOnce(T) -> U) -> Converted<U> {
        match self {
            Self::Served(inner) => Converted::Served(object(inner)),
            Self::Skipped(skip) => Converted::Skipped(skip),
        }
    }

    const fn skipped(why: &'static str) -> Self {
        Self::Skipped(Skip {
            why,
            is_surprising: false,
        })
    }

    const fn useless(why: &'static str) -> Self {
        Self::Skipped(Skip {
            why,
            is_surprising: true,
        })
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why)
    }
}

/// What is wrong with an object, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldError {
    /// As in `spec.ports[0].nodePort`.
    pub field: String,
    pub message: String,
}

impl FieldError {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for FieldError {}

type Result<T> = std::result::Result<T, FieldError>;

/// Is there a Service that may be named so?
pub fn is_service_name(name: &str) -> bool {
    names::label("", name).is_ok()
}

/// A rule for names.
type NameRule = fn(&str, &str) -> Result<()>;

/// Namespace and name; without a namespace, `default`.
fn object_name(meta: &Metadata, rule: NameRule) -> Result<ObjectName> {
    let namespace = non_empty(&meta.namespace).unwrap_or("default");
    names::label("metadata.namespace", namespace)?;
    Ok(ObjectName::new(namespace, own_name(meta, rule)?))
}

fn own_name(meta: &Metadata, rule: NameRule) -> Result<&str> {
    let field = "metadata.name";
    let name = non_empty(&meta.name).ok_or_else(|| FieldError::new(field, "is missing"))?;
    rule(field, name).map(|()| name)
}

/// The name of a port: empty where it has none.
fn port_name(field: &str, value: &Option<String>) -> Result<Arc<str>> {
    let name = value.as_deref().unwrap_or_default();
    if !name.is_empty() {
        names::label(field, name)?;
    }
    Ok(name.into())
}

fn label<'a>(meta: &'a Metadata, name: &str) -> Option<&'a str> {
    Some(meta.labels.as_ref()?.get(name)?.as_str())
}

/// The text, unless it is absent or empty: Kubernetes means the same by both.
fn non_empty(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// The list, empty if absent.
fn list<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or_default()
}

/// One of the words that the field may hold, or its default.
fn choice<T: Copy>(
    field: &str,
    value: &Option<String>,
    default: T,
    words: &[(&str, T)],
) -> Result<T> {
    let Some(value) = non_empty(value) else {
        return Ok(default);
    };
    let found = words.iter().find(|(word, _)| *word == value);
    found.map(|&(_, meaning)| meaning).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|&(word, _)| word).collect();
        FieldError::new(field, format!("{value:?} is none of {}", known.join(", ")))
    })
}

fn protocol(field: &str, value: &Option<String>) -> Result<Protocol> {
    let words = [
        ("TCP", Protocol::Tcp),
        ("UDP", Protocol::Udp),
        ("SCTP", Protocol::Sctp),
    ];
    choice(field, value, Protocol::Tcp, &words)
}

fn family(field: &str, value: &str) -> Result<Family> {
    match value {
        "IPv4" => Ok(Family::Ipv4),
        "IPv6" => Ok(Family::Ipv6),
        _ => Err(FieldError::new(
            field,
            format!("{value:?} is none of IPv4, IPv6"),
        )),
    }
}

fn port(field: &str, value: i32) -> Result<u16> {
    u16::try_from(value)
        .ok()
        .filter(|&port| port != 0)
        .ok_or_else(|| FieldError::new(field, format!("{value} is not a port (1-65535)")))
}

/// A port where both no value and 0 mean none.
fn optional_port(field: &str, value: Option<i32>) -> Result<Option<u16>> {
    value
        .filter(|&value| value != 0)
        .map(|value| port(field, value))
        .transpose()
}

/// As kube-proxy reads it, which takes leading zeros for nothing (`ParseIPSloppy` in k8s.io/utils/net).
fn address(field: &str, value: &str) -> Result<IpAddr> {
    model::parse_address(value)
        .ok_or_else(|| FieldError::new(field, format!("{value:?} is not an IP address")))
}

/// An address at which a service may be reached.
fn service_address(field: &str, value: &str) -> Result<IpAddr> {
    let addr = address(field, value)?;
    match model::not_routable(addr) {
        None => Ok(addr),
        Some(reason) => Err(FieldError::new(
            field,
            format!("{addr} cannot be a service's: {reason}"),
        )),
    }
}
