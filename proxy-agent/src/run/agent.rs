//! The state, and what each event does to it.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::{
    task::{self, JoinHandle},
    time,
};
use tracing::{error, info, warn};

use super::{
    args::Args,
    complaints,
    growth::Growth,
    hooks::Hooks,
    looking::Looking,
    phase::{Phase, Write},
    room::Waiting,
    rounds::{self, Rounds},
    saying::Saying,
    sweeps::Sweeps,
};
use crate::{
    datapath::{Datapath, Lock, memory as tables},
    memory,
    model::{ObjectName, Store},
    node::{self, Change, Netlink, NodePortAddresses, Roles, Selection, SourceCheck, View},
    notices::{self, Notices, Topic},
    plan::{self, Limits, NodeAddresses, Planner},
    serve::{Observed, ServiceNames, Status},
    source::Arrival,
    state::Names,
};

/// How long a first change of the network waits for those that come with it.
const SETTLE: Duration = Duration::from_millis(5);
/// From a failed write until all is read and written anew.
const RETRY: Duration = Duration::from_secs(1);
/// From a failed write of the node's devices and addresses, which may have loaded programs, to the next.
const WRITE_NODE_AGAIN: Duration = Duration::from_secs(5);
/// The file of names is at most this far behind.
const NAMES_AFTER: Duration = Duration::from_millis(200);

pub struct Agent {
    object: &'static [u8],
    datapath: Datapath,
    netlink: Netlink,
    store: Store,
    planner: Planner,
    growth: Growth,
    /// What there is no room for.
    waiting: Waiting,
    hooks: Hooks,
    view: View,
    roles: Roles,
    uplinks: Selection,
    workloads: Selection,
    node_ports: NodePortAddresses,
    source_check: SourceCheck,
    rounds: Rounds,
    sweeps: Sweeps,
    names: PathBuf,
    /// Writes that file.
    names_writer: Option<JoinHandle<()>>,
    /// What others may ask for.
    status: Arc<Status>,
    observed: Observed,
    /// Services that changed and are not written yet.
    dirty: BTreeSet<ObjectName>,
    phase: Phase,
    write_names_at: Option<Instant>,
    /// What was said of devices that are named.
    advised: BTreeSet<String>,
    write_node_at: Option<Instant>,
    /// Why the programs do not know the node as it is.
    node_unknown: Option<String>,
    looking: Looking,
    saying: Saying,
}

impl Agent {
    /// Loads the datapath and tells it what the node looks like. No packet passes it yet, unless it ran before.
    pub async fn start(
        args: &Args,
        object: &'static [u8],
        netlink: Netlink,
        status: Arc<Status>,
        (lock, saying): (Lock, Saying),
    ) -> Result<Self> {
        node::prepare_loopback(&args.proc_sys);
        args.conntrack.apply(&args.proc_sys);
        let view = netlink.view().await?;
        let roles = node::roles(&view, &args.uplinks, &args.workloads);
        let facts = node::facts(&view, &roles, &args.nodeport_addresses, args.source_check);
        let allowance = memory::Allowance::read().filter(|_| tables::counts_for_process());
        let (limits, mut options) = args.options(allowance)?;
        options.sizes = options.sizes.with_room_for(&facts);
        let mut datapath = Datapath::load(object, &options)?;
        datapath.configure(RandomState::new().hash_one(()) as u32)?;
        if args.source_check == SourceCheck::Strict {
            datapath.ask_all_sources()?;
        }
        datapath.set_facts(&facts)?;
        let planner = planner(&datapath, limits, node::node_addresses(&view, &roles))?;
        status.set_check_addresses(node::node_port_addresses(
            &view,
            &roles,
            &args.nodeport_addresses,
        ));
        let mut store = Store::new(&*args.node_name)
            .refusing(args.refused_addresses.clone())
            .balancing_by(args.load_balancing)
            .serving_external_ips(args.allow_service_external_ips)
            .with_bounds(args.room.service_bounds);
        store.set_broadcasts(node::broadcasts());
        let mut agent = Self {
            object,
            datapath,
            netlink,
            store,
            planner,
            growth: Growth::new(limits),
            waiting: Waiting::new(args.place.left_out(), Instant::now()),
            hooks: Hooks::new(args, Arc::clone(&status))?,
            view,
            roles,
            uplinks: args.uplinks.clone(),
            workloads: args.workloads.clone(),
            node_ports: args.nodeport_addresses.clone(),
            source_check: args.source_check,
            rounds: Rounds::default(),
            sweeps: Sweeps::default(),
            names: args.place.names(),
            names_writer: None,
            status,
            observed: Observed::default(),
            dirty: BTreeSet::new(),
            phase: Phase::Starting,
            write_names_at: None,
            write_node_at: None,
            node_unknown: None,
            looking: Looking::new(lock, args.place.looks()),
            saying,
            advised: BTreeSet::new(),
        };
        agent.advise();
        Ok(agent)
    }

