//! What the tables of services and endpoints take in the kernel, and how large they may become within a bound of memory.
//!
//! Arrays take their memory when they are made, those with a value for each CPU that many times. Hash tables take their buckets then, and
//! an element when it is written. Both count in full here.

use std::{fmt, str::FromStr};

use crate::plan::Room;

/// Of each backend: an element in the array of each family (16 and 28 bytes, the latter rounded up to a multiple of 8), four slots (of 8
/// bytes: kernel/bpf/arraymap.c rounds up), and a pointer to its counters.
const BACKEND: u64 = 16 + 32 + 4 * 8 + 8;
/// Its counters on one CPU.
const BACKEND_COUNTS: u64 = 40;
/// Of each service port: its bucket and element (`struct htab_elem` has 48 bytes before the key), four frontends in each family, and four
/// source ranges in each, which are two nodes of a trie.
const SERVICE: u64 = 16 + 96 + 4 * (16 + 64 + 16 + 96) + 4 * 2 * (64 + 96) + 8;
/// Its counters on one CPU.
const SERVICE_COUNTS: u64 = 24;

/// An amount of memory, as `512Mi` or in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u32); 3] = [("Ki", 10), ("Mi", 20), ("Gi", 30)];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let (number, shift) = match unit {
            Some((unit, shift)) => (&text[..text.len() - unit.len()], *shift),
            None => (text, 0),
        };
        let number: u64 = number
            .parse()
            .map_err(|_| "give a number of bytes, or one with Ki, Mi or Gi".to_owned())?;
        number
            .checked_mul(1 << shift)
            .map(Self)
            .ok_or_else(|| "more than there are addresses".to_owned())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let whole = |(_, shift): &&(&str, u32)| bytes > 0 && bytes.trailing_zeros() >= *shift;
        match UNITS.iter().rev().find(whole) {
            Some((unit, shift)) => write!(f, "{}{unit}", bytes >> shift),
            None => write!(f, "{bytes}"),
        }
    }
}

/// What tables of this size take, full, on a machine with so many CPUs.
pub fn of(room: &Room, cpus: u64) -> Bytes {
    let Room { services, backends } = *room;
    Bytes(
        u64::from(backends) * (BACKEND + cpus * BACKEND_COUNTS)
            + u64::from(services) * (SERVICE + cpus * SERVICE_COUNTS),
    )
}

/// The largest tables within `bound` that are as `room` or smaller by the same part.
pub fn within(room: Room, bound: Bytes, cpus: u64) -> Room {
    let Bytes(full) = of(&room, cpus);
    if full <= bound.0 {
        return room;
    }
    let part = |size: u32| (u128::from(size) * u128::from(bound.0) / u128::from(full)) as u32;
    Room {
        services: part(room.services).max(2),
        backends: part(room.backends).max(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_read_as_it_is_shown() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("64Ki", 65_536),
            ("3Mi", 3 << 20),
            ("1Gi", 1 << 30),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)));
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        for text in ["", "Mi", "-1", "1G", "1.5Gi", "99999999999Gi"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn tables_stay_within_their_memory_on_any_machine() {
        let room = Room {
            services: 262_144,
            backends: 1_048_576,
        };
        let bound = Bytes(1 << 30);
        assert_eq!(within(room, bound, 2), room);
        for cpus in [16, 64, 256] {
            let room = within(room, bound, cpus);
            let Bytes(bytes) = of(&room, cpus);
            assert!(bytes <= bound.0, "{bytes}");
            assert!(bytes > bound.0 - (1 << 20), "{bytes}");
        }
    }
}
