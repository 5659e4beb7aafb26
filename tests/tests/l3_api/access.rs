//! What the agent asks an API server for, and what its ClusterRole grants.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use api_server::resource::Resource;
use libtest_mimic::Trial;
use proxy_agent::source::access::ACCESS;
use serde_json::{Value, json};
use testbed::address::Family;
use testbed::patience::{eventually, eventually_within};

use crate::world::{ARRIVES_WITHIN, World, lone_row, slice_name};

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
    let vip = world.serve("granted", &[world.cluster.pod("p1")])?;
    // What is wrong with a service is told by an Event, which is changed when more is wrong.
    for refused in [&["127.0.0.1"][..], &["127.0.0.1", "127.0.0.2"]] {
        let name = slice_name(&vip, Family::V4);
        let mut slice = vip.no_endpoints().slice(&name, Family::V4);
        slice["endpoints"] = refused
            .iter()
            .map(|one| json!({"addresses": [one]}))
            .collect();
        world.api().apply(&slice)?;
        let last = refused.last().expect("there is one");
        eventually_within(ARRIVES_WITHIN, "an Event", || {
            let path = Resource::Events.path("default");
            let (_, events) = world.api().call("GET", &path, &Value::Null)?;
            ensure!(events.to_string().contains(last), "{events}");
            Ok(())
        })?;
    }
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
