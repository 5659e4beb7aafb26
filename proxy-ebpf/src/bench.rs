//! The benchmark's programs: a driver, which restores the packet and varies its flow before every repeat of a test run
//! and then calls the program under test; a generator, which sends such packets by a device; and a sink, which counts
//! and drops them where they come out.
//!
//! BPF_PROG_TEST_RUN does not restore a packet between its repeats: a program that rewrites it would see a stranger
//! from the second one on.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    not(target_arch = "bpf"),
    allow(dead_code, reason = "the host builds this crate to lint it")
)]

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, xdp_action},
    btf_maps::{Array, PerCpuArray, ProgramArray},
    helpers::generated::bpf_redirect,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Words of a frame.
const WORDS: usize = 20;

/// What to run: the template, and the places of what varies.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Script {
    pub template: [u32; WORDS],
    /// The place of the low half of the address that varies, in half words.
    pub addr_half: u32,
    /// The place of the port, in half words.
    pub port_half: u32,
    /// Flows, a power of two; 0 for one that never comes again.
    pub flows: u32,
    /// The number of the next flow.
    pub next: u32,
    /// The generator's device.
    pub device: u32,
    /// Not 0: the flows come in an order that looks like chance and has each of them once.
    pub shuffled: u32,
    /// Flows that are left out between one and the next, as a power of two.
    pub spread: u32,
    /// The number of the first flow.
    pub first: u32,
    pub reserved: u32,
}

#[btf_map]
static SCRIPT: Array<Script, 1> = Array::new();
/// Slot 0: the program under test.
#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();
/// The same of TC.
#[btf_map]
static TC_TARGET: ProgramArray<1> = ProgramArray::new();

/// Packets that came out.
#[btf_map]
static SUNK: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Another order of the numbers up to `mask`, which is all ones: each step is one to one under it.
#[inline(always)]
fn shuffle(number: u32, mask: u32) -> u32 {
    let number = number.wrapping_mul(0x9e37_79b1) & mask;
    let number = (number ^ (number >> 7)).wrapping_mul(0x85eb_ca6b) & mask;
    number ^ (number >> 5)
}

/// Where a frame of XDP begins and ends.
#[inline(always)]
fn bounds(ctx: &XdpContext) -> (usize, usize) {
    // SAFETY: the context is valid while the program runs.
    unsafe { ((*ctx.ctx).data as usize, (*ctx.ctx).data_end as usize) }
}

/// Makes the packet between these bounds the next flow's; gives the script's device.
#[inline(always)]
fn restore((start, end): (usize, usize)) -> Option<u32> {
    // SAFETY: test runs of these programs do not overlap.
    let script = unsafe { &mut *SCRIPT.get_ptr_mut(0)? };
    let number = script.next;
    script.next = number.wrapping_add(1);
    let mask = script.flows.wrapping_sub(1);
    let number = number & mask;
    let number = if script.shuffled == 0 {
        number
    } else {
        shuffle(number, mask)
    };
    let number = (number << (script.spread & 31)).wrapping_add(script.first);
    // The template itself is varied: the verifier follows an index into a map's value, into a packet hardly.
    // 16,384 ports to an address; both places are below 32 half words.
    let template = (&raw mut script.template).cast::<u16>();
    let (addr, port) = (
        script.addr_half as usize & 31,
        script.port_half as usize & 31,
    );
    let port_part = (number & 0x3fff) as u16;
    // SAFETY: the template has 40 half words.
    unsafe {
        let (old, new) = (
            core::ptr::read_volatile(template.add(addr)),
            ((number >> 14) as u16).to_be(),
        );
        // The sum of an IPv4 header goes with its addresses (RFC 1624 equation 3).
        if core::ptr::read_volatile(template.add(6)) == 0x0800_u16.to_be() {
            let field = core::ptr::read_volatile(template.add(12));
            let sum = (!field) as u32 + (!old) as u32 + new as u32;
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            core::ptr::write_volatile(template.add(12), !(sum as u16));
        }
        core::ptr::write_volatile(template.add(addr), new);
        core::ptr::write_volatile(template.add(port), (port_part + 1024).to_be());
        // The transport checksum of the first flow's packet is every flow's then, unless the address varies too.
        core::ptr::write_volatile(template.add(WORDS * 2 - 1), !port_part.to_be());
    }
    if start + WORDS * 4 > end {
        return None;
    }
    let frame = start as *mut u32;
    let mut i = 0;
    while i < WORDS {
        // SAFETY: within the bounds that were checked.
        unsafe {
            core::ptr::write_volatile(
                frame.add(i),
                core::ptr::read_volatile(&raw const script.template[i]),
            )
        };
        i += 1;
    }
    Some(script.device)
}

/// Restores the packet as the next flow's and calls the target.
#[xdp]
pub fn bench_driver(ctx: XdpContext) -> u32 {
    if restore(bounds(&ctx)).is_some() {
        // SAFETY: the array holds XDP programs only.
        unsafe { TARGET.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// The same for a program of TC.
#[classifier]
pub fn bench_tc_driver(ctx: TcContext) -> i32 {
    // SAFETY: the context is valid while the program runs.
    let bounds = unsafe {
        (
            (*ctx.skb.skb).data as usize,
            (*ctx.skb.skb).data_end as usize,
        )
    };
    if restore(bounds).is_some() {
        // SAFETY: the array holds programs of TC only.
        unsafe { TC_TARGET.tail_call(&ctx, 0) };
    }
    TC_ACT_SHOT
}

/// Sends the next flow's packet by the script's device. For live test runs (kernel 5.18).
#[xdp]
pub fn bench_generator(ctx: XdpContext) -> u32 {
    match restore(bounds(&ctx)) {
        // SAFETY: the helper checks the device.
        Some(device) => unsafe { bpf_redirect(device, 0) as u32 },
        None => xdp_action::XDP_ABORTED,
    }
}

/// Drops and counts the generator's UDP packets; others pass.
#[xdp]
pub fn bench_sink(ctx: XdpContext) -> u32 {
    let (start, end) = bounds(&ctx);
    if start + WORDS * 4 > end {
        return xdp_action::XDP_PASS;
    }
    // EtherType IPv4, protocol UDP.
    // SAFETY: within the bounds that were checked.
    let (kind, protocol) = unsafe {
        (
            core::ptr::read_volatile((start + 12) as *const u16),
            core::ptr::read_volatile((start + 22) as *const u16),
        )
    };
    if kind != 0x0800_u16.to_be() || protocol.to_ne_bytes()[1] != 17 {
        return xdp_action::XDP_PASS;
    }
    if let Some(sunk) = SUNK.get_ptr_mut(0) {
        // SAFETY: this CPU's element.
        unsafe { *sunk += 1 };
    }
    xdp_action::XDP_DROP
}

/// The driver's own cost is that of this target.
#[xdp]
pub fn bench_empty(_: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// The same of TC.
#[classifier]
pub fn bench_tc_empty(_: TcContext) -> i32 {
    TC_ACT_SHOT
}
