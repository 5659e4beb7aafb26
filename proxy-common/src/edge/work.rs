//! What the slow path knows of one packet.
//!
//! It lives in map memory, not on the stack: a few IPv6 tuples and flows are more than the 512 bytes that a
//! program has (kernel `MAX_BPF_STACK`).

use crate::{
    abi::{Flow, FlowKey, IfIndex, Macs},
    edge::decision::About,
    tables::Hop,
    wire::parse::View,
};

/// One packet's facts, filled in as its way goes on.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Work<A> {
    /// From [`crate::wire::parse`].
    pub view: View<A>,
    /// The Ethernet addresses that it came with.
    pub frame: Macs,
    /// Is it an ICMP error? Then the view has no more than its IP header.
    pub is_error: bool,
    /// Is the frame addressed to the device at the hook?
    pub is_for_us: bool,
    /// Does the device at the hook take its source ([`crate::edge::admit::admits`])? The device whose packets it takes as well; 0 for none.
    pub is_admitted: bool,
    /// Was its way looked up, so that the next hop is to be noted?
    pub is_looked_up: bool,
    pub above: IfIndex,
    /// Its length in layer 3, in bytes; of several segments in one, that of the largest.
    pub largest: u32,
    /// The key of the packet's flow at this hook.
    pub key: FlowKey<A>,
    /// Its flow, as found or as made.
    pub flow: Flow<A>,
    /// The other direction's.
    pub peer_key: FlowKey<A>,
    pub peer: Flow<A>,
    /// An entry that stands in the way, and its peer's key.
    pub other: Flow<A>,
    pub other_key: FlowKey<A>,
    /// Where the packet goes.
    pub hop: Hop,
    /// What is decided about.
    pub about: About,
}

/// Makes the compiler read a packet's facts from memory again, instead of keeping them in registers.
///
/// A BPF program has ten registers, and what does not fit is spilled to its stack: all that was known of an IPv6 packet took 45 of
/// the 64 places there. The verifier, too, goes through fewer states where it does not know a value that it need not know.
#[inline(always)]
pub fn settle<A>(work: &mut Work<A>) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: a move of a register to itself, as lines of debug information must not share an instruction. Without `nomem` the compiler takes it for one that may have written what it is given.
    unsafe {
        core::arch::asm!("{0} = {0}", in(reg) &raw mut *work, options(nostack, preserves_flags));
    }
    let _ = work;
}

/// The same number, of which the compiler does not know what it is: so it does not unroll the loop that it counts.
#[inline(always)]
pub fn opaque(number: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    let number = {
        let mut number = number;
        // SAFETY: a move of a register to itself.
        unsafe {
            core::arch::asm!("{0} = {0}", inout(reg) number, options(nomem, nostack, preserves_flags));
        }
        number
    };
    number
}
