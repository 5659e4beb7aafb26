//! CRC32c, the checksum of SCTP (RFC 9260 appendix A), incrementally.
//!
//! It is linear: what an edit changes by XOR changes the checksum by the remainder of that difference alone. A
//! difference in the ports is carried to the packet's end by one multiplication by x^(8n) modulo the polynomial, so
//! that of the payload only the length is needed.
//!
//! A remainder is kept reflected, as SCTP sends it: bit 31 is x^0, bit 0 is x^31, and the field holds the complement
//! in little-endian order.

/// The polynomial 0x1edc6f41, reflected, without x^32.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `[k][j][d]`: the remainder of the number `d` as digit `j` (of four bits, the lowest first) of a remainder, times
/// x^(8 * 2^k): what 2^k more bytes make of it.
static BYTES: [[[u32; 16]; 8]; 16] = products();

const fn products() -> [[[u32; 16]; 8]; 16] {
    let mut all = [[[0; 16]; 8]; 16];
    // x^8.
    let mut power = 1 << (31 - 8);
    let mut k = 0;
    while k < 16 {
        let mut j = 0;
        while j < 8 {
            let mut d = 0;
            while d < 16 {
                all[k][j][d] = multiply((d as u32) << (4 * j), power);
                d += 1;
            }
            j += 1;
        }
        power = multiply(power, power);
        k += 1;
    }
    all
}

/// Product of two remainders.
const fn multiply(a: u32, b: u32) -> u32 {
    let (mut product, mut b) = (0, b);
    let mut i = 32;
    while i > 0 {
        i -= 1;
        // By the powers of `a` from x^0 on; `b` is multiplied by x for each.
        if a >> i & 1 != 0 {
            product ^= b;
        }
        b = b >> 1 ^ if b & 1 != 0 { POLYNOMIAL } else { 0 };
    }
    product
}

/// The remainder after `bytes` (below 65,536) further bytes of zeroes.
///
/// By tables: a product bit by bit is a way of its own through the program for each bit, which new verifiers follow
/// also where the bits are masks. In the object a global function, which the verifier walks once and not on each way
/// to it (kernel 5.6, 51c39bb1d5d1).
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
#[inline(never)]
pub extern "C" fn crc32c_append(remainder: u32, bytes: u32) -> u32 {
    let (mut remainder, mut bytes) = (remainder, bytes);
    for digits in &BYTES {
        if bytes & 1 != 0 {
            let mut product = 0;
            let mut j = 0;
            while j < 8 {
                product ^= digits[j][(remainder >> (4 * j)) as usize & 15];
                j += 1;
            }
            remainder = product;
        }
        bytes >>= 1;
    }
    remainder
}

/// How the checksum field changes, by XOR, where the first word of a packet of `len` bytes changes from `old` to
/// `new`. Words and field as they lie in memory.
#[inline(always)]
pub fn first_word_change(old: u32, new: u32, len: u32) -> u32 {
    crc32c_append(u32::from_le(old ^ new), len).to_le()
}

/// The checksum field of a packet of these words alone, as it lies in memory; the field among them counts as it is.
#[inline(always)]
pub fn field_of(words: &[u32]) -> u32 {
    let mut remainder = !0;
    for word in words {
        remainder = crc32c_append(remainder ^ u32::from_le(*word), 4);
    }
    (!remainder).to_le()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REFERENCE: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

    fn words(bytes: &[u8]) -> Vec<u32> {
        let word = |b: &[u8]| u32::from_ne_bytes(b.try_into().unwrap());
        bytes.chunks_exact(4).map(word).collect()
    }

    /// RFC 3720 appendix B.4.
    #[test]
    fn the_examples_of_rfc_3720_come_out() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        for (bytes, field) in [
            (vec![0; 32], [0xaa, 0x36, 0x91, 0x8a]),
            (vec![0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
            (rising, [0x4e, 0x79, 0xdd, 0x46]),
            (falling, [0x5c, 0xdb, 0x3f, 0x11]),
        ] {
            assert_eq!(field_of(&words(&bytes)).to_ne_bytes(), field);
        }
    }

    proptest! {
        #[test]
        fn a_change_of_ports_equals_a_full_recomputation(
            mut packet in prop::collection::vec(any::<u8>(), 12..3000),
            ports in any::<[u8; 4]>(),
        ) {
            packet[8..12].fill(0);
            let before = REFERENCE.checksum(&packet).to_le_bytes();
            let old: [u8; 4] = packet[..4].try_into().unwrap();
            packet[..4].copy_from_slice(&ports);
            let after = REFERENCE.checksum(&packet).to_le_bytes();
            let [old, new] = [old, ports].map(u32::from_ne_bytes);
            let change = first_word_change(old, new, packet.len() as u32);
            prop_assert_eq!(u32::from_ne_bytes(before) ^ change, u32::from_ne_bytes(after));
        }

        #[test]
        fn any_length_of_a_packet_is_carried(len in 4usize..=65_535, old in any::<u32>(), new in any::<u32>()) {
            let mut bytes = vec![0u8; len];
            let mut field = |word: u32| {
                bytes[..4].copy_from_slice(&word.to_ne_bytes());
                u32::from_ne_bytes(REFERENCE.checksum(&bytes).to_le_bytes())
            };
            prop_assert_eq!(first_word_change(old, new, len as u32), field(old) ^ field(new));
        }

        #[test]
        fn a_packet_of_few_words_is_summed_whole(words in prop::collection::vec(any::<u32>(), 0..20)) {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
            prop_assert_eq!(field_of(&words).to_ne_bytes(), REFERENCE.checksum(&bytes).to_le_bytes());
        }
    }
}
