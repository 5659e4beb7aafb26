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

use super::{args::Args, hooks::Hooks, names::Names};
use crate::{
    datapath::Datapath,
    memory,
    model::{ObjectName, Store},
    node::{self, Change, Netlink, NodePortAddresses, Roles, Selection, View},
    plan::{self, Limits, NodeAddresses, Planner},
    serve::{Observed, ServiceNames, Status},
    source::Arrival,
};

/// How long a first change of the network waits for those that come with it.
const SETTLE: Duration = Duration::from_millis(5);
/// From a failed write until all is read and written anew.
const RETRY: Duration = Duration::from_secs(1);
/// The file of names is at most this far behind.
const NAMES_AFTER: Duration = Duration::from_millis(200);

pub struct Agent {
    object: &'static [u8],
    datapath: Datapath,
    netlink: Netlink,
    store: Store,
    planner: Planner,
    hooks: Hooks,
    view: View,
    roles: Roles,
    uplinks: Selection,
    workloads: Selection,
    node_ports: NodePortAddresses,
    names: PathBuf,
    /// Writes that file.
    names_writer: Option<JoinHandle<()>>,
    /// What others may ask for.
    status: Arc<Status>,
    observed: Observed,
    /// Services that changed and are not written yet.
    dirty: BTreeSet<ObjectName>,
    /// The maps hold all that the source has.
    complete: bool,
    /// The programs see packets.
    attached: bool,
    retry_at: Option<Instant>,
    write_names_at: Option<Instant>,
}

impl Agent {
    /// Loads the datapath and tells it what the node looks like. No packet passes it yet, unless it ran before.
    pub async fn start(
        args: &Args,
        object: &'static [u8],
        netlink: Netlink,
        status: Arc<Status>,
    ) -> Result<Self> {
        node::prepare_loopback(&args.proc_sys);
        args.conntrack.apply(&args.proc_sys);
        let mut datapath = Datapath::load(object, &args.options())?;
        datapath.configure(RandomState::new().hash_one(()) as u32)?;
        let view = netlink.view().await?;
        let roles = node::roles(&view, &args.uplinks, &args.workloads);
        datapath.set_facts(&node::facts(&view, &roles, &args.nodeport_addresses))?;
        let planner = planner(&datapath, node::node_addresses(&view, &roles))?;
        status.set_check_addresses(node::node_port_addresses(
            &view,
            &roles,
            &args.nodeport_addresses,
        ));
        let mut store = Store::new(&*args.node_name)
            .refusing(args.refused_addresses.clone())
            .serving_external_ips(args.allow_service_external_ips);
        store.set_broadcasts(node::broadcasts());
        Ok(Self {
            object,
            datapath,
            netlink,
            store,
            planner,
            hooks: Hooks::new(args, Arc::clone(&status))?,
            view,
            roles,
            uplinks: args.uplinks.clone(),
            workloads: args.workloads.clone(),
            node_ports: args.nodeport_addresses.clone(),
            names: args.place.names(),
            names_writer: None,
            status,
            observed: Observed::default(),
            dirty: BTreeSet::new(),
            complete: false,
            attached: false,
            retry_at: None,
            write_names_at: None,
        })
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
        for warning in self.store.take_warnings() {
            warn!("{warning}");
        }
        self.dirty.append(&mut self.store.take_dirty());
    }

    /// Writes what has changed. The first time, that is everything, and then the programs are attached.
    pub fn sync(&mut self) -> Result<()> {
        if !self.store.is_synced() || self.retry_at.is_some() {
            return Ok(());
        }
        let began = Instant::now();
        if !self.attached && self.datapath.is_first() {
            // On empty maps, where they do nothing: so every service begins with all of its hooks at once.
            self.hooks
                .follow(&mut self.datapath, &self.view, &self.roles)?;
        }
        if self.complete {
            let names = std::mem::take(&mut self.dirty);
            let Self {
                store, observed, ..
            } = self;
            let desired = |name| desired(store, observed, name);
            let changes: Vec<_> = names.into_iter().map(desired).collect();
            let plan = self.planner.update(began, &changes);
            self.execute(plan);
        } else {
            self.dirty.clear();
            let Self {
                store, observed, ..
            } = self;
            let all = store.services().map(|service| service.name.clone());
            let changes = all.map(|name| desired(store, observed, name));
            let plan = self.planner.sync(began, changes);
            self.complete = true;
            self.execute(plan);
        }
        self.status.observe(&self.observed);
        if self.complete {
            self.status.written(began);
        }
        if let Some(stranger) = self.store.take_stranger() {
            warn!("{stranger}");
        }
        if self.complete && !self.attached {
            self.hooks
                .follow(&mut self.datapath, &self.view, &self.roles)?;
            self.datapath.detach_strays(&self.hooks.targets())?;
            self.datapath.resize_flows(self.object)?;
            self.attached = true;
            let names = self.publish_names();
            write_names(&names, &self.names);
            memory::give_back();
            self.status.set_ready();
            info!("ready: {} service ports", self.planner.names().count());
        }
        Ok(())
    }

