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
