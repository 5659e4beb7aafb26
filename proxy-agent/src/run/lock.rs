//! One agent at a time: the next one waits for the one before it to end.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::time;
use tracing::info;

use crate::datapath::{Attempt, Lock};

/// As long as a pod is given to end (`terminationGracePeriodSeconds`), unless somebody says otherwise.
const WAIT: Duration = Duration::from_secs(30);
const BETWEEN: Duration = Duration::from_millis(50);

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
