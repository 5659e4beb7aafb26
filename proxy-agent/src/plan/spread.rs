//! The contents of a service's slots: how often each endpoint stands there, and where.
//!
//! In: endpoints with their weights, in the order of their addresses. Out: a list of them, from which the programs take one by a hash
//! (`proxy_common::service::select`). The one rule: a list depends on nothing but addresses, ports and weights, so that all nodes
//! that have the same endpoints have the same list.
//!
//! Without weights a random choice needs each endpoint once. With weights it needs each as often as its weight says. A consistent choice
//! needs a table in which few places change hands when an endpoint comes or goes: Maglev's (Eisenbud et al., "Maglev: A Fast and
//! Reliable Software Network Load Balancer", NSDI 2016, section 3.4), whose turns weights lengthen.

use std::net::{IpAddr, SocketAddr};

use crate::model::Balancing;

/// An endpoint that may be chosen. Its weight is not 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member<T> {
    pub socket: SocketAddr,
    pub weight: u16,
    pub id: T,
}

/// Sizes of Maglev's tables, which are primes: each serves as many endpoints as are in it some 800 times. So one that goes moves less
/// than 1 % of the places that are not its own. A service that passes from one size to the next is spread anew.
const SIZES: [usize; 4] = [1021, 8191, 65_521, 131_071];
/// The largest number of endpoints that each of them, but the last, is for.
const FOR: [usize; 3] = [2, 10, 80];
/// A smaller table, for want of room, has each endpoint so many times at least.
const LEAST: usize = 10;
/// Places of a list by weights, at most, unless there are more endpoints than that.
const WEIGHTED: u32 = 4096;

/// How long a list may be: each `Shorter` is one that fits where the one before it does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    /// As long as it is good.
    Full,
    /// A smaller table, by so many sizes.
    Smaller(usize),
    /// Each endpoint once, whatever its weight.
    Least,
}

impl Length {
    /// From the best to the least.
    pub fn all() -> impl Iterator<Item = Self> {
        let smaller = (1..SIZES.len()).map(Self::Smaller);
        [Self::Full].into_iter().chain(smaller).chain([Self::Least])
    }
}

/// The list of a service's slots. `None` where there is none of this length.
pub fn list<T: Copy>(how: Balancing, members: &[Member<T>], length: Length) -> Option<Vec<T>> {
    let each_once = || members.iter().map(|member| member.id).collect();
    if members.len() < 2 {
        return (length == Length::Full).then(each_once);
    }
    let is_even = members.iter().all(|one| one.weight == members[0].weight);
    match (how, length) {
        (Balancing::Random, Length::Full) if is_even => Some(each_once()),
        (Balancing::Random, Length::Full) => Some(by_weight(members)),
        (Balancing::Random, Length::Smaller(_)) => None,
        (Balancing::Random, Length::Least) if is_even => None,
        (_, Length::Least) => Some(each_once()),
        (Balancing::Maglev | Balancing::SourceHash, _) => {
            let size = match length {
                Length::Smaller(by) => {
                    let size = SIZES[rank(members.len()).checked_sub(by)?];
                    (size >= LEAST * members.len()).then_some(size)?
                }
                Length::Full | Length::Least => SIZES[rank(members.len())],
            };
            Some(maglev(members, size.max(members.len())))
        }
    }
}

/// The place in [`SIZES`] of the table for so many endpoints.
fn rank(members: usize) -> usize {
    FOR.iter().take_while(|most| members > **most).count()
}

