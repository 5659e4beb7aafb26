//! Who has which address: a function of pools, demands and what was given before.
//!
//! In: pools, what each Service asks for, addresses that others have. Out, from [`Allocator::settle`]: for each Service the
//! addresses that it has now, or why it has none. Nothing here does I/O, looks at a clock or draws a number: the same calls
//! give the same addresses.
//!
//! The rules, of which the first is the one that never bends:
//!
//! 1. An address is two Services' only where they may share it.
//! 2. What is given stays, for as long as the Service may have it. Where two cannot go on together, the one goes that changed.
//! 3. Who was created first is served first.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    crd::IPAddressPoolStatus,
    demand::{Demand, Families, other},
    pool::Pool,
    range,
};
use crate::model::{Family, ObjectName};

/// What a Service has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    pub pool: Arc<str>,
    /// One, or one of each family; that of the Service's first family stands first.
    pub addresses: Vec<IpAddr>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Given(Given),
    /// It has none.
    Refused {
        why: String,
        /// Why it lost what it had until now, if it had something.
        lost: Option<String>,
    },
}

#[derive(Clone, Default, Debug)]
pub struct Allocator {
    pools: BTreeMap<Arc<str>, Pool>,
    /// Pools that are there and cannot be read: what is of them stays.
    unread: BTreeSet<Arc<str>>,
    demands: BTreeMap<ObjectName, Demand>,
    /// Since the last time that all was settled.
    changed: BTreeSet<ObjectName>,
    given: BTreeMap<ObjectName, Given>,
    /// Addresses of Services that are none of ours.
    others: BTreeMap<ObjectName, Vec<IpAddr>>,
}

/// Those who have an address now.
#[derive(Clone, Default, Debug)]
struct Users {
    ours: Vec<ObjectName>,
    is_others: bool,
}

type Taken = BTreeMap<IpAddr, Users>;

impl Allocator {
    /// Takes the place of all pools of before. `unread` are the names of those that are there in a form that cannot be
    /// read.
    pub fn set_pools(&mut self, pools: BTreeMap<Arc<str>, Pool>, unread: BTreeSet<Arc<str>>) {
        self.pools = pools;
        self.unread = unread;
    }

    /// A Service asks for this from now on.
    pub fn set(&mut self, name: &ObjectName, demand: Demand) {
        self.others.remove(name);
        let before = self.demands.insert(name.clone(), demand);
        let asks = |demand: &Demand| Demand {
            held: Vec::new(),
            held_from: None,
            ..demand.clone()
        };
        // What its status says is what was written there.
        if before.as_ref().map(asks) != self.demands.get(name).map(asks) {
            self.changed.insert(name.clone());
        }
    }

    /// A Service is gone, or is none of ours: it may have addresses all the same.
    pub fn remove(&mut self, name: &ObjectName, has: Vec<IpAddr>) {
        self.demands.remove(name);
        self.changed.remove(name);
        self.given.remove(name);
        match has.is_empty() {
            true => self.others.remove(name),
            false => self.others.insert(name.clone(), has),
        };
    }

    /// What a Service has.
    pub fn given(&self, name: &ObjectName) -> Option<&Given> {
        self.given.get(name)
    }

    /// Gives every Service what it may have.
    pub fn settle(&mut self) -> BTreeMap<ObjectName, Outcome> {
        let mut lost = BTreeMap::new();
        // What one leaves in the middle of a round, another may have in the next. From the second on nothing is lost any
        // more, so there is a last one.
        loop {
            let before = self.given.clone();
            let mut outcomes = self.round(&mut lost);
            if self.given == before {
                for (name, outcome) in &mut outcomes {
                    if let Outcome::Refused { lost: why, .. } = outcome {
                        *why = lost.remove(name);
                    }
                }
                return outcomes;
            }
        }
    }

    fn round(&mut self, lost: &mut BTreeMap<ObjectName, String>) -> BTreeMap<ObjectName, Outcome> {
        let mut taken = Taken::new();
        for address in self.others.values().flatten() {
            taken.entry(*address).or_default().is_others = true;
        }
        let order = self.order();
        let mut given = BTreeMap::new();
        for name in &order {
            match self.kept(name, &taken) {
                Ok(Some(kept)) => {
                    enter(&mut taken, name, &kept.addresses);
                    given.insert(name.clone(), kept);
                }
                Ok(None) => {}
                Err(why) => {
                    lost.entry(name.clone()).or_insert(why);
                }
            }
        }
        for name in &order {
            if let Some(has) = given.remove(name)
                && let Some(has) = self.completed(name, has, &mut taken)
            {
                given.insert(name.clone(), has);
            }
        }
        let mut outcomes = BTreeMap::new();
        for name in &order {
            if !given.contains_key(name) {
                match self.fresh(name, &taken) {
                    Ok(new) => {
                        enter(&mut taken, name, &new.addresses);
                        given.insert(name.clone(), new);
                    }
                    Err(why) => {
                        outcomes.insert(name.clone(), Outcome::Refused { why, lost: None });
                    }
                }
            }
        }
        self.changed.clear();
        let all = given
            .iter()
            .map(|(name, given)| (name.clone(), Outcome::Given(given.clone())));
        outcomes.extend(all);
        self.given = given;
        outcomes
    }

