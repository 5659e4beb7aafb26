//! XDP: the packet as raw frame bytes, before the kernel has looked at it.

use crate::{maps, tables::Kernel};
use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use proxy_common::{
    abi::slow_index,
    addr::{Family, V4, V6},
    hook::Hook,
    packet::{L4Change, Packet, Wire},
    parse::ethertype,
    run::{fast, slow},
    verdict::{Action, Verdict},
};

/// Headers end well before this; a bound that the verifier can see. Not near a power of two: 7.2 clips the sum of an
/// offset and a size to the mask that it keeps of them.
const MAX_OFFSET: usize = 1280;

struct XdpPacket(*mut xdp_md);

impl XdpPacket {
    /// Where the packet begins and ends.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // Volatile: kept in a register across branches, LLVM would treat the pointer as the 32 bits that it was
        // loaded from, and the verifier as a number.
        // SAFETY: the context is valid while the program runs.
        unsafe {
            (
                core::ptr::read_volatile(&raw const (*self.0).data) as usize,
                core::ptr::read_volatile(&raw const (*self.0).data_end) as usize,
            )
        }
    }

    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let (data, end) = self.bounds();
        if offset > MAX_OFFSET {
            return None;
        }
        let start = data + offset;
        if start + size_of::<T>() > end {
            return None;
        }
        Some(start as *mut T)
    }
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        let (data, end) = self.bounds();
        (end - data) as u32
    }

    #[inline(always)]
    fn load<T: Wire>(&self, offset: usize) -> Option<T> {
        // SAFETY: `at` checked the bounds. BPF on every supported machine takes loads of any alignment, and an
        // unaligned read would be compiled to single bytes.
        self.at::<T>(offset).map(|p| unsafe { *p })
    }

    #[inline(always)]
    fn store<T: Wire>(&mut self, offset: usize, value: T) -> Option<()> {
        // SAFETY: as in `load`.
        self.at::<T>(offset).map(|p| unsafe { *p = value })
    }

    #[inline(always)]
    fn fix_l4<F: Family>(&mut self, offset: usize, change: L4Change) -> Option<()> {
        let old: u16 = self.load(offset)?;
        if change.zero_is_none && old == 0 {
            return Some(());
        }
        let new = change.pseudo.and(change.data).apply(old);
        self.store(
            offset,
            if change.zero_is_none && new == 0 {
                0xffff
            } else {
                new
            },
        )
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        0
    }

    // XDP leaves answers to TC (`Reason::LeftToTc`), so that the rest is never called.
    #[inline(always)]
    fn checksum_is_partial(&mut self, _: usize) -> bool {
        false
    }

    #[inline(always)]
    fn trim(&mut self, _: u32) -> Option<()> {
        None
    }

    #[inline(always)]
    fn grow_front(&mut self, _: u32) -> Option<()> {
        None
    }
}

/// XDP's action for a verdict.
#[inline(always)]
fn act(verdict: Verdict) -> u32 {
    match verdict.action {
        // On to TC and the stack, which decide for themselves.
        Action::Pass | Action::Translated | Action::Slow => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Transmit => xdp_action::XDP_TX,
        // `Hop::usable_by` keeps these from XDP; a packet that has been edited must not go on as another's.
        Action::Redirect | Action::Neighbour | Action::Receive => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn tables(ctx: &XdpContext) -> Kernel {
    // SAFETY: the context is valid while the program runs.
    let ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    Kernel::new(ctx.ctx.cast(), ifindex)
}

#[xdp]
pub fn xdp_uplink(ctx: XdpContext) -> u32 {
    let hook = Hook::XDP_UPLINK;
    let mut packet = XdpPacket(ctx.ctx);
    let verdict = fast(hook, &mut packet, &tables(&ctx));
    if verdict.action == Action::Slow {
        let is_v6 = ethertype(&packet) == Some(V6::ETHERTYPE);
        // SAFETY: the array holds programs of this type only. A call that fails comes back: the agent has not
        // filled the array, and TC decides.
        unsafe { maps::SLOW_XDP.tail_call(&ctx, slow_index(hook.index, is_v6)) };
    }
    act(verdict)
}

#[xdp]
pub fn xdp_uplink_slow4(ctx: XdpContext) -> u32 {
    let Some(work) = work!(WORK_4) else {
        return xdp_action::XDP_PASS;
    };
    act(slow::<V4, _, _>(
        Hook::XDP_UPLINK,
        &mut XdpPacket(ctx.ctx),
        &tables(&ctx),
        work,
    ))
}

#[xdp]
pub fn xdp_uplink_slow6(ctx: XdpContext) -> u32 {
    let Some(work) = work!(WORK_6) else {
        return xdp_action::XDP_PASS;
    };
    act(slow::<V6, _, _>(
        Hook::XDP_UPLINK,
        &mut XdpPacket(ctx.ctx),
        &tables(&ctx),
        work,
    ))
}
