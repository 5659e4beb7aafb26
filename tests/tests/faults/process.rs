//! What befalls the process: it is held, hung up on, short of files or of memory.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use testbed::agent::{Agent, Limit, Tables};
use testbed::memory_group::MemoryGroup;

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
            |site| {
                limited(
                    site,
                    Limit::AddressSpace(64 << 20),
                    &["error: ", "memory", "64 MiB"],
                )
            },
        ),
        lone_row(
            "an agent whose tables do not fit into 64 MiB of memory says which flag is too large",
            Way::Filters,
            too_large,
        ),
        lone_row(
            "an agent grows its tables within the memory that it may have",
            Way::Filters,
            within,
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
    let agent = testbed::agent::Agent::begin(&site.launch().limited_to(limit))?;
    site.cluster.agents().push(agent);
    let ready = site.cluster.agents()[0].wait_until_ready();
    if ready.is_ok() {
        eprintln!("it serves with {limit:?}");
        site.is_served()?;
    } else {
        site.cluster.agents()[0].await_end().context("it hangs")?;
        site.await_said(words)?;
        // By itself, not by a signal.
        site.await_said(&["(ended: exit status: 1)"])?;
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

/// The kernel would kill it while it makes its maps, or later.
fn too_large(site: &Site) -> Result<()> {
    let group = MemoryGroup::of(&site.cluster.topology.run, 64 << 20)?;
    let launch = site.launch().with_default_tables().within(&group);
    let agent = Agent::begin(&launch)?;
    site.cluster.agents().push(agent);
    site.cluster.agents()[0].await_end()?;
    let set_by = group.path().display().to_string();
    site.await_said(&["64 MiB", &set_by, "--max-flows 131072", "--max-services"])?;
    site.await_said(&["(ended: exit status: 1)"])?;
    site.cluster.kill_agents();
    // Nothing is left of the try.
    site.start_agent()?;
    site.is_served()
}

fn within(site: &Site) -> Result<()> {
    let group = MemoryGroup::of(&site.cluster.topology.run, 192 << 20)?;
    let few = Tables {
        flows: 16_384,
        backends: 1 << 20,
        services: 1 << 18,
    };
    let agent = Agent::begin(&site.launch().with_tables(few).within(&group))?;
    site.cluster.agents().push(agent);
    site.cluster.agents()[0].wait_until_ready()?;
    site.await_said(&["the tables grow to", "not to 1048576 and 262144", "192 MiB"])?;
    site.is_served()?;
    site.answers_probes([200, 200, 200])?;
    site.follows()?;
    site.cluster.kill_agents();
    Ok(())
}
