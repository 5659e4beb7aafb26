//! XDP: the packet as raw frame bytes, before the kernel has looked at it.

use crate::{
    frame::{Context, Ethernet, Frame},
    maps::{self, FamilyMaps},
    tables::Kernel,
};
use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use proxy_common::{
    abi::{IfIndex, slow_index},
    addr::{Family, Macs, V4, V6},
    edge::{
        hook::Hook,
        verdict::{Action, Verdict},
    },
    paths::{answer::AnswerIp, fast::fast, slow::slow},
    sums::internet::Diff,
    wire::{
        packet::{Bytes, Head, L4Change, MacsBefore, Packet},
        parse::ParseIp,
    },
};

impl Context for xdp_md {
    #[inline(always)]
    fn bounds(&self) -> (*const u32, *const u32) {
        (&raw const self.data, &raw const self.data_end)
    }
}

impl Packet for Frame<xdp_md, Ethernet> {
    #[inline(always)]
    fn ethertype(&self) -> Option<u16> {
        self.link_ethertype()
    }

    #[inline(always)]
    fn macs(&self) -> Option<Macs> {
        self.link_macs()
    }

    #[inline(always)]
    fn framed_head(&mut self, len: usize) -> Option<(Option<MacsBefore<'_>>, Head<'_>)> {
        self.framed(len)
    }

    #[inline(always)]
    fn set_macs(&mut self, macs: Macs) -> Option<()> {
        self.set_link_macs(macs)
    }

    #[inline(always)]
    fn net_len(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn holds(&self, len: u32) -> bool {
        self.reaches(len as usize)
    }

    // The kernel looks at the destination after XDP.
    #[inline(always)]
    fn is_to_host(&self) -> bool {
        false
    }

    #[inline(always)]
    fn fix_l4<F: Family>(&mut self, offset: usize, change: L4Change) -> Option<()> {
        let field: *mut u16 = self.at(offset, 2)?.cast();
        // SAFETY: `at` checked the bounds.
        unsafe {
            let old = *field;
            if change.zero_is_none && old == 0 {
                return Some(());
            }
            let new = change.pseudo.and(change.data).apply(old);
            *field = if change.zero_is_none && new == 0 {
                0xffff
            } else {
                new
            };
        }
        Some(())
    }

    // The kernel makes its buffer, and takes the device's sum, after XDP.
    #[inline(always)]
    fn note_change(&mut self, _: Diff) {}

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
        // `Hop::usable_by` and `Reason::LeftToTc` keep these from XDP; a packet that has been edited must not go on as another's.
        Action::Redirect | Action::Neighbour | Action::Receive | Action::Fragment => {
            xdp_action::XDP_DROP
        }
    }
}

#[inline(always)]
fn tables(ctx: &XdpContext) -> Kernel {
    // SAFETY: the context is valid while the program runs.
    let ifindex = unsafe { (*ctx.ctx).ingress_ifindex };
    Kernel::new(ctx.ctx.cast(), IfIndex(ifindex))
}

#[xdp]
pub fn xdp_uplink(ctx: XdpContext) -> u32 {
    let hook = Hook::XDP_UPLINK;
    let mut packet = Frame(ctx.ctx, Ethernet);
    let verdict = fast(hook, &mut packet, &tables(&ctx));
    if verdict.action == Action::Slow {
        let is_v6 = packet.ethertype() == Some(V6::ETHERTYPE);
        // SAFETY: the array holds programs of this type only. A call that fails comes back: the agent has not
        // filled the array, and TC decides.
        unsafe { maps::SLOW_XDP.tail_call(&ctx, slow_index(hook.edge.dir, is_v6)) };
    }
    act(verdict)
}

/// Runs the slow path of a family.
#[inline(always)]
fn enter_slow<F: ParseIp + AnswerIp + FamilyMaps>(ctx: &XdpContext) -> u32 {
    let Some(work) = F::work() else {
        return xdp_action::XDP_PASS;
    };
    let mut packet = Frame(ctx.ctx, Ethernet);
    act(slow::<F, _, _>(
        Hook::XDP_UPLINK,
        &mut packet,
        &tables(ctx),
        work,
    ))
}

#[xdp]
pub fn xdp_slow4(ctx: XdpContext) -> u32 {
    enter_slow::<V4>(&ctx)
}

#[xdp]
pub fn xdp_slow6(ctx: XdpContext) -> u32 {
    enter_slow::<V6>(&ctx)
}
