//! Decides what becomes of each map of an earlier agent: shared, copied, made anew or lost.
//!
//! In: the shapes of this agent, and of what is pinned. Out: a [`Fate`] for each map. The one rule: a map whose layout may be another
//! is not read.
//!
//! A version of the ABI whose agent can make its map of an older version's has its place here, as a fate of its own: the version
//! that is found is at hand.

use std::collections::HashMap;

use proxy_common::abi::{self, map::Resized, names};

use super::{
    super::shape::{Pinned, Role, Shape},
    convert,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The same map goes on being used.
    Shared,
    /// What it holds is written into one of another size.
    Copied,
    /// What it holds is written into maps of another kind ([`super::convert`]).
    Converted,
    /// There was none.
    Made,
    /// One of another layout: it is not read, and this agent's begins empty.
    Lost,
}

pub type Fates = HashMap<&'static str, Fate>;

/// Judges what `pinned` says of each map of a directory whose ABI has this version.
pub fn judge(shapes: &[Shape], version: u32, pinned: impl Fn(&str) -> Option<Pinned>) -> Fates {
    let mut fates: Fates = shapes
        .iter()
        .map(|shape| {
            let fate = match pinned(shape.name) {
                None => Fate::Made,
                Some(found) => one(shape, version, &found),
            };
            (shape.name, fate)
        })
        .collect();
    together(shapes, &mut fates);
    for family in 0..2 {
        keep_meaning(family, &mut fates);
    }
    fates
}

fn one(shape: &Shape, version: u32, found: &Pinned) -> Fate {
    let is_known = (shape.since..=abi::VERSION).contains(&version);
    if convert::is_of_old(shape.name, version, found, shape) {
        Fate::Converted
    } else if !is_known || !shape.has_layout_of(found) {
        Fate::Lost
    } else if shape.max_entries == found.max_entries {
        Fate::Shared
    } else {
        match shape.role.resized() {
            Resized::Shared => Fate::Shared,
            Resized::Copied => Fate::Copied,
            Resized::Lost => Fate::Lost,
        }
    }
}

/// The plan's maps refer to each other: the old programs see all of them as they were, the new ones all of them as they are made.
fn together(shapes: &[Shape], fates: &mut Fates) {
    let plan = || shapes.iter().filter(|shape| shape.role == Role::Plan);
    if plan().all(|shape| fates[shape.name] == Fate::Shared) {
        return;
    }
    for shape in plan() {
        if fates[shape.name] == Fate::Shared {
            fates.insert(shape.name, Fate::Copied);
        }
    }
}

