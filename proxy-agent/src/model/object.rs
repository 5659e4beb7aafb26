//! The objects that come in, and the events that carry them.
//!
//! They hold what decides about traffic and nothing else, with every default filled in and every address parsed:
//! a source that cannot fill them does not send them.

use std::{fmt, net::IpAddr, sync::Arc, time::SystemTime};

use super::{Asks, Cidr, Ignored};

/// Namespace and name: the identity of an object among those of its kind. Shared, since many tables hold the same ones.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectName {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// A transport protocol that a service port can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// The types of Service that have addresses (an ExternalName has none and never comes in).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServiceType {
    ClusterIp,
    NodePort,
    LoadBalancer,
}

/// Which endpoints traffic may go to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TrafficPolicy {
    Cluster,
    /// Only those on the node that received the packet.
    Local,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    pub name: ObjectName,
    /// Seconds since the epoch, 0 where the object carries no time (manifest files).
    pub created: i64,
    pub kind: ServiceType,
    /// The families it is served in.
    pub families: Vec<Family>,
    /// Empty where nobody allocated one (manifest files).
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    /// Load-balancer addresses whose traffic arrives unchanged (`ipMode: VIP`).
    pub load_balancer_ips: Vec<IpAddr>,
    /// `loadBalancerSourceRanges` of both families, as given.
    pub source_ranges: Vec<Cidr>,
    pub external_policy: TrafficPolicy,
    pub internal_policy: TrafficPolicy,
    /// ClientIP affinity: seconds for which it holds after the last new connection.
    pub affinity: Option<u32>,
    pub health_check_node_port: Option<u16>,
    pub asks: Asks,
    pub ports: Vec<ServicePort>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    /// Empty for the only port of a service, if it has no name.
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSlice {
    pub name: ObjectName,
    /// Name of the service, in the slice's namespace, that it belongs to.
    pub service: Arc<str>,
    pub family: Family,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
    /// What of its annotations is not understood.
    pub ignored: Vec<Ignored>,
    /// When the pod or service changed for which the slice was last written; where the slice says it.
    pub triggered: Option<SystemTime>,
}

impl EndpointSlice {
    pub fn service_name(&self) -> ObjectName {
        ObjectName {
            namespace: Arc::clone(&self.name.namespace),
            name: Arc::clone(&self.service),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlicePort {
    /// Matches the name of the service port, never its number.
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub number: u16,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceEndpoint {
    pub addr: IpAddr,
    pub node: Option<Arc<str>>,
    pub conditions: Conditions,
    /// How often it is chosen beside others; 0 for never.
    pub weight: u16,
    /// Zones that the endpoint is meant for; empty without a hint.
    pub zone_hints: Vec<Arc<str>>,
    /// Nodes that the endpoint is meant for; empty without a hint.
    pub node_hints: Vec<Arc<str>>,
}

/// The weight of an endpoint that has none of its own.
pub const WEIGHT: u16 = 1;

/// The state of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Conditions {
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

impl Conditions {
    /// May it be used while no endpoint is ready? (It answers still, on its way out.)
    pub const fn is_fallback(self) -> bool {
        self.serving && self.terminating
    }
}

/// The node that this agent runs on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub name: String,
    pub zone: Option<String>,
    pub addresses: Vec<IpAddr>,
    /// Is it being deleted, or about to be? Load balancers are told to leave it out.
    pub leaving: bool,
}

impl Node {
    /// What is known of a node of which only the name is known.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            zone: None,
            addresses: Vec::new(),
            leaving: false,
        }
    }
}

/// A kind of object that a source lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Service,
    EndpointSlice,
}

/// A change of one object, or the end of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    ServiceUpserted(Service),
    ServiceDeleted(ObjectName),
    SliceUpserted(EndpointSlice),
    SliceDeleted(ObjectName),
    NodeChanged(Node),
    /// Every object of the kind that there is has been sent once.
    Synced(Kind),
}

impl Event {
    /// The Service or EndpointSlice that it is about.
    pub const fn object(&self) -> Option<&ObjectName> {
        match self {
            Self::ServiceUpserted(service) => Some(&service.name),
            Self::SliceUpserted(slice) => Some(&slice.name),
            Self::ServiceDeleted(name) | Self::SliceDeleted(name) => Some(name),
            Self::NodeChanged(_) | Self::Synced(_) => None,
        }
    }
}
