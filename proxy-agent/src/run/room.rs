//! Room: how much there may be of everything, tables that grow, and what is left out.
//!
//! In: what the plan and the bounds of services leave out. Out: larger tables, and the same told to those who ask: a line in the log,
//! `/readyz`, metrics, and the file from which `proxy-agent get left-out` reads. The one rule: what there is no room for costs a
//! bounded amount of work and words, and is tried again when room has become free.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::{
    datapath::{
        LARGEST, Sizes, cpus,
        memory::{self, Bytes},
    },
    memory::Allowance,
    model::{Bounds, DesiredService, ObjectName, Store},
    plan::{LeftOut, Limits, Planner, Room},
    serve::{Status, Unserved, summary},
    state,
};

/// So many of those that wait are tried at once: events come in between.
const AT_ONCE: usize = 256;
/// From one trial of all that wait to the next.
const TRIAL: Duration = Duration::from_secs(1);
/// What is left out is told at most this late.
const TOLD_AFTER: Duration = Duration::from_millis(200);
/// From one line in the log to the next.
const SAID_EVERY: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Endpoints of service ports, both families together, to which the tables may grow
    #[arg(long, value_name = "N", default_value_t = LARGEST.backends, value_parser = clap::value_parser!(u32).range(2..))]
    pub max_backends: u32,
    /// Service ports, both families together, to which the tables may grow; four times as many addresses and source ranges of each family
    #[arg(long, value_name = "N", default_value_t = LARGEST.services, value_parser = clap::value_parser!(u32).range(2..1 << 28))]
    pub max_services: u32,
    /// Kernel memory to which the tables of services and endpoints may grow
    #[arg(long, value_name = "SIZE", default_value_t = Bytes(1 << 30))]
    pub table_memory: Bytes,
    /// What one Service may have: ports, addresses, source ranges (of each port) and endpoints
    #[arg(long, value_name = "NAME=N,...", default_value_t)]
    pub service_bounds: Bounds,
    /// What the Services of one namespace may have of each table, together
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub namespace_share: u32,
}

impl Args {
    /// How far the tables may grow on this machine.
    pub fn limits(&self) -> Limits {
        let room = Room {
            services: self.max_services,
            backends: self.max_backends,
        };
        Limits {
            room: memory::within(room, self.table_memory, cpus()),
            namespace_share: self.namespace_share,
        }
    }
}

/// How far tables may grow that may grow to `room` by the flags, where the process is allowed so much memory. Tables that were `found`
/// stay as large as they are: what they take, they have taken.
pub fn bounded(room: Room, found: Option<Room>, allowance: &Allowance, flows: u32) -> Room {
    let sizes = Sizes::first(flows, &room);
    let fits = memory::within_allowance(room, allowance, &sizes, cpus());
    let found = found.unwrap_or(fits);
    let bounded = Room {
        services: fits.services.max(found.services).min(room.services),
        backends: fits.backends.max(found.backends).min(room.backends),
    };
    if bounded != room {
        let Room { services, backends } = bounded;
        warn!(
            "the tables grow to {backends} endpoints and {services} service ports, not to {} and {} (--max-backends, --max-services, \
             --table-memory): this process may have {} MiB of memory ({})",
            room.backends,
            room.services,
            allowance.bytes >> 20,
            allowance.set_by.display()
        );
    }
    bounded
}

/// What is left out, and who is tried again when.
#[derive(Debug)]
pub struct Waiting {
    /// Beyond the bounds of their own.
    beyond: BTreeMap<ObjectName, LeftOut>,
    /// Those that are tried in this round, in their order.
    round: VecDeque<ObjectName>,
    /// Room has become free since the round began.
    has_freed: bool,
    /// When the next round may begin.
    next_round: Instant,
    told: Arc<Vec<Unserved>>,
    tell_at: Option<Instant>,
    say_at: Instant,
    is_said: bool,
    file: PathBuf,
}