    /// How much of each pool is given.
    pub fn counts(&self) -> BTreeMap<Arc<str>, IPAddressPoolStatus> {
        let mut assigned: BTreeMap<(&Arc<str>, Family), BTreeSet<IpAddr>> = BTreeMap::new();
        for given in self.given.values() {
            for address in &given.addresses {
                let of_pool = assigned.entry((&given.pool, Family::of(*address)));
                of_pool.or_default().insert(*address);
            }
        }
        let count = |name, pool: &Pool, family| {
            let assigned = assigned.get(&(name, family)).map_or(0, BTreeSet::len) as i64;
            let all = i64::try_from(pool.len(family)).unwrap_or(i64::MAX);
            (assigned, all - assigned)
        };
        let counts = self.pools.iter().map(|(name, pool)| {
            let (assigned_ipv4, available_ipv4) = count(name, pool, Family::Ipv4);
            let (assigned_ipv6, available_ipv6) = count(name, pool, Family::Ipv6);
            let status = IPAddressPoolStatus {
                assigned_ipv4,
                assigned_ipv6,
                available_ipv4,
                available_ipv6,
            };
            (Arc::clone(name), status)
        });
        counts.collect()
    }

    /// Those that have something come before those that only say so in their status; those that changed come last, so that
    /// they make room for others; the oldest come first.
    fn order(&self) -> Vec<ObjectName> {
        let mut order: Vec<_> = self.demands.iter().collect();
        order.sort_by_key(|(name, demand)| {
            let is_new = !self.given.contains_key(*name);
            (is_new, self.changed.contains(*name), demand.created, *name)
        });
        order.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// What a Service keeps of what it has, or of what its status says. `Err` where it may keep nothing.
    fn kept(&self, name: &ObjectName, taken: &Taken) -> Result<Option<Given>, String> {
        let demand = &self.demands[name];
        let has = match self.given.get(name) {
            Some(given) => given.addresses.clone(),
            None => demand.held.clone(),
        };
        if has.is_empty() {
            return Ok(None);
        }
        let texts = list(&has);
        if let Some(pool) = demand
            .held_from
            .as_ref()
            .filter(|pool| self.unread.contains(*pool))
        {
            for address in &has {
                if let Some(users) = taken.get(address) {
                    self.can_share(name, *address, users)?;
                }
            }
            let pool = Arc::clone(pool);
            return Ok(Some(Given {
                pool,
                addresses: has,
            }));
        }
        let has = match demand.families {
            // A Service that had two families and has one now goes on with its address of that one.
            Families::One(family) => has
                .into_iter()
                .filter(|one| Family::of(*one) == family)
                .take(1)
                .collect(),
            Families::Prefer(_) | Families::Both(_) => has,
        };
        let has = sorted(has, demand);
        let families: BTreeSet<_> = has.iter().map(|address| Family::of(*address)).collect();
        if families.len() != has.len() || has.is_empty() {
            return Err(format!("{texts} is not of the families of the Service"));
        }
        let (pool, has) = match self.pool_of(&has) {
            Some(pool) => (pool, has),
            // One of two goes on where another pool has no two: see `completed`.
            None if has.len() > 1 => has
                .iter()
                .find_map(|one| Some((self.pool_of(&[*one])?, vec![*one])))
                .ok_or_else(|| format!("{texts} is in no pool"))?,
            None => return Err(format!("{texts} is in no pool")),
        };
        self.may_have(name, pool, &has, taken)?;
        if demand.problem.is_none()
            && !demand.addresses.is_empty()
            && !same(&demand.addresses, &has)
        {
            return Err(format!(
                "it asks for {} instead of {texts}",
                list(&demand.addresses)
            ));
        }
        Ok(Some(Given {
            pool: Arc::clone(pool),
            addresses: has,
        }))
    }

    /// The rest of a Service that keeps one address and could have two. `None` where one is not enough.
    fn completed(&self, name: &ObjectName, has: Given, taken: &mut Taken) -> Option<Given> {
        let demand = &self.demands[name];
        let [address] = has.addresses[..] else {
            return Some(has);
        };
        if matches!(demand.families, Families::One(_))
            || demand.problem.is_some()
            || self.unread.contains(&has.pool)
        {
            return Some(has);
        }
        let had = self
            .given
            .get(name)
            .map_or(&demand.held, |given| &given.addresses);
        if had.len() > 1 {
            // Its pool has lost a family. It goes where both are, and stays where nobody has both.
            leave(taken, name, &has.addresses);
            let elsewhere = self
                .fresh(name, taken)
                .ok()
                .filter(|new| new.addresses.len() > 1);
            if let Some(new) = elsewhere {
                enter(taken, name, &new.addresses);
                return Some(new);
            }
            enter(taken, name, &has.addresses);
        }
        let pool = &self.pools[&has.pool];
        let family = other(Family::of(address));
        if let Some(second) = self.free(name, pool, family, taken) {
            enter(taken, name, &[second]);
            let addresses = sorted(vec![address, second], demand);
            return Some(Given {
                pool: has.pool,
                addresses,
            });
        }
        match demand.families {
            Families::Both(_) => {
                leave(taken, name, &has.addresses);
                None
            }
            Families::Prefer(_) | Families::One(_) => Some(has),
        }
    }

    /// Addresses for a Service that has none.
    fn fresh(&self, name: &ObjectName, taken: &Taken) -> Result<Given, String> {
        let demand = &self.demands[name];
        if let Some(problem) = &demand.problem {
            return Err(problem.to_string());
        }
        if self.pools.is_empty() {
            return Err("there is no IPAddressPool".to_owned());
        }
        if !demand.addresses.is_empty() {
            let texts = list(&demand.addresses);
            let pool = self.pool_of(&demand.addresses);
            let pool = pool.ok_or_else(|| match demand.addresses.len() {
                1 => format!("{texts} is in no IPAddressPool"),
                _ => format!("no IPAddressPool has all of {texts}"),
            })?;
            self.may_have(name, pool, &demand.addresses, taken)?;
            for address in &demand.addresses {
                if taken.get(address).is_some_and(|users| users.is_others) {
                    return Err(format!(
                        "{address} is in use by a Service of another load balancer"
                    ));
                }
            }
            return Ok(Given {
                pool: Arc::clone(pool),
                addresses: sorted(demand.addresses.clone(), demand),
            });
        }
        if let Some(wanted) = &demand.pool {
            let (wanted, pool) = self
                .pools
                .get_key_value(wanted)
                .ok_or_else(|| format!("there is no IPAddressPool {wanted}"))?;
            if !pool.is_for(name, demand) {
                return Err(format!(
                    "IPAddressPool {wanted} is not for this Service (spec.serviceAllocation)"
                ));
            }
            return self.best(name, &[(wanted, pool)], taken).ok_or_else(|| {
                format!(
                    "IPAddressPool {wanted} has no free address {}",
                    kind_of(demand)
                )
            });
        }
        let (mut pinned, common): (Vec<_>, Vec<_>) = self
            .pools
            .iter()
            .filter(|(_, pool)| pool.auto_assign && pool.is_for(name, demand))
            .partition(|(_, pool)| pool.scope.is_some());
        // The order of names is that of the map, and stays.
        pinned.sort_by_key(|(_, pool)| pool.rank());
        let looked_in: Vec<_> = pinned
            .iter()
            .chain(&common)
            .map(|(name, _)| &***name)
            .collect();
        self.best(name, &pinned, taken)
            .or_else(|| self.best(name, &common, taken))
            .ok_or_else(|| match looked_in.is_empty() {
                true => {
                    "no IPAddressPool is for this Service (spec.autoAssign, spec.serviceAllocation)"
                        .to_owned()
                }
                false => format!(
                    "no free address {} in IPAddressPool {}",
                    kind_of(demand),
                    looked_in.join(", ")
                ),
            })
    }

    /// The first pool that has all, or the first one that has something for those who take that.
    fn best(
        &self,
        name: &ObjectName,
        pools: &[(&Arc<str>, &Pool)],
        taken: &Taken,
    ) -> Option<Given> {
        let demand = &self.demands[name];
        let first = demand.families.first();
        let mut second_best: [Option<Given>; 2] = [None, None];
        for (pool_name, pool) in pools {
            let given = |addresses| Given {
                pool: Arc::clone(pool_name),
                addresses,
            };
            let one = self.free(name, pool, first, taken);
            if matches!(demand.families, Families::One(_)) {
                match one {
                    Some(one) => return Some(given(vec![one])),
                    None => continue,
                }
            }
            match (one, self.free(name, pool, other(first), taken)) {
                (Some(one), Some(two)) => return Some(given(vec![one, two])),
                (one, two) => {
                    for (place, address) in second_best.iter_mut().zip([one, two]) {
                        if let (None, Some(address)) = (&place, address) {
                            *place = Some(given(vec![address]));
                        }
                    }
                }
            }
        }
        match demand.families {
            Families::Prefer(_) => second_best.into_iter().flatten().next(),
            Families::One(_) | Families::Both(_) => None,
        }
    }

    /// The first address of the pool that the Service may have: one that nobody has, or that may be shared.
    fn free(
        &self,
        name: &ObjectName,
        pool: &Pool,
        family: Family,
        taken: &Taken,
    ) -> Option<IpAddr> {
        for range in pool.ranges.iter().filter(|range| range.family() == family) {
            let mut at = Some(range.first());
            for (&used, users) in taken.range(range.first()..=range.last()) {
                while let Some(free) = at.filter(|free| *free < used) {
                    if !pool.avoids(free) {
                        return Some(free);
                    }
                    at = range::next(free);
                }
                if !pool.avoids(used)
                    && !users.is_others
                    && self.can_share(name, used, users).is_ok()
                {
                    return Some(used);
                }
                at = range::next(used);
            }
            while let Some(free) = at.filter(|free| range.contains(*free)) {
                if !pool.avoids(free) {
                    return Some(free);
                }
                at = range::next(free);
            }
        }
        None
    }

    /// May the Service have these addresses of the pool, beside those who have them?
    fn may_have(
        &self,
        name: &ObjectName,
        pool_name: &Arc<str>,
        addresses: &[IpAddr],
        taken: &Taken,
    ) -> Result<(), String> {
        let demand = &self.demands[name];
        if !self.pools[pool_name].is_for(name, demand) {
            return Err(format!(
                "{} is of IPAddressPool {pool_name}, which is not for this Service (spec.serviceAllocation)",
                list(addresses)
            ));
        }
        if let Some(wanted) = demand.pool.as_ref().filter(|wanted| *wanted != pool_name) {
            return Err(format!(
                "{} is of IPAddressPool {pool_name}, not of {wanted}",
                list(addresses)
            ));
        }
        for address in addresses {
            if let Some(users) = taken.get(address) {
                self.can_share(name, *address, users)?;
            }
        }
        Ok(())
    }

    fn can_share(&self, name: &ObjectName, address: IpAddr, users: &Users) -> Result<(), String> {
        let demand = &self.demands[name];
        for user in users.ours.iter().filter(|user| *user != name) {
            let theirs = &self.demands[user];
            let why = match (&demand.sharing, &theirs.sharing) {
                (None, _) => "this Service shares none (annotation metallb.io/allow-shared-ip)",
                (_, None) => "which shares none (annotation metallb.io/allow-shared-ip)",
                (Some(own), Some(other)) if own.key != other.key => {
                    "whose metallb.io/allow-shared-ip is another one"
                }
                (Some(own), Some(other)) if own != other => {
                    "whose endpoints are other ones (externalTrafficPolicy, selector)"
                }
                _ => match demand.ports.intersection(&theirs.ports).next() {
                    Some((protocol, port)) => {
                        return Err(format!(
                            "{address} is in use by Service {user} with port {port}/{protocol}, too"
                        ));
                    }
                    None => continue,
                },
            };
            return Err(format!("{address} is in use by Service {user}, {why}"));
        }
        Ok(())
    }

    /// The pool that has all of these.
    fn pool_of(&self, addresses: &[IpAddr]) -> Option<&Arc<str>> {
        let has_all = |pool: &Pool| addresses.iter().all(|address| pool.has(*address));
        self.pools
            .iter()
            .find(|(_, pool)| has_all(pool))
            .map(|(name, _)| name)
    }
}

fn enter(taken: &mut Taken, name: &ObjectName, addresses: &[IpAddr]) {
    for address in addresses {
        taken.entry(*address).or_default().ours.push(name.clone());
    }
}

fn leave(taken: &mut Taken, name: &ObjectName, addresses: &[IpAddr]) {
    for address in addresses {
        if let Some(users) = taken.get_mut(address) {
            users.ours.retain(|user| user != name);
            if users.ours.is_empty() && !users.is_others {
                taken.remove(address);
            }
        }
    }
}

/// The Service's first family first.
fn sorted(mut addresses: Vec<IpAddr>, demand: &Demand) -> Vec<IpAddr> {
    addresses.sort_by_key(|one| Family::of(*one) != demand.families.first());
    addresses
}

fn same(one: &[IpAddr], other: &[IpAddr]) -> bool {
    let set = |all: &[IpAddr]| all.iter().copied().collect::<BTreeSet<_>>();
    set(one) == set(other)
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

fn kind_of(demand: &Demand) -> String {
    match demand.families {
        Families::One(family) => format!("of {family}"),
        Families::Prefer(_) => "of IPv4 or IPv6".to_owned(),
        Families::Both(_) => "of both families in one pool".to_owned(),
    }
}
