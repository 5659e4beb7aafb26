//! Services, slots, session affinity and source ranges.

use bitflags::bitflags;

use crate::{
    abi::{BackendId, Generation, Jiffies, ServiceId, Slot},
    addr::Addr,
};

/// A run of the slot array: `slots[base .. base + len]` are backend ids.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Extent {
    pub base: Slot,
    pub len: u32,
}

impl Extent {
    /// Its slots, in order.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + Clone + use<> {
        let base = self.base.0;
        (base..base.saturating_add(self.len)).map(Slot)
    }

    /// One without slots, of a service that holds first packets of one client for so many jiffies.
    pub const fn held(patience: u32) -> Self {
        Self {
            base: Slot(patience),
            len: 0,
        }
    }

    /// For how many jiffies a service with this empty extent holds first packets of one client: there is nothing that its base could
    /// be the beginning of.
    #[inline(always)]
    pub const fn patience(&self) -> u32 {
        self.base.0
    }
}

/// One service port of one family. Replaced as a whole (a hash map value), so that a reader sees either the
/// old extents or the new ones.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Service {
    pub flags: ServiceFlags,
    /// ClientIP affinity: jiffies after the last new connection for which it holds; 0 for none.
    pub affinity: u32,
    /// For traffic to the ClusterIP (`internalTrafficPolicy` applied).
    pub internal: Extent,
    /// For traffic to NodePort, external and load-balancer IPs (`externalTrafficPolicy` applied).
    pub external: Extent,
    /// For traffic to an external address from a pod of this node or from the node itself: under
    /// `externalTrafficPolicy: Local` it may use every endpoint (docs/conformance.md F7, F8).
    pub short_circuit: Extent,
}

impl Service {
    /// For how many jiffies first packets of one client wait, while there is no endpoint anywhere and they do.
    pub fn patience(&self) -> Option<u32> {
        let is_empty = self.short_circuit.len == 0;
        (is_empty && self.flags.contains(ServiceFlags::HOLD)).then(|| self.short_circuit.patience())
    }
}

bitflags! {
    /// What a service asks for beyond its endpoints.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
    #[repr(transparent)]
    pub struct ServiceFlags: u32 {
        /// An empty internal extent means drop (endpoints exist, none is local), not refuse.
        const INTERNAL_DROP = 1;
        /// The same for the external extent.
        const EXTERNAL_DROP = 1 << 1;
        /// `loadBalancerSourceRanges` are set: the source must be found in the ranges table.
        const SOURCE_RANGES = 1 << 2;
        /// Without an endpoint anywhere, first packets wait for one: they are dropped, and their client sends them again. For how
        /// long, an empty extent says ([`Extent::patience`]).
        const HOLD = 1 << 3;
        /// A slot is chosen by the client's half of the tuple alone, with a seed that all nodes share: each gives the same answer.
        const BY_CLIENT = 1 << 4;
        /// With [`Self::BY_CLIENT`]: by the client's address alone, whatever its port.
        const BY_ADDRESS = 1 << 5;
    }
}

/// Key of the affinity table: shared by all frontends of a service port (docs/conformance.md H2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct AffinityKey<A> {
    pub client: A,
    pub service: ServiceId,
}

/// Value of the affinity table. Where no backend is named ([`BackendId::NONE`]), the client waits for one, since `last_used`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Affinity {
    pub backend: BackendId,
    pub generation: Generation,
    /// At the last new connection.
    pub last_used: Jiffies,
}

/// Data of the longest-prefix-match key of the source ranges: the service id is always matched in full, so a
/// prefix has 32 + n bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct RangeKey<A> {
    pub service: ServiceId,
    pub addr: A,
}

impl<A: Addr> RangeKey<A> {
    /// Prefix length of a whole key, in bits.
    pub const BITS: u32 = 32 + 32 * A::WORDS as u32;
}

primitive!(ServiceFlags = 1 u32 as "u32");
layout!(Extent { base, len });
layout!(Service {
    flags,
    affinity,
    internal,
    external,
    short_circuit
});
layout!(AffinityKey<A> { client, service });
layout!(Affinity {
    backend,
    generation,
    last_used
});
layout!(RangeKey<A> { service, addr });

const _: () = assert!(size_of::<Service>() == 32);
const _: () = assert!(size_of::<AffinityKey<crate::addr::Ip4>>() == 8);
const _: () = assert!(size_of::<AffinityKey<crate::addr::Ip6>>() == 20);
