//! The programs at each device follow its role, and native XDP what is known of it there.
//!
//! The one rule: a hook that restores replies is at its device before any hook that translates requests is at one, and
//! goes after it. A connection that is opened in between would lose its replies.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Result;
use proxy_common::edge::{Link, hook::Hook};
use tracing::{info, warn};

use super::args::Args;
use crate::{
    datapath::{Datapath, Outcome, Target, XdpMode, by_reply_first},
    node::{self, Framing, Lost, Role, Roles, View, XdpWatch},
    serve::Status,
    state::Losses,
};

/// Which devices have which programs.
pub struct Hooks {
    xdp: XdpMode,
    /// Under `auto`, also where it is not relied on.
    on_software: bool,
    roles: BTreeMap<Target, Role>,
    /// Hooks that a device did not take; they are not tried again while it is there.
    not_taken: BTreeSet<(Target, &'static str)>,
    /// Devices whose VLANs native XDP cannot tell, and why: as the log has it.
    blind: BTreeMap<Target, String>,
    watch: XdpWatch,
    losses: Losses,
    /// Where they are kept.
    file: PathBuf,
    status: Arc<Status>,
}

impl Hooks {
    /// # Errors
    /// Where drivers' counters cannot be watched.
    pub fn new(args: &Args, status: Arc<Status>) -> Result<Self> {
        let file = args.place.losses();
        let losses = Losses::read(&file).unwrap_or_else(|error| {
            warn!("{error:#}: what native XDP lost before is not known");
            Losses::default()
        });
        Ok(Self {
            xdp: args.xdp,
            on_software: args.xdp_on_software,
            roles: BTreeMap::new(),
            not_taken: BTreeSet::new(),
            blind: BTreeMap::new(),
            watch: XdpWatch::start()?,
            losses,
            file,
            status,
        })
    }

    /// Attaches what is missing and detaches what is too much. Goes on after an error, and returns the first.
    pub fn follow(&mut self, datapath: &mut Datapath, view: &View, roles: &Roles) -> Result<()> {
        let wanted: BTreeMap<Target, Role> = roles
            .iter()
            .filter_map(|(&ifindex, &role)| {
                let link = view.links.get(&ifindex)?;
                let target = Target {
                    ifindex,
                    name: link.name.clone(),
                    link: match link.framing {
                        Framing::Ethernet => Link::Ethernet,
                        Framing::None | Framing::Other => Link::None,
                    },
                };
                Some((target, role))
            })
            .collect();
        let mut result = Ok(());
        for hook in by_reply_first().rev() {
            let stands = |role: Role| role.hooks().contains(hook);
            for (target, _) in self.roles.iter().filter(|(_, role)| stands(**role)) {
                if !wanted.get(target).copied().is_some_and(stands) {
                    result = result.and(datapath.detach(hook, target.ifindex));
                }
            }
        }
        self.not_taken
            .retain(|(target, _)| wanted.contains_key(target));
        self.blind.retain(|target, _| wanted.contains_key(target));
        for (target, role) in &wanted {
            if self.roles.get(target) != Some(role) && !role.hooks().is_empty() {
                info!("{} (device {}): {role}", target.name, target.ifindex);
            }
        }
        for hook in by_reply_first() {
            let at = wanted
                .iter()
                .filter(|(_, role)| role.hooks().contains(hook));
            for (target, _) in at {
                result = result.and(self.attach(datapath, view, hook, target));
            }
        }
        self.roles = wanted;
        self.watch_xdp(datapath);
        result
    }

