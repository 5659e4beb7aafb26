//! Histories at random, held against what a reader of the rules would ask.

use proptest::prelude::*;

use super::*;
use crate::{
    balancer::{demand::Sharing, pool::Scope, range::Range},
    model::Protocol,
};

const POOLS: [&str; 3] = ["a", "b", "c"];
const SERVICES: [&str; 8] = ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"];

#[derive(Clone, Debug)]
enum Change {
    Pools(Vec<(usize, Pool)>),
    Service(usize, Box<Demand>),
    Gone(usize),
    Others(usize, Vec<IpAddr>),
}

/// Pools of few addresses: there is never room for all.
fn pool(number: usize) -> impl Strategy<Value = Pool> {
    let four = (0_u8..4, 0_u8..4).prop_map(move |(first, more)| {
        let block = number as u8 * 8;
        Range::parse(&format!(
            "192.0.2.{}-192.0.2.{}",
            block + first,
            block + first + more
        ))
        .unwrap()
    });
    let six = (0_u8..2, 0_u8..3).prop_map(move |(first, more)| {
        Range::parse(&format!(
            "2001:db8::{number}:{first}-2001:db8::{number}:{}",
            first + more
        ))
        .unwrap()
    });
    let ranges = prop_oneof![
        four.clone().prop_map(|four| vec![four]),
        six.clone().prop_map(|six| vec![six]),
        (four, six).prop_map(|(four, six)| vec![four, six]),
    ];
    let scope = (0_i64..3, any::<bool>()).prop_map(|(priority, is_for_none)| Scope {
        priority,
        namespaces: is_for_none.then(|| BTreeSet::from(["elsewhere".into()])),
        services: Vec::new(),
    });
    (
        ranges,
        prop::bool::weighted(0.8),
        any::<bool>(),
        prop::option::weighted(0.4, scope),
    )
        .prop_map(|(ranges, auto_assign, avoids_buggy, scope)| Pool {
            ranges,
            auto_assign,
            avoids_buggy,
            scope,
        })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u8..24).prop_map(|end| IpAddr::from([192, 0, 2, end])),
        (0_u16..3, 0_u16..4)
            .prop_map(|(pool, end)| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, pool, end])),
    ]
}

fn demand() -> impl Strategy<Value = Demand> {
    let family = prop_oneof![Just(Family::Ipv4), Just(Family::Ipv6)];
    let families = family.prop_flat_map(|family| {
        prop_oneof![
            2 => Just(Families::One(family)),
            1 => Just(Families::Prefer(family)),
            1 => Just(Families::Both(family)),
        ]
    });
    let sharing = (0_u8..2, prop::option::of(0_u8..2)).prop_map(|(key, local)| Sharing {
        key: key.to_string(),
        endpoints: local.map(|app| BTreeMap::from([("app".to_owned(), app.to_string())])),
    });
    let ports =
        prop::collection::btree_set((80_u16..83).prop_map(|port| (Protocol::Tcp, port)), 1..3);
    (
        0_i64..3,
        families,
        prop::option::weighted(0.2, address()),
        prop::option::weighted(0.2, prop::sample::select(&POOLS[..])),
        prop::option::weighted(0.6, sharing),
        ports,
        prop::collection::vec(address(), 0..2),
    )
        .prop_map(
            |(created, families, wanted, pool, sharing, ports, held)| Demand {
                created,
                labels: BTreeMap::new(),
                families,
                // One address fits a Service of one family.
                addresses: wanted
                    .filter(|wanted| families == Families::One(Family::of(*wanted)))
                    .into_iter()
                    .collect(),
                pool: pool.map(Arc::from),
                sharing,
                ports,
                held,
                held_from: None,
                problem: None,
            },
        )
}

fn change() -> impl Strategy<Value = Change> {
    let pools = prop::collection::vec(any::<bool>(), POOLS.len()).prop_flat_map(|here| {
        let all: Vec<_> = (0..POOLS.len())
            .filter(|n| here[*n])
            .map(|n| pool(n).prop_map(move |pool| (n, pool)))
            .collect();
        all.prop_map(Change::Pools)
    });
    let number = 0..SERVICES.len();
    prop_oneof![
        2 => pools,
        6 => (number.clone(), demand()).prop_map(|(n, demand)| Change::Service(n, Box::new(demand))),
        2 => number.clone().prop_map(Change::Gone),
        1 => (number, prop::collection::vec(address(), 0..2)).prop_map(|(n, all)| Change::Others(n, all)),
    ]
}

fn name(number: usize) -> ObjectName {
    ObjectName::new("default", SERVICES[number])
}

fn apply(all: &mut Allocator, change: Change) {
    match change {
        Change::Pools(pools) => {
            let pools = pools.into_iter().map(|(n, pool)| (POOLS[n].into(), pool));
            all.set_pools(pools.collect(), BTreeSet::new());
        }
        Change::Service(n, demand) => all.set(&name(n), *demand),
        Change::Gone(n) => all.remove(&name(n), Vec::new()),
        Change::Others(n, addresses) => all.remove(&name(n), addresses),
    }
}

fn may_share(one: &Demand, other: &Demand) -> bool {
    let agree = one
        .sharing
        .as_ref()
        .zip(other.sharing.as_ref())
        .is_some_and(|(one, other)| one == other);
    agree && one.ports.is_disjoint(&other.ports)
}

