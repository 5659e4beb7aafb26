//! The kernel's routing, and this node's addresses.

use super::Kernel;
use crate::maps::{self, FamilyMaps, LookUp};
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS},
    helpers::generated::bpf_fib_lookup,
};
use proxy_common::{
    abi::{IfIndex, LocalAddr, Macs},
    addr::{Addr, Family, V6},
    tables::{Fib, Node, Routes},
};

/// Kernel 6.7 (dab4e1f06cab): the helper puts the source address that the kernel would choose in `src`.
const BPF_FIB_LOOKUP_SRC: u32 = 1 << 4;

impl<F: FamilyMaps> Routes<F> for Kernel {
    #[inline(always)]
    fn local_addr(&self, addr: &F::Addr) -> Option<LocalAddr> {
        // SAFETY: as for services.
        unsafe { F::MAPS.local_addrs.get(addr) }.copied()
    }

    #[inline(always)]
    fn fib(&self, src: &F::Addr, dst: &F::Addr) -> Fib {
        self.route::<F>(src, dst)
    }

    #[inline(always)]
    fn note_next_hop(&self) {
        self.note_hop();
    }

    #[inline(always)]
    fn source(&self, dst: &F::Addr) -> Option<F::Addr> {
        let (Some(p), ret) = self.look_up::<F>(&F::Addr::ANY, dst, BPF_FIB_LOOKUP_SRC) else {
            return None;
        };
        match ret as u32 {
            BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => {
                let addr = F::Addr::from_words(p.src);
                (addr != F::Addr::ANY).then_some(addr)
            }
            _ => None,
        }
    }
}

impl Kernel {
    #[inline(always)]
    fn route<F: Family>(&self, src: &F::Addr, dst: &F::Addr) -> Fib {
        let (Some(p), ret) = self.look_up::<F>(src, dst, 0) else {
            return Fib::None;
        };
        // 1 is what was put in: the kernel did not fill it.
        let mtu = if p.mtu == 1 { 0 } else { p.mtu };
        match ret as u32 {
            BPF_FIB_LKUP_RET_SUCCESS => {
                let [s0, s1, s2, d0, d1, d2] = p.macs;
                let macs = Macs::of_halves([d0, d1, d2], [s0, s1, s2]);
                Fib::Hop {
                    ifindex: IfIndex(p.ifindex),
                    macs,
                    mtu,
                }
            }
            BPF_FIB_LKUP_RET_NO_NEIGH => Fib::Unresolved {
                ifindex: IfIndex(p.ifindex),
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
        let LookUp {
            params: found,
            next_hop: key,
        } = unsafe { &mut *found };
        // The address family of the answer: an IPv4 route may have an IPv6 next hop (RFC 5549).
        let is_v6 = found.family == V6::AF;
        let word = |i: usize| if is_v6 { found.dst[i] } else { 0 };
        key.addr = [found.dst[0], word(1), word(2), word(3)];
        key.ifindex = IfIndex(found.ifindex);
        key.family = found.family as u32;
        let key = &*key;
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
        let p = unsafe { &mut (*p).params };
        // Field by field: a whole value would become a call of `memset`.
        p.family = F::AF;
        p.l4_protocol = 0;
        p.sport = 0;
        p.dport = 0;
        // A length above 0 makes the helper give the route's MTU back (5.12).
        p.mtu = 1;
        p.ifindex = self.ifindex.0;
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
