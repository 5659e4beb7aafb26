//! A packet in a socket buffer's stead: bytes, the checksum's offload state, and the size of GSO segments. The
//! edits follow the kernel's helpers of the same purpose.

use proxy_common::{
    addr::{Family, Macs},
    edge::Link,
    sums::internet::{Diff, fold},
    wire::packet::{Bytes, Head, L4Change, MacsBefore, Packet},
};

/// Where the device will put the checksum of a `CHECKSUM_PARTIAL` packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partial {
    /// First byte that is summed.
    pub start: usize,
    /// The field, which holds the pseudo header's sum until then; SCTP's holds 0.
    pub field: usize,
    /// A CRC32c instead (the kernel's `csum_not_inet`).
    pub is_crc: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Buffer {
    pub bytes: Vec<u8>,
    pub partial: Option<Partial>,
    pub gso: u32,
    /// A device's sum of the bytes from the IP header on (`CHECKSUM_COMPLETE`).
    pub complete: Option<u16>,
    /// The kernel has found that the frame is not this device's (`PACKET_OTHERHOST`), or not looked yet (XDP).
    pub is_strange: bool,
    /// At a device without a link header, what stands before the packet is not there: but for the EtherType, which the kernel knows.
    pub link: Link,
}

impl Buffer {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            partial: None,
            gso: 0,
            complete: None,
            is_strange: false,
            link: Link::Ethernet,
        }
    }

    /// The same packet at a device without a link header.
    pub fn bare(mut self) -> Self {
        self.link = Link::None;
        self.bytes[..12].fill(0);
        self
    }

    /// The same packet as a device leaves it that sums whatever it receives.
    pub fn summed(mut self) -> Self {
        self.complete = Some(super::sum(&self.bytes[14..]));
        self
    }

    fn half(&self, offset: usize) -> Option<u16> {
        self.load::<u16>(offset)
    }

    /// The bytes as the device sends them: with a partial checksum filled in.
    pub fn on_the_wire(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if let Some(Partial {
            start,
            field,
            is_crc: true,
        }) = self.partial
        {
            // As `skb_crc32c_csum_help` has it: over the field as it stands.
            let crc = super::check::CRC32C.checksum(&bytes[start..]);
            bytes[field..field + 4].copy_from_slice(&crc.to_le_bytes());
        } else if let Some(Partial { start, field, .. }) = self.partial {
            let sum = !super::sum(&bytes[start..]);
            let sum = if sum == 0 { 0xffff } else { sum };
            bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// `bpf_l4_csum_replace` with a difference.
    fn l4_replace(&mut self, offset: usize, diff: u32, pseudo: bool, mangle: bool) -> Option<()> {
        let old = self.half(offset)?;
        if !offset.is_multiple_of(2) {
            return None;
        }
        if mangle && old == 0 {
            return Some(());
        }
        let fold = |sum: u64| {
            let mut sum = sum;
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            sum as u16
        };
        let mut new = match (self.partial, pseudo) {
            (None, _) => !fold(diff as u64 + !old as u64),
            (Some(_), true) => fold(diff as u64 + old as u64),
            (Some(_), false) => old,
        };
        if mangle && new == 0 {
            new = 0xffff;
        }
        self.store(offset, new)
    }
}

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

impl Bytes for Buffer {
    fn at(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let offset = offset.checked_add(ETHERNET)?;
        if offset.checked_add(len)? > self.bytes.len() {
            return None;
        }
        Some(self.bytes.as_ptr().wrapping_add(offset).cast_mut())
    }
}

impl Packet for Buffer {
    fn ethertype(&self) -> Option<u16> {
        let field = self.bytes.get(12..ETHERNET)?;
        Some(u16::from_be_bytes([field[0], field[1]]))
    }

    fn macs(&self) -> Option<Macs> {
        if self.link == Link::None {
            return None;
        }
        let macs = self.bytes.get(..12)?;
        let mac = |at: usize| macs[at..at + 6].try_into().expect("six bytes");
        Some(Macs::new(mac(0), mac(6)))
    }

    fn framed_head(&mut self, len: usize) -> Option<(Option<MacsBefore<'_>>, Head<'_>)> {
        let at = self.at(0, len)?;
        // SAFETY: `at` checked the bounds from the beginning of the frame on, and neither reaches into the other.
        let parts = unsafe { (MacsBefore::new(at.sub(ETHERNET)), Head::new(at, len)) };
        Some(((self.link == Link::Ethernet).then_some(parts.0), parts.1))
    }

    fn set_macs(&mut self, macs: Macs) -> Option<()> {
        let source = macs.swapped().dst();
        self.link = Link::Ethernet;
        self.bytes.get_mut(..6)?.copy_from_slice(&macs.dst());
        self.bytes.get_mut(6..12)?.copy_from_slice(&source);
        Some(())
    }

    fn net_len(&self) -> u32 {
        (self.bytes.len() - ETHERNET) as u32
    }

    fn holds(&self, len: u32) -> bool {
        self.bytes.len() >= ETHERNET + len as usize
    }

    fn is_to_host(&self) -> bool {
        !self.is_strange
    }

    fn fix_l4<F: Family>(&mut self, offset: usize, change: L4Change) -> Option<()> {
        let mangle = change.zero_is_none;
        if !change.pseudo.is_none() {
            self.l4_replace(offset, change.pseudo.to_wsum(), true, mangle)?;
        }
        if !change.data.is_none() {
            self.l4_replace(offset, change.data.to_wsum(), false, mangle)?;
        }
        Some(())
    }

    fn note_change(&mut self, change: Diff) {
        // In memory order, as the packet's words are.
        if let Some(complete) = self.complete {
            let sum = complete.to_be() as u64 + change.to_wsum() as u64;
            self.complete = Some(u16::from_be(fold(sum)));
        }
    }

    fn gso_size(&self) -> u32 {
        self.gso
    }

    fn checksum_is_partial(&mut self, offset: usize) -> bool {
        self.partial.is_some_and(|p| p.field == ETHERNET + offset)
    }

    fn trim(&mut self, len: u32) -> Option<()> {
        let len = ETHERNET + len as usize;
        // The kernel refuses to cut off the field that the device is to write.
        if self.partial.is_some_and(|p| len < p.field + 2) {
            return None;
        }
        self.bytes.resize(len, 0);
        self.gso = 0;
        Some(())
    }

    fn grow_front(&mut self, len: u32) -> Option<()> {
        let len = len as usize;
        self.bytes
            .splice(ETHERNET..ETHERNET, std::iter::repeat_n(0, len));
        self.partial = self.partial.map(|p| Partial {
            start: p.start + len,
            field: p.field + len,
            ..p
        });
        Some(())
    }
}
