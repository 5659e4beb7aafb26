//! The maps that each family has for itself.

use super::ATOMIC;
use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use proxy_common::{
    abi::{
        Affinity, AffinityKey, Backend, Flow, FlowKey, FragmentKey, FragmentPorts, FrontendKey,
        LocalAddr, RangeKey, Share,
    },
    addr::{Family, Ip4, Ip6, V4, V6},
    edge::work::Work,
};

type Frontends<A> = HashMap<FrontendKey<A>, u32, 131072, ATOMIC>;
type LocalAddrs<A> = HashMap<A, LocalAddr, 4096, ATOMIC>;
type Backends<A> = Array<Backend<A>, 131072>;
type Confirmed<A> = LruHashMap<FlowKey<A>, Flow<A>, 262144>;
type Pending<A> = LruHashMap<FlowKey<A>, Flow<A>, 65536>;
type Affinities<A> = LruHashMap<AffinityKey<A>, Affinity, 65536>;
type Ranges<A> = LpmTrie<RangeKey<A>, u32, 65536>;
type Fragments<A> = LruHashMap<FragmentKey<A>, FragmentPorts, 8192>;
type Shares<A> = LruHashMap<A, Share, 16384>;
/// What the slow path knows of its packet: a [`Work`], whose enums BTF cannot describe.
type WorkArea<const WORDS: usize> = PerCpuArray<[u64; WORDS], 1>;

const WORK_WORDS_4: usize = size_of::<Work<Ip4>>().div_ceil(8);
const WORK_WORDS_6: usize = size_of::<Work<Ip6>>().div_ceil(8);

#[btf_map]
pub static FRONTENDS_4: Frontends<Ip4> = Frontends::new();
#[btf_map]
pub static LOCAL_ADDRS_4: LocalAddrs<Ip4> = LocalAddrs::new();
#[btf_map]
pub static BACKENDS_4: Backends<Ip4> = Backends::new();
#[btf_map]
pub static FLOWS_4: Confirmed<Ip4> = Confirmed::new();
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
pub static WORK_4: WorkArea<WORK_WORDS_4> = WorkArea::new();

#[btf_map]
pub static FRONTENDS_6: Frontends<Ip6> = Frontends::new();
#[btf_map]
pub static LOCAL_ADDRS_6: LocalAddrs<Ip6> = LocalAddrs::new();
#[btf_map]
pub static BACKENDS_6: Backends<Ip6> = Backends::new();
#[btf_map]
pub static FLOWS_6: Confirmed<Ip6> = Confirmed::new();
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
pub static WORK_6: WorkArea<WORK_WORDS_6> = WorkArea::new();

/// The maps of a family.
pub trait FamilyMaps: Family {
    fn frontends() -> &'static Frontends<Self::Addr>;
    fn local_addrs() -> &'static LocalAddrs<Self::Addr>;
    fn backends() -> &'static Backends<Self::Addr>;
    fn flows() -> &'static Confirmed<Self::Addr>;
    fn pending() -> &'static Pending<Self::Addr>;
    fn affinities() -> &'static Affinities<Self::Addr>;
    fn ranges() -> &'static Ranges<Self::Addr>;
    fn fragments() -> &'static Fragments<Self::Addr>;
    fn shares() -> &'static Shares<Self::Addr>;
    /// This CPU's work area. A program takes it once.
    fn work() -> Option<&'static mut Work<Self::Addr>>;
}

impl FamilyMaps for V4 {
    #[inline(always)]
    fn frontends() -> &'static Frontends<Ip4> {
        &FRONTENDS_4
    }

    #[inline(always)]
    fn local_addrs() -> &'static LocalAddrs<Ip4> {
        &LOCAL_ADDRS_4
    }

    #[inline(always)]
    fn backends() -> &'static Backends<Ip4> {
        &BACKENDS_4
    }

    #[inline(always)]
    fn flows() -> &'static Confirmed<Ip4> {
        &FLOWS_4
    }

    #[inline(always)]
    fn pending() -> &'static Pending<Ip4> {
        &PENDING_4
    }

    #[inline(always)]
    fn affinities() -> &'static Affinities<Ip4> {
        &AFFINITY_4
    }

    #[inline(always)]
    fn ranges() -> &'static Ranges<Ip4> {
        &RANGES_4
    }

    #[inline(always)]
    fn fragments() -> &'static Fragments<Ip4> {
        &FRAGMENTS_4
    }

    #[inline(always)]
    fn shares() -> &'static Shares<Ip4> {
        &SHARES_4
    }

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
    #[inline(always)]
    fn frontends() -> &'static Frontends<Ip6> {
        &FRONTENDS_6
    }

    #[inline(always)]
    fn local_addrs() -> &'static LocalAddrs<Ip6> {
        &LOCAL_ADDRS_6
    }

    #[inline(always)]
    fn backends() -> &'static Backends<Ip6> {
        &BACKENDS_6
    }

    #[inline(always)]
    fn flows() -> &'static Confirmed<Ip6> {
        &FLOWS_6
    }

    #[inline(always)]
    fn pending() -> &'static Pending<Ip6> {
        &PENDING_6
    }

    #[inline(always)]
    fn affinities() -> &'static Affinities<Ip6> {
        &AFFINITY_6
    }

    #[inline(always)]
    fn ranges() -> &'static Ranges<Ip6> {
        &RANGES_6
    }

    #[inline(always)]
    fn fragments() -> &'static Fragments<Ip6> {
        &FRAGMENTS_6
    }

    #[inline(always)]
    fn shares() -> &'static Shares<Ip6> {
        &SHARES_6
    }

    #[inline(always)]
    fn work() -> Option<&'static mut Work<Ip6>> {
        // SAFETY: this CPU's element; programs at these hooks do not interrupt one another, and a program takes it
        // once. It is large and aligned enough for a `Work`, for which all zeroes are a valid value.
        WORK_6
            .get_ptr_mut(0)
            .map(|area| unsafe { &mut *area.cast() })
    }
}
