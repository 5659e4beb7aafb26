//! A program that every verifier refuses: the VM suite's own test loads it to see how that is reported.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    not(target_arch = "bpf"),
    allow(dead_code, reason = "the host builds this crate to lint it")
)]

use aya_ebpf::{macros::xdp, programs::XdpContext};

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

/// Its action is the packet's first byte, read without a look at the packet's end.
#[xdp]
pub fn reads_unchecked(context: XdpContext) -> u32 {
    let first = context.data() as *const u8;
    // SAFETY: there is none, and the verifier says so: this program never runs.
    unsafe { first.read_volatile() }.into()
}
