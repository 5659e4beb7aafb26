//! A packet as the core sees it: bytes at offsets from the start of its network header.
//!
//! What stands before that, an Ethernet header or nothing, is the adapter's business: the core asks for its addresses and gives others.

use crate::{addr::Macs, raw::Wire};
use core::marker::PhantomData;

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
    pub pseudo: crate::sums::internet::Diff,
    /// Change of what the segment itself holds (ports, payload).
    pub data: crate::sums::internet::Diff,
    /// A checksum of 0 means "none" and stays so; a result of 0 is written as 0xffff (RFC 768).
    pub zero_is_none: bool,
}

/// Reads a value where it lies.
///
/// # Safety
/// `at` is valid for reads of a `T`, at any alignment.
#[inline(always)]
unsafe fn read<T: Wire>(at: *const T) -> T {
    if cfg!(target_arch = "bpf") {
        // SAFETY: the caller's. BPF on every supported machine takes loads of any alignment, and an unaligned read
        // would be compiled to single bytes.
        unsafe { *at }
    } else {
        // SAFETY: the caller's.
        unsafe { at.read_unaligned() }
    }
}

/// Writes a value where it is to lie.
///
/// # Safety
/// `at` is valid for writes of a `T`, at any alignment.
#[inline(always)]
unsafe fn write<T: Wire>(at: *mut T, value: T) {
    if cfg!(target_arch = "bpf") {
        // SAFETY: the caller's; as in `read`.
        unsafe { *at = value }
    } else {
        // SAFETY: the caller's.
        unsafe { at.write_unaligned(value) }
    }
}

/// The first bytes of a packet, whose bounds were checked all at once. At an offset that the compiler knows, `load` and
/// `store` are one instruction each.
pub struct Head<'a> {
    start: *mut u8,
    len: usize,
    life: PhantomData<&'a mut [u8]>,
}

impl Head<'_> {
    /// # Safety
    /// The `len` bytes at `start` are valid for reads and writes as long as the head lives.
    #[inline(always)]
    pub unsafe fn new(start: *mut u8, len: usize) -> Self {
        Self {
            start,
            len,
            life: PhantomData,
        }
    }

    /// Reads a value; `None` past the end.
    #[inline(always)]
    pub fn load<T: Wire>(&self, offset: usize) -> Option<T> {
        if offset + size_of::<T>() > self.len {
            return None;
        }
        // SAFETY: within the bytes that `new` was given.
        Some(unsafe { read(self.start.add(offset).cast()) })
    }

    /// Writes a value; `None` past the end.
    #[inline(always)]
    pub fn store<T: Wire>(&mut self, offset: usize, value: T) -> Option<()> {
        if offset + size_of::<T>() > self.len {
            return None;
        }
        // SAFETY: within the bytes that `new` was given.
        unsafe { write(self.start.add(offset).cast(), value) };
        Some(())
    }
}

/// The Ethernet addresses before a packet's head.
pub struct MacsBefore<'a>(*mut Macs, PhantomData<&'a mut [u8]>);

impl MacsBefore<'_> {
    /// # Safety
    /// The 12 bytes at `at` are valid for reads and writes as long as this lives, and in no head.
    #[inline(always)]
    pub unsafe fn new(at: *mut u8) -> Self {
        Self(at.cast(), PhantomData)
    }

    #[inline(always)]
    pub fn get(&self) -> Macs {
        // SAFETY: as `new` was promised.
        unsafe { read(self.0) }
    }

    #[inline(always)]
    pub fn set(&mut self, macs: Macs) {
        // SAFETY: as `new` was promised.
        unsafe { write(self.0, macs) }
    }
}

/// The bytes of one packet. All offsets and lengths are in bytes, and count from the network header.
pub trait Bytes {
    /// Where `len` bytes from `offset` on lie, valid for reads and writes; `None` past the end.
    fn at(&self, offset: usize, len: usize) -> Option<*mut u8>;

    /// Reads a value; `None` past the end.
    #[inline(always)]
    fn load<T: Wire>(&self, offset: usize) -> Option<T> {
        let at = self.at(offset, size_of::<T>())?;
        // SAFETY: `at` checked the bounds.
        Some(unsafe { read(at.cast()) })
    }

    /// Writes a value; `None` past the end.
    #[inline(always)]
    fn store<T: Wire>(&mut self, offset: usize, value: T) -> Option<()> {
        let at = self.at(offset, size_of::<T>())?;
        // SAFETY: `at` checked the bounds.
        unsafe { write(at.cast(), value) };
        Some(())
    }

    /// The first `len` bytes; `None` if the packet is shorter.
    #[inline(always)]
    fn head(&mut self, len: usize) -> Option<Head<'_>> {
        let at = self.at(0, len)?;
        // SAFETY: `at` checked the bounds; the head borrows the packet, so that nothing moves the bytes meanwhile.
        Some(unsafe { Head::new(at, len) })
    }
}

/// One packet, with what a hook's kind of buffer knows of it beyond its bytes.
pub trait Packet: Bytes {
    /// The EtherType, in host byte order: by the link header, else by what the kernel tells.
    fn ethertype(&self) -> Option<u16>;

    /// The Ethernet addresses; `None` without an Ethernet header.
    fn macs(&self) -> Option<Macs>;

    /// The first `len` bytes, and the Ethernet addresses before them, their bounds checked all at once.
    fn framed_head(&mut self, len: usize) -> Option<(Option<MacsBefore<'_>>, Head<'_>)>;

    /// Writes these Ethernet addresses; a packet without an Ethernet header gets one.
    fn set_macs(&mut self, macs: Macs) -> Option<()>;

    /// Length from the network header on.
    fn net_len(&self) -> u32;

    /// Are there so many bytes from the network header on?
    fn holds(&self, len: u32) -> bool;

    /// Has the kernel found that the frame is addressed to the device that it came in by? `false` where nobody has looked.
    fn is_to_host(&self) -> bool;

    /// Brings the transport checksum at `offset` in line with `change`, whatever offload state it is in.
    fn fix_l4<F: crate::addr::Family>(&mut self, offset: usize, change: L4Change) -> Option<()>;

    /// Takes over, into a sum that the device made of the whole packet (`CHECKSUM_COMPLETE`), a change that no field
    /// of the internet checksum within the packet balances.
    fn note_change(&mut self, change: crate::sums::internet::Diff);

    /// Payload bytes of each segment if this is several segments in one (GSO), else 0. For SCTP any other number than 0
    /// says no more than that (kernel `GSO_BY_FRAGS`).
    fn gso_size(&self) -> u32;

    /// Does the packet carry only the pseudo header's sum, the rest being left to the device
    /// (`CHECKSUM_PARTIAL`)? `offset` is that of the transport checksum.
    fn checksum_is_partial(&mut self, offset: usize) -> bool;

    /// Cuts the packet to `len` bytes.
    fn trim(&mut self, len: u32) -> Option<()>;

    /// Makes `len` bytes of room for another network header, behind the link header; offsets count from the new start.
    fn grow_front(&mut self, len: u32) -> Option<()>;
}
