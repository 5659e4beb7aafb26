//! Computes the kernel memory of tables, and how large they may become within a bound of memory.
//!
//! Arrays take their memory when they are made, those with a value for each CPU that many times; tables that forget what was used least
//! take all of theirs as well. Other hash tables take their buckets then, and an element when it is written. How far tables may grow is
//! calculated for full ones, whether an agent may start for those that it makes.

use std::{fmt, str::FromStr};

use anyhow::{Result, bail};
use aya::maps::MapType;
use nix::sys::utsname::uname;

use super::{
    Sizes,
    shape::{Role, Shape, shapes},
};
use crate::{memory::Allowance, plan::Room};

/// An element of a hash table without its key and value (`struct htab_elem` in kernel/bpf/hashtab.c).
const ELEMENT: u64 = 48;
/// A bucket of one (`struct bucket`).
const BUCKET: u64 = 16;

/// Of each backend: an element in the array of each family (16 and 28 bytes, the latter rounded up to a multiple of 8), four slots (of 8
/// bytes: kernel/bpf/arraymap.c rounds up), and a pointer to its counters.
const BACKEND: u64 = 16 + 32 + 4 * 8 + 8;
/// Its counters on one CPU.
const BACKEND_COUNTS: u64 = 40;
/// Of each service port: its bucket and element (`struct htab_elem` has 48 bytes before the key), four frontends in each family, and four
/// source ranges in each, which are two nodes of a trie; and two pointers to its counters.
const SERVICE: u64 = 16 + 96 + 4 * (16 + 64 + 16 + 96) + 4 * 2 * (64 + 96) + 2 * 8;
/// Its counters on one CPU.
const SERVICE_COUNTS: u64 = 24 + 8;

/// What an agent has besides its tables: the program, the kernel's types while it loads, the programs in the kernel.
const OWN: u64 = 64 << 20;
/// What it keeps of each backend and of each service port that it has programmed, names and slices included.
const KEPT_OF_BACKEND: u64 = 256;
const KEPT_OF_SERVICE: u64 = 1024;

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
    part_of(room, bound.0, of(&room, cpus).0)
}

fn part_of(room: Room, bound: u64, full: u64) -> Room {
    if full <= bound {
        return room;
    }
    let part = |size: u32| (u128::from(size) * u128::from(bound) / u128::from(full)) as u32;
    Room {
        services: part(room.services).max(2),
        backends: part(room.backends).max(2),
    }
}

/// The largest tables, `room` at most, that leave a process with this allowance what it needs besides. Not smaller than what any agent
/// begins with: where there is no room for that, it does not start.
pub fn within_allowance(room: Room, allowance: &Allowance, sizes: &Sizes, cpus: u64) -> Room {
    let others = of_use(sizes, Use::Connections, cpus) + of_use(sizes, Use::Others, cpus);
    let Room { services, backends } = room;
    let kept = u64::from(services) * KEPT_OF_SERVICE + u64::from(backends) * KEPT_OF_BACKEND;
    let left = allowance.bytes.saturating_sub(OWN + others);
    let part = part_of(room, left, of(&room, cpus).0 + kept);
    Room {
        services: part.services.max(services.min(Sizes::LEAST.services)),
        backends: part.backends.max(backends.min(Sizes::LEAST.backends)),
    }
}

/// An error where the maps of these shapes, which are to be made, are more than a process with this allowance may have.
pub(super) fn ensure_fits<'a>(
    made: impl Iterator<Item = &'a Shape>,
    allowance: &Allowance,
    sizes: &Sizes,
    cpus: u64,
) -> Result<()> {
    let (mut connections, mut services, mut others) = (0, 0, 0);
    for shape in made {
        let bytes = at_first(shape, cpus);
        *match use_of(shape) {
            Use::Connections => &mut connections,
            Use::Services => &mut services,
            Use::Others => &mut others,
        } += bytes;
    }
    let least = OWN + services + others;
    let need = least + connections;
    if need <= allowance.bytes {
        return Ok(());
    }
    let flows = sizes.connections;
    let fits = |flows: &u32| {
        let sizes = Sizes {
            connections: *flows,
            ..*sizes
        };
        least + of_use(&sizes, Use::Connections, cpus) <= allowance.bytes
    };
    let mut fewer = (1..flows.div_ceil(1024)).rev().map(|number| number * 1024);
    let advice = fewer.find(fits).map_or_else(String::new, |fit| {
        format!(", or give --max-flows {fit} at most")
    });
    bail!(
        "this process may have {} MiB of memory ({}), and needs {}: {} for connections (--max-flows {flows}), {} for services and \
         endpoints (--max-services, --max-backends), {} for the node's devices and addresses, {} for itself. Raise the limit{advice}",
        allowance.bytes >> 20,
        allowance.set_by.display(),
        mebibytes(need),
        mebibytes(connections),
        mebibytes(services),
        mebibytes(others),
        mebibytes(OWN),
    );
}

const fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// Does the kernel count what maps take among the memory of the process that makes them? From Linux 5.11 on (80ee81e0403c).
pub fn counts_for_process() -> bool {
    let Ok(name) = uname() else { return true };
    is_since_5_11(&name.release().to_string_lossy())
}

fn is_since_5_11(release: &str) -> bool {
    let mut numbers = release
        .split(|one: char| !one.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next(), numbers.next());
    version >= (Some(5), Some(11))
}

/// What a map is for, as the flags have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Connections,
    Services,
    Others,
}

const fn use_of(shape: &Shape) -> Use {
    match shape.role {
        Role::Flows | Role::Affinity => Use::Connections,
        Role::Plan | Role::Counts => Use::Services,
        Role::Node | Role::Scratch | Role::Programs | Role::Private => Use::Others,
    }
}

/// What all maps for this take when they are made.
fn of_use(sizes: &Sizes, purpose: Use, cpus: u64) -> u64 {
    let all = shapes(sizes).into_iter();
    all.filter(|shape| use_of(shape) == purpose)
        .map(|shape| at_first(&shape, cpus))
        .sum()
}

/// What a map of this shape takes when it is made, on a machine with so many CPUs.
fn at_first(shape: &Shape, cpus: u64) -> u64 {
    let round = |bytes: u32| u64::from(bytes).next_multiple_of(8);
    let entries = u64::from(shape.max_entries);
    let value = round(shape.value);
    match shape.kind {
        MapType::PerCpuArray => entries * (8 + cpus * value),
        MapType::LruHash | MapType::Hash if shape.is_preallocated => {
            let element = ELEMENT + round(shape.key) + value;
            entries * element + entries.next_power_of_two() * BUCKET
        }
        MapType::Hash => entries.next_power_of_two() * BUCKET,
        MapType::LpmTrie => 0,
        _ => entries * value,
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

    fn allowance(mebibytes: u64) -> Allowance {
        Allowance {
            bytes: mebibytes << 20,
            set_by: "/sys/fs/cgroup/memory.max".into(),
        }
    }

    #[test]
    fn tables_that_do_not_fit_are_refused_with_what_would() {
        let sizes = Sizes::default();
        let all = shapes(&sizes);
        let fits = |mebibytes, shapes: &[Shape], sizes: &Sizes| {
            ensure_fits(shapes.iter(), &allowance(mebibytes), sizes, 2)
        };
        fits(512, &all, &sizes).unwrap();
        let why = fits(160, &all, &sizes).unwrap_err().to_string();
        for word in [
            "160 MiB",
            "memory.max",
            "--max-flows 131072",
            "--max-services",
        ] {
            assert!(why.contains(word), "no {word} in {why}");
        }
        let (_, flows) = why.split_once("give --max-flows ").unwrap();
        let flows: u32 = flows.split(' ').next().unwrap().parse().unwrap();
        let fewer = Sizes {
            connections: flows,
            ..sizes
        };
        assert!(flows > 4096, "{why}");
        fits(160, &shapes(&fewer), &fewer).unwrap();
        // Not even without a connection.
        let why = fits(32, &all, &sizes).unwrap_err().to_string();
        assert!(!why.contains("or give"), "{why}");
        // Maps that are there already take nothing.
        fits(64, &[], &sizes).unwrap();
    }

    #[test]
    fn tables_leave_the_process_what_it_needs() {
        let sizes = Sizes::default();
        let room = super::super::LARGEST;
        let within = |mebibytes| within_allowance(room, &allowance(mebibytes), &sizes, 2);
        assert_eq!(within(2048), room);
        let some = within(512);
        assert!(
            some.backends < room.backends && some.services < room.services,
            "{some:?}"
        );
        let Bytes(tables) = of(&some, 2);
        assert!((128 << 20..400 << 20).contains(&tables), "{tables}");
        assert_eq!(within(1), Sizes::LEAST);
    }

    #[test]
    fn a_kernel_that_counts_maps_is_known_by_its_release() {
        for (release, counts) in [
            ("5.10.0-32-amd64", false),
            ("5.11", true),
            ("5.4.0", false),
            ("6.1.0-13-cloud-amd64", true),
            ("10.0", true),
        ] {
            assert_eq!(is_since_5_11(release), counts, "{release}");
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
