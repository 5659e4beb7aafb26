//! The programs: adapters that give the core its packet and tables, and one line per hook that turns the
//! core's verdict into the hook's action. Nothing is decided here.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    not(target_arch = "bpf"),
    allow(dead_code, reason = "the host builds this crate to lint it")
)]

mod explain;
mod frame;
mod held;
mod maps;
mod tables;
mod tc;
mod xdp;

/// On the host there is nothing to run; the object is built for `bpfel-unknown-none`.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// Cannot be reached: a panic path would not pass the verifier. The endless loop makes it a load failure.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Some helpers may be called by programs under a GPL-compatible licence only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
