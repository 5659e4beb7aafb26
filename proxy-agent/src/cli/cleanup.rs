//! `proxy-agent cleanup`: takes down our datapath, or what kube-proxy left.

use std::io;

use anyhow::Result;

use super::Place;
use crate::{migrate, run};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Remove kube-proxy's iptables, nftables and ipvs rules instead, and leave Portside as it is
    #[arg(long)]
    kube_proxy: bool,
    #[command(flatten)]
    place: Place,
}

pub fn cleanup(args: &Args) -> Result<()> {
    if !args.kube_proxy {
        return run::cleanup(&args.place);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(migrate::remove_kube_proxy(&mut io::stdout()))
}
