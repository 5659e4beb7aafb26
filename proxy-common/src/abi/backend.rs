//! Backends: one for each endpoint of each service port.
//!
//! An id belongs to one (service port, endpoint) pair, so that "is this endpoint still one of this service's?"
//! is one array read. An id that is used again gets the next generation, which is how a flow tells that the
//! backend that it was made for is gone.

use crate::{
    abi::{Generation, ServiceId},
    addr::Be16,
};

/// One element of the backend array.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Backend<A> {
    pub addr: A,
    pub port: Be16,
    /// Bits of [`backend_flags`]. No bit set: the id is free.
    pub flags: u16,
    pub generation: Generation,
    /// Id of the service that the backend belongs to.
    pub service: ServiceId,
}

pub mod backend_flags {
    /// The endpoint serves: flows may go to it (ready, or serving while terminating).
    pub const SERVING: u16 = 1;
    /// On this node, by the EndpointSlice's `nodeName`.
    pub const LOCAL: u16 = 1 << 1;
    /// The address is one of this node's own: a host-network endpoint of this node.
    pub const HOST: u16 = 1 << 2;
    /// Is in a slot of its service's internal extent: session affinity may hold on to it there.
    pub const IN_INTERNAL: u16 = 1 << 3;
    /// The same for the external extent.
    pub const IN_EXTERNAL: u16 = 1 << 4;
    /// The same for the short-circuit extent.
    pub const IN_SHORT_CIRCUIT: u16 = 1 << 5;
}

layout!(Backend<A> { addr, port, flags, generation, service });

const _: () = assert!(size_of::<Backend<crate::addr::Ip4>>() == 16);
const _: () = assert!(size_of::<Backend<crate::addr::Ip6>>() == 28);
