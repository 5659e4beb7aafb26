//! Random edits and faults in great number: all the time no service of the datapath points to a missing backend, and in the
//! end the agent that lived through all of it has exactly what one has that starts now.

mod check;
mod edit;
mod fault;
mod shape;
mod state;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use api_server::client::Client;
use libtest_mimic::Trial;
use testbed::agent::{Agent, Launch};
use testbed::patience::eventually_within;

use self::edit::Cluster;
use self::state::State;
use crate::traffic::{self, Served};
use crate::world::{World, lone_row};
use testbed::random::Random;

const SERVICES: &str = "PORTSIDE_CHURN_SERVICES";
const EDITS: &str = "PORTSIDE_CHURN_EDITS";
const SEED: &str = "PORTSIDE_CHURN_SEED";

const DEFAULT_SERVICES: u64 = 1000;
const DEFAULT_EDITS: u64 = 10_000;

/// Faults change after so many edits.
const EDITS_PER_FAULT: u64 = 250;

/// The last of so many parts of the edits is free of faults that make the agent list anew: only its watches bring it.
const WATCHED_PART: u64 = 5;

/// The last pause of the agent between two attempts, and time to catch up.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// What both agents have room for: backends that left rest for two seconds before they are reused.
const BACKENDS: u32 = 131_072;
const SERVICE_PORTS: u32 = 16_384;

pub fn rows() -> Vec<Trial> {
    vec![lone_row(
        "after random edits under faults the agent has what a fresh one has, and at no time less",
        2,
        churn,
    )]
}

fn number(variable: &str, default: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text}")),
        Err(_) => Ok(default),
    }
}

fn churn(world: &World) -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = number(SEED, now.as_nanos() as u64)?;
    let (services, edits) = (
        number(SERVICES, DEFAULT_SERVICES)?,
        number(EDITS, DEFAULT_EDITS)?,
    );
    eprintln!("churn: {SEED}={seed} {SERVICES}={services} {EDITS}={edits}");
    run(world, seed, services, edits).with_context(|| format!("{SEED}={seed}"))
}

fn run(world: &World, seed: u64, services: u64, edits: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let mut cluster = Cluster::new(services);
    let mut written = Written::default();
    let began = Instant::now();
    world.beside_server(|api| {
        while let Some((number, objects)) = cluster.create_next(&mut random) {
            written.bring(api, number, objects, &mut random)?;
        }
        anyhow::Ok(())
    })?;
    let filled = began.elapsed();
    let began = Instant::now();
    start_first(world)?.wait_until_ready()?;
    let synced = began.elapsed();
    written.writes = 0;
    let pods = [world.cluster.pod("p1"), world.cluster.pod("p1b")];
    let served = Served::start(world, &pods, &pods)?;
    let began = Instant::now();
    let (looks, count) = while_checked(world, || {
        let (count, ()) = traffic::during(&world.cluster, &served, || {
            world.beside_server(|api| {
                edit(world, api, &mut random, &mut cluster, &mut written, edits)
            })
        })?;
        Ok(count)
    })?;
    let edited = began.elapsed();
    let began = Instant::now();
    compare(world)?;
    eprintln!(
        "churn: {services} services created in {filled:.1?}, first sync in {synced:.1?}; {edits} edits ({} writes) in {edited:.1?} \
         under {count}; looked at all services {looks} times; equal to a fresh agent after {:.1?}",
        written.writes,
        began.elapsed()
    );
    Ok(())
}

/// The agent that lives through it, on the first node.
fn start_first(world: &World) -> Result<FirstAgent<'_>> {
    let agent = Agent::begin(&launch(world, 1))?;
    world.cluster.agents().push(agent);
    Ok(FirstAgent(world))
}

struct FirstAgent<'a>(&'a World);

impl FirstAgent<'_> {
    fn wait_until_ready(self) -> Result<()> {
        eventually_within(SETTLED_WITHIN, "the first agent is ready", || {
            let agents = self.0.cluster.agents();
            ensure!(agents.iter().all(Agent::is_ready), "not ready");
            Ok(())
        })
    }
}

fn launch(world: &World, number: usize) -> Launch<'_> {
    let launch = world.cluster.launch(world.cluster.node(number));
    launch
        .named(world.cluster.node(1).name())
        .with_room_for(BACKENDS, SERVICE_PORTS)
}

fn edit(
    world: &World,
    api: Client,
    random: &mut Random,
    cluster: &mut Cluster,
    written: &mut Written,
    edits: u64,
) -> Result<()> {
    for edit in 0..edits {
        if edit % EDITS_PER_FAULT == 0 {
            let only_watched = edit >= edits - edits / WATCHED_PART;
            fault::next(world, random, only_watched)?;
        }
        let (number, objects) = cluster.edit(random);
        let edited = written.bring(api, number, objects, random);
        edited.with_context(|| format!("edit {edit}"))?;
    }
    world.server.script("heal")
}

/// Looks at the first node's maps for as long as `work` takes; returns how often it saw all of them.
fn while_checked<T: Send>(world: &World, work: impl FnOnce() -> Result<T>) -> Result<(usize, T)> {
    let done = AtomicBool::new(false);
    let node = world.cluster.node(1);
    thread::scope(|scope| {
        let checking = scope.spawn(|| check::until(&done, node));
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let looks = checking.join().expect("checking does not panic")?;
        ensure!(looks > 0, "nothing was checked");
        Ok((looks, worked?))
    })
}

/// Starts an agent of the same name on the other node, and waits until the two have the same.
fn compare(world: &World) -> Result<()> {
    let fresh = Agent::begin(&launch(world, 2))?;
    world.cluster.agents().push(fresh);
    FirstAgent(world).wait_until_ready()?;
    let [first, second] = [1, 2].map(|number| world.cluster.node(number));
    eventually_within(SETTLED_WITHIN, "both agents have the same", || {
        State::of(first)?.is(&State::of(second)?)
    })
}

/// The objects that the server has, by service.
#[derive(Default)]
struct Written {
    services: BTreeMap<usize, edit::Objects>,
    writes: usize,
}

impl Written {
    /// Brings the objects of one service to what they shall be, in any order.
    fn bring(
        &mut self,
        api: Client,
        number: usize,
        wanted: edit::Objects,
        random: &mut Random,
    ) -> Result<()> {
        let written = self.services.insert(number, wanted.clone());
        let written = written.unwrap_or_default();
        let mut keys: Vec<_> = wanted.keys().chain(written.keys()).cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        random.shuffle(&mut keys);
        for key in keys {
            match (wanted.get(&key), written.get(&key)) {
                (new, old) if new == old => continue,
                (Some(new), None) => api.create(new)?,
                (Some(new), Some(_)) => api.replace(new)?,
                (None, _) => api.delete(key.0, &key.1)?,
            }
            self.writes += 1;
        }
        Ok(())
    }
}
