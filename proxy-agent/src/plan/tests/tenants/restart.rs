//! A neighbour with entries that the next agent cannot tell whose they are.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    super::{
        cases::{limits, service},
        machine::Machine,
    },
    agent::{Agent, planner},
    objects::*,
    *,
};
use crate::model::{EndpointSlice, Event, Service, ServicePort};

/// A service of the neighbour's at these addresses, with so many endpoints.
fn neighbours(agent: &mut Agent, n: u8, at: &[IpAddr], endpoints: u8) {
    let service = Service {
        name: hostile_name(n),
        cluster_ips: at.to_vec(),
        load_balancer_ips: vec![],
        ports: vec![ServicePort {
            node_port: None,
            ..victim(n).ports[0].clone()
        }],
        ..victim(n)
    };
    let slice = EndpointSlice {
        name: hostile_name(n),
        service: format!("svc-{n}").into(),
        endpoints: (0..endpoints)
            .map(|e| endpoint(IpAddr::from([10, 2, n, e])))
            .collect(),
        ..victims_slice(n, &[])
    };
    agent.put(Event::ServiceUpserted(service)).unwrap();
    agent.put(Event::SliceUpserted(slice)).unwrap();
}

/// A service is known by its addresses. One without any is placed anew after a restart, and what it had goes.
#[test]
fn what_a_neighbour_had_before_a_restart_does_not_rest_beside_his_share() {
    let mut agent = Agent::new();
    let share = LIMITS.of_namespace(Table::Backends) as u8;
    neighbours(&mut agent, 0, &[], 40);
    neighbours(&mut agent, 1, &[IpAddr::from([203, 0, 0, 1])], share - 40);
    for restarts in 1..=3 {
        agent.restart().unwrap();
        assert_eq!(*agent.planner.left_out(), BTreeMap::new());
        agent.wait(Duration::from_secs(1)).unwrap();
        agent.victim(0, &[2 + restarts]).unwrap();
        let served = agent.check();
        assert_eq!(served, Ok(()), "after {restarts} restarts");
    }
}

/// The one that asks for less comes first, and must not take what the other one has.
#[test]
fn what_a_neighbour_has_counts_before_it_is_claimed() {
    let mut agent = Agent::new();
    let share = LIMITS.of_namespace(Table::Backends) as usize;
    let at = [IpAddr::from([203, 0, 0, 0]), IpAddr::from([203, 0, 0, 1])];
    neighbours(&mut agent, 0, &at[..1], 48);
    neighbours(&mut agent, 1, &at[1..], 40);
    let served = |agent: &Agent| -> usize {
        let port = |addr| FrontendAt::Port {
            addr,
            port: 80,
            protocol: crate::model::Protocol::Tcp,
        };
        let all = at.map(|addr| agent.served(port(addr)).unwrap().len());
        all.iter().sum()
    };
    assert_eq!(served(&agent), share);
    agent.restart().unwrap();
    assert_eq!(served(&agent), share);
    assert_eq!(agent.check(), Ok(()));
}

/// An endpoint that went and came back has two ids for a moment; an agent that ends then leaves both, and the list names the lower one.
#[test]
fn of_two_ids_of_an_endpoint_the_one_in_the_list_stays() {
    let now = Instant::now();
    let room = Room {
        services: 4,
        backends: 8,
    };
    let mut machine = Machine::with_room(room);
    let wanted = |planner: &mut Planner, machine: &mut Machine, now, endpoints: &[u8]| {
        let plan = planner.update(now, &[service(1, endpoints)]);
        machine.apply(&plan.ops).unwrap();
    };
    let mut before = planner(limits(room), room, &Image::default(), now);
    // The first id is free again, and all others are in use, when the endpoint comes back.
    wanted(&mut before, &mut machine, now, &[9]);
    wanted(&mut before, &mut machine, now, &[1]);
    let settled = now + SETTLED;
    machine.apply(&before.advance(settled)).unwrap();
    wanted(&mut before, &mut machine, settled, &[1, 2, 3, 4, 5, 6]);
    wanted(&mut before, &mut machine, settled, &[2, 3, 4, 5, 6]);
    wanted(&mut before, &mut machine, settled, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(before.left_out().len(), 0);

    let mut next = planner(limits(room), room, &machine.image, settled);
    // What stands in the way is that other id.
    let plan = next.sync(settled, [service(1, &[1, 2, 3, 4, 5, 6, 7])]);
    machine.apply(&plan.ops).unwrap();
    assert_eq!(*next.left_out(), BTreeMap::new());
    assert_eq!(machine.sockets().len(), 7);
}
