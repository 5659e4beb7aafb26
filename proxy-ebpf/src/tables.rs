//! The core's tables over BPF maps and helpers, the same for every hook.

use crate::maps;
use aya_ebpf::{
    bindings::{
        BPF_ANY, BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        BPF_NOEXIST, BPF_TCP_CLOSE, BPF_TCP_LISTEN,
    },
    btf_maps::lpm_trie::Key,
    cty::c_void,
    helpers::generated::{
        bpf_fib_lookup, bpf_jiffies64, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release,
    },
};
use proxy_common::{
    abi::{
        Affinity, AffinityKey, Backend, Config, Device, Flow, FlowKey, FragmentKey, FragmentPorts,
        FrontendKey, FrontendRef, Macs, NextHop, RangeKey, Service, Share, TCP, Tuple, UDP, gate,
    },
    addr::{Addr, Family, Ip4, Ip6, V4, V6},
    fragment,
    reason::Reason,
    tables::{Fib, FlowCell, ShareCell, Shared, Table, Tables},
};

/// The maps, seen from one run of a program.
pub struct Kernel {
    /// The program's context, which the routing helper wants.
    context: *mut c_void,
    /// The device at the hook.
    ifindex: u32,
}

impl Kernel {
    #[inline(always)]
    pub fn new(context: *mut c_void, ifindex: u32) -> Self {
        Self { context, ifindex }
    }

    /// `Tuple` is laid out as `struct bpf_sock_tuple`, whose family the helpers tell by its size.
    #[inline(always)]
    fn has_connection<A: Addr>(&self, tuple: &Tuple<A>, proto: u8) -> bool {
        let size = size_of::<Tuple<A>>() as u32;
        let netns = BPF_F_CURRENT_NETNS as u64;
        let tuple = (&raw const *tuple).cast_mut().cast();
        // SAFETY: the context is the program's own, and the helpers read the tuple alone.
        let socket = unsafe {
            match proto {
                // Not `bpf_skc_lookup_tcp`: of another pointer's type, its state would need a load of its own.
                TCP => bpf_sk_lookup_tcp(self.context, tuple, size, netns, 0),
                UDP => bpf_sk_lookup_udp(self.context, tuple, size, netns, 0),
                _ => return false,
            }
        };
        if socket.is_null() {
            return false;
        }
        // One that listens, or a UDP socket that is not connected, is nobody's connection to this peer.
        // SAFETY: the helper took a reference, which is given back here.
        unsafe {
            let state = (*socket).state;
            bpf_sk_release(socket.cast());
            state != BPF_TCP_LISTEN && state != BPF_TCP_CLOSE
        }
    }

    #[inline(always)]
    fn route<F: Family>(&self, src: &F::Addr, dst: &F::Addr) -> Fib {
        let (Some(p), ret) = self.look_up::<F>(src, dst, 0) else {
            return Fib::None;
        };
        // 1 is what was put in: the kernel did not fill it.
        let mtu = if p.mtu == 1 { 0 } else { p.mtu };
        match ret as u32 {
            BPF_FIB_LKUP_RET_SUCCESS => {
                let [s0, s1, d0, d1, d2, s2] = [
                    p.macs[0], p.macs[1], p.macs[3], p.macs[4], p.macs[5], p.macs[2],
                ];
                let pair = |a: u16, b: u16| a as u32 | (b as u32) << 16;
                let macs = Macs([pair(d0, d1), pair(d2, s0), pair(s1, s2)]);
                Fib::Hop {
                    ifindex: p.ifindex,
                    macs,
                    mtu,
                }
            }
            BPF_FIB_LKUP_RET_NO_NEIGH => Fib::Unresolved {
                ifindex: p.ifindex,
                mtu,
            },
            _ => Fib::None,
        }
    }

