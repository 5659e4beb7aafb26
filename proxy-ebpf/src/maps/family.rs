//! The maps that each family has for itself.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use proxy_common::{
    abi::{
        Affinity, AffinityKey, Backend, Closed, Flow, FlowKey, FragmentKey, FragmentPorts,
        FrontendKey, LocalAddr, RangeKey, Share, map,
    },
    addr::{Family, Ip4, Ip6, V4, V6},
    edge::work::Work,
};

// One size and one set of flags for both families.
type Frontends<A> =
    HashMap<FrontendKey<A>, u32, { map::V4.frontends.room() }, { map::V4.frontends.bits() }>;
type LocalAddrs<A> =
    HashMap<A, LocalAddr, { map::V4.local_addrs.room() }, { map::V4.local_addrs.bits() }>;
type Backends<A> = Array<Backend<A>, { map::V4.backends.room() }>;
type Connections<A> =
    HashMap<FlowKey<A>, Flow<A>, { map::V4.flows.room() }, { map::V4.flows.bits() }>;
type Datagrams<A> = LruHashMap<FlowKey<A>, Flow<A>, { map::V4.datagrams.room() }>;
type Pending<A> = LruHashMap<FlowKey<A>, Flow<A>, { map::V4.pending.room() }>;
type Affinities<A> = LruHashMap<AffinityKey<A>, Affinity, { map::V4.affinity.room() }>;
type Ranges<A> = LpmTrie<RangeKey<A>, u32, { map::V4.ranges.room() }, { map::V4.ranges.bits() }>;
type Fragments<A> = LruHashMap<FragmentKey<A>, FragmentPorts, { map::V4.fragments.room() }>;
type Shares<A> = LruHashMap<A, Share, { map::V4.shares.room() }>;
type ClosedQueue<A> = Array<Closed<A>, { map::V4.closed.room() }>;
/// What the slow path knows of its packet: a [`Work`], whose enums BTF cannot describe.
type WorkArea<const WORDS: usize> = PerCpuArray<[u64; WORDS], { map::V4.work.room() }>;

const WORK_WORDS_4: usize = size_of::<Work<Ip4>>().div_ceil(8);
const WORK_WORDS_6: usize = size_of::<Work<Ip6>>().div_ceil(8);

#[btf_map]
pub static FRONTENDS_4: Frontends<Ip4> = Frontends::new();
#[btf_map]
pub static LOCAL_ADDRS_4: LocalAddrs<Ip4> = LocalAddrs::new();
#[btf_map]
pub static BACKENDS_4: Backends<Ip4> = Backends::new();
#[btf_map]
pub static FLOWS_4: Connections<Ip4> = Connections::new();
#[btf_map]
pub static DATAGRAMS_4: Datagrams<Ip4> = Datagrams::new();
#[btf_map]
pub static PENDING_4: Pending<Ip4> = Pending::new();
#[btf_map]
pub static AFFINITY_4: Affinities<Ip4> = Affinities::new();
#[btf_map]
pub static RANGES_4: Ranges<Ip4> = Ranges::new();
#[btf_map]
pub static FRAGMENTS_4: Fragments<Ip4> = Fragments::new();
#[btf_map]
pub static SHARES_4: Shares<Ip4> = Shares::new();
#[btf_map]
pub static CLOSED_4: ClosedQueue<Ip4> = ClosedQueue::new();
#[btf_map]
pub static WORK_4: WorkArea<WORK_WORDS_4> = WorkArea::new();

#[btf_map]
pub static FRONTENDS_6: Frontends<Ip6> = Frontends::new();
#[btf_map]
pub static LOCAL_ADDRS_6: LocalAddrs<Ip6> = LocalAddrs::new();
#[btf_map]
pub static BACKENDS_6: Backends<Ip6> = Backends::new();
#[btf_map]
pub static FLOWS_6: Connections<Ip6> = Connections::new();
#[btf_map]
pub static DATAGRAMS_6: Datagrams<Ip6> = Datagrams::new();
#[btf_map]
pub static PENDING_6: Pending<Ip6> = Pending::new();
#[btf_map]
pub static AFFINITY_6: Affinities<Ip6> = Affinities::new();
#[btf_map]
pub static RANGES_6: Ranges<Ip6> = Ranges::new();
#[btf_map]
pub static FRAGMENTS_6: Fragments<Ip6> = Fragments::new();
#[btf_map]
pub static SHARES_6: Shares<Ip6> = Shares::new();
#[btf_map]
pub static CLOSED_6: ClosedQueue<Ip6> = ClosedQueue::new();
#[btf_map]
pub static WORK_6: WorkArea<WORK_WORDS_6> = WorkArea::new();

/// References to the maps of a family.
pub struct Maps<A: 'static> {
    pub frontends: &'static Frontends<A>,
    pub local_addrs: &'static LocalAddrs<A>,
    pub backends: &'static Backends<A>,
    pub flows: &'static Connections<A>,
    pub datagrams: &'static Datagrams<A>,
    pub pending: &'static Pending<A>,
    pub affinities: &'static Affinities<A>,
    pub ranges: &'static Ranges<A>,
    pub fragments: &'static Fragments<A>,
    pub shares: &'static Shares<A>,
    pub closed: &'static ClosedQueue<A>,
}

/// A family, and its maps.
pub trait FamilyMaps: Family {
    const MAPS: Maps<Self::Addr>;
    /// Where the family has its element in a map of one for each.
    const INDEX: u32;

    /// This CPU's work area. A program takes it once.
    fn work() -> Option<&'static mut Work<Self::Addr>>;
}

impl FamilyMaps for V4 {
    const INDEX: u32 = 0;
    const MAPS: Maps<Ip4> = Maps {
        frontends: &FRONTENDS_4,
        local_addrs: &LOCAL_ADDRS_4,
        backends: &BACKENDS_4,
        flows: &FLOWS_4,
        datagrams: &DATAGRAMS_4,
        pending: &PENDING_4,
        affinities: &AFFINITY_4,
        ranges: &RANGES_4,
        fragments: &FRAGMENTS_4,
        shares: &SHARES_4,
        closed: &CLOSED_4,
    };

    #[inline(always)]
    fn work() -> Option<&'static mut Work<Ip4>> {
        // SAFETY: this CPU's element; programs at these hooks do not interrupt one another, and a program takes it
        // once. It is large and aligned enough for a `Work`, for which all zeroes are a valid value.
        WORK_4
            .get_ptr_mut(0)
            .map(|area| unsafe { &mut *area.cast() })
    }
}

impl FamilyMaps for V6 {
    const INDEX: u32 = 1;
    const MAPS: Maps<Ip6> = Maps {
        frontends: &FRONTENDS_6,
        local_addrs: &LOCAL_ADDRS_6,
        backends: &BACKENDS_6,
        flows: &FLOWS_6,
        datagrams: &DATAGRAMS_6,
        pending: &PENDING_6,
        affinities: &AFFINITY_6,
        ranges: &RANGES_6,
        fragments: &FRAGMENTS_6,
        shares: &SHARES_6,
        closed: &CLOSED_6,
    };

    #[inline(always)]
    fn work() -> Option<&'static mut Work<Ip6>> {
        // SAFETY: this CPU's element; programs at these hooks do not interrupt one another, and a program takes it
        // once. It is large and aligned enough for a `Work`, for which all zeroes are a valid value.
        WORK_6
            .get_ptr_mut(0)
            .map(|area| unsafe { &mut *area.cast() })
    }
}
