//! Two tenants, one of whom wants whatever an object can say. What the other one has does not change by it.
//!
//! From objects to maps: the model with its bounds, the plan with its limits, and the machine, which fails a write that does not fit. The
//! victim asks for less than what is documented to be his: his namespace's share, at places that nobody else claims before him. What the
//! neighbour does in between (sizes, names, addresses of his own and of others, in whatever order, with restarts) is drawn.
//!
//! Of several neighbours each has such a share. Together they may want all; then the victim has the documented minimum.

use std::{collections::BTreeMap, net::IpAddr};

use proptest::{collection::vec, prelude::*};

use super::{machine::Machine, *};
use crate::model::{
    Bounds, Cidr, Conditions, EndpointSlice, Event, Family, Kind, ObjectName, Protocol, Service,
    ServicePort, ServiceType, SliceEndpoint, SlicePort, Store, TrafficPolicy,
};

/// Where the tables begin, and where they end.
const FIRST: Room = Room {
    services: 16,
    backends: 32,
};
const LIMITS: Limits = Limits {
    room: Room {
        services: 64,
        backends: 128,
    },
    namespace_share: 50,
};
const BOUNDS: Bounds = Bounds {
    ports: 16,
    addresses: 48,
    ranges: 48,
    endpoints: 48,
};

/// The victim's services: each has a ClusterIP, an external address, a node port, ranges and endpoints of its own.
const SERVICES: u8 = 4;
/// At most, in each of them. All of it together is below the namespace's share, twice over: what is replaced rests.
const ENDPOINTS: u8 = 4;

const READY: Conditions = Conditions {
    ready: true,
    serving: true,
    terminating: false,
};

#[derive(Clone, Debug)]
enum Step {
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

struct Agent {
    limits: Limits,
    bounds: Bounds,
    now: Instant,
    store: Store,
    planner: Planner,
    machine: Machine,
    /// What the source has, for the next agent.
    objects: BTreeMap<(u8, ObjectName), Event>,
    /// What the victim wants now.
    wanted: BTreeMap<u8, Vec<u8>>,
}

impl Agent {
    /// With a victim who came first.
    fn new() -> Self {
        let mut agent = Self::within(LIMITS, BOUNDS);
        for n in 0..SERVICES {
            agent.victim(n, &[1, 2]).unwrap();
        }
        agent
    }