impl Waiting {
    /// Nothing is left out; `file` is where that will be told.
    pub fn new(file: PathBuf, now: Instant) -> Self {
        Self {
            beyond: BTreeMap::new(),
            round: VecDeque::new(),
            has_freed: false,
            next_round: now,
            told: Arc::default(),
            tell_at: Some(now),
            say_at: now,
            is_said: true,
            file,
        }
    }

    /// Takes note of what the bounds of a service leave out.
    pub fn note(&mut self, store: &Store, name: &ObjectName, desired: &[DesiredService]) {
        let left_out = LeftOut {
            ports: store.ports_left_out(name),
            endpoints: desired
                .iter()
                .fold(0, |sum, port| sum.saturating_add(port.left_out)),
            ..LeftOut::default()
        };
        if left_out.is_nothing() {
            self.beyond.remove(name);
        } else {
            self.beyond.insert(name.clone(), left_out);
        }
    }

    /// The plan has changed. Tells of it in a moment.
    pub fn changed(&mut self, planner: &mut Planner, now: Instant) {
        self.has_freed |= planner.take_freed() && !planner.left_out().is_empty();
        let is_something = !(self.beyond.is_empty() && planner.left_out().is_empty());
        if is_something || !self.told.is_empty() {
            self.tell_at.get_or_insert(now + TOLD_AFTER);
        }
    }

    /// Those to be tried now, in their order: the older first, of two as old the one that asks for less.
    pub fn due(&mut self, planner: &Planner, store: &Store, now: Instant) -> Vec<ObjectName> {
        if self.round.is_empty() && self.has_freed && self.next_round <= now {
            self.has_freed = false;
            self.next_round = now + TRIAL;
            let mut names: Vec<_> = planner.left_out().keys().cloned().collect();
            names.sort_by_cached_key(|name| store.rank(name));
            self.round = names.into();
        }
        let some = self.round.len().min(AT_ONCE);
        self.round.drain(..some).collect()
    }

    /// When [`Self::due`] or [`Self::tell`] has something to do.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let round = if !self.round.is_empty() {
            Some(now)
        } else {
            self.has_freed.then_some(self.next_round)
        };
        let say = (!self.is_said).then_some(self.say_at);
        [round, self.tell_at, say].into_iter().flatten().min()
    }

    /// Tells what is left out, if that has changed.
    pub fn tell(&mut self, planner: &Planner, status: &Status, now: Instant) {
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_at = None;
            let all = self.all(planner);
            let has_changed = all != *self.told;
            if has_changed || !self.file.exists() {
                self.told = Arc::new(all);
                self.is_said &= !has_changed;
                status.set_unserved(Arc::clone(&self.told));
                if let Err(error) = state::write(&self.file, self.told.as_ref()) {
                    warn!("{error:#}: `proxy-agent get left-out` shows an older state");
                }
            }
        }
        if !self.is_said && self.say_at <= now {
            self.is_said = true;
            if self.say() {
                self.say_at = now + SAID_EVERY;
            }
        }
    }

    fn all(&self, planner: &Planner) -> Vec<Unserved> {
        let mut all = self.beyond.clone();
        for (name, left_out) in planner.left_out() {
            let sum = all.entry(name.clone()).or_default();
            sum.ports += left_out.ports;
            sum.addresses += left_out.addresses;
            sum.ranges += left_out.ranges;
            sum.endpoints += left_out.endpoints;
            sum.lists += left_out.lists;
            sum.why = left_out.why;
        }
        all.iter()
            .map(|(name, sum)| Unserved::new(name, sum))
            .collect()
    }

    /// One line, however many there are. Says whether it was a complaint.
    fn say(&self) -> bool {
        match summary(&self.told) {
            Some(line) => {
                warn!("{line}; `proxy-agent get left-out -A` lists all");
                true
            }
            None => {
                info!("there is room for all Services again");
                false
            }
        }
    }
}
