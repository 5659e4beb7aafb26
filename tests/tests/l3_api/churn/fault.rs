//! What goes wrong meanwhile.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::start_first;
use crate::world::World;
use testbed::random::Random;

/// Those that leave the watches to tell of everything.
const OF_WATCHES: [&str; 5] = [
    "",
    "cut watch services after 7 events\ncut watch endpointslices after 5 events",
    "delay watch services 5ms",
    "delay watch endpointslices 3ms",
    "duplicate services\nduplicate endpointslices",
];

/// Those that make the agent list anew.
const OF_LISTS: [&str; 8] = [
    "gone",
    "reorder services\nreorder endpointslices\ngone",
    "gone\nfail list services 503 x1\nfail list endpointslices 500 x1",
    "gone\nfail page endpointslices 500 x1",
    "gone\nfail page endpointslices 410 x1",
    "gone\nslow list services 50ms per page\nslow list endpointslices 80ms per page",
    "gone\nfail watch services 429 x1\nfail watch endpointslices 410 x1",
    "gone\nduplicate endpointslices\ndelay watch services 3ms",
];

/// From the end of the API server to its next start.
const AWAY: Duration = Duration::from_millis(200);

/// Ends the fault that there is and begins another one.
pub fn next(world: &World, random: &mut Random, only_watched: bool) -> Result<()> {
    let server = &world.server;
    server.script("heal")?;
    match random.below(10) {
        0 if !only_watched => restart_server(world),
        1 if !only_watched => kill_agent(world),
        2..=5 if !only_watched => server.script(OF_LISTS[random.index(OF_LISTS.len())]),
        _ => server.script(OF_WATCHES[random.index(OF_WATCHES.len())]),
    }
}

fn restart_server(world: &World) -> Result<()> {
    world.server.stop();
    thread::sleep(AWAY);
    world.resume_server()
}

/// The next one starts while edits go on.
fn kill_agent(world: &World) -> Result<()> {
    world.cluster.kill_agents();
    start_first(world).map(drop)
}
