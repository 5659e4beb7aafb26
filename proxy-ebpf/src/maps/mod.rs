//! The maps, in the sizes and with the flags that the table of maps has for them ([`proxy_common::abi::map`]).
//!
//! The build holds what came out against the table, keys and values included.

mod family;

pub use family::FamilyMaps;

use aya_ebpf::{
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray},
    macros::btf_map,
};
use proxy_common::abi::{
    BackendId, Config, Counter, Device, Ends, HeldKey, IfIndex, Jiffies, NextHop, Service,
    ServiceCounter, ServiceId, map,
};
use proxy_common::explain::Told;

#[btf_map]
pub static CONFIG: Array<Config, { map::CONFIG.room() }> = Array::new();
#[btf_map]
pub static GATE: Array<u64, { map::GATE.room() }> = Array::new();
#[btf_map]
pub static SLOW_XDP: ProgramArray<{ map::SLOW_XDP.room() }> = ProgramArray::new();
#[btf_map]
pub static SLOW_TC: ProgramArray<{ map::SLOW_TC.room() }> = ProgramArray::new();
#[btf_map]
pub static DEVICES: HashMap<IfIndex, Device, { map::DEVICES.room() }, { map::DEVICES.bits() }> =
    HashMap::new();
#[btf_map]
pub static SERVICES: HashMap<
    ServiceId,
    Service,
    { map::SERVICES.room() },
    { map::SERVICES.bits() },
> = HashMap::new();
#[btf_map]
pub static SLOTS: Array<BackendId, { map::SLOTS.room() }> = Array::new();
#[btf_map]
pub static PORT_CURSOR: Array<u32, { map::PORT_CURSOR.room() }> = Array::new();
/// By [`FamilyMaps::INDEX`].
#[btf_map]
pub static FULL_SINCE: Array<Jiffies, { map::FULL_SINCE.room() }> = Array::new();
/// By family and CPU.
#[btf_map]
pub static CLOSED_ENDS: Array<Ends, { map::CLOSED_ENDS.room() }> = Array::new();
/// Next hops that flows' hints lead to, and when they were last looked up.
#[btf_map]
pub static NEXT_HOPS: LruHashMap<NextHop, Jiffies, { map::NEXT_HOPS.room() }> = LruHashMap::new();
/// Fragments that came before the first of their datagram. It is of no use to the next agent's programs.
#[btf_map]
pub static HELD: LruHashMap<HeldKey, Held, { map::HELD.room() }> = LruHashMap::new();
/// Where one of them is built (0), and where the first one stands meanwhile (1).
#[btf_map]
pub static HOLDING: PerCpuArray<Holding, { map::HOLDING.room() }> = PerCpuArray::new();
/// Where the parameters of a route look-up are built, and the key of the next hop that it led to: the programs' stack has no room for it.
#[btf_map]
pub static FIB: PerCpuArray<LookUp, { map::FIB.room() }> = PerCpuArray::new();
#[btf_map]
pub static REASONS: PerCpuArray<u64, { map::REASONS.room() }> = PerCpuArray::new();
#[btf_map]
pub static SERVICE_COUNTS: PerCpuArray<ServiceCounter, { map::SERVICE_COUNTS.room() }> =
    PerCpuArray::new();
#[btf_map]
pub static SERVICE_HELD: PerCpuArray<u64, { map::SERVICE_HELD.room() }> = PerCpuArray::new();
#[btf_map]
pub static BACKEND_COUNTS: PerCpuArray<Counter, { map::BACKEND_COUNTS.room() }> =
    PerCpuArray::new();

/// The record of a dry run: a [`Told`]. One that is loaded for a question is that question's own.
#[btf_map]
pub static EXPLAIN: Array<[u32; size_of::<Told>() / 4], { map::EXPLAIN.room() }> = Array::new();

/// Bytes of a frame that is held at most: an Ethernet frame of the usual MTU, with room for a tag or a tunnel's.
pub const HELD_FRAME: usize = 1600;

/// A frame that is held.
#[repr(C)]
pub struct Held {
    /// When it came.
    pub since: Jiffies,
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

/// A route look-up.
#[repr(C)]
pub struct LookUp {
    pub params: FibParams,
    pub next_hop: NextHop,
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
