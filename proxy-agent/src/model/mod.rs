//! What the cluster wants, as plain values.
//!
//! In: [`Event`]s about Services, EndpointSlices and the own Node, as a source reads them. Out: the
//! names of the services that an event touched, and for each of them the [`DesiredService`]s that the plan turns into
//! map writes.
//!
//! The one rule: what comes out depends on the objects held now and never on the order in which they came.
//! Nothing here does I/O or knows Kubernetes, aya or a map.
//!
//! | file | subject |
//! |---|---|
//! | `object` | the objects that come in, and the events that carry them |
//! | `desired` | the values that go out |
//! | `address` | addresses that no cluster object may name |
//! | `cidr` | address ranges |

mod address;
mod cidr;
mod desired;
mod object;

pub use address::not_routable;
pub use cidr::{Cidr, CidrError};
pub use desired::{
    DesiredService, Endpoint, EndpointId, Frontend, FrontendKind, OnEmpty, Scope, ServicePortKey,
};
pub use object::{
    Conditions, EndpointSlice, Event, Family, Kind, Node, ObjectName, Protocol, Service,
    ServicePort, ServiceType, SliceEndpoint, SlicePort, TrafficPolicy,
};
