//! What the cluster wants, as plain values.
//!
//! In: [`Event`]s about Services, EndpointSlices and the own Node, as a [source](crate::source) reads them. Out: the
//! names of the services that an event touched, and for each of them the [`DesiredService`]s that the plan turns into
//! map writes.
//!
//! The one rule: what comes out depends on the objects held now and never on the order in which they came.
//! Nothing here does I/O or knows Kubernetes, aya or a map.
//!
//! | file | subject |
//! |---|---|
//! | `object` | the objects that come in, and the events that carry them |
//! | `asks` | what Services ask for by annotations |
//! | `desired` | the values that go out |
//! | `store` | objects by key, and which services an event makes dirty |
//! | `bounds` | how much one Service may ask for |
//! | `claims` | which service owns a frontend that two of them claim |
//! | `endpoints` | the endpoints of a service port, merged from its slices |
//! | `policy` | which of those endpoints the internal and the external scope use |
//! | `pool` | one copy of each text that many objects repeat |
//! | `address` | addresses that no cluster object may name |
//! | `refusals` | what is taken out of objects on this node |
//! | `stranger` | does anybody know this node by its name? |
//! | `cidr` | address ranges |
//! | `warning` | what is wrong with objects that were accepted |

mod address;
mod asks;
mod bounds;
mod cidr;
mod claims;
mod desired;
mod endpoints;
mod object;
mod policy;
mod pool;
mod refusals;
mod store;
mod stranger;
mod warning;

#[cfg(test)]
mod tests;

pub use address::{REFUSED, Ranges, not_routable, parse_address};
pub use asks::{Asks, Balancing, Ignored};
pub use bounds::Bounds;
pub use cidr::{Cidr, CidrError};
pub use claims::ServiceAddress;
pub use desired::{
    DesiredService, Endpoint, EndpointId, Frontend, FrontendKind, OnEmpty, Scope, ServicePortKey,
};
pub use object::{
    Conditions, EndpointSlice, Event, Family, Kind, Node, ObjectName, Protocol, Service,
    ServicePort, ServiceType, SliceEndpoint, SlicePort, TrafficPolicy, WEIGHT,
};
pub use store::Store;
pub use stranger::Stranger;
pub use warning::{RefusedAddress, Warning};