    /// Notes that flows go by the next hop of a look-up (in `dst`, where the kernel puts it), at most once for each step of time.
    #[inline(always)]
    fn note_hop(&self) {
        let Some(found) = maps::FIB.get_ptr_mut(0) else {
            return;
        };
        // SAFETY: this CPU's element; programs at these hooks do not interrupt one another.
        let found = unsafe { &*found };
        // The address family of the answer: an IPv4 route may have an IPv6 next hop (RFC 5549).
        let is_v6 = found.family == V6::AF;
        let word = |i: usize| if is_v6 { found.dst[i] } else { 0 };
        let key = NextHop {
            addr: [found.dst[0], word(1), word(2), word(3)],
            ifindex: found.ifindex,
            family: found.family as u32,
        };
        let now = self.now();
        match maps::NEXT_HOPS.get_ptr_mut(key) {
            // SAFETY: an aligned word of a map value.
            Some(seen) => unsafe {
                if core::ptr::read_volatile(seen) != now {
                    core::ptr::write_volatile(seen, now);
                }
            },
            None => {
                // Without room the neighbour is kept alive by the kernel's own means.
                let _ = maps::NEXT_HOPS.insert(key, now, BPF_ANY as u64);
            }
        }
    }

    #[inline(always)]
    fn look_up<F: Family>(
        &self,
        src: &F::Addr,
        dst: &F::Addr,
        flags: u32,
    ) -> (Option<&'static mut maps::FibParams>, i64) {
        let Some(p) = maps::FIB.get_ptr_mut(0) else {
            return (None, 0);
        };
        // SAFETY: this CPU's element; programs at these hooks do not interrupt one another.
        let p = unsafe { &mut *p };
        // Field by field: a whole value would become a call of `memset`.
        p.family = F::AF;
        p.l4_protocol = 0;
        p.sport = 0;
        p.dport = 0;
        // A length above 0 makes the helper give the route's MTU back (5.12).
        p.mtu = 1;
        p.ifindex = self.ifindex;
        p.tos = 0;
        p.src = [src.word(0), src.word(1), src.word(2), src.word(3)];
        p.dst = [dst.word(0), dst.word(1), dst.word(2), dst.word(3)];
        p.vlan = 0;
        // SAFETY: the context is the program's own, the parameters are laid out as the kernel's.
        let ret = unsafe {
            bpf_fib_lookup(
                self.context,
                (&raw mut *p).cast(),
                size_of::<maps::FibParams>() as i32,
                flags,
            )
        };
        (Some(p), ret)
    }
}

/// A source address that the kernel has put into a look-up's parameters.
trait FromWords: Addr {
    fn from_words(words: [u32; 4]) -> Self;
}

impl FromWords for Ip4 {
    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(words[0])
    }
}

impl FromWords for Ip6 {
    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }
}

/// Kernel 6.7 (dab4e1f06cab): the helper puts the source address that the kernel would choose in `src`.
const BPF_FIB_LOOKUP_SRC: u32 = 1 << 4;

/// Adds to a counter of this CPU.
macro_rules! add {
    ($map:expr, $index:expr, $($field:ident)? += $n:expr) => {
        if let Some(counter) = $map.get_ptr_mut($index) {
            // SAFETY: the pointer is this CPU's element, which nothing else writes while the program runs.
            unsafe { (*counter)$(.$field)? += $n }
        }
    };
}

