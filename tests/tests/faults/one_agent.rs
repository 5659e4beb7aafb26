//! One agent for each directory of pins.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use testbed::agent::Agent;
use testbed::cli;
use testbed::pinned;

use crate::site::{Site, Way, lone_row};

pub fn rows() -> Vec<Trial> {
    vec![
        lone_row(
            "a second agent waits for the first one to end, and says so",
            Way::Filters,
            waits,
        ),
        lone_row(
            "an agent that does not end is waited for no longer than half a minute",
            Way::Filters,
            gives_up,
        ),
        lone_row(
            "cleanup refuses while an agent lives, and says what it removes",
            Way::Links,
            cleanup,
        ),
    ]
}

/// With SIGTERM and with SIGKILL, under traffic.
fn waits(site: &Site) -> Result<()> {
    site.start_agent()?;
    site.is_served()?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let ((), tally) = site.under_traffic(|| {
            let first = site.cluster.agents().pop().context("an agent runs")?;
            site.begin_agent()?;
            let waits_for = format!("(process {})", first.pid());
            site.await_said(&["waiting for another agent", &waits_for])?;
            thread::sleep(Duration::from_millis(500));
            ensure!(!site.cluster.agents()[0].is_ready(), "two agents are ready");
            kill(first.pid(), signal)?;
            site.cluster.agents()[0].wait_until_ready()?;
            drop(first);
            site.await_said(&["the other agent has ended"])
        })?;
        tally.nothing_is_lost().context(signal.as_str())?;
        site.follows().context(signal.as_str())?;
    }
    Ok(())
}

fn gives_up(site: &Site) -> Result<()> {
    site.start_agent()?;
    let first = site.cluster.agents().pop().context("an agent runs")?;
    kill(first.pid(), Signal::SIGSTOP)?;
    let began = Instant::now();
    site.begin_agent()?;
    let said = site.await_end();
    kill(first.pid(), Signal::SIGCONT)?;
    said?;
    let waited = began.elapsed();
    ensure!(
        (25..45).contains(&waited.as_secs()),
        "it waited for {waited:?}"
    );
    site.await_said(&["still runs the datapath", &first.pid().to_string()])?;
    site.cluster.kill_agents();
    site.is_served()
}

fn cleanup(site: &Site) -> Result<()> {
    site.start_agent()?;
    site.is_served()?;
    let links = pinned::links(site.node())?;
    let refused = cli::ask(site.node(), &["cleanup"]);
    let refused = refused.err().context("it was not refused")?;
    let refused = format!("{refused:#}");
    let pid = site.cluster.agents()[0].pid().to_string();
    for word in [pid.as_str(), "--force", "runs the datapath"] {
        ensure!(refused.contains(word), "no {word} in {refused}");
    }
    let now = pinned::links(site.node())?;
    ensure!(now == links, "{now:?} is not {links:?}");
    site.cluster.stop_agents();
    let removed = cli::ask(site.node(), &["cleanup"])?;
    for name in links.keys() {
        ensure!(removed.contains(name.as_str()), "no {name} in {removed}");
    }
    ensure!(removed.contains("pins "), "{removed}");
    let nothing = cli::ask(site.node(), &["cleanup"])?;
    ensure!(nothing.starts_with("nothing to remove"), "{nothing}");
    let found = pinned::directories(site.node())?;
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

impl Site {
    /// Waits until the last agent that was begun has ended.
    fn await_end(&self) -> Result<()> {
        let agents = self.cluster.agents();
        agents
            .last()
            .map(Agent::await_end)
            .context("an agent was begun")?
    }
}
