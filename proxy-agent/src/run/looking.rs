//! Looking after the datapath: when, and what is said of it.
//!
//! In: the time, and the kernel's messages. Out: what others took away is there again, and who asks is told. The one rule: a loss is
//! logged once, counted each time, and shown for as long as it lasts.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use crate::{
    datapath::{Datapath, Findings, Lock},
    serve::Status,
    state::{self, Looks},
};

/// From one look at what is attached and pinned to the next.
const ALL: Duration = Duration::from_secs(1);
/// From one look at links to the next: so long packets may pass by one that somebody has detached.
const LINKS: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Looking {
    lock: Lock,
    /// Where the commands find what came of it.
    file: PathBuf,
    looks: Looks,
    /// What the last look found.
    found: Findings,
    all_at: Option<Instant>,
    links_at: Option<Instant>,
}

impl Looking {
    /// Not yet.
    pub fn new(lock: Lock, file: PathBuf) -> Self {
        Self {
            lock,
            file,
            looks: Looks::default(),
            found: Findings::default(),
            all_at: None,
            links_at: None,
        }
    }

    /// From here on. What an agent before this one put back is forgotten.
    pub fn begin(&mut self) {
        self.all_at = Some(Instant::now() + ALL);
        if let Err(error) = state::remove(&self.file) {
            warn!("{error:#}");
        }
    }

    /// There may be something to see.
    pub fn soon(&mut self) {
        if self.all_at.is_some() {
            self.all_at = Some(Instant::now());
        }
    }

    /// When [`Self::look`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        self.all_at.into_iter().chain(self.links_at).min()
    }

    pub fn end(self) -> Lock {
        self.lock
    }

    /// Looks at what it is time for. `node_unknown` says why the programs do not know the node as it is.
    pub fn look(
        &mut self,
        now: Instant,
        datapath: &mut Datapath,
        status: &Status,
        node_unknown: Option<&str>,
    ) {
        if self.all_at.is_some_and(|at| at <= now) {
            self.look_at_all(datapath, status, node_unknown);
        } else if self.links_at.is_some_and(|at| at <= now) {
            self.links_at = Some(now + LINKS);
            if datapath.has_lost_link() {
                self.look_at_all(datapath, status, node_unknown);
            }
        }
    }

    /// Looks whether everything that is attached and pinned is there still, and says what was not.
    fn look_at_all(
        &mut self,
        datapath: &mut Datapath,
        status: &Status,
        node_unknown: Option<&str>,
    ) {
        let now = Instant::now();
        self.all_at = Some(now + ALL);
        self.links_at = Some(now + LINKS);
        let mut findings = datapath.look_after();
        let unlocked = match self.lock.renew() {
            Ok(true) => None,
            Ok(false) => Some("another agent has the bpffs that is mounted there now".to_owned()),
            Err(error) => Some(format!("{error:#}")),
        };
        findings.unpinned = findings.unpinned.or(unlocked);
        self.say(&findings);
        status.looked_after(&findings, node_unknown);
        if self.looks.add(&findings)
            && let Err(error) = state::write(&self.file, &self.looks)
        {
            warn!("{error:#}: `proxy-agent status` does not show it");
        }
        self.found = findings;
    }

    fn say(&self, findings: &Findings) {
        for loss in &findings.restored {
            warn!("{loss}; it is restored");
        }
        for lack in &findings.lacking {
            if !self.found.lacking.contains(lack) {
                error!("{lack}; trying again every {ALL:?}");
            }
        }
        match (&self.found.unpinned, &findings.unpinned) {
            (before, Some(why)) if before.as_ref() != Some(why) => {
                error!("the datapath works but is not pinned, and would end with this agent: {why}")
            }
            (Some(_), None) => info!("the datapath is pinned again"),
            _ => {}
        }
    }
}
