//! What the slow path knows of one packet.
//!
//! It lives in map memory, not on the stack: a few IPv6 tuples and flows are more than the 512 bytes that a
//! program has (kernel `MAX_BPF_STACK`).

use crate::{
    abi::{Flow, FlowKey, Macs},
    parse::View,
    path::Hop,
};

/// One packet's facts, filled in as its way goes on.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Work<A> {
    /// From [`crate::parse`].
    pub view: View<A>,
    /// The Ethernet addresses that it came with.
    pub frame: Macs,
    /// Is it an ICMP error? Then the view has no more than its IP header.
    pub is_error: bool,
    /// Is the frame addressed to the device at the hook?
    pub is_for_us: bool,
    /// Does the device at the hook take its source ([`crate::admit::admits`])? The device whose packets it takes as well; 0 for none.
    pub is_admitted: bool,
    /// Was its way looked up, so that the next hop is to be noted?
    pub is_looked_up: bool,
    pub above: u32,
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
}
