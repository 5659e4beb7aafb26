//! `proxy-agent cleanup`: takes down our datapath, or what kube-proxy left.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::sys::signal::{SigSet, Signal};

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
    /// Go on until a signal, with nothing to do: for a DaemonSet, whose containers may not end
    #[arg(long, conflicts_with = "kube_proxy")]
    stay: bool,
    #[command(flatten)]
    place: Place,
}

impl Args {
    /// The place of our datapath, if that is what is taken down.
    pub(super) fn taken_down(&self) -> Option<&Place> {
        (!self.kube_proxy).then_some(&self.place)
    }
}

pub fn cleanup(args: &Args) -> Result<()> {
    if args.kube_proxy {
        return tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(migrate::remove_kube_proxy(&mut io::stdout()));
    }
    // Held until all is gone: no agent may start meanwhile.
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
    if args.stay {
        out.flush()?;
        // An agent that comes next must not wait for a container that is done.
        drop(attempt);
        wait_for_a_signal()?;
    }
    Ok(())
}

fn wait_for_a_signal() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Also as process 1 of a container, for which an unhandled signal does nothing (pid_namespaces(7)): a blocked one is kept.
    signals.thread_block()?;
    signals.wait()?;
    Ok(())
}
