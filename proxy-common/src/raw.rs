//! Plain data as it lies in a packet.

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
wire!(u16, u32, [u32; 2], [u32; 5], [u32; 10],);
