//! The bytes of a packet, the same for XDP and TC: between two pointers that the context holds.

use proxy_common::wire::packet::Bytes;

/// Headers end well before this; a bound that the verifier can see. Not near a power of two: 7.2 clips the sum of an
/// offset and a size to the mask that it keeps of them.
const MAX_OFFSET: usize = 1280;

/// A context that gives direct access to a packet.
pub trait Context {
    /// Where the context holds the packet's beginning and end.
    fn bounds(&self) -> (*const u32, *const u32);
}

/// A packet, by its context.
pub struct Frame<C>(pub *mut C);

impl<C: Context> Frame<C> {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // Volatile: kept in a register across branches, LLVM would treat the pointer as the 32 bits that it was
        // loaded from, and the verifier as a number.
        // SAFETY: the context is valid while the program runs.
        unsafe {
            let (start, end) = (*self.0).bounds();
            (
                core::ptr::read_volatile(start) as usize,
                core::ptr::read_volatile(end) as usize,
            )
        }
    }

    /// Do the pointers enclose so many bytes?
    #[inline(always)]
    pub fn reaches(&self, len: usize) -> bool {
        let (start, end) = self.bounds();
        // Volatile, or the compiler leaves out the mask, which tells the verifier of 5.10 that the length is bounded.
        // SAFETY: a reference is valid for reads.
        let len = unsafe { core::ptr::read_volatile(&raw const len) } & 0x1_ffff;
        start + len <= end
    }

    /// Length of what the pointers enclose.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        let (start, end) = self.bounds();
        (end - start) as u32
    }
}

impl<C: Context> Bytes for Frame<C> {
    #[inline(always)]
    fn at(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let (start, end) = self.bounds();
        if offset > MAX_OFFSET {
            return None;
        }
        let at = start + offset;
        if at + len > end {
            return None;
        }
        Some(at as *mut u8)
    }
}