    /// With nobody.
    fn within(limits: Limits, bounds: Bounds) -> Self {
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

    fn step(&mut self, step: Step) -> Result<(), String> {
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

    fn put(&mut self, event: Event) -> Result<(), String> {
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

    fn update(&mut self, names: impl IntoIterator<Item = ObjectName>) -> Result<(), String> {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_cached_key(|name| self.store.rank(name));
        let changes: Vec<Change> = names
            .into_iter()
            .map(|name| (name.clone(), self.store.desired(&name)))
            .collect();
        let plan = self.planner.update(self.now, &changes);
        self.write(plan)
    }

    fn write(&mut self, plan: Plan) -> Result<(), String> {
        if !self.limits.room.holds(&plan.room) {
            return Err(format!("{:?} is beyond the limits", plan.room));
        }
        self.machine.grow(plan.room);
        self.machine.apply(&plan.ops)
    }

    fn wait(&mut self, time: Duration) -> Result<(), String> {
        self.now += time;
        let ops = self.planner.advance(self.now);
        self.machine.apply(&ops)?;
        self.try_again()
    }

    /// Those that wait, when room has become free.
    fn try_again(&mut self) -> Result<(), String> {
        while self.planner.take_freed() {
            let names: Vec<_> = self.planner.left_out().keys().cloned().collect();
            self.update(names)?;
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), String> {
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

    fn victim(&mut self, n: u8, endpoints: &[u8]) -> Result<(), String> {
        self.wanted.insert(n, endpoints.to_vec());
        self.put(Event::ServiceUpserted(victim(n)))?;
        self.put(Event::SliceUpserted(victims_slice(n, endpoints)))
    }

    /// Is the victim served as if nobody else were there, now?
    fn check(&self) -> Result<(), String> {
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
    fn served(&self, at: FrontendAt) -> Result<Vec<IpAddr>, String> {
        let image = &self.machine.image;
        let to = image.frontends.get(&at);
        let to = to.ok_or_else(|| format!("{at} is not there"))?;
        let service = &image.services[&to.service()];
        let extent = service.internal;
        let slots = extent.base..extent.base + extent.len;
        let backends = slots.map(|slot| image.backends[&image.slots[&slot]].socket.ip());
        let mut all: Vec<_> = backends.collect();
        all.sort_unstable();
        Ok(all)
    }
}

fn synced(bounds: Bounds) -> Store {
    let mut store = Store::new("node1").with_bounds(bounds);
    store.apply(Event::Synced(Kind::Service));
    store.apply(Event::Synced(Kind::EndpointSlice));
    store
}

fn planner(limits: Limits, room: Room, image: &Image, now: Instant) -> Planner {
    Planner::new(limits, room, HZ, NodeAddresses::default(), image, now)
}

fn address(service: u8, endpoint: u8) -> IpAddr {
    IpAddr::from([10, 1, service, endpoint])
}

fn places(n: u8) -> [FrontendAt; 3] {
    let protocol = Protocol::Tcp;
    let at = |addr| FrontendAt::Port {
        addr: IpAddr::from(addr),
        port: 80,
        protocol,
    };
    [
        at([10, 96, 1, n]),
        at([192, 0, 2, n]),
        FrontendAt::NodePort {
            family: Family::Ipv4,
            port: 31_000 + u16::from(n),
            protocol,
        },
    ]
}

fn victim(n: u8) -> Service {
    Service {
        name: ObjectName::new("victim", format!("svc-{n}")),
        // Who comes later does not take his places.
        created: 1,
        kind: ServiceType::LoadBalancer,
        families: vec![Family::Ipv4],
        cluster_ips: vec![IpAddr::from([10, 96, 1, n])],
        external_ips: vec![],
        load_balancer_ips: vec![IpAddr::from([192, 0, 2, n])],
        source_ranges: ["10.0.0.0/8", "172.16.0.0/12"]
            .map(|range| range.parse().unwrap())
            .to_vec(),
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        affinity: None,
        health_check_node_port: None,
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(31_000 + u16::from(n)),
        }],
    }
}

fn victims_slice(n: u8, endpoints: &[u8]) -> EndpointSlice {
    let name = format!("svc-{n}");
    EndpointSlice {
        name: ObjectName::new("victim", name.as_str()),
        service: name.into(),
        family: Family::Ipv4,
        ports: vec![SlicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            number: 8080,
        }],
        endpoints: endpoints.iter().map(|&e| endpoint(address(n, e))).collect(),
        triggered: None,
    }
}

fn endpoint(addr: IpAddr) -> SliceEndpoint {
    SliceEndpoint {
        addr,
        node: None,
        conditions: READY,
        zone_hints: vec![],
        node_hints: vec![],
    }
}

fn hostile_name(n: u8) -> ObjectName {
    ObjectName::new("hostile", format!("svc-{n}"))
}

/// A size: small, about what is allowed, or far too large. Small ones leave room for others in the bounds of one object.
fn size() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 0u16..3, 2 => 10u16..50, 1 => 200u16..400]
}

/// An address of his own, or one of the victim's.
fn hostile_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        6 => (0u8..4, any::<u8>()).prop_map(|(a, b)| IpAddr::from([203, 0, a, b])),
        1 => (0..SERVICES).prop_map(|n| IpAddr::from([10, 96, 1, n])),
        1 => (0..SERVICES).prop_map(|n| IpAddr::from([192, 0, 2, n])),
    ]
}

fn hostile_service() -> impl Strategy<Value = Service> {
    let addresses =
        || size().prop_flat_map(|size| vec(hostile_address(), usize::from(size).min(150)));
    (
        (
            0u8..6,
            2i64..5,
            size().prop_map(|n| n.max(1)),
            any::<bool>(),
        ),
        (addresses(), addresses(), addresses()),
        size(),
    )
        .prop_map(
            |((n, created, ports, dual), (cluster, external, lb), ranges)| Service {
                name: hostile_name(n),
                created,
                families: if dual {
                    vec![Family::Ipv4, Family::Ipv6]
                } else {
                    vec![Family::Ipv4]
                },
                cluster_ips: cluster,
                external_ips: external,
                load_balancer_ips: lb,
                source_ranges: (0..ranges)
                    .map(|n| {
                        Cidr::new(IpAddr::from([100, (n >> 8) as u8, n as u8, 0]), 24).unwrap()
                    })
                    .collect(),
                ports: (0..ports)
                    .map(|n| ServicePort {
                        name: format!("p{n}").into(),
                        protocol: Protocol::Tcp,
                        port: 80 + n,
                        // The victim's among them.
                        node_port: (n % 3 == 0).then_some(31_000 + n),
                    })
                    .collect(),
                ..victim(0)
            },
        )
}

