//! Frontends: (address, port, protocol) -> service.

use bitflags::bitflags;

use crate::{
    abi::ServiceId,
    addr::{Addr, Be16},
};

/// Key of the frontend table.
///
/// - A NodePort is stored once, under the unspecified address: it matches every local address that
///   [`LocalAddr`] marks with [`LocalAddr::NODE_PORTS`].
/// - Port 0 with protocol 0 says "this address is a ClusterIP": traffic to a port of it that no service has
///   is refused (docs/conformance.md A4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct FrontendKey<A> {
    pub addr: A,
    pub port: Be16,
    /// IP protocol number; 16 bits wide so that the key has no padding.
    pub proto: u16,
}

impl<A: Addr> FrontendKey<A> {
    #[inline(always)]
    pub fn new(addr: A, port: Be16, proto: u8) -> Self {
        Self {
            addr,
            port,
            proto: proto as u16,
        }
    }

    /// The key under which a NodePort is stored.
    #[inline(always)]
    pub fn node_port(port: Be16, proto: u8) -> Self {
        Self::new(A::ANY, port, proto)
    }

    /// The key that says that `addr` is a ClusterIP.
    #[inline(always)]
    pub fn whole_address(addr: A) -> Self {
        Self::new(addr, Be16(0), 0)
    }
}

/// Value of the frontend table: service id in the low 28 bits, [`FrontendKind`] in the top 4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrontendRef(pub u32);

impl FrontendRef {
    pub const MAX_SERVICE: u32 = (1 << 28) - 1;
    /// No service has it: traffic is refused.
    pub const REFUSE: Self = Self::new(ServiceId(0), FrontendKind::Refuse);

    #[inline(always)]
    pub const fn new(service: ServiceId, kind: FrontendKind) -> Self {
        Self((service.0 & Self::MAX_SERVICE) | ((kind as u32) << 28))
    }

    #[inline(always)]
    pub const fn service(self) -> ServiceId {
        ServiceId(self.0 & Self::MAX_SERVICE)
    }

    #[inline(always)]
    pub const fn kind(self) -> FrontendKind {
        match self.0 >> 28 {
            0 => FrontendKind::ClusterIp,
            1 => FrontendKind::NodePort,
            2 => FrontendKind::ExternalIp,
            3 => FrontendKind::LoadBalancer,
            _ => FrontendKind::Refuse,
        }
    }
}

/// What kind of address a client used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum FrontendKind {
    /// Internal scope.
    ClusterIp = 0,
    /// External scope, matched on every local address.
    NodePort = 1,
    /// External scope.
    ExternalIp = 2,
    /// External scope; `loadBalancerSourceRanges` apply.
    LoadBalancer = 3,
    /// Not a service: the whole-address entry of a ClusterIP.
    Refuse = 4,
}

bitflags! {
    /// Value of the table of this node's own addresses.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    #[repr(transparent)]
    pub struct LocalAddr: u32 {
        /// NodePorts are served on it.
        const NODE_PORTS = 1;
    }
}

primitive!(LocalAddr = 1 u32 as "u32");

layout!(FrontendKey<A> { addr, port, proto });

const _: () = assert!(size_of::<FrontendKey<crate::addr::Ip4>>() == 8);
const _: () = assert!(size_of::<FrontendKey<crate::addr::Ip6>>() == 20);
