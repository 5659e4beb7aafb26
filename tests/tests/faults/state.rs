//! The state directory is full or read-only: names are missing, and nothing else.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use testbed::cli;

use crate::site::{Site, Way, lone_row};

pub fn rows() -> Vec<Trial> {
    vec![
        lone_row(
            "a state directory that is full costs names alone",
            Way::Filters,
            |site| without_state(site, MsFlags::empty()),
        ),
        lone_row(
            "a state directory that is read-only costs names alone",
            Way::Filters,
            |site| without_state(site, MsFlags::MS_RDONLY),
        ),
    ]
}

struct Mounted<'a>(&'a std::path::Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

/// One page, which the directories take, or no way to write.
fn without_state(site: &Site, flags: MsFlags) -> Result<()> {
    let state = site.node().state.as_path();
    mount(
        Some("tmpfs"),
        state,
        Some("tmpfs"),
        flags,
        Some("size=4k,nr_inodes=2"),
    )?;
    let _mounted = Mounted(state);
    site.start_agent()?;
    site.await_said(&["shows no names"])?;
    site.is_served()?;
    site.answers_probes([200, 200, 200])?;
    site.follows()?;
    // Without names, but with what the kernel has.
    let shown = cli::ask(site.node(), &["get", "services", "-A"])?;
    ensure!(shown.contains('#'), "{shown}");
    site.cluster.kill_agents();
    site.start_agent()?;
    site.is_served()
}
