//! What a leader does, from its first look to the end of its Lease.
//!
//! ```text
//! earlier leader's late writes made harmless -> lists read -> settle -> [ names into the Lease -> writes ] -> Events, counts
//!                                                            ^------------- something changes -------------------'
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use kube::{Api, Client, runtime::watcher};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, info, warn};

use super::{
    lease::{Leadership, Trouble},
    tell::{About, Teller},
    world::{Seen, Usable, World},
    write::{self, FENCE, Wanted, Written},
};
use crate::{
    balancer::{
        allot::{Allocator, Given, Outcome},
        demand::{Classes, Demand, FROM_POOL},
    },
    model::ObjectName,
    source::{Heard, convert::FieldError, kube::follow},
};

/// Events of a watch that may wait.
const WAITING: usize = 1024;
/// Services that are written under one declaration, and how many at a time.
const AT_ONCE: usize = 100;
const SIDE_BY_SIDE: usize = 8;
/// From a write that failed to the next try.
const RETRY: Duration = Duration::from_secs(1);
/// How long a change may wait for others that come with it.
const SETTLE: Duration = Duration::from_millis(20);

/// A leader, and what it knows.
pub struct Leader<'a> {
    pub client: &'a Client,
    pub classes: &'a Classes,
    pub pool_namespace: &'a str,
    pub leadership: &'a Leadership,
    pub teller: &'a Teller,
    world: World,
    allocator: Allocator,
    outcomes: BTreeMap<ObjectName, Outcome>,
    /// Services whose addresses were written since they were told.
    written: BTreeSet<ObjectName>,
    /// What each Service was told last.
    told: BTreeMap<ObjectName, Told>,
    refused_pools: BTreeMap<Arc<str>, FieldError>,
    /// The one that is stood back for.
    rival: Option<ObjectName>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Told {
    Given(Given),
    Refused(String),
}

impl<'a> Leader<'a> {
    pub fn new(
        client: &'a Client,
        classes: &'a Classes,
        pool_namespace: &'a str,
        leadership: &'a Leadership,
        teller: &'a Teller,
    ) -> Self {
        Self {
            client,
            classes,
            pool_namespace,
            leadership,
            teller,
            world: World::default(),
            allocator: Allocator::default(),
            outcomes: BTreeMap::new(),
            written: BTreeSet::new(),
            told: BTreeMap::new(),
            refused_pools: BTreeMap::new(),
            rival: None,
        }
    }

    /// Leads until the Lease is lost. `former` may be written late by an earlier leader.
    pub async fn lead(mut self, former: Vec<ObjectName>) -> Trouble {
        if let Err(trouble) = self.fence(former).await {
            return trouble;
        }
        let (sender, mut seen) = mpsc::channel(WAITING);
        // Dropped with this, and the followers with it. Lists that are read now are later than all that was written before.
        let _followers = self.follow(&sender);
        let mut retry: Option<Instant> = None;
        loop {
            let first = tokio::select! {
                first = seen.recv() => first,
                () = until(retry) => None,
            };
            retry = None;
            if let Some((_, first)) = first {
                self.world.take(first);
                sleep(SETTLE).await;
                while let Ok((_, more)) = seen.try_recv() {
                    self.world.take(more);
                }
            }
            if !self.leadership.is_held() {
                return Trouble::Lost;
            }
            if !self.world.is_whole() || self.stands_back() {
                continue;
            }
            self.settle();
            match self.write().await {
                Ok(true) => {}
                Ok(false) => retry = Some(Instant::now() + RETRY),
                Err(trouble @ Trouble::Lost) => return trouble,
                Err(trouble) => {
                    warn!("{trouble}");
                    retry = Some(Instant::now() + RETRY);
                }
            }
        }
    }

    fn follow(&self, to: &mpsc::Sender<(std::time::Instant, Seen)>) -> JoinSet<()> {
        let mut all = JoinSet::new();
        let (back, heard) = (Arc::new(Notify::new()), Heard::default());
        let client = || self.client.clone();
        let ends = || (Arc::clone(&back), heard.clone());
        let config = watcher::Config::default;
        let by = |label: &str| config().labels(label);
        all.spawn(follow(
            "Services",
            Api::all(client()),
            config(),
            (Seen::Service, Seen::Failed),
            to.clone(),
            ends(),
        ));
        let pools = Api::namespaced(client(), self.pool_namespace);
        all.spawn(follow(
            "IPAddressPools",
            pools,
            config(),
            (Seen::Pool, Seen::Failed),
            to.clone(),
            ends(),
        ));
        all.spawn(follow(
            "Namespaces",
            Api::all(client()),
            config(),
            (Seen::Namespace, Seen::Failed),
            to.clone(),
            ends(),
        ));
        let (manifest, chart) = (
            by("app=metallb,component=controller"),
            by("app.kubernetes.io/name=metallb,app.kubernetes.io/component=controller"),
        );
        all.spawn(follow(
            "Deployments of MetalLB",
            Api::all(client()),
            manifest,
            (Seen::ByManifest, Seen::Failed),
            to.clone(),
            ends(),
        ));
        all.spawn(follow(
            "Deployments of MetalLB",
            Api::all(client()),
            chart,
            (Seen::ByChart, Seen::Failed),
            to.clone(),
            ends(),
        ));
        all
    }

