//! Dry runs: the core of the programs that are attached, on the same maps, which it only reads. Never attached and not loaded by the
//! agent: `proxy-agent explain` loads them and runs them on a packet of its own.
//!
//! The request says what XDP of 5.10 is not told by a test run, and stands in a map of this load alone. Nothing is sent: the verdict is
//! written down, and the packet is what the run leaves. A test run's packet always has an Ethernet header, whatever the device has.

use crate::{
    frame::{Ethernet, Frame},
    maps::{self, FamilyMaps},
    tables::Kernel,
    tc::{self, FAST_HEADERS, SLOW_HEADERS},
};
use aya_ebpf::{
    bindings::{__sk_buff, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use proxy_common::{
    abi::Dir,
    addr::{V4, V6},
    edge::hook::Hook,
    explain::{Dry, Trace},
    paths::{answer::AnswerIp, fast::fast, slow::slow},
    tables::Node,
    wire::parse::ParseIp,
};

/// What the programs at TC return: nobody acts on it.
const DONE: i32 = 0;

#[inline(always)]
fn trace() -> Option<&'static Trace> {
    // SAFETY: the element is as large and aligned as a `Trace`, for which any words are a value; one program runs at a time.
    maps::EXPLAIN
        .get_ptr_mut(0)
        .map(|told| unsafe { &*told.cast_const().cast() })
}

/// The fast path at TC, at whichever hook of the device the packet is.
#[classifier]
pub fn explain_tc(ctx: TcContext) -> i32 {
    let Some(trace) = trace() else {
        return DONE;
    };
    let skb: *mut __sk_buff = ctx.skb.skb;
    let request = trace.request();
    let tables = Kernel::new(skb.cast(), request.ifindex);
    let Some(device) = tables.device(request.ifindex) else {
        return DONE;
    };
    let hook = Hook::of_device(device.flags, Dir::from_bits(request.dir as u8));
    let mut packet = tc::frame(skb, FAST_HEADERS, Ethernet);
    let verdict = fast(hook, &mut packet, &Dry::new(&tables, trace));
    trace.end(verdict, tables.now());
    DONE
}

/// The slow path of a family and direction at TC.
#[inline(always)]
fn slow_tc<F: ParseIp + AnswerIp + FamilyMaps>(dir: Dir, ctx: &TcContext) -> i32 {
    let (Some(trace), Some(work)) = (trace(), F::work()) else {
        return DONE;
    };
    let skb: *mut __sk_buff = ctx.skb.skb;
    let ifindex = trace.request().ifindex;
    let tables = Kernel::new(skb.cast(), ifindex);
    let Some(device) = tables.device(ifindex) else {
        return DONE;
    };
    let hook = Hook::of_device(device.flags, dir);
    let mut packet = tc::frame(skb, SLOW_HEADERS, Ethernet);
    let verdict = slow::<F, _, _>(hook, &mut packet, &Dry::new(&tables, trace), work);
    trace.end_of(verdict, tables.now(), work);
    DONE
}

macro_rules! slow_paths {
    ($($dir:ident $family:ident: $name:ident,)+) => {$(
        #[classifier]
        #[inline(always)]
        pub fn $name(ctx: TcContext) -> i32 {
            slow_tc::<$family>(Dir::$dir, &ctx)
        }
    )+};
}
slow_paths! {
    In V4: explain_in4,
    In V6: explain_in6,
    Out V4: explain_out4,
    Out V6: explain_out6,
}

/// The fast path at XDP.
#[xdp]
pub fn explain_xdp(ctx: XdpContext) -> u32 {
    let Some(trace) = trace() else {
        return xdp_action::XDP_PASS;
    };
    let tables = Kernel::new(ctx.ctx.cast(), trace.request().ifindex);
    let mut packet = Frame(ctx.ctx, Ethernet);
    let verdict = fast(Hook::XDP_UPLINK, &mut packet, &Dry::new(&tables, trace));
    trace.end(verdict, tables.now());
    xdp_action::XDP_PASS
}

/// The slow path of a family at XDP.
#[inline(always)]
fn slow_xdp<F: ParseIp + AnswerIp + FamilyMaps>(ctx: &XdpContext) -> u32 {
    let (Some(trace), Some(work)) = (trace(), F::work()) else {
        return xdp_action::XDP_PASS;
    };
    let tables = Kernel::new(ctx.ctx.cast(), trace.request().ifindex);
    let mut packet = Frame(ctx.ctx, Ethernet);
    let dry = Dry::new(&tables, trace);
    let verdict = slow::<F, _, _>(Hook::XDP_UPLINK, &mut packet, &dry, work);
    trace.end_of(verdict, tables.now(), work);
    xdp_action::XDP_PASS
}

#[xdp]
pub fn explain_xdp4(ctx: XdpContext) -> u32 {
    slow_xdp::<V4>(&ctx)
}

#[xdp]
pub fn explain_xdp6(ctx: XdpContext) -> u32 {
    slow_xdp::<V6>(&ctx)
}
