//! Two tenants, one of whom wants whatever an object can say. What the other one has does not change by it.
//!
//! From objects to maps: the model with its bounds, the plan with its limits, and the machine, which fails a write that does not fit. The
//! victim asks for less than what is documented to be his: his namespace's share, at places that nobody else claims before him. What the
//! neighbour does in between (sizes, names, addresses of his own and of others, in whatever order, with restarts) is drawn.
//!
//! Of several neighbours each has such a share. Together they may want all; then the victim has the documented minimum.
//!
//! | file | subject |
//! |---|---|
//! | `agent` | an agent with its maps, and what the victim has of them |
//! | `objects` | what the victim and the neighbour ask for |
//! | `last` | several neighbours, before the victim comes |
//! | `restart` | a neighbour whose entries nobody knows after a restart |

mod agent;
mod last;
mod objects;
mod restart;

use std::{collections::BTreeMap, net::IpAddr};

use proptest::{collection::vec, prelude::*};

use self::{
    agent::{Agent, Step},
    objects::*,
};
use super::*;
use crate::model::{Bounds, EndpointSlice, Event, Service, ServicePort};

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
