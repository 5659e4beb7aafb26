//! The values that go out: what the datapath should do for one service port in one family.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Balancing, Cidr, Conditions, Family, ObjectName, Protocol, TrafficPolicy};

/// The identity of a service port in one family. The port's number is not part of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServicePortKey {
    pub service: ObjectName,
    pub port_name: Arc<str>,
    pub protocol: Protocol,
    pub family: Family,
}

impl fmt::Display for ServicePortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service,
            port_name,
            protocol,
            family,
        } = self;
        if port_name.is_empty() {
            write!(f, "{service} ({protocol}, {family})")
        } else {
            write!(f, "{service}:{port_name} ({protocol}, {family})")
        }
    }
}

/// One service port in one family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DesiredService {
    pub key: ServicePortKey,
    /// Where it is reached: sorted, each once, none that an older service owns. May be empty.
    pub frontends: Vec<Frontend>,
    /// Every endpoint in whatever state, sorted by address and port, each once. Those that no scope lists are here for
    /// the flows that they carry already.
    pub endpoints: Vec<Endpoint>,
    /// For traffic to the ClusterIP.
    pub internal: Scope,
    /// For traffic to NodePort, external IPs and load-balancer IPs.
    pub external: Scope,
    /// What a scope of policy `Cluster` uses, whatever the policies are: traffic of this node's own pods and processes
    /// to an external address goes to these under `externalTrafficPolicy: Local`.
    pub cluster: Vec<EndpointId>,
    /// Is there any endpoint, on any node, that new connections may use?
    pub has_any: bool,
    /// ClientIP affinity: seconds for which it holds after the last new connection.
    pub affinity: Option<u32>,
    pub balancing: Balancing,
    /// Seconds for which first packets of a client wait while there is no endpoint anywhere; `None`: they are refused.
    pub hold: Option<u32>,
    /// The sources that load-balancer IPs admit; empty for all.
    pub source_ranges: Vec<Cidr>,
    /// Endpoints that the service's bounds leave out.
    pub left_out: u32,
}

impl DesiredService {
    pub fn endpoint(&self, id: EndpointId) -> &Endpoint {
        &self.endpoints[id.0 as usize]
    }
}

/// A place at which a service port is reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Frontend {
    pub kind: FrontendKind,
    /// `None` for a NodePort: any local address.
    pub addr: Option<IpAddr>,
    pub port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FrontendKind {
    ClusterIp,
    LoadBalancer,
    ExternalIp,
    NodePort,
}

impl FrontendKind {
    /// Does the external scope apply to it?
    pub const fn is_external(self) -> bool {
        !matches!(self, Self::ClusterIp)
    }
}

/// The endpoints that one sort of traffic may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    pub policy: TrafficPolicy,
    /// In ascending order.
    pub endpoints: Vec<EndpointId>,
    /// What a new connection meets when `endpoints` is empty.
    pub on_empty: OnEmpty,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnEmpty {
    /// No endpoint anywhere: say so at once.
    Reject,
    /// There are endpoints, but none on this node: a load balancer should go elsewhere.
    Drop,
}

/// An index into [`DesiredService::endpoints`]; has no meaning outside that value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointId(pub u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    pub addr: IpAddr,
    pub port: u16,
    /// Is it on this node?
    pub local: bool,
    pub conditions: Conditions,
    /// How often it is chosen beside others; one of 0 is in no scope.
    pub weight: u16,
}

impl Endpoint {
    /// Its identity among the endpoints of a service port.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.addr, self.port)
    }
}