/// Each endpoint as often as its weight says: exactly where the list is short, else to half a place, but once at least.
fn by_weight<T: Copy>(members: &[Member<T>]) -> Vec<T> {
    let weights = members.iter().map(|one| u32::from(one.weight));
    let divisor = weights.clone().fold(0, gcd);
    let total: u32 = weights.map(|weight| weight / divisor).sum();
    let mut list = Vec::new();
    for member in members {
        let weight = u32::from(member.weight) / divisor;
        let places = match total <= WEIGHTED {
            true => weight,
            false => {
                let scaled = u64::from(weight) * u64::from(WEIGHTED) + u64::from(total / 2);
                (scaled / u64::from(total)).max(1) as u32
            }
        };
        list.extend((0..places).map(|_| member.id));
    }
    list
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Maglev's table. Each endpoint has an order of all places, and takes its first free one when it is its turn; one of half the largest
/// weight has every second turn.
fn maglev<T: Copy>(members: &[Member<T>], size: usize) -> Vec<T> {
    struct Row {
        place: usize,
        skip: usize,
        /// What its turns have cost so far.
        spent: u64,
    }
    let mut rows: Vec<Row> = members
        .iter()
        .map(|member| {
            let hash = identity(member.socket);
            Row {
                place: (hash >> 32) as usize % size,
                skip: hash as u32 as usize % (size - 1) + 1,
                spent: 0,
            }
        })
        .collect();
    let largest = members.iter().map(|one| u64::from(one.weight)).max();
    let largest = largest.unwrap_or(1).max(1);
    let mut table: Vec<Option<T>> = vec![None; size];
    let mut left = size;
    for turn in 1_u64.. {
        for (row, member) in rows.iter_mut().zip(members) {
            if turn * u64::from(member.weight) < row.spent + largest {
                continue;
            }
            if left == 0 {
                break;
            }
            row.spent += largest;
            while table[row.place].is_some() {
                row.place = (row.place + row.skip) % size;
            }
            table[row.place] = Some(member.id);
            left -= 1;
        }
        if left == 0 {
            break;
        }
    }
    table.into_iter().flatten().collect()
}

/// The same number on every node and in every version: it is part of where connections go.
fn identity(socket: SocketAddr) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let begin = 0xcbf2_9ce4_8422_2325;
    let hash = match socket.ip() {
        IpAddr::V4(addr) => addr.octets().into_iter().fold(begin, fnv),
        IpAddr::V6(addr) => addr.octets().into_iter().fold(begin, fnv),
    };
    let mut hash = socket.port().to_be_bytes().into_iter().fold(hash, fnv);
    // The finaliser of MurmurHash3, 64 bits.
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Pods of a few nodes.
    fn members(weights: &[u16]) -> Vec<Member<usize>> {
        let member = |(id, weight): (usize, &u16)| Member {
            socket: SocketAddr::from(([10, 244, (id / 50) as u8, (id % 50) as u8 + 2], 8080)),
            weight: *weight,
            id,
        };
        weights.iter().enumerate().map(member).collect()
    }

    fn full(how: Balancing, members: &[Member<usize>]) -> Vec<usize> {
        list(how, members, Length::Full).unwrap()
    }

    fn counts(list: &[usize]) -> HashMap<usize, usize> {
        let mut counts = HashMap::new();
        for id in list {
            *counts.entry(*id).or_default() += 1;
        }
        counts
    }

    #[test]
    fn an_even_random_choice_has_each_endpoint_once() {
        for weight in [1, 7] {
            let list = full(Balancing::Random, &members(&[weight; 5]));
            assert_eq!(list, [0, 1, 2, 3, 4]);
        }
        for how in Balancing::ALL {
            assert_eq!(full(how, &members(&[3])), [0]);
            assert!(full(how, &[]).is_empty());
        }
    }

    #[test]
    fn shares_are_those_of_the_weights_within_two_percent() {
        for weights in [
            &[2, 1, 1][..],
            &[10, 20, 70],
            &[100, 1],
            &[65_535, 65_534, 30_000],
            &[1000, 999, 998, 997, 37],
        ] {
            for how in Balancing::ALL {
                let list = full(how, &members(weights));
                let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
                for (id, weight) in weights.iter().enumerate() {
                    let share = counts(&list)[&id] as f64 / list.len() as f64;
                    let wanted = f64::from(*weight) / total;
                    assert!(
                        (share / wanted - 1.0).abs() < 0.02,
                        "{how}: {id} of {weights:?} has {share}, not {wanted}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_list_by_weights_is_bounded_and_leaves_nobody_out() {
        let mut weights = vec![65_535; 3000];
        weights[7] = 1;
        let list = full(Balancing::Random, &members_of_many(&weights));
        assert!(list.len() <= 2 * WEIGHTED as usize, "{}", list.len());
        assert_eq!(counts(&list).len(), 3000);
    }

    fn members_of_many(weights: &[u16]) -> Vec<Member<usize>> {
        let mut all = members(&vec![1; weights.len()]);
        for (member, weight) in all.iter_mut().zip(weights) {
            member.weight = *weight;
        }
        all
    }

    /// An endpoint that goes takes its places with it: how many of the others change hands.
    fn disruption(before: &[usize], after: &[usize], gone: usize) -> f64 {
        assert_eq!(before.len(), after.len());
        let pairs = before.iter().zip(after);
        let moved = pairs.filter(|(before, after)| **before != gone && before != after);
        moved.count() as f64 / before.len() as f64
    }

    #[test]
    fn an_endpoint_that_comes_or_goes_moves_one_percent_of_what_is_not_its_own() {
        for (count, weight) in [(4, 1), (9, 1), (10, 3), (40, 1), (80, 1), (120, 1)] {
            let mut weights = vec![1; count];
            weights[count / 2] = weight;
            let all = members(&weights);
            let before = full(Balancing::Maglev, &all);
            for gone in (0..count).step_by(count.div_ceil(12)) {
                let mut rest = all.clone();
                rest.remove(gone);
                // Its size goes by how many there are: this one stays.
                if SIZES[rank(rest.len())] != before.len() {
                    continue;
                }
                let after = full(Balancing::Maglev, &rest);
                let moved = disruption(&before, &after, gone);
                assert!(moved < 0.01, "{gone} of {count}: {moved}");
            }
        }
    }

    #[test]
    fn even_shares_of_a_table_differ_by_one_place() {
        for count in [3, 10, 79] {
            let counts = counts(&full(Balancing::SourceHash, &members(&vec![1; count])));
            let (least, most) = (counts.values().min(), counts.values().max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{count}: {counts:?}");
        }
    }

    #[test]
    fn a_table_depends_on_addresses_alone() {
        let all = members(&[1; 20]);
        let named: Vec<_> = full(Balancing::Maglev, &all)
            .iter()
            .map(|id| all[*id].socket)
            .collect();
        let other_ids: Vec<_> = all
            .iter()
            .map(|one| Member {
                id: one.socket,
                socket: one.socket,
                weight: 5,
            })
            .collect();
        let of_others = list(Balancing::Maglev, &other_ids, Length::Full).unwrap();
        assert_eq!(named, of_others);
        // Of this and every later version.
        let identity = identity("10.244.0.2:8080".parse().unwrap());
        assert_eq!(identity, 7_444_994_972_933_899_485);
    }

    #[test]
    fn for_want_of_room_a_table_becomes_smaller_and_a_list_in_the_end() {
        let lengths = |how, count: usize, weight| {
            let mut all = members(&vec![1; count]);
            all[0].weight = weight;
            let lists = Length::all().filter_map(|length| list(how, &all, length));
            lists.map(|list| list.len()).collect::<Vec<_>>()
        };
        assert_eq!(lengths(Balancing::Maglev, 2, 1), [1021, 2]);
        assert_eq!(lengths(Balancing::Maglev, 50, 1), [65_521, 8191, 1021, 50]);
        assert_eq!(
            lengths(Balancing::SourceHash, 200, 1),
            [131_071, 65_521, 8191, 200]
        );
        assert_eq!(lengths(Balancing::Random, 50, 1), [50]);
        assert_eq!(lengths(Balancing::Random, 50, 3), [52, 50]);
        assert_eq!(lengths(Balancing::Maglev, 1, 1), [1]);
    }
}
