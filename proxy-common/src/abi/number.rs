//! Numbers that are mixed up easily, each of a type of its own.
//!
//! In a map each is 32 bits in host byte order: a type here changes no layout.

use core::fmt;

/// A type that is a number of 32 bits in a map.
macro_rules! number {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
        #[cfg_attr(feature = "user", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        #[repr(transparent)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        primitive!($name = 1 u32 as "u32");

        #[cfg(feature = "user")]
        // SAFETY: a transparent wrapper of an integer.
        unsafe impl aya::Pod for $name {}
    };
}

number! {
    /// A point in time: the low 32 bits of jiffies. They wrap, so that two points have a distance and no order.
    Jiffies
}

impl Jiffies {
    /// How many jiffies lie between an earlier point and this one.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The point that many jiffies later.
    #[must_use]
    pub const fn later(self, jiffies: u32) -> Self {
        Self(self.0.wrapping_add(jiffies))
    }

    /// The point that many jiffies ago.
    #[must_use]
    pub const fn earlier(self, jiffies: u32) -> Self {
        Self(self.0.wrapping_sub(jiffies))
    }
}

number! {
    /// The id of one service port of one family.
    #[derive(PartialOrd, Ord)]
    ServiceId
}

impl ServiceId {
    /// No service: the table has fewer entries.
    pub const NONE: Self = Self(u32::MAX);
}

number! {
    /// The id of one endpoint of one service port.
    #[derive(PartialOrd, Ord)]
    BackendId
}

impl BackendId {
    /// No backend: the table has fewer entries.
    pub const NONE: Self = Self(u32::MAX);
}

number! {
    /// A place in the array of slots, each of which holds the id of a backend.
    #[derive(PartialOrd, Ord)]
    Slot
}

impl Slot {
    /// The slot that many places further on.
    #[must_use]
    #[inline(always)]
    pub const fn plus(self, places: u32) -> Self {
        Self(self.0.wrapping_add(places))
    }
}

number! {
    /// The kernel's number of a network device, in one network namespace.
    #[derive(PartialOrd, Ord)]
    IfIndex
}

impl IfIndex {
    /// No device: the kernel counts from 1.
    pub const NONE: Self = Self(0);
    /// The loopback device; the same in every network namespace (kernel `LOOPBACK_IFINDEX`).
    pub const LOOPBACK: Self = Self(1);
}

number! {
    /// The number of the node's network state, for which hints of flows hold.
    Epoch
}

impl Epoch {
    /// That of a flow without hints. The configuration never has it.
    pub const NONE: Self = Self(0);

    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(after(self.0))
    }
}

number! {
    /// How often a backend's id was used.
    #[derive(PartialOrd, Ord)]
    Generation
}

impl Generation {
    /// That of an id that was never used.
    pub const NONE: Self = Self(0);
    /// That of an id that is used for the first time.
    pub const FIRST: Self = Self(1);

    /// The generation of the id's next use.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(after(self.0))
    }
}

/// The number after this one, past 0, which means none.
const fn after(number: u32) -> u32 {
    match number.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_where_its_number_wraps() {
        assert_eq!(Jiffies(5).since(Jiffies(u32::MAX)), 6);
        assert_eq!(Jiffies(5).earlier(6), Jiffies(u32::MAX));
        assert_eq!(Jiffies(u32::MAX).later(6), Jiffies(5));
    }

    #[test]
    fn nothing_that_is_used_has_the_number_for_none() {
        assert_eq!(Epoch(u32::MAX).next(), Epoch(1));
        assert_eq!(Generation::NONE.next(), Generation::FIRST);
        assert_eq!(Generation(u32::MAX).next(), Generation::FIRST);
    }
}
