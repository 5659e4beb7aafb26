//! The Internet checksum, computed plainly: the reference that a packet on the wire is held against.

use std::net::IpAddr;

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
}
