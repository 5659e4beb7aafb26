//! Keeps what there is no room for.

use std::fmt;

use crate::plan::Shortage;

/// What of a service is not served for want of room.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LeftOut {
    /// Service ports, in each family for themselves.
    pub ports: u32,
    /// Of ports that are served.
    pub addresses: u32,
    pub ranges: u32,
    pub endpoints: u32,
    /// Ports whose lists of endpoints are shorter than they should be: weights are not kept, or a hash is less consistent.
    pub lists: u32,
    /// The first thing that was in the way.
    pub why: Option<Shortage>,
}

impl LeftOut {
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ports,
            addresses,
            ranges,
            endpoints,
            lists,
            why: _,
        } = self;
        let parts = [
            (ports, "ports"),
            (addresses, "addresses"),
            (ranges, "source ranges"),
            (endpoints, "endpoints"),
            (lists, "lists of full length"),
        ];
        let mut parts = parts.into_iter().filter(|(count, _)| **count > 0);
        if let Some((count, what)) = parts.next() {
            write!(f, "{count} {what}")?;
        }
        parts.try_for_each(|(count, what)| write!(f, ", {count} {what}"))
    }
}