/// Is everything that is given as the rules say?
fn check(all: &Allocator, outcomes: &BTreeMap<ObjectName, Outcome>) {
    assert_eq!(outcomes.len(), all.demands.len());
    for (one, given) in &all.given {
        let demand = &all.demands[one];
        assert_eq!(outcomes[one], Outcome::Given(given.clone()));
        let pool = &all.pools[&given.pool];
        assert!(pool.is_for(one, demand));
        assert!(
            given.addresses.iter().all(|address| pool.has(*address)),
            "{given:?} {pool:?}"
        );
        assert!(
            demand
                .pool
                .as_ref()
                .is_none_or(|wanted| *wanted == given.pool)
        );
        assert!(demand.addresses.is_empty() || same(&demand.addresses, &given.addresses));
        let families: Vec<_> = given
            .addresses
            .iter()
            .map(|address| Family::of(*address))
            .collect();
        match demand.families {
            Families::One(family) => assert_eq!(families, [family]),
            Families::Both(first) => assert_eq!(families, [first, other(first)]),
            Families::Prefer(first) => {
                assert!(
                    families.len() == 1 || families == [first, other(first)],
                    "{families:?}"
                );
            }
        }
        for (two, others) in all.given.iter().filter(|(two, _)| *two != one) {
            let meet = given
                .addresses
                .iter()
                .any(|address| others.addresses.contains(address));
            assert!(
                !meet || may_share(demand, &all.demands[two]),
                "{one} and {two}: {given:?} {others:?}"
            );
        }
    }
    for (one, outcome) in outcomes {
        let demand = &all.demands[one];
        let Outcome::Refused { why, .. } = outcome else {
            continue;
        };
        let Families::One(family) = demand.families else {
            continue;
        };
        // There is no address that it could have.
        for (pool_name, pool) in &all.pools {
            let is_asked_for =
                demand.pool.as_ref() == Some(pool_name) || !demand.addresses.is_empty();
            let is_offered = pool.auto_assign && demand.pool.is_none();
            if !pool.is_for(one, demand) || !(is_asked_for || is_offered) {
                continue;
            }
            for range in pool.ranges.iter().filter(|range| range.family() == family) {
                let mut at = Some(range.first());
                while let Some(address) = at.filter(|at| range.contains(*at)) {
                    let is_wanted = demand.addresses.is_empty() || demand.addresses == [address];
                    let of_pool = demand
                        .pool
                        .as_ref()
                        .is_none_or(|wanted| wanted == pool_name);
                    let mut users = all
                        .given
                        .iter()
                        .filter(|(_, given)| given.addresses.contains(&address));
                    let is_blocked = all.others.values().flatten().any(|other| *other == address)
                        || users.any(|(user, _)| !may_share(demand, &all.demands[user]));
                    assert!(
                        !is_wanted || !of_pool || pool.avoids(address) || is_blocked,
                        "{one} could have {address} of {pool_name}: {why}"
                    );
                    at = range::next(address);
                }
            }
        }
    }
    let counts = all.counts();
    for (name, pool) in &all.pools {
        let given: BTreeSet<_> = all
            .given
            .values()
            .filter(|given| given.pool == *name)
            .flat_map(|given| &given.addresses)
            .collect();
        let count = counts[name];
        assert_eq!(
            count.assigned_ipv4 + count.assigned_ipv6,
            given.len() as i64
        );
        let room = pool.len(Family::Ipv4) + pool.len(Family::Ipv6);
        assert_eq!(
            count.available_ipv4 + count.available_ipv6 + given.len() as i64,
            room as i64
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_address_is_given_to_two_who_may_not_share_it_and_what_is_given_stays(
        history in prop::collection::vec((change(), prop::bool::weighted(0.7)), 1..40),
    ) {
        let mut all = Allocator::default();
        let mut touched = BTreeSet::new();
        for (change, settles) in history {
            if let Change::Service(n, _) | Change::Gone(n) | Change::Others(n, _) = &change {
                touched.insert(name(*n));
            }
            apply(&mut all, change);
            if !settles {
                continue;
            }
            let before = all.given.clone();
            let twin = all.clone().settle();
            let outcomes = all.settle();
            prop_assert_eq!(&twin, &outcomes, "the same calls, another outcome");
            check(&all, &outcomes);
            // Those that asked for nothing new keep what their pools have still.
            for (service, had) in before.iter().filter(|(service, _)| !touched.contains(*service)) {
                let pool = all.pool_of(&had.addresses).map(|pool| &all.pools[pool]);
                let demand = &all.demands[service];
                let is_of_pool = all.pool_of(&had.addresses) == demand.pool.as_ref() || demand.pool.is_none();
                if pool.is_some_and(|pool| pool.is_for(service, demand)) && is_of_pool {
                    let has = &all.given[service];
                    prop_assert!(
                        had.addresses.iter().all(|address| has.addresses.contains(address)),
                        "{} had {:?} and has {:?}", service, had, has
                    );
                }
            }
            touched.clear();
            // Nothing happens, and nothing changes.
            let mut again = all.clone();
            // What is in vain in a status is taken out of it.
            for (service, demand) in &mut again.demands {
                if !all.given.contains_key(service) {
                    demand.held.clear();
                }
            }
            again.settle();
            prop_assert_eq!(&again.given, &all.given);
            // The next controller knows what the statuses say, and nothing else.
            let mut next = Allocator::default();
            next.set_pools(all.pools.clone(), BTreeSet::new());
            for (service, addresses) in &all.others {
                next.remove(service, addresses.clone());
            }
            for (service, demand) in &all.demands {
                let given = all.given.get(service);
                next.set(service, Demand {
                    held: given.map(|given| given.addresses.clone()).unwrap_or_default(),
                    held_from: given.map(|given| Arc::clone(&given.pool)),
                    ..demand.clone()
                });
            }
            let outcomes = next.settle();
            prop_assert_eq!(&next.given, &all.given, "{:?}", outcomes);
        }
    }
}
