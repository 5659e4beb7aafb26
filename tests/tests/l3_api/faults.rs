//! Under each fault of an API server, a change still arrives; and so does one after it.

use anyhow::{Context as _, Result};
use libtest_mimic::Trial;
use serde_json::json;
use testbed::patience::eventually;
use testbed::runner::{no_agent, row};

use crate::world::World;

/// More than a page of the agent's lists has.
const CROWD: usize = 600;

struct Row {
    name: &'static str,
    /// What is scripted once the agent follows.
    script: &'static str,
    /// Other Services that the server has.
    crowd: usize,
}

const ROWS: [Row; 10] = [
    Row {
        name: "a history that is gone",
        script: "gone",
        crowd: 0,
    },
    Row {
        name: "watches that are cut after each event",
        script: "cut watch services after 1 events\ncut watch endpointslices after 1 events",
        crowd: 0,
    },
    Row {
        name: "slow lists of several pages",
        script: "slow list services 200ms per page\nslow list endpointslices 200ms per page\ngone",
        crowd: CROWD,
    },
    Row {
        name: "a list whose second page fails",
        script: "fail page services 500 x2\ngone",
        crowd: CROWD,
    },
    Row {
        name: "a list whose second page is of a version that is gone",
        script: "fail page services 410 x2\ngone",
        crowd: CROWD,
    },
    Row {
        name: "429 with Retry-After",
        script: "fail list services 429 x1 retry-after 1\nfail list endpointslices 429 x1 retry-after 1\n\
                 fail watch services 429 x1 retry-after 1\nfail watch endpointslices 429 x1 retry-after 1\ngone",
        crowd: 0,
    },
    Row {
        name: "500 and 503 of lists and watches",
        script: "fail list services 500 x2\nfail list endpointslices 503 x2\n\
                 fail watch services 503 x1\nfail watch endpointslices 500 x1\ngone",
        crowd: 0,
    },
    Row {
        name: "a watch that is too old when it begins",
        script: "fail watch services 410 x2\nfail watch endpointslices 410 x2\n\
                 cut watch services after 1 events\ncut watch endpointslices after 1 events",
        crowd: 0,
    },
    Row {
        name: "late, doubled and disordered events",
        script: "delay watch services 100ms\ndelay watch endpointslices 150ms\nduplicate services\n\
                 duplicate endpointslices\nreorder services\nreorder endpointslices\ngone",
        crowd: 0,
    },
    Row {
        name: "a server that answers nothing for a while",
        script: "refuse for 2s\ngone",
        crowd: 0,
    },
];

pub fn rows() -> Vec<Trial> {
    let rows = ROWS.into_iter().map(|one| {
        let name = format!("changes arrive under {}", one.name);
        row(name, no_agent(), move || run(&one))
    });
    rows.collect()
}

fn run(row: &Row) -> Result<()> {
    let world = World::build(1)?;
    under(&world, row).map_err(|error| error.context(world.cluster.logs()))
}

fn under(world: &World, row: &Row) -> Result<()> {
    let pods = ["p1", "p1b"].map(|name| world.cluster.pod(name));
    for number in 0..row.crowd {
        // Without ports, so that they fill lists and no maps.
        let service = json!({
            "kind": "Service", "metadata": {"namespace": "default", "name": format!("a-{number:04}")}, "spec": {},
        });
        world.api().apply(&service)?;
    }
    world.cluster.start_agents()?;
    let old = world.serve("old", &pods[..1])?;
    world.server.script(row.script)?;
    // The fault may be that it does not answer us either.
    eventually("an edit of endpoints", || {
        world.apply_endpoints(&old, &old.endpoints(&pods[1..]))
    })?;
    let arrived = |what: &str, vip, who: &str| {
        let wanted = format!("{who}:8080");
        let arrived = world.await_on_nodes(vip, |answer| answer.who() == Some(&wanted));
        arrived.with_context(|| what.to_owned())
    };
    let new = world.publish("new", &pods[..1])?;
    arrived("a change under the fault", &old, "p1b")?;
    arrived("a service under the fault", &new, "p1")?;
    world.server.script("heal")?;
    world.apply_endpoints(&old, &old.endpoints(&pods[..1]))?;
    arrived("a change after the fault", &old, "p1")
}
