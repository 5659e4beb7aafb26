//! A packet as the core sees it: bytes at offsets from the start of the Ethernet header.

/// Plain data that can be read from and written to a packet as it lies there.
///
/// # Safety
/// Every bit pattern is a valid value and there is no padding.
pub unsafe trait Wire: Copy {}

macro_rules! wire {
    ($($t:ty),+ $(,)?) => {$(
        // SAFETY: integers, arrays of integers, or transparent wrappers of them.
        unsafe impl Wire for $t {}
    )+};
}
// No single byte: of a bound `start + 1 > end`, compiled to `start >= end`, the verifier learns nothing.
wire!(
    u16,
    u32,
    crate::addr::Be16,
    crate::addr::Ip4,
    crate::addr::Ip6,
    crate::abi::Macs,
    [u32; 2],
    [u32; 5],
    [u32; 10],
);

/// The source and destination port, as they begin every transport header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Be16Pair(pub crate::addr::Be16, pub crate::addr::Be16);

// SAFETY: two transparent `u16`.
unsafe impl Wire for Be16Pair {}

/// What a rewrite changes in the sums under a transport checksum.
#[derive(Clone, Copy, Default, Debug)]
pub struct L4Change {
    /// Change of the pseudo header (addresses).
    pub pseudo: crate::csum::Diff,
    /// Change of what the segment itself holds (ports, payload).
    pub data: crate::csum::Diff,
    /// A checksum of 0 means "none" and stays so; a result of 0 is written as 0xffff (RFC 768).
    pub zero_is_none: bool,
}

/// Access to one packet. All offsets and lengths are in bytes.
pub trait Packet {
    /// Length of the frame.
    fn frame_len(&self) -> u32;

    /// Reads a value; `None` past the end.
    fn load<T: Wire>(&self, offset: usize) -> Option<T>;

    /// Writes a value; `None` past the end.
    fn store<T: Wire>(&mut self, offset: usize, value: T) -> Option<()>;

    /// Brings the transport checksum at `offset` in line with `change`, whatever offload state it is in.
    fn fix_l4<F: crate::addr::Family>(&mut self, offset: usize, change: L4Change) -> Option<()>;

    /// Payload bytes of each segment if this is several segments in one (GSO), else 0.
    fn gso_size(&self) -> u32;

    /// Does the packet carry only the pseudo header's sum, the rest being left to the device
    /// (`CHECKSUM_PARTIAL`)? `offset` is that of the transport checksum.
    fn checksum_is_partial(&mut self, offset: usize) -> bool;

    /// Cuts the frame to `len` bytes.
    fn trim(&mut self, len: u32) -> Option<()>;

    /// Makes `len` bytes of room before the frame; offsets count from the new start.
    fn grow_front(&mut self, len: u32) -> Option<()>;
}
