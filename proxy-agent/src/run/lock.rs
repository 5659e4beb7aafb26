//! One agent at a time: the next one waits for the one before it to end.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::time;
use tracing::info;

use crate::{
    datapath::{Attempt, Lock},
    serve::{self, Listeners},
};

/// As long as a pod is given to end (`terminationGracePeriodSeconds`), unless somebody says otherwise.
const WAIT: Duration = Duration::from_secs(30);
const BETWEEN: Duration = Duration::from_millis(50);

/// For as long the agent before may still have its sockets: the kernel closes the files of a process that ends one after the other.
const SOCKETS: Duration = Duration::from_secs(2);

/// Opens the sockets for those who ask, once the agent before has let go of them.
pub async fn listeners(args: &serve::Args) -> Result<Listeners> {
    let began = Instant::now();
    loop {
        match Listeners::open(args) {
            Err(error) if error.is_in_use() && began.elapsed() < SOCKETS => {
                time::sleep(BETWEEN).await;
            }
            opened => return Ok(opened?),
        }
    }
}

/// Takes the lock of `bpffs`; says for whom it waits, and gives up after a while.
pub async fn take(bpffs: &Path) -> Result<Lock> {
    let began = Instant::now();
    let mut said = false;
    loop {
        let by = match Lock::attempt(bpffs)? {
            Attempt::Taken(lock) => {
                if said {
                    info!("the other agent has ended after {:?}", began.elapsed());
                }
                return Ok(lock);
            }
            Attempt::Held(by) => by,
        };
        let who = by.map_or_else(
            || "another agent".to_owned(),
            |process| format!("another agent (process {process})"),
        );
        if began.elapsed() >= WAIT {
            bail!(
                "{who} still runs the datapath under {} after {WAIT:?}: one agent for each --bpffs",
                bpffs.display()
            );
        }
        if !said {
            info!(
                "waiting for {who} to end, which runs the datapath under {}; for {WAIT:?} at most",
                bpffs.display()
            );
            said = true;
        }
        time::sleep(BETWEEN).await;
    }
}
