//! Agents that are killed at any moment of their start, of an update and of their end, under traffic.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};

use crate::site::{Site, Way, is_long, lone_row};

pub fn rows() -> Vec<Trial> {
    Way::BOTH
        .into_iter()
        .map(|way| {
            let name = format!("{way}: agents that are killed at any moment cost nobody a request");
            lone_row(name, way, killed)
        })
        .collect()
}

/// When an agent is killed.
#[derive(Clone, Copy, Debug)]
enum When {
    Starting,
    Updating,
    Ending,
}

fn killed(site: &Site) -> Result<()> {
    let kills: u32 = if is_long() { 100 } else { 6 };
    let seed = std::env::var("PORTSIDE_FAULTS_SEED").ok();
    let seed = match seed {
        Some(seed) => seed.parse().context("PORTSIDE_FAULTS_SEED")?,
        None => RandomState::new().hash_one(()),
    };
    eprintln!("PORTSIDE_FAULTS_SEED={seed}");
    let mut draws = Draws(seed);
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
            let dir = site.cluster.manifests.dir();
            let file = dir.join("coming-and-going.yaml");
            let some = (0..200).map(|number| {
                format!(
                    "---\n{{kind: Service, apiVersion: v1, metadata: {{name: s{number}, namespace: default}}, spec: {{clusterIP: \
                     10.97.{}.{}, ports: [{{port: 80}}]}}}}\n",
                    number / 100,
                    number % 100 + 1
                )
            });
            if file.exists() {
                fs::remove_file(&file)?;
            } else {
                let new = dir.join(".coming-and-going");
                fs::write(&new, some.collect::<String>())?;
                fs::rename(&new, &file)?;
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