    /// What time brings.
    pub fn advance(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.write_names_at.is_some_and(|at| at <= now) {
            self.names_changed();
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            let addresses = node::node_addresses(&self.view, &self.roles);
            self.planner = planner(&self.datapath, addresses)?;
            return self.sync();
        }
        let ops = self.planner.advance(now);
        self.write(&ops);
        if !self.planner.waiting().is_empty() {
            self.dirty.extend(self.planner.waiting().iter().cloned());
            self.sync()?;
        }
        Ok(())
    }

    /// When [`Self::advance`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        [self.planner.next_due(), self.retry_at, self.write_names_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next change of the node's network. May be dropped before it is there.
    pub async fn network_changed(&mut self) -> Result<Change> {
        tokio::select! {
            change = self.netlink.changed() => change,
            lost = self.hooks.lost() => Ok(Change::XdpLost(lost)),
        }
    }

    /// Takes over a change of the node's network, and those that come with it.
    pub async fn follow_network(&mut self, mut change: Change) -> Result<()> {
        if let Change::XdpLost(lost) = &change {
            if let Err(error) = self.hooks.take_loss(&mut self.datapath, &self.view, lost) {
                warn!("{error:#}");
            }
            return Ok(());
        }
        time::sleep(SETTLE).await;
        if let Some(more) = self.netlink.drain() {
            change = change.max(more);
        }
        if change == Change::Devices {
            let view = self.netlink.view().await?;
            if view != self.view {
                self.take_view(view)?;
            }
            self.store.set_broadcasts(node::broadcasts());
            self.dirty.append(&mut self.store.take_dirty());
            if !self.dirty.is_empty() {
                self.sync()?;
            }
        }
        self.datapath.bump_epoch()
    }

    fn take_view(&mut self, view: View) -> Result<()> {
        self.roles = node::roles(&view, &self.uplinks, &self.workloads);
        self.view = view;
        self.datapath
            .set_facts(&node::facts(&self.view, &self.roles, &self.node_ports))?;
        self.status.set_check_addresses(node::node_port_addresses(
            &self.view,
            &self.roles,
            &self.node_ports,
        ));
        let plan = self
            .planner
            .set_node(node::node_addresses(&self.view, &self.roles));
        self.execute(plan);
        if self.attached
            && let Err(error) = self
                .hooks
                .follow(&mut self.datapath, &self.view, &self.roles)
        {
            // A device may have gone since: the next change of the network tells.
            warn!("{error:#}");
        }
        Ok(())
    }

    fn execute(&mut self, plan: plan::Plan) {
        let plan::Plan { ops, refused } = plan;
        for refused in refused {
            error!("{refused}; it stays as it was");
        }
        self.write(&ops);
        let renamed = |op: &plan::Op| {
            matches!(
                op,
                plan::Op::ClearServiceCount { .. } | plan::Op::RemoveService { .. }
            )
        };
        if ops.iter().any(renamed) && self.write_names_at.is_none() {
            self.write_names_at = Some(Instant::now() + NAMES_AFTER);
        }
    }

    /// After a failed write nobody knows what the maps hold: they are read and everything is written anew, after a while.
    fn write(&mut self, ops: &[plan::Op]) {
        if let Err(error) = self.datapath.apply(ops) {
            error!("{error:#}; reading the maps anew in {RETRY:?}");
            self.complete = false;
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }

    /// Leaves the names for those who ask over HTTP.
    fn publish_names(&mut self) -> Arc<ServiceNames> {
        self.write_names_at = None;
        let names = self.planner.names();
        let names: Arc<ServiceNames> =
            Arc::new(names.map(|(id, key)| (id, Arc::new(key.clone()))).collect());
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
fn desired(store: &Store, observed: &mut Observed, name: ObjectName) -> plan::Change {
    let desired = store.desired(&name);
    observed.update(&name, store.service(&name), &desired);
    (name, desired)
}

fn write_names(names: &ServiceNames, file: &Path) {
    let names = names.iter().map(|(id, key)| (*id, key.as_ref()));
    if let Err(error) = Names::of(names).write(file) {
        warn!("{error:#}: `proxy-agent get` shows no names");
    }
}

/// A planner that starts from what the maps hold.
fn planner(datapath: &Datapath, addresses: NodeAddresses) -> Result<Planner> {
    let sizes = datapath.sizes();
    let limits = Limits {
        services: sizes.services,
        backends: sizes.backends,
        slots: sizes.slots(),
    };
    let image = datapath.maps().image()?;
    Ok(Planner::new(
        limits,
        datapath.hz(),
        addresses,
        &image,
        Instant::now(),
    ))
}
