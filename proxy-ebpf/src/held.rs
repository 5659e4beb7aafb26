//! Holding fragments that came before the first of their datagram, and letting them go.
//!
//! In: a fragment that the slow path knows to be one of these. A later one is copied into a table, and its packet ends here. A first one becomes
//! each of those that wait, one after the other, which come in anew by its device; then itself again, and so does it.

use crate::{
    maps::{self, HELD_FRAME, Holding},
    tables::Kernel,
    tc::{SLOW_HEADERS, TC_ACT_UNSPEC, Told, frame, here, redirect},
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM, BPF_NOEXIST, TC_ACT_SHOT},
    helpers::generated::{
        bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    macros::classifier,
    programs::TcContext,
};
use proxy_common::{
    abi::{IfIndex, Jiffies},
    addr::{Family, V4, V6},
    edge::hook::Hook,
    paths::fragment::describe,
    tables::Node,
    wire::{packet::Packet, parse::Part},
};

/// Fragments of one datagram that are held at most: 64 KiB of the usual MTU are 45.
const OF_ONE: u32 = 48;

/// The shortest packet that is a fragment: IPv4's header, without a link header.
const SHORTEST: u32 = 20;

#[classifier]
pub fn tc_fragment(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let ifindex = here(skb);
    let kernel = Kernel::new(skb.cast(), ifindex);
    let (Some(one), Some(first)) = (maps::HOLDING.get_ptr_mut(0), maps::HOLDING.get_ptr_mut(1))
    else {
        return TC_ACT_UNSPEC;
    };
    // SAFETY: this CPU's elements; programs at these hooks do not interrupt one another.
    let (one, first) = unsafe { (&mut *one, &mut *first) };
    let Some(device) = kernel.device(ifindex) else {
        return TC_ACT_UNSPEC;
    };
    let packet = frame(skb, SLOW_HEADERS, Told::by(skb, device.flags));
    let part = match packet.ethertype() {
        Some(V4::ETHERTYPE) => describe::<V4, _>(Hook::TC_UPLINK_IN.edge, &packet, &mut one.key),
        Some(V6::ETHERTYPE) => describe::<V6, _>(Hook::TC_UPLINK_IN.edge, &packet, &mut one.key),
        _ => Part::Whole,
    };
    let Some(config) = kernel.config() else {
        return TC_ACT_UNSPEC;
    };
    match part {
        Part::Later => hold(skb, one, kernel.now()),
        // As long as the kernel waits for a datagram: 30 s (`net.ipv4.ipfrag_time`), half of the time of a connection that has ended.
        Part::First => let_go(
            skb,
            ifindex,
            one,
            first,
            kernel.now(),
            config.tcp_closed / 2,
        ),
        Part::Whole => TC_ACT_UNSPEC,
    }
}

/// Copies the frame; `false` if it is too long, or cannot be read.
#[inline(always)]
fn copy(skb: *mut __sk_buff, to: &mut Holding) -> bool {
    // SAFETY: the context is valid while the program runs; the helper checks the packet's bounds, and the length is within the copy's.
    unsafe {
        let len = (*skb).len;
        if len < SHORTEST || len > HELD_FRAME as u32 {
            return false;
        }
        to.value.len = len;
        bpf_skb_load_bytes(skb.cast(), 0, to.value.frame.as_mut_ptr().cast(), len) == 0
    }
}

/// Makes the packet that frame.
#[inline(always)]
fn become_frame(skb: *mut __sk_buff, len: u32, bytes: *const u8) -> bool {
    if len < SHORTEST || len > HELD_FRAME as u32 {
        return false;
    }
    // SAFETY: the helpers check the packet's bounds, and `len` bytes of a held frame are read.
    unsafe {
        bpf_skb_change_tail(skb, len, 0) == 0
            && bpf_skb_store_bytes(
                skb.cast(),
                0,
                bytes.cast(),
                len,
                BPF_F_RECOMPUTE_CSUM as u64,
            ) == 0
    }
}

#[inline(always)]
fn hold(skb: *mut __sk_buff, one: &mut Holding, now: Jiffies) -> i32 {
    if !copy(skb, one) {
        return TC_ACT_UNSPEC;
    }
    one.value.since = now;
    let mut number = 0;
    while number < OF_ONE {
        one.key.number = number;
        let Holding { key, value } = &*one;
        if maps::HELD.insert(key, value, BPF_NOEXIST as u64).is_ok() {
            return TC_ACT_SHOT;
        }
        number += 1;
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn let_go(
    skb: *mut __sk_buff,
    ifindex: IfIndex,
    one: &mut Holding,
    first: &mut Holding,
    now: Jiffies,
    limit: u32,
) -> i32 {
    if !copy(skb, first) {
        return TC_ACT_UNSPEC;
    }
    let mut number = 0;
    while number < OF_ONE {
        one.key.number = number;
        let key = &one.key;
        let Some(held) = maps::HELD.get_ptr(key) else {
            break;
        };
        // SAFETY: the element outlives the program's run.
        let (since, len, bytes) = unsafe {
            let held = &*held;
            (held.since, held.len, held.frame.as_ptr())
        };
        // An older one is of a datagram that had the same number.
        if now.since(since) < limit && become_frame(skb, len, bytes) {
            // SAFETY: the helper checks the device.
            unsafe { bpf_clone_redirect(skb, ifindex.0, BPF_F_INGRESS as u64) };
        }
        let _ = maps::HELD.remove(key);
        number += 1;
    }
    if !become_frame(skb, first.value.len, first.value.frame.as_ptr()) {
        return TC_ACT_SHOT;
    }
    redirect(ifindex, BPF_F_INGRESS as u64)
}
