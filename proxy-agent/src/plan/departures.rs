//! Keeps ids, slots and backends that services gave up, until they may be used again.
//!
//! A program that runs while a service's value is replaced may hold the old one. So a backend that no service refers to
//! any more is closed a moment later, and ids and slots are free again only long after that.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use proxy_common::abi::{BackendFlags, BackendId, Extent, ServiceId};

use super::{BackendEntry, Op};

/// From the last reference to a backend until it is closed: more than any run of a program takes. UDP flows leave the backend when it is closed.
const LINGER: Duration = Duration::from_millis(10);
/// From the last reference to an id or a slot until it may be given to another.
const GRACE: Duration = Duration::from_secs(2);

/// Something that may be used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Free {
    Service(ServiceId),
    Backend(BackendId),
    Slots(Extent),
}

/// Both queues are in the order of time.
#[derive(Debug, Default)]
pub struct Departures {
    closing: VecDeque<(Instant, BackendId, BackendEntry)>,
    /// Each with the namespace whose it was.
    resting: VecDeque<(Instant, Free, Arc<str>)>,
}

impl Departures {
    pub fn backend(
        &mut self,
        now: Instant,
        namespace: &Arc<str>,
        id: BackendId,
        entry: BackendEntry,
    ) {
        self.closing.push_back((now + LINGER, id, entry));
        self.rest(now, namespace, Free::Backend(id));
    }

    pub fn service(&mut self, now: Instant, namespace: &Arc<str>, id: ServiceId) {
        self.rest(now, namespace, Free::Service(id));
    }

    pub fn slots(&mut self, now: Instant, namespace: &Arc<str>, extent: Extent) {
        self.rest(now, namespace, Free::Slots(extent));
    }

    /// When there is something to do next.
    pub fn next_due(&self) -> Option<Instant> {
        let closing = self.closing.front().map(|(due, ..)| *due);
        let resting = self.resting.front().map(|(due, ..)| *due);
        closing.into_iter().chain(resting).min()
    }

    /// The writes that close backends whose time has come.
    pub fn close(&mut self, now: Instant) -> Vec<Op> {
        let mut ops = Vec::new();
        while let Some(&(due, id, entry)) = self.closing.front()
            && due <= now
        {
            self.closing.pop_front();
            ops.push(closed(id, entry));
        }
        ops
    }

    /// What has rested long enough, after it was closed.
    pub fn rested(&mut self, now: Instant) -> Option<(Free, Arc<str>)> {
        let (due, ..) = self.resting.front()?;
        if *due > now {
            return None;
        }
        let (_, free, namespace) = self.resting.pop_front()?;
        Some((free, namespace))
    }

    /// Lets everything of a namespace go at once, for who has waited until no program can have seen it: the writes that close its backends, and
    /// what may be used again.
    pub fn let_go(&mut self, namespace: &Arc<str>) -> (Vec<Op>, Vec<Free>) {
        let (gone, resting): (VecDeque<_>, VecDeque<_>) = mem::take(&mut self.resting)
            .into_iter()
            .partition(|(_, _, whose)| whose == namespace);
        self.resting = resting;
        let gone: Vec<Free> = gone.into_iter().map(|(_, free, _)| free).collect();
        let backends: HashSet<BackendId> = gone
            .iter()
            .filter_map(|free| match free {
                Free::Backend(id) => Some(*id),
                Free::Service(_) | Free::Slots(_) => None,
            })
            .collect();
        let (open, closing): (VecDeque<_>, VecDeque<_>) = mem::take(&mut self.closing)
            .into_iter()
            .partition(|(_, id, _)| backends.contains(id));
        self.closing = closing;
        let close = open.into_iter().map(|(_, id, entry)| closed(id, entry));
        (close.collect(), gone)
    }

    fn rest(&mut self, now: Instant, namespace: &Arc<str>, free: Free) {
        self.resting
            .push_back((now + GRACE, free, Arc::clone(namespace)));
    }
}

const fn closed(id: BackendId, entry: BackendEntry) -> Op {
    Op::Backend {
        id,
        entry: BackendEntry {
            flags: BackendFlags::empty(),
            ..entry
        },
    }
}
