//! What happens to services.

use std::collections::BTreeMap;

use api_server::resource::Resource;
use serde_json::Value;

use super::shape::{Conditions, Endpoint, Families, Port, Shape};
use testbed::random::Random;

const ENDPOINTS: u64 = 10;

/// Every pod that endpoints may be; services share some.
const PODS: u64 = 20_000;

/// Services take external addresses from each other.
const EXTERNAL_IPS: u64 = 20;

/// Where node ports begin; each service has a few of its own.
const NODE_PORTS: u64 = 30_100;
const PORTS: u64 = 3;

/// The objects of one service.
pub type Objects = BTreeMap<(Resource, String), Value>;

pub struct Cluster {
    /// By number; nothing for one that is not there.
    services: Vec<Option<Shape>>,
    created: usize,
}

impl Cluster {
    pub fn new(services: u64) -> Self {
        Self {
            services: vec![None; services as usize],
            created: 0,
        }
    }

    /// One more service of those at first: its number and its objects.
    pub fn create_next(&mut self, random: &mut Random) -> Option<(usize, Objects)> {
        let number = self.created;
        (number < self.services.len()).then(|| {
            self.created += 1;
            let shape = self.create(number, random);
            self.services[number] = Some(shape);
            self.objects(number)
        })
    }

    /// Edits one service at random: its number, and its objects as they shall be.
    pub fn edit(&mut self, random: &mut Random) -> (usize, Objects) {
        let number = random.index(self.services.len());
        match self.services[number].take() {
            Some(_) if random.one_in(12) => {}
            Some(mut shape) => {
                change(&mut shape, random);
                self.services[number] = Some(shape);
            }
            None => self.services[number] = Some(self.create(number, random)),
        }
        self.objects(number)
    }

    fn objects(&self, number: usize) -> (usize, Objects) {
        let mut objects = Objects::new();
        if let Some(shape) = &self.services[number] {
            objects.extend(shape.slices());
            objects.insert((Resource::Services, shape.name.clone()), shape.service());
        }
        (number, objects)
    }

    fn create(&self, number: usize, random: &mut Random) -> Shape {
        let mut shape = Shape {
            name: format!("s{number:05}"),
            address: self.free_address(random),
            families: [Families::V4, Families::V6, Families::Both][random.index(3)],
            kind: kind(random),
            ports: Vec::new(),
            endpoints: Vec::new(),
            slices: 1 + random.below(2),
            deal: random.below(u64::MAX),
            everywhere: None,
            external_policy: "Cluster",
            internal_policy: "Cluster",
            affinity: random.one_in(8),
            external_ip: random.one_in(10).then(|| random.below(EXTERNAL_IPS)),
            balancer_ip: random.one_in(2).then(|| random.below(EXTERNAL_IPS)),
            of_other_proxy: random.one_in(20),
        };
        for _ in 0..1 + random.below(2) {
            add_port(&mut shape, random);
        }
        for _ in 0..ENDPOINTS {
            add_endpoint(&mut shape, random);
        }
        shape
    }

    /// One that no other service has now; some other one may have had it a moment ago.
    fn free_address(&self, random: &mut Random) -> u64 {
        let all = self.services.len() as u64 + 50;
        loop {
            let address = 1 + random.below(all);
            let is_taken = |shape: &Shape| shape.address == address;
            if !self.services.iter().flatten().any(is_taken) {
                return address;
            }
        }
    }
}

fn kind(random: &mut Random) -> &'static str {
    ["ClusterIP", "ClusterIP", "NodePort", "LoadBalancer"][random.index(4)]
}

fn add_port(shape: &mut Shape, random: &mut Random) {
    let Some(place) = (0..PORTS).find(|place| {
        let name = port_name(*place);
        shape.ports.iter().all(|port| port.name != name)
    }) else {
        return;
    };
    // The name ends in the number of the service.
    let number: u64 = shape.name[1..].parse().unwrap_or_default();
    shape.ports.push(Port {
        name: port_name(place),
        protocol: ["TCP", "UDP"][random.index(2)],
        number: 80 + place,
        target: 8000 + random.below(3),
        node_port: NODE_PORTS + (number * PORTS + place) % 2600,
    });
}

fn port_name(place: u64) -> String {
    format!("port-{place}")
}

fn add_endpoint(shape: &mut Shape, random: &mut Random) {
    let number = random.below(PODS);
    if shape.endpoints.iter().all(|one| one.number != number) {
        shape.endpoints.push(Endpoint {
            number,
            conditions: Conditions::Ready,
        });
    }
}

fn change(shape: &mut Shape, random: &mut Random) {
    let endpoint = (!shape.endpoints.is_empty()).then(|| random.index(shape.endpoints.len()));
    match random.below(20) {
        0..=3 => add_endpoint(shape, random),
        4..=6 => drop(endpoint.map(|index| shape.endpoints.remove(index))),
        7..=10 => {
            if let Some(index) = endpoint {
                shape.endpoints[index].conditions = [
                    Conditions::Ready,
                    Conditions::NotReady,
                    Conditions::Terminating,
                    Conditions::Gone,
                ][random.index(4)];
            }
        }
        11 => shape.slices = 1 + random.below(4),
        // The same endpoints in other slices and another order.
        12 => shape.deal = random.below(u64::MAX),
        13 => {
            let number = endpoint.map(|index| shape.endpoints[index].number);
            shape.everywhere = number.filter(|_| random.one_in(2));
        }
        14 => add_port(shape, random),
        15 => {
            if shape.ports.len() > 1 {
                shape.ports.remove(random.index(shape.ports.len()));
            }
        }
        16 => {
            let index = random.index(shape.ports.len());
            let port = &mut shape.ports[index];
            port.target = 8000 + random.below(3);
            if random.one_in(2) {
                port.protocol = ["TCP", "UDP"][random.index(2)];
            }
        }
        17 => shape.kind = kind(random),
        18 => {
            shape.external_policy = ["Cluster", "Local"][random.index(2)];
            shape.internal_policy = ["Cluster", "Local"][random.index(2)];
            shape.affinity = random.one_in(4);
        }
        _ => match random.below(3) {
            0 => shape.of_other_proxy ^= true,
            1 => shape.external_ip = random.one_in(2).then(|| random.below(EXTERNAL_IPS)),
            _ => shape.endpoints.clear(),
        },
    }
}