/// What names backends and services by their ids means nothing where these are given anew.
fn keep_meaning(family: usize, fates: &mut Fates) {
    let are_kept = |fates: &Fates, name| matches!(fates[name], Fate::Shared | Fate::Copied);
    let backends = are_kept(fates, names::BACKENDS[family]);
    let services = are_kept(fates, names::SERVICES);
    let tables = [names::FLOWS, names::DATAGRAMS, names::PENDING].map(|names| names[family]);
    let affinity = names::AFFINITY[family];
    for (name, are_kept) in tables
        .map(|name| (name, backends))
        .into_iter()
        .chain([(affinity, backends && services)])
    {
        if !are_kept && matches!(fates[name], Fate::Shared | Fate::Converted) {
            fates.insert(name, Fate::Lost);
        }
    }
    // A flow moves from one to another.
    if tables.iter().any(|name| fates[name] == Fate::Lost) {
        for name in tables {
            fates.insert(name, Fate::Lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use aya::maps::MapType;

    use super::{
        super::super::{Sizes, shape::shapes},
        *,
    };

    /// What an agent of the same version with default sizes has pinned, after `change`.
    fn judged(version: u32, sizes: &Sizes, change: impl Fn(&mut Shape)) -> Fates {
        let mut old = shapes(&Sizes::default());
        old.iter_mut().for_each(change);
        judge(&shapes(sizes), version, |name| {
            let shape = old.iter().find(|shape| shape.name == name)?;
            Some(shape.pinned())
        })
    }

    fn of_fate(fates: &Fates, fate: Fate) -> Vec<&'static str> {
        let mut names: Vec<_> = fates
            .iter()
            .filter(|(_, found)| **found == fate)
            .map(|(name, _)| *name)
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_the_same_is_shared() {
        let fates = judged(abi::VERSION, &Sizes::default(), |_| {});
        assert!(
            fates.values().all(|fate| *fate == Fate::Shared),
            "{fates:?}"
        );
    }

    #[test]
    fn another_size_copies_the_whole_plan_and_no_flow() {
        let sizes = Sizes {
            services: 1,
            connections: 1,
            ..Sizes::default()
        };
        let fates = judged(abi::VERSION, &sizes, |_| {});
        assert_eq!(
            of_fate(&fates, Fate::Copied),
            [
                "BACKENDS_4",
                "BACKENDS_6",
                "FRONTENDS_4",
                "FRONTENDS_6",
                "GATE",
                "RANGES_4",
                "RANGES_6",
                "SERVICES",
                "SERVICE_COUNTS",
                "SERVICE_HELD",
                "SLOTS",
            ]
        );
        // Connections that ended are forgotten in the queues; the agent removes them.
        assert_eq!(of_fate(&fates, Fate::Lost), ["CLOSED_4", "CLOSED_6"]);
    }

    #[test]
    fn nothing_of_a_newer_version_is_read() {
        let fates = judged(abi::VERSION + 1, &Sizes::default(), |_| {});
        assert!(fates.values().all(|fate| *fate == Fate::Lost), "{fates:?}");
    }

    #[test]
    fn an_older_version_is_read_where_its_layout_is_the_same() {
        // Version 5: devices and the configuration got what is checked, and TC a program that holds fragments. Version 6: connections and
        // datagrams have a table each. Version 7: held packets have a counter.
        let of_5 = [
            "CLOSED_4",
            "CLOSED_6",
            "CLOSED_ENDS",
            "CONFIG",
            "DATAGRAMS_4",
            "DATAGRAMS_6",
            "DEVICES",
            "FLOWS_4",
            "FLOWS_6",
            "FULL_SINCE",
            "NEXT_HOPS",
            "PENDING_4",
            "PENDING_6",
            "SERVICE_HELD",
            "SHARES_4",
            "SHARES_6",
            "SLOW_TC",
            "SLOW_XDP",
        ];
        let fates = judged(4, &Sizes::default(), |_| {});
        assert_eq!(of_fate(&fates, Fate::Lost), of_5);
        assert_eq!(fates["BACKENDS_6"], Fate::Shared);
    }

    #[test]
    fn flows_and_affinity_go_with_the_backends_that_they_name() {
        let fates = judged(abi::VERSION, &Sizes::default(), |shape| {
            if shape.name == "BACKENDS_6" {
                shape.value += 4;
            }
        });
        assert_eq!(
            of_fate(&fates, Fate::Lost),
            [
                "AFFINITY_6",
                "BACKENDS_6",
                "DATAGRAMS_6",
                "FLOWS_6",
                "PENDING_6"
            ]
        );
        assert_eq!(fates["BACKENDS_4"], Fate::Copied);
        assert_eq!(fates["FLOWS_4"], Fate::Shared);
    }

    #[test]
    fn a_flow_table_is_not_kept_without_the_other() {
        let fates = judged(abi::VERSION, &Sizes::default(), |shape| {
            if shape.name == "PENDING_4" {
                shape.key += 4;
            }
        });
        assert_eq!(
            of_fate(&fates, Fate::Lost),
            ["DATAGRAMS_4", "FLOWS_4", "PENDING_4"]
        );
    }

    #[test]
    fn the_one_table_of_confirmed_flows_of_before_is_converted() {
        let old = |shape: &Shape| match shape.name {
            "FLOWS_4" | "FLOWS_6" => Some(Pinned {
                kind: MapType::LruHash,
                ..shape.pinned()
            }),
            "DATAGRAMS_4" | "DATAGRAMS_6" | "FULL_SINCE" => None,
            _ => Some(shape.pinned()),
        };
        let shapes = shapes(&Sizes::default());
        for (version, fate) in [
            (1, Fate::Lost),
            (2, Fate::Converted),
            (5, Fate::Converted),
            (6, Fate::Lost),
        ] {
            let fates = judge(&shapes, version, |name| {
                old(shapes.iter().find(|shape| shape.name == name)?)
            });
            assert_eq!(fates["FLOWS_4"], fate, "{version}");
            let of_others = match fate {
                Fate::Converted => [Fate::Shared, Fate::Made],
                _ => [Fate::Lost; 2],
            };
            assert_eq!(
                [fates["PENDING_4"], fates["DATAGRAMS_4"]],
                of_others,
                "{version}"
            );
        }
    }
}
