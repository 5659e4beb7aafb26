//! What the agent asks an API server for, and what its ClusterRole grants.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use proxy_agent::source::access::ACCESS;
use tests::patience::eventually;

use crate::world::{World, lone_row};

pub fn rows() -> Vec<Trial> {
    vec![lone_row(
        "the agent asks for all that its role grants, and no more",
        1,
        asks,
    )]
}

/// A unit test holds [`ACCESS`] and the ClusterRole together.
fn asks(world: &World) -> Result<()> {
    let granted: BTreeSet<_> = ACCESS
        .iter()
        .flat_map(|access| {
            let verbs = access.verbs.iter();
            verbs.map(|verb| [*verb, access.group, access.resource].map(str::to_owned))
        })
        .collect();
    world.cluster.start_agents()?;
    world.serve("granted", &[world.cluster.pod("p1")])?;
    // The watches begin when the lists have been read.
    eventually("everything is asked for", || {
        let asked = world.server.asked();
        let asked: BTreeSet<_> = asked
            .into_iter()
            .filter(|asked| asked.client.starts_with("proxy-agent/"))
            .map(|asked| [asked.verb, asked.group, asked.resource])
            .collect();
        ensure!(asked == granted, "asked for {asked:?}, granted {granted:?}");
        Ok(())
    })
}