fn hostile_slice() -> impl Strategy<Value = EndpointSlice> {
    (0u8..6, 0u8..6, 1u16..20, 1u16..60, any::<u8>()).prop_map(
        |(n, service, ports, endpoints, from)| EndpointSlice {
            name: hostile_name(n),
            service: format!("svc-{service}").into(),
            family: Family::Ipv4,
            ports: (0..ports)
                .map(|n| SlicePort {
                    name: format!("p{n}").into(),
                    protocol: Protocol::Tcp,
                    number: 9000 + n,
                })
                .collect(),
            endpoints: (0..endpoints)
                .map(|n| endpoint(IpAddr::from([10, 2 + (n >> 8) as u8, from, n as u8])))
                .collect(),
            triggered: None,
        },
    )
}

/// Limits of which the minimum holds what the victim has, with what rests for him.
const WIDE: Limits = Limits {
    room: Room {
        services: 1024,
        backends: 2048,
    },
    namespace_share: 50,
};
const WIDE_BOUNDS: Bounds = Bounds {
    ports: 64,
    addresses: 512,
    ranges: 512,
    endpoints: 256,
};
/// Neighbours, more than have their shares together.
const NEIGHBOURS: u8 = 3;

/// The object as another neighbour has it, at addresses of his own.
fn of_neighbour(number: u8, event: Event) -> Event {
    let rename = |name: ObjectName| match &*name.namespace {
        "hostile" => ObjectName::new(format!("hostile-{number}").as_str(), &*name.name),
        _ => name,
    };
    let own = |addr: &mut IpAddr| {
        if let IpAddr::V4(v4) = addr
            && v4.octets()[0] == 203
        {
            *addr = IpAddr::from([204 + number, v4.octets()[1], v4.octets()[2], v4.octets()[3]]);
        }
    };
    match event {
        Event::ServiceUpserted(mut service) => {
            service.name = rename(service.name);
            for all in [
                &mut service.cluster_ips,
                &mut service.external_ips,
                &mut service.load_balancer_ips,
            ] {
                all.iter_mut().for_each(own);
            }
            Event::ServiceUpserted(service)
        }
        Event::SliceUpserted(mut slice) => {
            slice.name = rename(slice.name);
            Event::SliceUpserted(slice)
        }
        Event::ServiceDeleted(name) => Event::ServiceDeleted(rename(name)),
        Event::SliceDeleted(name) => Event::SliceDeleted(rename(name)),
        other => other,
    }
}

