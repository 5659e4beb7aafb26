//! Several neighbours, who have all that there is when the victim comes.

use std::net::IpAddr;

use proptest::{collection::vec, prelude::*};

use super::{
    agent::{Agent, Step},
    objects::*,
    *,
};
use crate::model::{
    Bounds, Cidr, EndpointSlice, Event, ObjectName, Protocol, Service, ServicePort, SlicePort,
};

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

// Fewer, as each begins with thousands of entries.
proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 8, failure_persistence: None, ..ProptestConfig::default() })]

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
