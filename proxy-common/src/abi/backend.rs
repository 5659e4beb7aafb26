//! Backends: one for each endpoint of each service port.
//!
//! An id belongs to one (service port, endpoint) pair, so that "is this endpoint still one of this service's?"
//! is one array read. An id that is used again gets the next generation, which is how a flow tells that the
//! backend that it was made for is gone.

use bitflags::bitflags;

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
    /// None: the id is free.
    pub flags: BackendFlags,
    pub generation: Generation,
    /// Id of the service that the backend belongs to.
    pub service: ServiceId,
}

bitflags! {
    /// What is known of a backend.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
    #[repr(transparent)]
    pub struct BackendFlags: u16 {
        /// The endpoint serves: flows may go to it (ready, or serving while terminating).
        const SERVING = 1;
        /// On this node, by the EndpointSlice's `nodeName`.
        const LOCAL = 1 << 1;
        /// The address is one of this node's own: a host-network endpoint of this node.
        const HOST = 1 << 2;
        /// Is in a slot of its service's internal extent: session affinity may hold on to it there.
        const IN_INTERNAL = 1 << 3;
        /// The same for the external extent.
        const IN_EXTERNAL = 1 << 4;
        /// The same for the short-circuit extent.
        const IN_SHORT_CIRCUIT = 1 << 5;
        /// New flows may go to it, of whatever scope: it is in some extent.
        const CHOSEN = Self::IN_INTERNAL.bits() | Self::IN_EXTERNAL.bits() | Self::IN_SHORT_CIRCUIT.bits();
    }
}

primitive!(BackendFlags = 1 u16 as "u16");
layout!(Backend<A> { addr, port, flags, generation, service });

const _: () = assert!(size_of::<Backend<crate::addr::Ip4>>() == 16);
const _: () = assert!(size_of::<Backend<crate::addr::Ip6>>() == 28);