impl Shared for Kernel {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        maps::CONFIG.get(0)
    }

    #[inline(always)]
    fn gate(&self, bit: gate::Bit) -> bool {
        match maps::GATE.get(bit.word) {
            Some(word) => word & bit.mask != 0,
            None => false,
        }
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: no arguments; the verifier turns it into a load.
        unsafe { bpf_jiffies64() as u32 }
    }

    #[inline(always)]
    fn service(&self, id: u32) -> Option<&Service> {
        // SAFETY: elements are replaced, not written in place; RCU keeps this one for the program's run.
        unsafe { maps::SERVICES.get(id) }
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        maps::SLOTS.get(index).copied()
    }

    #[inline(always)]
    fn device(&self, ifindex: u32) -> Option<&Device> {
        // SAFETY: as for services.
        unsafe { maps::DEVICES.get(ifindex) }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    #[inline(always)]
    fn next_port(&self) -> u32 {
        let Some(cursor) = maps::PORT_CURSOR.get_ptr_mut(0) else {
            return 0;
        };
        // SAFETY: an aligned word of a map value. Two CPUs may take the same number; the flow table's NOEXIST
        // then sends one of them on to the next.
        unsafe {
            let n = core::ptr::read_volatile(cursor);
            core::ptr::write_volatile(cursor, n.wrapping_add(1));
            n
        }
    }

    #[inline(always)]
    fn count_reason(&self, hook: u32, reason: Reason) {
        add!(maps::REASONS, hook * Reason::COUNT + reason as u32, += 1);
    }

    #[inline(always)]
    fn count_packet(&self, backend: u32, bytes: u32, reply: bool) {
        if let Some(c) = maps::BACKEND_COUNTS.get_ptr_mut(backend) {
            // SAFETY: as in `add`.
            unsafe {
                if reply {
                    (*c).reply_packets += 1;
                    (*c).reply_bytes += bytes as u64;
                } else {
                    (*c).packets += 1;
                    (*c).bytes += bytes as u64;
                }
            }
        }
    }

    #[inline(always)]
    fn count_connection(&self, service: u32, backend: u32) {
        add!(maps::SERVICE_COUNTS, service, connections += 1);
        add!(maps::BACKEND_COUNTS, backend, connections += 1);
    }

    #[inline(always)]
    fn count_refused(&self, service: u32) {
        add!(maps::SERVICE_COUNTS, service, refused += 1);
    }

    #[inline(always)]
    fn count_dropped(&self, service: u32) {
        add!(maps::SERVICE_COUNTS, service, dropped += 1);
    }
}

