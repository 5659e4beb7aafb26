//! An agent with its maps: what is asked of it, step by step, and whether the victim has what he wants.

use std::{collections::BTreeMap, net::IpAddr};

use super::{super::machine::Machine, objects::*, *};
use crate::model::{Bounds, EndpointSlice, Event, Kind, ObjectName, Service, Store};

#[derive(Clone, Debug)]
pub enum Step {
    /// A hostile object, or many.
    Service(Box<Service>),
    Slice(Box<EndpointSlice>),
    Gone(u8),
    SliceGone(u8),
    /// The victim has one of his services, with these endpoints.
    Victim(u8, Vec<u8>),
    VictimGone(u8),
    Wait(u64),
    /// The agent ends, and the next one begins with what it finds.
    Restart,
}

pub struct Agent {
    pub limits: Limits,
    pub bounds: Bounds,
    pub now: Instant,
    pub store: Store,
    pub planner: Planner,
    pub machine: Machine,
    /// What the source has, for the next agent.
    pub objects: BTreeMap<(u8, ObjectName), Event>,
    /// What the victim wants now.
    pub wanted: BTreeMap<u8, Vec<u8>>,
}

impl Agent {
    /// With a victim who came first.
    pub fn new() -> Self {
        let mut agent = Self::within(LIMITS, BOUNDS);
        for n in 0..SERVICES {
            agent.victim(n, &[1, 2]).unwrap();
        }
        agent
    }

    /// With nobody.
    pub fn within(limits: Limits, bounds: Bounds) -> Self {
        let now = Instant::now();
        Self {
            limits,
            bounds,
            now,
            store: synced(bounds),
            planner: planner(limits, FIRST, &Image::default(), now),
            machine: Machine::with_room(FIRST),
            objects: BTreeMap::new(),
            wanted: BTreeMap::new(),
        }
    }

    pub fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Service(service) => self.put(Event::ServiceUpserted(*service)),
            Step::Slice(slice) => self.put(Event::SliceUpserted(*slice)),
            Step::Gone(n) => self.put(Event::ServiceDeleted(hostile_name(n))),
            Step::SliceGone(n) => self.put(Event::SliceDeleted(hostile_name(n))),
            Step::Victim(n, endpoints) => self.victim(n, &endpoints),
            Step::VictimGone(n) => {
                self.wanted.remove(&n);
                self.put(Event::ServiceDeleted(victim(n).name))
            }
            Step::Wait(millis) => self.wait(Duration::from_millis(millis)),
            Step::Restart => self.restart(),
        }
    }

    pub fn put(&mut self, event: Event) -> Result<(), String> {
        match &event {
            Event::ServiceUpserted(Service { name, .. }) => {
                self.objects.insert((0, name.clone()), event.clone());
            }
            Event::SliceUpserted(EndpointSlice { name, .. }) => {
                self.objects.insert((1, name.clone()), event.clone());
            }
            Event::ServiceDeleted(name) => drop(self.objects.remove(&(0, name.clone()))),
            Event::SliceDeleted(name) => drop(self.objects.remove(&(1, name.clone()))),
            _ => {}
        }
        self.store.apply(event);
        let dirty = self.store.take_dirty();
        self.update(dirty)
    }

    pub fn update(&mut self, names: impl IntoIterator<Item = ObjectName>) -> Result<(), String> {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_cached_key(|name| self.store.rank(name));
        let changes: Vec<Change> = names
            .into_iter()
            .map(|name| (name.clone(), self.store.desired(&name)))
            .collect();
        let plan = self.planner.update(self.now, &changes);
        self.write(plan)
    }

    pub fn write(&mut self, plan: Plan) -> Result<(), String> {
        if !self.limits.room.holds(&plan.room) {
            return Err(format!("{:?} is beyond the limits", plan.room));
        }
        self.machine.grow(plan.room);
        self.machine.apply(&plan.ops)
    }

    pub fn wait(&mut self, time: Duration) -> Result<(), String> {
        self.now += time;
        let ops = self.planner.advance(self.now);
        self.machine.apply(&ops)?;
        self.try_again()
    }

    /// Those that wait, when room has become free.
    pub fn try_again(&mut self) -> Result<(), String> {
        while self.planner.take_freed() {
            let names: Vec<_> = self.planner.left_out().keys().cloned().collect();
            self.update(names)?;
        }
        Ok(())
    }

    pub fn restart(&mut self) -> Result<(), String> {
        let image = self.machine.image.clone();
        self.store = synced(self.bounds);
        for event in self.objects.values() {
            self.store.apply(event.clone());
        }
        self.store.take_dirty();
        self.planner = planner(self.limits, self.machine.room(), &image, self.now);
        let mut names: Vec<_> = self.store.services().map(|one| one.name.clone()).collect();
        names.sort_by_cached_key(|name| self.store.rank(name));
        let changes = names.into_iter().map(|name| {
            let desired = self.store.desired(&name);
            (name, desired)
        });
        let changes: Vec<Change> = changes.collect();
        let plan = self.planner.sync(self.now, &changes);
        self.write(plan)
    }

    pub fn victim(&mut self, n: u8, endpoints: &[u8]) -> Result<(), String> {
        self.wanted.insert(n, endpoints.to_vec());
        self.put(Event::ServiceUpserted(victim(n)))?;
        self.put(Event::SliceUpserted(victims_slice(n, endpoints)))
    }

    /// Is the victim served as if nobody else were there, now?
    pub fn check(&self) -> Result<(), String> {
        let told = self.planner.left_out().keys();
        if let Some(name) = told.into_iter().find(|name| *name.namespace == *"victim") {
            return Err(format!("{name} is left out"));
        }
        for (&n, endpoints) in &self.wanted {
            for at in places(n) {
                let served = self.served(at)?;
                let mut wanted: Vec<_> = endpoints.iter().map(|&e| address(n, e)).collect();
                wanted.sort_unstable();
                wanted.dedup();
                if served != wanted {
                    return Err(format!("{at} goes to {served:?}, not {wanted:?}"));
                }
            }
        }
        for &n in self.wanted.keys() {
            let id = self.machine.image.frontends[&places(n)[0]].service();
            let ranges = self.machine.image.ranges.iter();
            let ranges = ranges.filter(|(of, _)| *of == id).count();
            if ranges != 2 {
                return Err(format!("{ranges} ranges of the victim's service {n}"));
            }
        }
        Ok(())
    }

    /// The addresses that new connections to a place go to.
    pub fn served(&self, at: FrontendAt) -> Result<Vec<IpAddr>, String> {
        let image = &self.machine.image;
        let to = image.frontends.get(&at);
        let to = to.ok_or_else(|| format!("{at} is not there"))?;
        let service = &image.services[&to.service()];
        let extent = service.internal;
        let slots = extent.slots();
        let backends = slots.map(|slot| image.backends[&image.slots[&slot]].socket.ip());
        let mut all: Vec<_> = backends.collect();
        all.sort_unstable();
        Ok(all)
    }
}

pub fn synced(bounds: Bounds) -> Store {
    let mut store = Store::new("node1").with_bounds(bounds);
    store.apply(Event::Synced(Kind::Service));
    store.apply(Event::Synced(Kind::EndpointSlice));
    store
}

pub fn planner(limits: Limits, room: Room, image: &Image, now: Instant) -> Planner {
    Planner::new(limits, room, HZ, NodeAddresses::default(), image, now)
}
