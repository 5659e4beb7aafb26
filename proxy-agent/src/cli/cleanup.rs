//! `proxy-agent cleanup`: takes down our datapath, or what kube-proxy left.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::{
    datapath::{Attempt, Lock},
    migrate, run,
    state::Place,
};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Remove kube-proxy's iptables, nftables and ipvs rules instead, and leave Portside as it is
    #[arg(long)]
    kube_proxy: bool,
    /// Seconds that open TCP connections have to end, while new ones are left to whoever takes them
    #[arg(long, value_name = "SECONDS", default_value_t = run::DRAIN.as_secs())]
    drain: u64,
    /// Also while an agent runs, which puts everything back within a second
    #[arg(long, conflicts_with = "kube_proxy")]
    force: bool,
    #[command(flatten)]
    place: Place,
}

pub fn cleanup(args: &Args) -> Result<()> {
    if args.kube_proxy {
        return tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(migrate::remove_kube_proxy(&mut io::stdout()));
    }
    // Held to the end: no agent may start meanwhile.
    let attempt = if args.place.bpffs.exists() {
        Some(Lock::attempt(&args.place.bpffs)?)
    } else {
        None
    };
    let mut drain = Some(Duration::from_secs(args.drain));
    if let Some(Attempt::Held(by)) = attempt {
        // The agent goes on with what the maps hold.
        drain = None;
        let who = by.map_or_else(String::new, |process| format!(" (process {process})"));
        ensure!(
            args.force,
            "an agent{who} runs the datapath under {}, and would put it back: end it first (in a cluster, delete the DaemonSet or \
             keep it off this node), or give --force",
            args.place.bpffs.display()
        );
    }
    let removed = run::cleanup(&args.place, drain)?;
    let mut out = io::stdout();
    for what in &removed {
        writeln!(out, "removed {what}")?;
    }
    if removed.is_empty() {
        writeln!(
            out,
            "nothing to remove under {}",
            args.place.bpffs.display()
        )?;
    }
    Ok(())
}
