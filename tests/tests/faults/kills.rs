//! Agents that are killed at any moment of their start, of an update, of the growth of their tables and of their end, under traffic.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use proxy_agent::datapath::PinDir;
use serde_json::json;
use testbed::agent::Tables;
use testbed::patience::eventually_within;

use crate::site::{Site, Way, is_long, lone_row};

pub fn rows() -> Vec<Trial> {
    Way::BOTH
        .into_iter()
        .map(|way| {
            let name = format!("{way}: agents that are killed at any moment cost nobody a request");
            lone_row(name, way, killed)
        })
        .chain(Way::BOTH.into_iter().map(|way| {
            let name =
                format!("{way}: agents that are killed while tables grow cost nobody a request");
            lone_row(name, way, killed_growing)
        }))
        .collect()
}

/// Tables that begin with the least that any do, and may grow.
const GROWING: Tables = Tables {
    flows: 4096,
    backends: 8192,
    services: 8192,
};
/// More services than these tables begin with.
const MANY: u32 = 1100;

/// Before each kill the tables are small again, by an agent that may not have larger ones.
fn killed_growing(site: &Site) -> Result<()> {
    let kills: u32 = if is_long() { 40 } else { 4 };
    let mut draws = Draws(seed()?);
    site.start_agent()?;
    site.is_served()?;
    let mut growth = Duration::from_millis(500);
    let mut within = 0;
    let ((), tally) = site.under_traffic(|| {
        for number in 0..=kills {
            begin_small(site)?;
            site.is_served()?;
            put_services(site, MANY)?;
            let began = eventually_within(Duration::from_secs(30), "tables grow", || {
                ensure!(!new_pins(site)?.is_empty(), "they do not");
                Ok(Instant::now())
            })?;
            // The first may go on to the end, which tells how long that takes.
            if number == 0 {
                site.await_said(&["the tables have room for", "2048 service ports"])?;
                growth = began.elapsed();
                site.is_served()?;
            } else {
                thread::sleep(growth.mul_f64(draws.part()));
            }
            site.cluster.kill_agents();
            within += usize::from(!new_pins(site)?.is_empty());
            remove_services(site)?;
        }
        // It goes on with the tables as they are.
        site.cluster
            .start_agent(&site.launch().with_tables(GROWING))?;
        site.is_served()
    })?;
    eprintln!("{kills} kills, {within} of them within a growth of {growth:?}: {tally}");
    ensure!(within > 0, "no kill came while tables grew");
    tally.nothing_is_lost()?;
    // Nothing of it is left behind.
    ensure!(new_pins(site)?.is_empty(), "{:?}", new_pins(site)?);
    site.answers_probes([200, 200, 200])?;
    site.follows()
}

/// One agent takes away what the one before had not; another may not have larger tables, and a third one may.
fn begin_small(site: &Site) -> Result<()> {
    let growing = || site.launch().with_tables(GROWING);
    for launch in [growing(), site.launch(), growing()] {
        site.cluster.kill_agents();
        site.cluster.start_agent(&launch)?;
    }
    Ok(())
}

/// Pins that are made while tables grow.
fn new_pins(site: &Site) -> Result<Vec<String>> {
    let pins = PinDir::new(&site.node().bpffs);
    let mut names = Vec::new();
    for file in fs::read_dir(pins.root())? {
        let name = file?.file_name().to_string_lossy().into_owned();
        if name.ends_with("-new") {
            names.push(name);
        }
    }
    Ok(names)
}

fn seed() -> Result<u64> {
    let seed = match std::env::var("PORTSIDE_FAULTS_SEED") {
        Ok(seed) => seed.parse().context("PORTSIDE_FAULTS_SEED")?,
        Err(_) => RandomState::new().hash_one(()),
    };
    eprintln!("PORTSIDE_FAULTS_SEED={seed}");
    Ok(seed)
}

/// Services without endpoints, in one file.
fn put_services(site: &Site, count: u32) -> Result<()> {
    let items: Vec<_> = (0..count)
        .map(|number| {
            json!({
                "kind": "Service",
                "apiVersion": "v1",
                "metadata": {"name": format!("s{number}"), "namespace": "default"},
                "spec": {
                    "clusterIP": format!("10.97.{}.{}", number / 100, number % 100 + 1),
                    "ports": [{"port": 80}],
                },
            })
        })
        .collect();
    let dir = site.cluster.manifests.dir();
    let new = dir.join(".coming-and-going");
    fs::write(
        &new,
        json!({"kind": "List", "apiVersion": "v1", "items": items}).to_string(),
    )?;
    Ok(fs::rename(&new, dir.join(SERVICES))?)
}

fn remove_services(site: &Site) -> Result<()> {
    Ok(fs::remove_file(
        site.cluster.manifests.dir().join(SERVICES),
    )?)
}

/// The file that they are in.
const SERVICES: &str = "coming-and-going.json";

/// When an agent is killed.
#[derive(Clone, Copy, Debug)]
enum When {
    Starting,
    Updating,
    Ending,
}

fn killed(site: &Site) -> Result<()> {
    let kills: u32 = if is_long() { 100 } else { 6 };
    let mut draws = Draws(seed()?);
    let began = Instant::now();
    site.start_agent()?;
    let start = began.elapsed();
    site.is_served()?;
    let ((), tally) = site.under_traffic(|| {
        for number in 0..kills {
            let when = [When::Starting, When::Updating, When::Ending][number as usize % 3];
            let part = draws.part();
            kill_once(site, when, part, start)
                .with_context(|| format!("kill {number}: {when:?} {part:.2}"))?;
        }
        site.cluster.kill_agents();
        site.start_agent()?;
        site.is_served()
    })?;
    eprintln!("{kills} kills: {tally}");
    tally.nothing_is_lost()?;
    site.answers_probes([200, 200, 200])?;
    site.follows()
}

fn kill_once(site: &Site, when: When, part: f64, start: Duration) -> Result<()> {
    match when {
        When::Starting => {
            site.cluster.kill_agents();
            site.begin_agent()?;
            thread::sleep(start.mul_f64(1.1 * part));
            site.cluster.kill_agents();
        }
        When::Updating => {
            site.cluster.kill_agents();
            site.start_agent()?;
            // Many services come and go, and the kill is somewhere among their writes.
            if site.cluster.manifests.dir().join(SERVICES).exists() {
                remove_services(site)?;
            } else {
                put_services(site, 200)?;
            }
            thread::sleep(Duration::from_millis(120).mul_f64(part));
            site.cluster.kill_agents();
        }
        When::Ending => {
            site.cluster.kill_agents();
            site.start_agent()?;
            let agent = site.cluster.agents()[0].pid();
            kill(agent, Signal::SIGTERM)?;
            thread::sleep(Duration::from_millis(20).mul_f64(part));
            site.cluster.kill_agents();
        }
    }
    Ok(())
}

/// Numbers that look random (splitmix64).
struct Draws(u64);

impl Draws {
    /// Between 0 and 1.
    fn part(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as u32 as f64 / f64::from(u32::MAX)
    }
}
