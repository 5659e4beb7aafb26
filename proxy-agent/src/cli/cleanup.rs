//! `proxy-agent cleanup`: takes down our datapath, or what kube-proxy left.

use std::{io, time::Duration};

use anyhow::Result;

use super::Place;
use crate::{migrate, run};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Remove kube-proxy's iptables, nftables and ipvs rules instead, and leave Portside as it is
    #[arg(long)]
    kube_proxy: bool,
    /// Seconds that open TCP connections have to end, while new ones are left to whoever takes them
    #[arg(long, value_name = "SECONDS", default_value_t = run::DRAIN.as_secs())]
    drain: u64,
    #[command(flatten)]
    place: Place,
}

pub fn cleanup(args: &Args) -> Result<()> {
    if !args.kube_proxy {
        return run::cleanup(&args.place, Duration::from_secs(args.drain));
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(migrate::remove_kube_proxy(&mut io::stdout()))
}