    fn attach(
        &mut self,
        datapath: &mut Datapath,
        view: &View,
        hook: &'static Hook,
        target: &Target,
    ) -> Result<()> {
        let attempt = (target.clone(), hook.name);
        if self.not_taken.contains(&attempt) {
            return Ok(());
        }
        if hook.is_xdp() && self.is_blind(view, target) {
            // It follows the VLANs and the NIC's settings: XDP comes back with them.
            return datapath.detach(hook, target.ifindex);
        }
        if hook.is_xdp()
            && let Some(why) = self.why_not_native(view, target)
        {
            info!(
                "{} without {}, TC does its work: {why}",
                target.name, hook.name
            );
            self.not_taken.insert(attempt);
            return Ok(());
        }
        match datapath.attach(hook, target) {
            Ok(Outcome::Attached) => Ok(()),
            Ok(Outcome::NotTaken(why)) => {
                warn!(
                    "{} without {}, TC does its work: {why}",
                    target.name, hook.name
                );
                self.not_taken.insert(attempt);
                Ok(())
            }
            // Gone since the view was read: the kernel's next message says so.
            Err(_) if !target.is_there() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Does `auto` do without native XDP at a device, as long as XDP would take packets of its VLANs for the device's own? The other
    /// modes go on. The log tells when that begins and ends.
    fn is_blind(&mut self, view: &View, target: &Target) -> bool {
        let is_auto = match self.xdp {
            XdpMode::Auto => true,
            XdpMode::Native | XdpMode::Generic => false,
            XdpMode::Off => return false,
        };
        let why = node::hidden_tags(view, target.ifindex);
        let name = &target.name;
        match (&why, self.blind.get(target)) {
            (Some(why), before) if before != Some(why) => {
                if is_auto {
                    info!("{name} without xdp_uplink, TC does its work: {why}");
                } else {
                    warn!("{name}: {why}: --xdp auto would use TC there");
                }
                self.blind.insert(target.clone(), why.clone());
            }
            (None, Some(_)) => {
                info!("{name}: XDP sees the tags of its VLANs again, or it has none");
                self.blind.remove(target);
            }
            _ => {}
        }
        is_auto && why.is_some()
    }

    /// Why `auto` does without native XDP at a device.
    fn why_not_native(&self, view: &View, target: &Target) -> Option<String> {
        if self.xdp != XdpMode::Auto {
            return None;
        }
        let link = view.links.get(&target.ifindex)?;
        self.losses
            .at(target.ifindex, link)
            .map(|loss| loss.text())
            .or_else(|| {
                let unreliable = node::why_not_native(view, target.ifindex);
                unreliable.filter(|_| !self.on_software)
            })
    }

    fn watch_xdp(&self, datapath: &Datapath) {
        let with_xdp = self
            .roles
            .keys()
            .filter(|target| datapath.is_attached(&Hook::XDP_UPLINK, target.ifindex))
            .map(|target| (target.ifindex, target.name.clone()));
        let watched = match self.xdp {
            XdpMode::Auto | XdpMode::Native => with_xdp.collect(),
            XdpMode::Generic | XdpMode::Off => BTreeMap::new(),
        };
        self.watch.follow(watched);
    }

    /// The next loss of frames that XDP sent. May be dropped before there is one.
    pub async fn lost(&mut self) -> Lost {
        self.watch.lost().await
    }

    /// Takes in a loss: under `auto`, TC serves the device from now on.
    pub fn take_loss(&mut self, datapath: &mut Datapath, view: &View, lost: &Lost) -> Result<()> {
        let Some(link) = view.links.get(&lost.ifindex) else {
            return Ok(());
        };
        self.losses.add(link, lost);
        self.status.xdp_lost(&link.name, lost.frames);
        let kept = self.losses.write(&self.file);
        let told = self.losses.at(lost.ifindex, link).map(|loss| loss.text());
        let told = told.unwrap_or_default();
        if self.xdp == XdpMode::Auto {
            let hook = &Hook::XDP_UPLINK;
            let target = Target::ethernet(lost.ifindex, link.name.clone());
            self.not_taken.insert((target, hook.name));
            datapath.detach(hook, lost.ifindex)?;
            warn!("{}: {told}: TC serves it from now on", link.name);
            self.status.xdp_given_up(&link.name);
            self.watch_xdp(datapath);
        } else {
            warn!("{}: {told}: --xdp auto would use TC there", link.name);
        }
        kept
    }

    /// All devices that were there at the last call.
    pub fn targets(&self) -> Vec<Target> {
        self.roles.keys().cloned().collect()
    }
}
