//! The programs at each device follow its role.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use nix::net::if_::if_nametoindex;
use tracing::{info, warn};

use crate::{
    datapath::{Datapath, Outcome, Target},
    node::{Role, Roles, View},
};

/// Which devices have which programs.
#[derive(Debug, Default)]
pub struct Hooks {
    roles: BTreeMap<Target, Role>,
    /// Hooks that a device did not take; they are not tried again while it is there.
    not_taken: BTreeSet<(Target, &'static str)>,
}

impl Hooks {
    /// Attaches what is missing and detaches what is too much. Goes on after an error, and returns the first.
    pub fn follow(&mut self, datapath: &mut Datapath, view: &View, roles: &Roles) -> Result<()> {
        let wanted: BTreeMap<Target, Role> = roles
            .iter()
            .filter_map(|(&ifindex, &role)| {
                let name = view.links.get(&ifindex)?.name.clone();
                Some((Target { ifindex, name }, role))
            })
            .collect();
        let mut result = Ok(());
        for (target, role) in &self.roles {
            let now = wanted.get(target).map_or(&[][..], |role| role.hooks());
            for hook in role.hooks().iter().filter(|hook| !now.contains(hook)) {
                result = result.and(datapath.detach(hook, target.ifindex));
            }
        }
        self.not_taken
            .retain(|(target, _)| wanted.contains_key(target));
        for (target, role) in &wanted {
            if self.roles.get(target) != Some(role) && !role.hooks().is_empty() {
                info!("{} (device {}): {role}", target.name, target.ifindex);
            }
            for hook in role.hooks() {
                let attempt = (target.clone(), hook.name);
                if self.not_taken.contains(&attempt) {
                    continue;
                }
                match datapath.attach(hook, target) {
                    Ok(Outcome::Attached) => {}
                    Ok(Outcome::NotTaken(why)) => {
                        warn!(
                            "{} without {}, TC does its work: {why}",
                            target.name, hook.name
                        );
                        self.not_taken.insert(attempt);
                    }
                    // Gone since the view was read: the kernel's next message says so.
                    Err(_) if !is_there(target) => {}
                    Err(error) => result = result.and(Err(error)),
                }
            }
        }
        self.roles = wanted;
        result
    }

    /// All devices that were there at the last call.
    pub fn targets(&self) -> Vec<Target> {
        self.roles.keys().cloned().collect()
    }
}

fn is_there(target: &Target) -> bool {
    if_nametoindex(target.name.as_str()) == Ok(target.ifindex)
}