/// The family's own maps.
macro_rules! family_tables {
    ($family:ty: $frontends:ident $local:ident $backends:ident $flows:ident $pending:ident $affinity:ident $ranges:ident $fragments:ident $shares:ident) => {
        impl Tables<$family> for Kernel {
            #[inline(always)]
            fn frontend(
                &self,
                key: &FrontendKey<<$family as Family>::Addr>,
            ) -> Option<FrontendRef> {
                // SAFETY: as for services.
                unsafe { maps::$frontends.get(key) }.map(|v| FrontendRef(*v))
            }

            #[inline(always)]
            fn local_addr(&self, addr: &<$family as Family>::Addr) -> Option<u32> {
                // SAFETY: as for services.
                unsafe { maps::$local.get(addr) }.copied()
            }

            #[inline(always)]
            fn backend(&self, id: u32) -> Option<&Backend<<$family as Family>::Addr>> {
                maps::$backends.get(id)
            }

            #[inline(always)]
            fn flow(
                &self,
                table: Table,
                key: &FlowKey<<$family as Family>::Addr>,
            ) -> Option<&FlowCell<<$family as Family>::Addr>> {
                let flow = match table {
                    Table::Confirmed => maps::$flows.get_ptr(key),
                    Table::Pending => maps::$pending.get_ptr(key),
                }?;
                // SAFETY: `FlowCell` is a transparent cell over `Flow`; the element outlives the program's run.
                Some(unsafe { &*flow.cast() })
            }

            #[inline(always)]
            fn put_flow(
                &self,
                table: Table,
                key: &FlowKey<<$family as Family>::Addr>,
                flow: &Flow<<$family as Family>::Addr>,
                fresh: bool,
            ) -> bool {
                let flags = if fresh { BPF_NOEXIST } else { BPF_ANY } as u64;
                match table {
                    Table::Confirmed => maps::$flows.insert(key, flow, flags),
                    Table::Pending => maps::$pending.insert(key, flow, flags),
                }
                .is_ok()
            }

            #[inline(always)]
            fn delete_flow(&self, table: Table, key: &FlowKey<<$family as Family>::Addr>) {
                // A flow that is not there is as good as deleted.
                let _ = match table {
                    Table::Confirmed => maps::$flows.remove(key),
                    Table::Pending => maps::$pending.remove(key),
                };
            }

            #[inline(always)]
            fn share(&self, network: &<$family as Family>::Addr) -> Option<&ShareCell> {
                let share = maps::$shares.get_ptr(network)?;
                // SAFETY: `ShareCell` is a transparent cell over `Share`; the element outlives the program's run.
                Some(unsafe { &*share.cast() })
            }

            #[inline(always)]
            fn put_share(&self, network: &<$family as Family>::Addr, share: &Share) {
                // Without room a source is not counted.
                let _ = maps::$shares.insert(network, share, BPF_ANY as u64);
            }

            #[inline(always)]
            fn affinity(&self, key: &AffinityKey<<$family as Family>::Addr>) -> Option<Affinity> {
                // SAFETY: plain data; a torn read at worst forgets an affinity.
                unsafe { maps::$affinity.get(key) }.copied()
            }

            #[inline(always)]
            fn set_affinity(&self, key: &AffinityKey<<$family as Family>::Addr>, value: &Affinity) {
                // A table that is full costs stickiness, not traffic.
                let _ = maps::$affinity.insert(key, value, BPF_ANY as u64);
            }

            #[inline(always)]
            fn in_ranges(&self, key: RangeKey<<$family as Family>::Addr>) -> bool {
                const BITS: u32 = RangeKey::<<$family as Family>::Addr>::BITS;
                maps::$ranges.get(&Key::new(BITS, key)).is_some()
            }

            #[inline(always)]
            fn fragment(
                &self,
                key: &FragmentKey<<$family as Family>::Addr>,
            ) -> Option<FragmentPorts> {
                // SAFETY: plain data of one word.
                unsafe { maps::$fragments.get(key) }.copied()
            }

            #[inline(always)]
            fn put_fragment(
                &self,
                key: &FragmentKey<<$family as Family>::Addr>,
                ports: &FragmentPorts,
            ) {
                // Without room the later fragments go on untouched.
                let _ = maps::$fragments.insert(key, ports, BPF_ANY as u64);
            }

            #[inline(always)]
            fn is_held(&self, key: &FragmentKey<<$family as Family>::Addr>) -> bool {
                let Some(holding) = maps::HOLDING.get_ptr_mut(0) else {
                    return false;
                };
                // SAFETY: this CPU's element; programs at these hooks do not interrupt one another.
                let holding = unsafe { &mut *holding };
                fragment::describe_key(key, &mut holding.key);
                maps::HELD.get_ptr(&holding.key).is_some()
            }

            #[inline(always)]
            fn has_socket(&self, tuple: &Tuple<<$family as Family>::Addr>, proto: u8) -> bool {
                self.has_connection(tuple, proto)
            }

            #[inline(always)]
            fn fib(&self, src: &<$family as Family>::Addr, dst: &<$family as Family>::Addr) -> Fib {
                self.route::<$family>(src, dst)
            }

            #[inline(always)]
            fn note_next_hop(&self) {
                self.note_hop();
            }

            #[inline(always)]
            fn source(&self, dst: &<$family as Family>::Addr) -> Option<<$family as Family>::Addr> {
                const ANY: <$family as Family>::Addr = <<$family as Family>::Addr as Addr>::ANY;
                let (Some(p), ret) = self.look_up::<$family>(&ANY, dst, BPF_FIB_LOOKUP_SRC) else {
                    return None;
                };
                match ret as u32 {
                    BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => {
                        let addr = <$family as Family>::Addr::from_words(p.src);
                        (addr != ANY).then_some(addr)
                    }
                    _ => None,
                }
            }
        }
    };
}
family_tables!(V4: FRONTENDS_4 LOCAL_ADDRS_4 BACKENDS_4 FLOWS_4 PENDING_4 AFFINITY_4 RANGES_4 FRAGMENTS_4 SHARES_4);
family_tables!(V6: FRONTENDS_6 LOCAL_ADDRS_6 BACKENDS_6 FLOWS_6 PENDING_6 AFFINITY_6 RANGES_6 FRAGMENTS_6 SHARES_6);
