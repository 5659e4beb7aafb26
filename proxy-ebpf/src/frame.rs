//! The bytes of a packet, the same for XDP and TC: between two pointers that the context holds, behind a link header.

use proxy_common::{
    addr::{Be16, Macs},
    wire::packet::{Bytes, Head, MacsBefore},
};

/// Headers end well before this; a bound that the verifier can see. Not near a power of two: 7.2 clips the sum of an
/// offset and a size to the mask that it keeps of them.
const MAX_OFFSET: usize = 1280;

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;

/// A context that gives direct access to a packet.
pub trait Context {
    /// Where the context holds the packet's beginning and end.
    fn bounds(&self) -> (*const u32, *const u32);
}

/// What stands before the network header of a packet: a constant in the programs that are attached.
pub trait LinkHeader<C>: Copy {
    /// Is there always an Ethernet header?
    const IS_ETHERNET: bool;

    /// Its length in bytes.
    fn len(self, context: *mut C) -> usize;
}

/// An Ethernet header.
///
/// The VLAN tag of a frame that shows it in its bytes makes its EtherType another one, so that it goes on to the VLAN
/// device untouched.
#[derive(Clone, Copy)]
pub struct Ethernet;

impl<C> LinkHeader<C> for Ethernet {
    const IS_ETHERNET: bool = true;

    #[inline(always)]
    fn len(self, _: *mut C) -> usize {
        ETHERNET
    }
}

/// A packet by its context, behind a link header.
pub struct Frame<C, L>(pub *mut C, pub L);

impl<C: Context, L: LinkHeader<C>> Frame<C, L> {
    /// Bytes before the network header.
    #[inline(always)]
    pub fn link_len(&self) -> usize {
        self.1.len(self.0)
    }

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

    /// Do the pointers enclose so many bytes behind the link header?
    #[inline(always)]
    pub fn reaches(&self, len: usize) -> bool {
        let (start, end) = self.bounds();
        // Volatile, or the compiler leaves out the mask, which tells the verifier of 5.10 that the length is bounded.
        // SAFETY: a reference is valid for reads.
        let len = unsafe { core::ptr::read_volatile(&raw const len) } & 0x1_ffff;
        start + self.link_len() + len <= end
    }

    /// Length of what the pointers enclose behind the link header.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        let (start, end) = self.bounds();
        (end - start - self.link_len()) as u32
    }

    /// Where `len` bytes of the link header from `offset` on lie.
    #[inline(always)]
    fn link(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let (start, end) = self.bounds();
        let at = start + offset;
        if at + len > end {
            return None;
        }
        Some(at as *mut u8)
    }

    /// See [`proxy_common::wire::packet::Packet::ethertype`].
    #[inline(always)]
    pub fn link_ethertype(&self) -> Option<u16> {
        let at = self.link(12, 2)?;
        // SAFETY: `link` checked the bounds; BPF takes loads of any alignment.
        Some(unsafe { *at.cast::<Be16>() }.get())
    }

    /// See [`proxy_common::wire::packet::Packet::macs`].
    #[inline(always)]
    pub fn link_macs(&self) -> Option<Macs> {
        if !L::IS_ETHERNET && self.link_len() == 0 {
            return None;
        }
        let at = self.link(0, 12)?;
        // SAFETY: as for the EtherType.
        Some(unsafe { *at.cast::<Macs>() })
    }

    /// See [`proxy_common::wire::packet::Packet::framed_head`]: one look at the bounds is enough for both.
    #[inline(always)]
    pub fn framed(&mut self, len: usize) -> Option<(Option<MacsBefore<'_>>, Head<'_>)> {
        if !L::IS_ETHERNET {
            let macs = match self.link_len() {
                0 => None,
                _ => Some(self.link(0, 12)?),
            };
            let head = self.head(len)?;
            // SAFETY: `link` checked the bounds, and the head begins behind these bytes.
            return Some((macs.map(|at| unsafe { MacsBefore::new(at) }), head));
        }
        let at = self.at(0, len)?;
        // SAFETY: what is before the network header is within the bounds that `at` checked.
        unsafe {
            let macs = MacsBefore::new(at.sub(ETHERNET));
            Some((Some(macs), Head::new(at, len)))
        }
    }

    /// See [`proxy_common::wire::packet::Packet::set_macs`].
    #[inline(always)]
    pub fn set_link_macs(&mut self, macs: Macs) -> Option<()> {
        let at = self.link(0, 12)?;
        // SAFETY: as for the EtherType.
        unsafe { *at.cast::<Macs>() = macs };
        Some(())
    }
}

impl<C: Context, L: LinkHeader<C>> Bytes for Frame<C, L> {
    #[inline(always)]
    fn at(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let (start, end) = self.bounds();
        if offset > MAX_OFFSET {
            return None;
        }
        let at = start + self.link_len() + offset;
        if at + len > end {
            return None;
        }
        Some(at as *mut u8)
    }
}