/// A neighbour takes of every table what he can get.
fn take_all(agent: &mut Agent, number: u8) -> Result<(), String> {
    for n in 0..8 {
        let at = |last: u8| IpAddr::from([203, n, 0, last]);
        let ports = (0..64).map(|port| ServicePort {
            name: format!("p{port}").into(),
            protocol: Protocol::Tcp,
            port: 80 + port,
            node_port: None,
        });
        let ranges =
            (0..8_u8).map(|range| Cidr::new(IpAddr::from([100, n, range, 0]), 24).unwrap());
        let service = Service {
            name: hostile_name(n),
            cluster_ips: vec![at(1)],
            external_ips: (2..8).map(at).collect(),
            load_balancer_ips: vec![],
            source_ranges: ranges.collect(),
            ports: ports.collect(),
            ..victim(9)
        };
        let slice = EndpointSlice {
            name: hostile_name(n),
            service: format!("svc-{n}").into(),
            ports: (0..64)
                .map(|port| SlicePort {
                    name: format!("p{port}").into(),
                    protocol: Protocol::Tcp,
                    number: 9000 + port,
                })
                .collect(),
            endpoints: (0..4)
                .map(|e| endpoint(IpAddr::from([10, 2 + number, n, e])))
                .collect(),
            ..victims_slice(0, &[])
        };
        agent.put(of_neighbour(number, Event::ServiceUpserted(service)))?;
        agent.put(of_neighbour(number, Event::SliceUpserted(slice)))?;
    }
    Ok(())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => hostile_service().prop_map(|one| Step::Service(Box::new(one))),
        6 => hostile_slice().prop_map(|one| Step::Slice(Box::new(one))),
        1 => (0..SERVICES).prop_map(Step::VictimGone),
        1 => (0u8..6).prop_map(Step::Gone),
        1 => (0u8..6).prop_map(Step::SliceGone),
        3 => (0..SERVICES, vec(1u8..20, 0..usize::from(ENDPOINTS)))
            .prop_map(|(n, endpoints)| Step::Victim(n, endpoints)),
        3 => (0u64..3000).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_one_tenant_wants_the_other_is_served_as_if_he_were_alone(steps in steps()) {
        let mut agent = Agent::new();
        agent.check().map_err(TestCaseError::fail)?;
        for step in steps {
            // The victim changes no faster than what rests for him allows: his share is what he may have within two seconds.
            if matches!(step, Step::Victim(..) | Step::VictimGone(..)) {
                agent.wait(Duration::from_secs(1)).map_err(TestCaseError::fail)?;
            }
            let said = format!("{step:?}");
            agent.step(step).map_err(TestCaseError::fail)?;
            agent.check().map_err(|why| TestCaseError::fail(format!("{why} after {said}")))?;
        }
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind_and_all_room_comes_back(steps in steps()) {
        let mut agent = Agent::new();
        for step in steps {
            agent.step(step).map_err(TestCaseError::fail)?;
        }
        for n in 0..6 {
            agent.step(Step::Gone(n)).map_err(TestCaseError::fail)?;
            agent.step(Step::SliceGone(n)).map_err(TestCaseError::fail)?;
        }
        agent.wait(SETTLED).map_err(TestCaseError::fail)?;
        agent.wait(SETTLED).map_err(TestCaseError::fail)?;
        agent.check().map_err(TestCaseError::fail)?;
        prop_assert!(agent.planner.left_out().is_empty());
        let image = &agent.machine.image;
        let services = agent.wanted.len();
        prop_assert_eq!(image.services.len(), services);
        // With the refusal of each ClusterIP.
        prop_assert_eq!(image.frontends.len(), 4 * services);
        prop_assert_eq!(image.ranges.len(), 2 * services);
        // All that the share allows fits at once.
        let share = LIMITS.room.backends / 2 - 1;
        let many: Vec<_> = (0..share).map(|n| endpoint(IpAddr::from([10, 9, 0, n as u8]))).collect();
        for (from, to) in [(0, many.len() / 2), (many.len() / 2, many.len())] {
            let n = from.min(1) as u8;
            let service = Service { name: hostile_name(n), cluster_ips: vec![IpAddr::from([203, 0, 9, n])], load_balancer_ips: vec![], ..victim(9) };
            let service = Service { ports: vec![ServicePort { node_port: None, ..service.ports[0].clone() }], ..service };
            agent.put(Event::ServiceUpserted(service)).map_err(TestCaseError::fail)?;
            let slice = EndpointSlice { endpoints: many[from..to].to_vec(), name: hostile_name(n), service: format!("svc-{n}").into(), ..victims_slice(0, &[]) };
            agent.put(Event::SliceUpserted(slice)).map_err(TestCaseError::fail)?;
        }
        prop_assert_eq!(agent.planner.left_out().clone(), BTreeMap::new());
        agent.check().map_err(TestCaseError::fail)?;
    }
}

// Fewer, as each begins with thousands of entries.
proptest! {
    #![proptest_config(ProptestConfig { cases: 2, max_shrink_iters: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_comes_last_finds_the_documented_minimum_whatever_others_have(
        steps in vec((0..NEIGHBOURS, step()), 0..8),
    ) {
        let mut agent = Agent::within(WIDE, WIDE_BOUNDS);
        for number in 0..NEIGHBOURS {
            take_all(&mut agent, number).map_err(TestCaseError::fail)?;
        }
        // There is nothing left for those who have much.
        prop_assert!(!agent.planner.left_out().is_empty());
        for n in 0..SERVICES {
            agent.victim(n, &[1, 2]).map_err(TestCaseError::fail)?;
        }
        agent.check().map_err(TestCaseError::fail)?;
        for (number, step) in steps {
            if matches!(step, Step::Victim(..) | Step::VictimGone(..)) {
                agent.wait(Duration::from_secs(1)).map_err(TestCaseError::fail)?;
            }
            let said = format!("{step:?} by {number}");
            let event = match step {
                Step::Service(service) => Some(Event::ServiceUpserted(*service)),
                Step::Slice(slice) => Some(Event::SliceUpserted(*slice)),
                Step::Gone(n) => Some(Event::ServiceDeleted(hostile_name(n))),
                Step::SliceGone(n) => Some(Event::SliceDeleted(hostile_name(n))),
                other => {
                    agent.step(other).map_err(TestCaseError::fail)?;
                    None
                }
            };
            if let Some(event) = event {
                agent.put(of_neighbour(number, event)).map_err(TestCaseError::fail)?;
            }
            agent.check().map_err(|why| TestCaseError::fail(format!("{why} after {said}")))?;
        }
    }
}