    /// Says once what should be named in place of a device that is named.
    fn advise(&mut self) {
        for index in self.view.links.keys() {
            if let Some(better) = node::better_named(&self.view, *index, &self.uplinks)
                && self.advised.insert(better.clone())
            {
                warn!("{better}");
            }
        }
    }

    /// Lets go of the datapath, and leaves the lock to whoever has something left to do.
    pub fn end(self) -> Lock {
        self.looking.end()
    }

    /// Takes in a batch of events; nothing is written yet.
    pub fn take(&mut self, arrival: Arrival) {
        let Arrival { at, batch } = arrival;
        let was_synced = self.store.is_synced();
        self.status.arrived(&batch);
        for event in batch {
            self.store.apply(event);
        }
        let triggers = self.store.take_triggers();
        if self.store.is_synced() && !was_synced {
            info!(
                "the lists are complete: {} Services",
                self.store.services().count()
            );
        }
        // Before both lists are complete nothing can be written, so nothing waits.
        if self.store.is_synced() {
            self.status.queued(at, triggers);
        }
        complaints::say(&self.store.take_warnings());
        self.dirty.append(&mut self.store.take_dirty());
    }

    /// Writes what has changed. The first time, that is everything, and then the programs are attached.
    pub fn sync(&mut self) -> Result<()> {
        let Some(write) = self.phase.writes(self.store.is_synced()) else {
            return Ok(());
        };
        let began = Instant::now();
        if !self.phase.is_attached() && self.datapath.is_first() {
            // On empty maps, where they do nothing: so every service begins with all of its hooks at once.
            self.hooks
                .follow(&mut self.datapath, &self.view, &self.roles)?;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let Self {
            store,
            observed,
            waiting,
            status,
            planner,
            ..
        } = self;
        let names: Vec<_> = match write {
            Write::Changes => dirty.into_iter().collect(),
            Write::All => store
                .services()
                .map(|service| service.name.clone())
                .collect(),
        };
        let notices = status.notices();
        let changes = in_order(store, names).into_iter();
        let changes = changes.map(|name| desired(store, observed, waiting, notices, name));
        let plan = match write {
            Write::Changes => planner.update(began, &changes.collect::<Vec<_>>()),
            Write::All => planner.sync(began, changes),
        };
        self.execute(plan)?;
        self.status.observe(&self.observed);
        if !self.phase.is_unsure() {
            self.status.written(began);
        }
        if let Some(stranger) = self.store.take_stranger() {
            warn!("{stranger}");
        }
        if self.phase.is_unsure() {
            return Ok(());
        }
        if !self.phase.is_attached() {
            self.hooks
                .follow(&mut self.datapath, &self.view, &self.roles)?;
            self.datapath.detach_strays(&self.hooks.targets())?;
            self.datapath.resize_flows(self.object)?;
            self.datapath.remember_pins()?;
            self.looking.begin();
            let names = self.publish_names();
            write_names(&names, &self.names);
            memory::give_back();
            self.status.set_ready();
            self.saying.soon();
            info!("ready: {} service ports", self.planner.names().count());
        }
        self.phase.serve();
        Ok(())
    }

    /// Does what has come due: writes names and the state of the node, looks after the datapath.
    pub fn advance(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.write_names_at.is_some_and(|at| at <= now) {
            self.names_changed();
        }
        if self.write_node_at.is_some_and(|at| at <= now) {
            self.write_node();
        }
        self.looking.look(
            now,
            &mut self.datapath,
            &self.status,
            self.node_unknown.as_deref(),
        );
        self.saying.say(now, &self.datapath, &self.status);
        if self.phase.reads(now) {
            let addresses = node::node_addresses(&self.view, &self.roles);
            let limits = self.growth.limits(&self.datapath);
            self.planner = planner(&self.datapath, limits, addresses)?;
            return self.sync();
        }
        if let Some(limits) = self.growth.may_again(now) {
            self.planner.set_limits(limits);
        }
        let ops = self.planner.advance(now);
        self.write(&ops);
        self.waiting.changed(&mut self.planner, now);
        let due = self.waiting.due(&self.planner, &self.store, now);
        if !due.is_empty() {
            self.dirty.extend(due);
            self.sync()?;
        }
        self.waiting.tell(&self.planner, &self.status, now);
        Ok(())
    }

    /// When [`Self::advance`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        [
            self.planner.next_due(),
            self.phase.next_due(),
            self.write_names_at,
            self.growth.next_due(),
            self.waiting.next_due(Instant::now()),
            self.write_node_at,
            self.looking.next_due(),
            Some(self.saying.next_due()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next change of the node's network. May be dropped before it is there.
    pub async fn network_changed(&mut self) -> Result<Change> {
        tokio::select! {
            change = self.netlink.changed() => change,
            lost = self.hooks.lost() => Ok(Change::XdpLost(lost)),
            () = self.rounds.next() => Ok(Change::Round),
        }
    }

    /// Takes over a change of the node's network, and those that come with it.
    pub async fn follow_network(&mut self, mut change: Change) -> Result<()> {
        match &change {
            Change::XdpLost(lost) => {
                if let Err(error) = self.hooks.take_loss(&mut self.datapath, &self.view, lost) {
                    warn!("{error:#}");
                }
                return Ok(());
            }
            Change::Round => {
                if let Err(error) = self.go_round().await {
                    warn!("{error:#}");
                    self.rounds.look_at_routes();
                }
                return Ok(());
            }
            Change::Hooks | Change::Path | Change::Route | Change::Devices => {}
        }
        time::sleep(SETTLE).await;
        if let Some(more) = self.netlink.drain() {
            change = change.max(more);
        }
        if !matches!(change, Change::Path | Change::Round) {
            self.looking.soon();
        }
        if change == Change::Hooks {
            return Ok(());
        }
        if change == Change::Route {
            self.rounds.look_at_routes();
        }
        if change == Change::Devices {
            match self.netlink.view().await {
                Ok(view) if view != self.view => self.take_view(view)?,
                Ok(_) => {}
                Err(error) => {
                    warn!("{error:#}; it is done again with the next round");
                    self.rounds.look_at_routes();
                }
            }
            self.store.set_broadcasts(node::broadcasts());
            self.dirty.append(&mut self.store.take_dirty());
            if !self.dirty.is_empty() {
                self.sync()?;
            }
        }
        self.datapath.bump_epoch()
    }

    /// Looks at what sends no event.
    async fn go_round(&mut self) -> Result<()> {
        let due = self.rounds.begin();
        if self.phase.is_attached() {
            let hops = self.datapath.next_hops(rounds::USED_WITHIN)?;
            self.netlink.keep_alive(&hops).await;
        }
        if due.view {
            let view = if due.routes {
                self.netlink.view().await?
            } else {
                let mut view = self.view.clone();
                view.read_reverse_paths();
                view
            };
            if view != self.view {
                self.take_view(view)?;
                self.datapath.bump_epoch()?;
            }
        }
        if let Some(held) = self
            .rounds
            .strangers(self.phase.is_attached(), &self.datapath)
        {
            self.datapath.reset_strangers(!held)?;
        }
        if self.phase.is_attached() {
            self.sweeps.advance(&self.datapath)?;
        }
        Ok(())
    }

    fn take_view(&mut self, view: View) -> Result<()> {
        self.roles = node::roles(&view, &self.uplinks, &self.workloads);
        self.view = view;
        self.advise();
        self.write_node();
        self.status.set_check_addresses(node::node_port_addresses(
            &self.view,
            &self.roles,
            &self.node_ports,
        ));
        let plan = self
            .planner
            .set_node(node::node_addresses(&self.view, &self.roles));
        self.execute(plan)?;
        if self.phase.is_attached()
            && let Err(error) = self
                .hooks
                .follow(&mut self.datapath, &self.view, &self.roles)
        {
            // A device may have gone since: the next change of the network tells.
            warn!("{error:#}");
        }
        Ok(())
    }

    /// Tells the programs what the node looks like. Where that fails, it is done again after a while.
    fn write_node(&mut self) {
        let facts = node::facts(&self.view, &self.roles, &self.node_ports, self.source_check);
        let written = self.datapath.follow_node(self.object, &facts);
        self.write_node_at = None;
        let failed = written.err().map(|error| format!("{error:#}"));
        if let Some(why) = &failed {
            self.write_node_at = Some(Instant::now() + WRITE_NODE_AGAIN);
            if self.node_unknown.as_ref() != Some(why) {
                error!(
                    "the programs do not know the node's devices and addresses as they are now: {why}; trying again every \
                     {WRITE_NODE_AGAIN:?}"
                );
            }
        }
        self.node_unknown = failed;
    }

    fn execute(&mut self, plan: plan::Plan) -> Result<()> {
        let plan::Plan { ops, room } = plan;
        if !self.growth.grow(&mut self.datapath, self.object, room)? {
            self.phase.lose(Instant::now());
            return Ok(());
        }
        self.write(&ops);
        self.waiting.changed(&mut self.planner, Instant::now());
        let renamed = |op: &plan::Op| {
            matches!(
                op,
                plan::Op::ClearServiceCount { .. } | plan::Op::RemoveService { .. }
            )
        };
        if ops.iter().any(renamed) && self.write_names_at.is_none() {
            self.write_names_at = Some(Instant::now() + NAMES_AFTER);
        }
        Ok(())
    }

    /// After a failed write nobody knows what the maps hold: they are read and everything is written anew, after a while.
    fn write(&mut self, ops: &[plan::Op]) {
        if let Err(error) = self.datapath.apply(ops) {
            error!("{error:#}; reading the maps anew in {RETRY:?}");
            self.phase.lose(Instant::now() + RETRY);
        }
    }

    /// Leaves the names for those who ask over HTTP.
    fn publish_names(&mut self) -> Arc<ServiceNames> {
        self.write_names_at = None;
        let names = self.planner.names();
        let names: Arc<ServiceNames> =
            Arc::new(names.map(|(id, key)| (id, Arc::clone(key))).collect());
        self.status.set_names(Arc::clone(&names));
        names
    }

    /// Does so, and writes the file on a thread of its own: events do not wait for that.
    fn names_changed(&mut self) {
        if self
            .names_writer
            .as_ref()
            .is_some_and(|one| !one.is_finished())
        {
            self.write_names_at = Some(Instant::now() + NAMES_AFTER);
            return;
        }
        let names = self.publish_names();
        let file = self.names.clone();
        self.names_writer = Some(task::spawn_blocking(move || write_names(&names, &file)));
    }
}

/// What is desired of a service now, taken note of for those who ask.
fn desired(
    store: &Store,
    observed: &mut Observed,
    waiting: &mut Waiting,
    notices: &Notices,
    name: ObjectName,
) -> plan::Change {
    let desired = store.desired(&name);
    waiting.note(store, &name, &desired);
    observed.update(&name, store.service(&name), &desired);
    let warnings = notices::of_warnings(&store.warnings_of(&name));
    notices.set(&name, Topic::Model, warnings);
    notices.set_shape(&name, notices::shape(store.service(&name), &desired));
    (name, desired)
}

/// Those that come first have the room, if there is not enough for all.
fn in_order(store: &Store, mut names: Vec<ObjectName>) -> Vec<ObjectName> {
    if names.len() > 1 {
        names.sort_by_cached_key(|name| store.rank(name));
    }
    names
}

fn write_names(names: &ServiceNames, file: &Path) {
    let names = names.iter().map(|(id, key)| (*id, key.as_ref()));
    if let Err(error) = Names::of(names).write(file) {
        warn!("{error:#}: `proxy-agent get` shows no names");
    }
}

/// A planner that starts from what the maps hold.
fn planner(datapath: &Datapath, limits: Limits, addresses: NodeAddresses) -> Result<Planner> {
    let image = datapath.maps().image()?;
    Ok(Planner::new(
        limits,
        datapath.sizes().room(),
        datapath.hz(),
        addresses,
        &image,
        Instant::now(),
    ))
}
