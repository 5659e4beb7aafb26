//! The maps. Sizes here are defaults; the agent sets them when it loads the object.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray},
    macros::btf_map,
};
use proxy_common::{
    abi::{
        self, Affinity, AffinityKey, Backend, Config, Counter, Device, Flow, FlowKey, FragmentKey,
        FragmentPorts, FrontendKey, HeldKey, LocalAddr, NextHop, RangeKey, Service, ServiceCounter,
        Share, gate,
    },
    addr::{Ip4, Ip6},
    hook::Hook,
    reason::Reason,
    work::Work,
};

/// An update of a map without preallocation replaces the whole element; readers see the old or the new one.
const ATOMIC: usize = BPF_F_NO_PREALLOC as usize;

const REASON_SLOTS: usize = Hook::ALL.len() * Reason::COUNT as usize;
const SLOW_PROGRAMS: usize = abi::SLOW_PROGRAMS as usize;
const GATE_WORDS: usize = gate::WORDS as usize;

#[btf_map]
pub static CONFIG: Array<Config, 1> = Array::new();
#[btf_map]
pub static GATE: Array<u64, GATE_WORDS> = Array::new();
#[btf_map]
pub static SLOW_XDP: ProgramArray<SLOW_PROGRAMS> = ProgramArray::new();
#[btf_map]
pub static SLOW_TC: ProgramArray<SLOW_PROGRAMS> = ProgramArray::new();
#[btf_map]
pub static DEVICES: HashMap<u32, Device, 4096, ATOMIC> = HashMap::new();
#[btf_map]
pub static SERVICES: HashMap<u32, Service, 65536, ATOMIC> = HashMap::new();
#[btf_map]
pub static SLOTS: Array<u32, 524288> = Array::new();
#[btf_map]
pub static PORT_CURSOR: Array<u32, 1> = Array::new();
/// Next hops that flows' hints lead to, and when they were last looked up (low 32 bits of jiffies).
#[btf_map]
pub static NEXT_HOPS: LruHashMap<NextHop, u32, 1024> = LruHashMap::new();
/// Fragments that came before the first of their datagram. It is of no use to the next agent's programs.
#[btf_map]
pub static HELD: LruHashMap<HeldKey, Held, 512> = LruHashMap::new();
/// Where one of them is built (0), and where the first one stands meanwhile (1).
#[btf_map]
pub static HOLDING: PerCpuArray<Holding, 2> = PerCpuArray::new();
/// Where the parameters of a route look-up are built.
#[btf_map]
pub static FIB: PerCpuArray<FibParams, 1> = PerCpuArray::new();
#[btf_map]
pub static REASONS: PerCpuArray<u64, REASON_SLOTS> = PerCpuArray::new();
#[btf_map]
pub static SERVICE_COUNTS: PerCpuArray<ServiceCounter, 65536> = PerCpuArray::new();
#[btf_map]
pub static BACKEND_COUNTS: PerCpuArray<Counter, 131072> = PerCpuArray::new();

/// Bytes of a frame that is held at most: an Ethernet frame of the usual MTU, with room for a tag or a tunnel's.
pub const HELD_FRAME: usize = 1600;

/// A frame that is held.
#[repr(C)]
pub struct Held {
    /// When it came, low 32 bits of jiffies.
    pub since: u32,
    /// Bytes of the frame.
    pub len: u32,
    pub frame: [u8; HELD_FRAME],
}

/// One that is built, under its key.
#[repr(C)]
pub struct Holding {
    pub key: HeldKey,
    pub value: Held,
}

/// `struct bpf_fib_lookup` (kernel include/uapi/linux/bpf.h) without its unions; addresses and ports in network
/// byte order.
#[repr(C)]
pub struct FibParams {
    pub family: u8,
    pub l4_protocol: u8,
    pub sport: u16,
    pub dport: u16,
    /// In: the packet's length. Out: the route's MTU.
    pub mtu: u16,
    pub ifindex: u32,
    pub tos: u32,
    pub src: [u32; 4],
    pub dst: [u32; 4],
    pub vlan: u32,
    /// Source MAC, then destination MAC, as three 16-bit words each.
    pub macs: [u16; 6],
}

const _: () = assert!(size_of::<FibParams>() == 64);

/// The maps that each family has for itself.
macro_rules! family_maps {
    ($addr:ty: $($frontends:ident $local:ident $backends:ident $flows:ident $pending:ident $affinity:ident $ranges:ident $fragments:ident $shares:ident $work:ident)+) => {$(
        #[btf_map]
        pub static $frontends: HashMap<FrontendKey<$addr>, u32, 131072, ATOMIC> = HashMap::new();
        #[btf_map]
        pub static $local: HashMap<$addr, LocalAddr, 4096, ATOMIC> = HashMap::new();
        #[btf_map]
        pub static $backends: Array<Backend<$addr>, 131072> = Array::new();
        #[btf_map]
        pub static $flows: LruHashMap<FlowKey<$addr>, Flow<$addr>, 262144> = LruHashMap::new();
        #[btf_map]
        pub static $pending: LruHashMap<FlowKey<$addr>, Flow<$addr>, 65536> = LruHashMap::new();
        #[btf_map]
        pub static $affinity: LruHashMap<AffinityKey<$addr>, Affinity, 65536> = LruHashMap::new();
        #[btf_map]
        pub static $ranges: LpmTrie<RangeKey<$addr>, u32, 65536> = LpmTrie::new();
        #[btf_map]
        pub static $fragments: LruHashMap<FragmentKey<$addr>, FragmentPorts, 8192> = LruHashMap::new();
        #[btf_map]
        pub static $shares: LruHashMap<$addr, Share, 16384> = LruHashMap::new();
        /// What the slow path knows of its packet: a [`Work`], whose enums BTF cannot describe.
        #[btf_map]
        pub static $work: PerCpuArray<[u64; size_of::<Work<$addr>>().div_ceil(8)], 1> = PerCpuArray::new();
    )+};
}
family_maps!(Ip4: FRONTENDS_4 LOCAL_ADDRS_4 BACKENDS_4 FLOWS_4 PENDING_4 AFFINITY_4 RANGES_4 FRAGMENTS_4 SHARES_4 WORK_4);
family_maps!(Ip6: FRONTENDS_6 LOCAL_ADDRS_6 BACKENDS_6 FLOWS_6 PENDING_6 AFFINITY_6 RANGES_6 FRAGMENTS_6 SHARES_6 WORK_6);

/// This CPU's work area of a family.
macro_rules! work {
    ($map:ident) => {
        // SAFETY: this CPU's element; programs at these hooks do not interrupt one another, and a program
        // takes it once. It is large and aligned enough for a `Work`, for which all zeroes are a valid value.
        crate::maps::$map.get_ptr_mut(0).map(|p| unsafe { &mut *p.cast() })
    };
}
