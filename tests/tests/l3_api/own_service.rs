//! The API servers' own service, `default/kubernetes`, keeps its endpoints whatever a list says; others go as told.

use anyhow::{Context as _, Result};
use api_server::resource::Resource;
use libtest_mimic::Trial;
use testbed::answer::Answer;
use testbed::cluster::Vip;

use crate::world::{World, lone_row, slice_name};
use testbed::address::Family;

pub fn rows() -> Vec<Trial> {
    vec![
        lone_row(
            "default/kubernetes outlives the deletion of its endpoints",
            1,
            endpoints_deleted,
        ),
        lone_row(
            "default/kubernetes outlives an API server that has nothing",
            1,
            empty_server,
        ),
        lone_row(
            "default/kubernetes outlives a restart before an API server that has nothing",
            1,
            restart_before_empty_server,
        ),
    ]
}

/// The service with a pod in the place of the API server, and another service.
fn publish(world: &World) -> Result<[Vip; 2]> {
    let own = Vip {
        name: "kubernetes".to_owned(),
        ..world.cluster.vip("own")
    };
    world.apply_endpoints(&own, &own.endpoints(&[world.cluster.pod("p1")]))?;
    world.apply(&own.service())?;
    let other = world.publish("other", &[world.cluster.pod("p1b")])?;
    world.cluster.start_agents()?;
    world.await_on_nodes(&own, |answer| answer.who() == Some("p1:8080"))?;
    Ok([own, other])
}

/// The one is served as before, the other not any more.
fn is_kept(world: &World, [own, other]: &[Vip; 2]) -> Result<()> {
    let refused = world.await_on_nodes(other, |answer| *answer == Answer::Refused);
    refused.context("the other service")?;
    let kept = world.await_on_nodes(own, |answer| answer.who() == Some("p1:8080"));
    kept.context("default/kubernetes")
}

/// It follows its endpoints again when it has some.
fn moves(world: &World, own: &Vip) -> Result<()> {
    world.apply(&own.service())?;
    world.apply_endpoints(own, &own.endpoints(&[world.cluster.pod("p1b")]))?;
    world.await_on_nodes(own, |answer| answer.who() == Some("p1b:8080"))
}

fn delete_slices(world: &World, vip: &Vip) -> Result<()> {
    Family::BOTH.into_iter().try_for_each(|family| {
        let name = slice_name(vip, family);
        world.api().delete(Resource::EndpointSlices, &name)
    })
}

fn endpoints_deleted(world: &World) -> Result<()> {
    let both = publish(world)?;
    let [own, other] = &both;
    world.apply_endpoints(own, &own.no_endpoints())?;
    world.apply_endpoints(other, &other.no_endpoints())?;
    is_kept(world, &both).context("with empty slices")?;
    delete_slices(world, own)?;
    delete_slices(world, other)?;
    world.api().delete(Resource::Services, &own.name)?;
    world.api().delete(Resource::Services, &other.name)?;
    is_kept(world, &both).context("with all deleted")?;
    moves(world, own)
}

/// Deletes all objects while nobody watches, as if the server came back with an empty store.
fn empty(world: &World, both: &[Vip; 2]) -> Result<()> {
    for vip in both {
        delete_slices(world, vip)?;
        world.api().delete(Resource::Services, &vip.name)?;
    }
    Ok(())
}

fn empty_server(world: &World) -> Result<()> {
    let both = publish(world)?;
    // What it says last is that the history is gone: the next word is an empty list.
    let script = "delay watch services 60s\ndelay watch endpointslices 60s\n\
                  fail list services 503 x1\nfail list endpointslices 503 x1";
    world.server.script(script)?;
    empty(world, &both)?;
    world.server.stop();
    world.server.script("gone")?;
    world.resume_server()?;
    is_kept(world, &both)?;
    world.server.script("heal")?;
    moves(world, &both[0])
}

fn restart_before_empty_server(world: &World) -> Result<()> {
    let both = publish(world)?;
    world.cluster.kill_agents();
    empty(world, &both)?;
    world.cluster.begin_agents()?;
    world.await_said(&["default/kubernetes", "waiting for them"])?;
    let kept = world.await_on_nodes(&both[0], |answer| answer.who() == Some("p1:8080"));
    kept.context("before the list is believed")?;
    moves(world, &both[0])?;
    // Now the list is complete, and the other service is not in it.
    let refused = world.await_on_nodes(&both[1], |answer| *answer == Answer::Refused);
    refused.context("the other service")
}