    /// Makes late writes to these Services harmless; their names stay in the Lease until that is done.
    async fn fence(&mut self, mut services: Vec<ObjectName>) -> Result<(), Trouble> {
        let mark = Timestamp::now().to_string();
        if !services.is_empty() {
            info!(
                "{} Services may be written late by an earlier leader: changed first",
                services.len()
            );
        }
        while let Some(name) = services.last() {
            if !self.leadership.is_held() {
                return Err(Trouble::Lost);
            }
            match write::fence(self.client, name, &mark).await {
                Ok(()) => {
                    services.pop();
                }
                Err(error) => {
                    warn!(
                        "Service {name} cannot be changed: {error}; nothing is given until it is"
                    );
                    sleep(RETRY).await;
                }
            }
        }
        loop {
            match self.leadership.declare(&[]).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Lost) => return Err(Trouble::Lost),
                Err(trouble) => {
                    warn!("{trouble}");
                    sleep(RETRY).await;
                }
            }
            if !self.leadership.is_held() {
                return Err(Trouble::Lost);
            }
        }
    }

    /// Does MetalLB give addresses to the same Services?
    fn stands_back(&mut self) -> bool {
        let rival = self.world.rival(self.classes).cloned();
        match (&rival, &self.rival) {
            (Some(name), None) => {
                warn!(
                    "MetalLB's controller runs (Deployment {name}): standing back, no address is given until it is gone or scaled to 0"
                );
            }
            (None, Some(_)) => info!("MetalLB's controller runs no more: giving addresses"),
            _ => {}
        }
        if rival.is_some() {
            // What it gives meanwhile is found in the status of each Service.
            self.allocator = Allocator::default();
            self.outcomes.clear();
            self.told.clear();
            self.world
                .touched
                .extend(self.world.services.keys().cloned());
            self.world.pools_touched = true;
        }
        self.rival = rival;
        self.rival.is_some()
    }

    /// Decides who has what.
    fn settle(&mut self) {
        let touched = std::mem::take(&mut self.world.touched);
        let pools_touched = std::mem::take(&mut self.world.pools_touched);
        if touched.is_empty() && !pools_touched {
            return;
        }
        if pools_touched {
            let Usable {
                good,
                unread,
                problems,
            } = self.world.usable_pools();
            self.tell_pools(&problems);
            self.allocator.set_pools(good, unread);
            self.refused_pools = problems;
        }
        for name in &touched {
            let known = self.world.services.get(name);
            match known.and_then(|known| Demand::of(&known.object, self.classes)) {
                Some(demand) => self.allocator.set(name, demand),
                None => {
                    let has = known.map(|known| known.object.addresses());
                    self.allocator.remove(name, has.unwrap_or_default());
                    self.told.remove(name);
                }
            }
        }
        self.outcomes = self.allocator.settle();
    }

    /// What each Service is to say, where it says something else.
    fn wanted(&self) -> Vec<(ObjectName, Wanted, String)> {
        let mut all = Vec::new();
        for (name, known) in &self.world.services {
            let annotations = known.object.metadata.annotations.as_ref();
            let has = |annotation| annotations.is_some_and(|all| all.contains_key(annotation));
            let is_ours = has(FROM_POOL) || has(FENCE);
            let wanted = match self.outcomes.get(name) {
                Some(Outcome::Given(given)) => Wanted {
                    given: Some(given.clone()),
                },
                // Addresses that no pool ever gave are somebody else's.
                Some(Outcome::Refused { .. }) if !is_ours => continue,
                Some(Outcome::Refused { .. }) => Wanted { given: None },
                None => {
                    let spec = known.object.spec.as_ref();
                    let is_balancer =
                        spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
                    if is_balancer || !is_ours {
                        continue;
                    }
                    Wanted { given: None }
                }
            };
            if !wanted.is_said(&known.object) {
                all.push((name.clone(), wanted, known.version.clone()));
            }
        }
        all
    }

    /// Writes what there is to write. Is everything written?
    async fn write(&mut self) -> Result<bool, Trouble> {
        let mut is_done = true;
        let (takes, gives): (Vec<_>, Vec<_>) = self
            .wanted()
            .into_iter()
            .partition(|(_, wanted, _)| wanted.given.is_none());
        for some in takes.chunks(AT_ONCE) {
            is_done &= self.write_some(some).await?;
        }
        // What is in the status of one still is not written into that of another.
        let held = self.not_given_up();
        let (late, gives): (Vec<_>, Vec<_>) = gives.into_iter().partition(|(name, wanted, _)| {
            let mut addresses = wanted.given.iter().flat_map(|given| &given.addresses);
            addresses.any(|address| {
                held.get(address)
                    .is_some_and(|holders| holders.iter().any(|holder| holder != name))
            })
        });
        for (name, ..) in &late {
            debug!("Service {name} waits for an address that another one has still");
            is_done = false;
        }
        for some in gives.chunks(AT_ONCE) {
            is_done &= self.write_some(some).await?;
        }
        self.tell_services();
        if is_done {
            is_done = self.count().await;
        }
        Ok(is_done)
    }

    /// The addresses that are in the status of a Service without being its own any more, and whose.
    fn not_given_up(&self) -> BTreeMap<IpAddr, Vec<ObjectName>> {
        let mut held: BTreeMap<IpAddr, Vec<ObjectName>> = BTreeMap::new();
        for (name, known) in &self.world.services {
            let own = match self.outcomes.get(name) {
                Some(Outcome::Given(given)) => &given.addresses[..],
                Some(Outcome::Refused { .. }) | None => &[],
            };
            for address in known.object.addresses() {
                if !own.contains(&address) {
                    held.entry(address).or_default().push(name.clone());
                }
            }
        }
        held
    }

    async fn write_some(&mut self, some: &[(ObjectName, Wanted, String)]) -> Result<bool, Trouble> {
        let names: Vec<_> = some.iter().map(|(name, ..)| name.clone()).collect();
        self.leadership.declare(&names).await?;
        let client = self.client;
        let leadership = self.leadership;
        let writes = stream::iter(some).map(|(name, wanted, version)| async move {
            match leadership.is_held() {
                true => (name, write::status(client, name, wanted, version).await),
                false => (
                    name,
                    Written::Refused {
                        code: 0,
                        message: "not leading any more".to_owned(),
                    },
                ),
            }
        });
        let results: Vec<_> = writes.buffer_unordered(SIDE_BY_SIDE).collect().await;
        let mut in_doubt = BTreeSet::new();
        let mut is_done = true;
        for (name, written) in results {
            match written {
                Written::Done(object, version) => {
                    self.world.learn(name, *object, version);
                    self.written.insert(name.clone());
                }
                Written::Refused { code: 404, .. } => {}
                Written::Refused { code: 409, .. } => {
                    debug!("Service {name} changed meanwhile");
                    is_done = false;
                }
                Written::Refused { code, message } => {
                    warn!("the status of Service {name} is refused ({code}): {message}");
                    is_done = false;
                }
                Written::InDoubt(why) => {
                    warn!("the status of Service {name}: {why}");
                    in_doubt.insert(name.clone());
                    is_done = false;
                }
            }
        }
        match in_doubt.is_empty() {
            true => self.leadership.settled().await,
            false => self.fence(in_doubt.into_iter().collect()).await?,
        }
        Ok(is_done)
    }

    fn tell_services(&mut self) {
        for (name, outcome) in &self.outcomes {
            let Some(known) = self.world.services.get(name) else {
                continue;
            };
            let uid = known.object.metadata.uid.as_ref();
            match outcome {
                Outcome::Given(given) => {
                    if known.object.addresses() != given.addresses {
                        // Not written yet.
                        continue;
                    }
                    let told = Told::Given(given.clone());
                    let is_new =
                        self.told.insert(name.clone(), told.clone()).as_ref() != Some(&told);
                    // What was in the status before is no news.
                    if self.written.remove(name) && is_new {
                        let addresses: Vec<_> =
                            given.addresses.iter().map(ToString::to_string).collect();
                        let text =
                            format!("{} of IPAddressPool {}", addresses.join(", "), given.pool);
                        info!("Service {name} has {text}");
                        self.teller
                            .tell(About::Service, name, uid, "IPAllocated", true, text);
                    }
                }
                Outcome::Refused { why, lost } => {
                    let told = Told::Refused(why.clone());
                    if self.told.insert(name.clone(), told.clone()).as_ref() != Some(&told) {
                        let text = match lost {
                            Some(lost) => format!("{why} (it lost what it had: {lost})"),
                            None => why.clone(),
                        };
                        warn!("Service {name} has no address: {text}");
                        self.teller.tell(
                            About::Service,
                            name,
                            uid,
                            "AllocationFailed",
                            false,
                            text,
                        );
                    }
                }
            }
        }
    }

    fn tell_pools(&self, problems: &BTreeMap<Arc<str>, FieldError>) {
        for (name, problem) in problems {
            if self.refused_pools.get(name) != Some(problem) {
                let full = ObjectName::new(self.pool_namespace, Arc::clone(name));
                warn!("IPAddressPool {full}: {problem}; nothing more is given of it");
                let uid = self
                    .world
                    .pools
                    .get(&full)
                    .and_then(|pool| pool.uid.as_ref());
                self.teller.tell(
                    About::Pool,
                    &full,
                    uid,
                    "PoolRefused",
                    false,
                    problem.to_string(),
                );
            }
        }
    }

    /// Writes the counts of pools. Are all written?
    async fn count(&mut self) -> bool {
        let mut is_done = true;
        let counts = self.allocator.counts();
        for (name, pool) in &mut self.world.pools {
            let Some(count) = counts.get(&name.name) else {
                continue;
            };
            if pool.status.as_ref() != Some(count) {
                match write::counts(self.client, name, count).await {
                    Ok(()) => pool.status = Some(*count),
                    Err(error) => {
                        warn!("the status of IPAddressPool {name}: {error}");
                        is_done = false;
                    }
                }
            }
        }
        is_done
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
