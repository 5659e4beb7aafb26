//! The Internet checksum and SCTP's CRC32c, computed plainly: the reference that a packet on the wire is held against.

use std::net::IpAddr;
use std::ops::Range;

use crc::{CRC_32_ISCSI, Crc};

/// Whether a transport segment's own checksum is right under its pseudo-header.
pub(super) fn transport_is_right(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    segment: &[u8],
) -> bool {
    let mut sum = Sum::default();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => sum.add(&address.octets()),
            IpAddr::V6(address) => sum.add(&address.octets()),
        }
    }
    sum.add(&(segment.len() as u32).to_be_bytes());
    sum.add(&[0, protocol]);
    sum.add(segment);
    sum.is_all_ones()
}

/// Whether a header or message that has no pseudo-header sums up to nothing.
pub(super) fn is_right(bytes: &[u8]) -> bool {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.is_all_ones()
}

/// Where an SCTP packet has its checksum (RFC 9260 section 3.1).
const SCTP_FIELD: Range<usize> = 8..12;

/// Whether an SCTP packet's checksum is right, whose field counts as 0 in it (RFC 9260 appendix A).
pub(super) fn sctp_is_right(packet: &[u8]) -> bool {
    let Some(field) = packet.get(SCTP_FIELD) else {
        return false;
    };
    let crc = Crc::<u32>::new(&CRC_32_ISCSI);
    let mut digest = crc.digest();
    digest.update(&packet[..SCTP_FIELD.start]);
    digest.update(&[0; 4]);
    digest.update(&packet[SCTP_FIELD.end..]);
    field == digest.finalize().to_le_bytes()
}

#[derive(Default)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            self.0 += u64::from(u32::from_be_bytes(*word));
        }
        for pair in rest.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            self.0 += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }

    /// A correct sum over data and checksum is all ones.
    fn is_all_ones(&self) -> bool {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum == 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_its_checksum_is_right_and_any_changed_bit_is_wrong() {
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert!(is_right(&header));
        for bit in 0..header.len() * 8 {
            let mut changed = header;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_right(&changed), "bit {bit}");
        }
    }

    /// A COOKIE ACK.
    #[test]
    fn an_sctp_packet_with_its_checksum_is_right_and_any_changed_bit_is_wrong() {
        let mut packet = [
            0x9c, 0x40, 0x1f, 0x90, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, 0x0b, 0x00, 0x00, 0x04,
        ];
        let crc = Crc::<u32>::new(&CRC_32_ISCSI).checksum(&packet);
        packet[SCTP_FIELD].copy_from_slice(&crc.to_le_bytes());
        assert!(sctp_is_right(&packet));
        for bit in 0..packet.len() * 8 {
            let mut changed = packet;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!sctp_is_right(&changed), "bit {bit}");
        }
        assert!(!sctp_is_right(&packet[..10]));
    }
}
