//! Internet checksums, incrementally (RFC 1071, RFC 1624 equation 3).
//!
//! Sums are over 16-bit words as they lie in memory: one's complement addition does not care about byte order
//! as long as all operands share it.

/// A change of a one's complement sum: what was added minus what was taken away.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Diff(u64);

impl Diff {
    /// `old` becomes `new`.
    #[inline(always)]
    pub fn word(self, old: u32, new: u32) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// `old` becomes `new`, 16 bits at an even offset.
    #[inline(always)]
    pub fn half(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// An address becomes another.
    #[inline(always)]
    pub fn addr<A: crate::addr::Addr>(self, old: &A, new: &A) -> Self {
        let mut d = self;
        let mut i = 0;
        while i < A::WORDS {
            d = d.word(old.word(i), new.word(i));
            i += 1;
        }
        d
    }

    /// Both changes.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The change in 16 bits, as a flow keeps it.
    #[inline(always)]
    pub fn folded(self) -> u16 {
        fold(self.0)
    }

    /// From [`Self::folded`]. The complement is the opposite change.
    #[inline(always)]
    pub fn from_folded(sum: u16) -> Self {
        Self(sum as u64)
    }

    #[inline(always)]
    pub fn is_none(self) -> bool {
        // Both of one's complement's zeroes.
        self.0 == 0 || self.0 == 0xffff
    }

    /// As the 32-bit difference that the kernel's `bpf_l4_csum_replace` takes.
    #[inline(always)]
    pub fn to_wsum(self) -> u32 {
        let s = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((s & 0xffff_ffff) + (s >> 32)) as u32
    }

    /// The checksum field `field` after the change.
    #[inline(always)]
    pub fn apply(self, field: u16) -> u16 {
        !fold(self.0 + (!field) as u64)
    }
}

/// Folds a sum below 2^48 (65,536 words) to 16 bits.
///
/// Three steps are enough: the first leaves at most 0x1_0000_fffe, the second 0x1_fffe, the third 0xffff.
#[inline(always)]
pub fn fold(sum: u64) -> u16 {
    debug_assert!(sum < 1 << 48, "a sum of more words than a packet has");
    let s = (sum & 0xffff_ffff) + (sum >> 32);
    let s = (s & 0xffff) + (s >> 16);
    let s = (s & 0xffff) + (s >> 16);
    s as u16
}

/// The inverse of 0xffff modulo 2^64.
const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
const _: () = assert!(INVERSE.wrapping_mul(0xffff) == 1);

/// A sum of words, to be folded; `finish` gives the checksum field.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    #[inline(always)]
    pub fn words(self, words: &[u32]) -> Self {
        let mut s = self.0;
        for w in words {
            s += *w as u64;
        }
        Self(s)
    }

    #[inline(always)]
    pub fn half(self, half: u16) -> Self {
        Self(self.0 + half as u64)
    }

    #[inline(always)]
    pub fn addr<A: crate::addr::Addr>(self, a: &A) -> Self {
        let mut s = self.0;
        let mut i = 0;
        while i < A::WORDS {
            s += a.word(i) as u64;
            i += 1;
        }
        Self(s)
    }

    /// The sum as it stands, without complement: what a partial checksum field holds.
    #[inline(always)]
    pub fn folded(self) -> u16 {
        fold(self.0)
    }

    /// Does the sum of something that includes its checksum field, and is not all zeroes, tell that it is as it was sent: does it fold
    /// to 0xffff?
    ///
    /// It does if 0xffff divides it, which is one multiplication instead of the steps of a fold: of a multiple below 2^47 the product
    /// with the inverse is the quotient, below 2^31, and of any other number it is more than (2^64 - 1) / 0xffff.
    #[inline(always)]
    pub fn is_right(self) -> bool {
        debug_assert!(self.0 != 0 && self.0 < 1 << 47, "no sum of a header");
        self.0.wrapping_mul(INVERSE) < 1 << 31
    }

    #[inline(always)]
    pub fn finish(self) -> u16 {
        !fold(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(words: &[u16]) -> u16 {
        !fold(words.iter().map(|w| *w as u64).sum())
    }

    /// The example of RFC 1071, section 3.
    #[test]
    fn the_rfc_1071_example_sums_to_ddf2() {
        assert_eq!(
            fold([0x0001u64, 0xf203, 0xf4f5, 0xf6f7].iter().sum()),
            0xddf2
        );
    }

    proptest::proptest! {
        #[test]
        fn an_incremental_change_equals_a_full_sum(mut words in proptest::collection::vec(1u16.., 4..20), new in 0u32.., at in 0usize..2) {
            let before = full(&words);
            let old = words[at] as u32 | (words[at + 1] as u32) << 16;
            words[at] = new as u16;
            words[at + 1] = (new >> 16) as u16;
            let after = Diff::default().word(old, new).apply(before);
            // 0x0000 and 0xffff are the same number; a non-zero sum never gives 0xffff in full.
            let norm = |c: u16| if c == 0xffff { 0 } else { c };
            proptest::prop_assert_eq!(norm(after), norm(full(&words)));
        }

        #[test]
        fn a_header_is_right_if_its_sum_folds_to_all_ones(words in proptest::collection::vec(1u32.., 1..16), off in 0u32..3) {
            let sum = Sum::default().words(&words);
            proptest::prop_assert_eq!(sum.is_right(), sum.folded() == 0xffff);
            // With the field that makes it right, and with one beside it.
            let with_field = sum.words(&[(sum.finish() as u32).wrapping_add(off) & 0xffff]);
            proptest::prop_assert_eq!(with_field.is_right(), with_field.folded() == 0xffff);
            proptest::prop_assert!(off != 0 || with_field.is_right());
        }

        #[test]
        fn three_steps_fold_any_sum(sum in 0u64..1 << 48) {
            // One's complement addition is addition modulo 0xffff, whose zero is 0 for an empty sum alone.
            let expected = if sum == 0 { 0 } else { ((sum - 1) % 0xffff + 1) as u16 };
            proptest::prop_assert_eq!(fold(sum), expected);
        }

        #[test]
        fn a_folded_change_applies_alike_and_its_complement_takes_it_back(old in 0u32.., new in 0u32.., field in 0u16..) {
            let norm = |c: u16| if c == 0xffff { 0 } else { c };
            let change = Diff::default().word(old, new);
            let kept = change.folded();
            proptest::prop_assert_eq!(norm(Diff::from_folded(kept).apply(field)), norm(change.apply(field)));
            let back = Diff::from_folded(!kept).apply(change.apply(field));
            proptest::prop_assert_eq!(norm(back), norm(field));
            proptest::prop_assert_eq!(Diff::from_folded(kept).is_none(), norm(kept) == 0);
        }
    }
}
