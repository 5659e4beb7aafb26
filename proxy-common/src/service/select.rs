//! Choosing a backend: `slots[base + reduce(hash, len)]`, after session affinity.
//!
//! Random, weighted and consistent hashing are contents of the slot array; the path is one. The hash is over
//! the packet's tuple, so that two CPUs that see the first packets of one flow choose alike; or over the client's half of it, so that
//! two nodes do.

use crate::{
    abi::{
        Affinity, AffinityKey, Backend, BackendFlags, BackendId, Config, Extent, FrontendKind,
        FrontendRef, Generation, Jiffies, RangeKey, Service, ServiceFlags, Tuple,
    },
    addr::{Addr, Family},
    edge::Client,
    reason::DropReason,
    tables::{Node, Services},
};

/// What the service says of a new flow.
#[derive(Clone, Copy, Debug)]
pub enum Choice<'a, A> {
    Backend {
        id: BackendId,
        backend: &'a Backend<A>,
    },
    /// No endpoint anywhere: answer at once.
    Refuse,
    Drop(DropReason),
}

/// A well-mixed 32-bit hash of a tuple (the finaliser is MurmurHash3's).
#[inline(always)]
pub fn hash<A: Addr>(tuple: &Tuple<A>, seed: u32) -> u32 {
    let ports = (tuple.sport.0 as u32) << 16 | tuple.dport.0 as u32;
    mixed(seed, tuple.src.fold(), tuple.dst.fold(), ports)
}

/// The seed where all nodes give the same answer.
const OF_ALL_NODES: u32 = 0x5ca1_ab1e;

/// The hash by which a service with these flags chooses a slot.
#[inline(always)]
pub fn choice<A: Addr>(flags: ServiceFlags, tuple: &Tuple<A>, seed: u32) -> u32 {
    let (mut seed, mut dst) = (seed, tuple.dst.fold());
    let (mut sport, mut dport) = (tuple.sport.0 as u32, tuple.dport.0 as u32);
    if flags.contains(ServiceFlags::BY_CLIENT) {
        (seed, dst, dport) = (OF_ALL_NODES, 0, 0);
    }
    if flags.contains(ServiceFlags::BY_ADDRESS) {
        sport = 0;
    }
    mixed(seed, tuple.src.fold(), dst, sport << 16 | dport)
}

#[inline(always)]
fn mixed(seed: u32, src: u32, dst: u32, ports: u32) -> u32 {
    let mut h = seed ^ src;
    h = h.wrapping_mul(0xcc9e_2d51).rotate_left(15) ^ dst;
    h = h.wrapping_mul(0x1b87_3593).rotate_left(13) ^ ports;
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// Maps a hash to `0..len` without a division.
#[inline(always)]
pub fn reduce(hash: u32, len: u32) -> u32 {
    ((hash as u64 * len as u64) >> 32) as u32
}

/// The extent that applies, what an empty one means, and the mark of its members.
#[inline(always)]
pub fn scope(
    service: &Service,
    kind: FrontendKind,
    client: Client,
) -> (Extent, bool, BackendFlags) {
    match (kind, client) {
        (FrontendKind::ClusterIp, _) => (
            service.internal,
            service.flags.contains(ServiceFlags::INTERNAL_DROP),
            BackendFlags::IN_INTERNAL,
        ),
        (_, Client::Outside) => (
            service.external,
            service.flags.contains(ServiceFlags::EXTERNAL_DROP),
            BackendFlags::IN_EXTERNAL,
        ),
        // Under externalTrafficPolicy Local, pods of this node and the node itself may use every endpoint.
        (_, Client::Pod | Client::Node) => {
            (service.short_circuit, false, BackendFlags::IN_SHORT_CIRCUIT)
        }
    }
}

/// Chooses the backend of a new flow from `tuple.src` to `frontend`.
#[inline(always)]
pub fn choose<'a, F: Family, T: Services<F> + Node>(
    tables: &'a T,
    config: &Config,
    now: Jiffies,
    frontend: FrontendRef,
    client: Client,
    tuple: &Tuple<F::Addr>,
) -> Choice<'a, F::Addr> {
    let id = frontend.service();
    let Some(service) = tables.service(id) else {
        return Choice::Refuse;
    };
    if frontend.kind() == FrontendKind::LoadBalancer
        && service.flags.contains(ServiceFlags::SOURCE_RANGES)
        && !tables.in_ranges(RangeKey {
            service: id,
            addr: tuple.src,
        })
    {
        return Choice::Drop(DropReason::SourceRange);
    }
    let (extent, drop_if_empty, member) = scope(service, frontend.kind(), client);
    let holds = service.flags.contains(ServiceFlags::HOLD);
    let sticky = AffinityKey {
        client: tuple.src,
        service: id,
    };
    if extent.len == 0 {
        return if drop_if_empty {
            Choice::Drop(DropReason::NoLocalEndpoint)
        } else if holds && may_wait::<F, T>(tables, &sticky, extent.patience(), now) {
            Choice::Drop(DropReason::Held)
        } else {
            Choice::Refuse
        };
    }
    if service.affinity != 0
        && let Some((id, backend)) =
            remembered::<F, T>(tables, &sticky, service.affinity, member, now)
    {
        return Choice::Backend { id, backend };
    }
    let slot = extent.base.plus(reduce(
        choice(service.flags, tuple, config.seed),
        extent.len,
    ));
    let Some(backend_id) = tables.slot(slot) else {
        return Choice::Refuse;
    };
    let Some(backend) = tables.backend(backend_id) else {
        return Choice::Refuse;
    };
    if !backend.flags.contains(BackendFlags::SERVING) {
        return Choice::Refuse;
    }
    // Who waited has been served: what it waits for next time begins anew.
    if service.affinity != 0 || holds {
        let generation = backend.generation;
        tables.set_affinity(
            &sticky,
            &Affinity {
                backend: backend_id,
                generation,
                last_used: now,
            },
        );
    }
    Choice::Backend {
        id: backend_id,
        backend,
    }
}

/// May the first packet of a client wait for an endpoint? Notes when the client began to.
///
/// After its time it is refused for as long again, which is longer than the pause between two of its attempts: TCP doubles it with each.
#[inline(always)]
fn may_wait<F: Family, T: Services<F>>(
    tables: &T,
    key: &AffinityKey<F::Addr>,
    patience: u32,
    now: Jiffies,
) -> bool {
    if let Some(a) = tables.affinity(key)
        && a.backend == BackendId::NONE
    {
        let waits = now.since(a.last_used);
        if waits <= patience.saturating_mul(2) {
            return waits <= patience;
        }
    }
    tables.set_affinity(
        key,
        &Affinity {
            backend: BackendId::NONE,
            generation: Generation::default(),
            last_used: now,
        },
    );
    true
}

/// The backend that session affinity holds a client to, if it still applies; notes its use.
///
/// Only members of the extent that applies count, so that an endpoint that left it is forgotten.
#[inline(always)]
fn remembered<'a, F: Family, T: Services<F> + Node>(
    tables: &'a T,
    key: &AffinityKey<F::Addr>,
    timeout: u32,
    member: BackendFlags,
    now: Jiffies,
) -> Option<(BackendId, &'a Backend<F::Addr>)> {
    let a = tables.affinity(key)?;
    let backend = tables.backend(a.backend)?;
    if backend.generation != a.generation
        || !backend.flags.intersects(member)
        || now.since(a.last_used) > timeout
    {
        return None;
    }
    tables.set_affinity(
        key,
        &Affinity {
            last_used: now,
            ..a
        },
    );
    Some((a.backend, backend))
}
