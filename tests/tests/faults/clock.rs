//! The wall clock is set, forwards and back: nothing that the agent does depends on it.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::PinDir;
use testbed::agent::Agent;
use testbed::clock::Clock;
use testbed::patience::eventually;

use crate::site::{Site, Way, is_long, lone_row};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// How far ahead of the machine's time it is set, one after the other. The last but one is before 1970, which stands for its beginning.
const SET: [i64; 6] = [HOUR, -HOUR, 20 * YEAR, -2 * DAY, -200 * YEAR, 0];

pub fn rows() -> Vec<Trial> {
    vec![lone_row(
        "a wall clock that is set, forwards and back, costs nobody anything",
        Way::Links,
        set,
    )]
}

fn set(site: &Site) -> Result<()> {
    let clock = Clock::default();
    let start = || -> Result<()> {
        let agent = Agent::begin(&site.launch().by(&clock))?;
        site.cluster.agents().push(agent);
        site.cluster.agents()[0].wait_until_ready()
    };
    start()?;
    site.is_served()?;
    for ahead in SET {
        let asked = clock.asked();
        let ((), tally) = site.under_traffic(|| {
            clock.set_ahead(ahead);
            // Several looks, and what was let go has rested.
            thread::sleep(Duration::from_secs(if is_long() { 70 } else { 3 }));
            site.answers_probes([200, 200, 200])
        })?;
        tally.nothing_is_lost()?;
        site.follows()?;
        is_looked_after(site)?;
        ensure!(clock.asked() > asked, "nobody asked for the time");
    }
    eprintln!("{} questions for the time", clock.asked());
    let said = site.cluster.agents()[0].lines();
    let year = |line: &String| line.get(..4).and_then(|year| year.parse::<u32>().ok());
    let complaints: Vec<_> = said.iter().filter(|line| line.contains("ERROR")).collect();
    ensure!(complaints.is_empty(), "{complaints:#?}");
    // An agent that begins at another time goes on with what it finds, also with files that are from the future.
    let ((), tally) = site.under_traffic(|| {
        for ahead in [-3 * YEAR, 3 * YEAR] {
            clock.set_ahead(ahead);
            site.cluster.kill_agents();
            start()?;
            let lines = site.cluster.agents()[0].lines();
            let years: Vec<_> = lines.iter().filter_map(year).collect();
            let now: u32 = now()?;
            let away = |one: &u32| one.abs_diff(now) >= 2;
            ensure!(
                years.iter().any(away),
                "it has the machine's time: {lines:#?}"
            );
            site.is_served()?;
        }
        Ok(())
    })?;
    tally.nothing_is_lost()?;
    site.answers_probes([200, 200, 200])?;
    site.follows()
}

/// What somebody takes away comes back as ever.
fn is_looked_after(site: &Site) -> Result<()> {
    let pin = PinDir::new(&site.node().bpffs).map("SERVICES");
    fs::remove_file(&pin)?;
    eventually("a pin that was removed is back", || {
        ensure!(pin.exists(), "it is not");
        Ok(())
    })
}

/// The machine's year, about.
fn now() -> Result<u32> {
    let modified = fs::metadata("/proc/self")?.modified()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH)?;
    Ok(1970 + (since.as_secs() / YEAR as u64) as u32)
}
