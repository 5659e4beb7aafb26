//! What befalls the process: it is held, hung up on, short of files or of memory.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use tests::agent::Limit;

use crate::site::{Site, Way, is_long, lone_row};

pub fn rows() -> Vec<Trial> {
    vec![
        lone_row(
            "an agent that is held for a while costs nobody anything and catches up",
            Way::Links,
            held,
        ),
        lone_row("SIGHUP ends no agent", Way::Filters, hung_up),
        lone_row(
            "an agent with 64 open files says what it lacks, or serves",
            Way::Filters,
            |site| limited(site, Limit::Files(64), &["open files"]),
        ),
        lone_row(
            "an agent with 64 MiB of address space says what it lacks, or serves",
            Way::Filters,
            |site| limited(site, Limit::AddressSpace(64 << 20), &["memory"]),
        ),
    ]
}

fn held(site: &Site) -> Result<()> {
    site.start_agent()?;
    site.is_served()?;
    let time = Duration::from_secs(if is_long() { 60 } else { 5 });
    let agent = site.cluster.agents()[0].pid();
    let ((), tally) = site.under_traffic(|| {
        kill(agent, Signal::SIGSTOP)?;
        thread::sleep(time);
        kill(agent, Signal::SIGCONT)?;
        Ok(())
    })?;
    tally.nothing_is_lost()?;
    site.answers_probes([200, 200, 200])?;
    site.follows()
}

fn hung_up(site: &Site) -> Result<()> {
    site.start_agent()?;
    let agent = site.cluster.agents()[0].pid();
    for _ in 0..3 {
        kill(agent, Signal::SIGHUP)?;
        thread::sleep(Duration::from_millis(100));
    }
    site.answers_probes([200, 200, 200])?;
    site.follows()
}

/// It is ready and serves, or it ends with words that say why; and the next one is none the worse.
fn limited(site: &Site, limit: Limit, words: &[&str]) -> Result<()> {
    let agent = tests::agent::Agent::begin(&site.launch().limited_to(limit))?;
    site.cluster.agents().push(agent);
    let ready = site.cluster.agents()[0].wait_until_ready();
    if ready.is_ok() {
        eprintln!("it serves with {limit:?}");
        site.is_served()?;
    } else {
        site.cluster.agents()[0].await_end().context("it hangs")?;
        site.await_said(words)?;
        let lines = site.cluster.agents()[0].lines();
        let last: Vec<_> = lines.iter().rev().take(14).collect();
        eprintln!("with {limit:?}: {last:?}");
    }
    site.cluster.kill_agents();
    site.start_agent()?;
    site.is_served()?;
    ensure!(site.cluster.agents().len() == 1, "one agent");
    Ok(())
}
