//! Programs at devices.
//!
//! In: a hook and a device. Out: its program runs there, and goes on running without the agent where the datapath is
//! pinned. A pin of an earlier process is taken over: the program is replaced in place, and no packet passes between.
//!
//! | file | subject |
//! |---|---|
//! | `xdp` | XDP links |
//! | `tcx` | TC links of kernel 6.6 and later |
//! | `clsact` | TC filters of older kernels |
//! | `asked` | whether programs are where an agent wants them, without that agent |
//! | `link` | pinned links: the device that one is at, and its end |

mod asked;
mod clsact;
mod link;
mod tcx;
mod xdp;

use std::{
    collections::HashMap,
    mem,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use aya::programs::{TcAttachType, links::FdLink, tc::TcHandle};
use nix::net::if_::if_nametoindex;
use proxy_common::{
    abi::{Dir, IfIndex},
    edge::{Link, hook::Hook},
};

use super::{
    Datapath, PinDir,
    guard::Pin,
    sys::{self, LinkInfo},
};

pub use self::asked::{By, Wanted};

/// Whether XDP is used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, clap::ValueEnum)]
pub enum XdpMode {
    /// Native XDP where the device has it.
    #[default]
    Auto,
    /// Native XDP, or an error.
    Native,
    /// XDP in the kernel's generic path; slower than TC.
    Generic,
    Off,
}

impl XdpMode {
    pub(super) fn is_used(self) -> bool {
        self != Self::Off
    }
}

/// How TC programs are attached.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, clap::ValueEnum)]
pub enum TcMode {
    /// By links where the kernel has them.
    #[default]
    Auto,
    /// By links (kernel 6.6 and later), or an error.
    Tcx,
    /// By filters of a clsact qdisc.
    Clsact,
}

/// All hooks, those that restore replies first: the order in which programs are attached, and the other way round
/// that in which they are taken off.
///
/// What leaves by an uplink is restored there for clients outside, and is translated for processes of the node, whose
/// replies come in by it: their hooks come between those that have one task.
pub fn by_reply_first() -> impl DoubleEndedIterator<Item = &'static Hook> {
    const ORDER: [Hook; 6] = [
        Hook::TC_WORKLOAD_OUT,
        Hook::TC_UPLINK_OUT,
        Hook::TC_UPLINK_IN,
        Hook::XDP_UPLINK,
        Hook::TC_WORKLOAD_IN,
        Hook::TC_LOOPBACK_OUT,
    ];
    ORDER.iter()
}

/// A network device, as programs are attached to it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Target {
    pub ifindex: IfIndex,
    pub name: String,
    /// What stands before the network header of its packets, for which each hook has a program.
    pub link: Link,
}

impl Target {
    /// A device with Ethernet headers.
    pub const fn ethernet(ifindex: IfIndex, name: String) -> Self {
        Self {
            ifindex,
            name,
            link: Link::Ethernet,
        }
    }

    /// Does the device have its name still, and the name this device?
    pub fn is_there(&self) -> bool {
        if_nametoindex(self.name.as_str()) == Ok(self.ifindex.0)
    }
}

/// Why a program is not at its device.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error(
        "attaching {program} to {device}: the kernel has no TC links (they came with Linux 6.6)"
    )]
    NoTcLinks {
        program: &'static str,
        device: String,
    },
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// The same where only the attempt is known.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The device cannot have this hook; the others do its work.
    #[error("{0}")]
    NotTaken(String),
    #[error(transparent)]
    Tcx(#[from] tcx::Error),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What became of an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Attached,
    /// The device cannot have this hook; the others do its work.
    NotTaken(String),
}

/// What keeps a program at its device.
#[derive(Debug)]
enum Held {
    /// Its pin; the program that it has.
    Pinned { pin: Pin, program: u32 },
    /// This handle.
    Link(#[expect(dead_code, reason = "held for its drop, which detaches")] FdLink),
    /// A TC filter with this program, which stays until it is deleted.
    Filter { program: u32 },
}

/// What this process has attached.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    held: HashMap<(IfIndex, &'static str), (Target, Held)>,
    /// What could not be attached and is wanted.
    missing: HashMap<(IfIndex, &'static str), (Target, &'static Hook)>,
    /// The kernel has no TC links.
    no_tcx: bool,
}

impl Datapath {
    /// Attaches the program of `hook` to `target`. Does nothing where it is attached already. With the first, the maps come into force
    /// in place of those of an earlier process.
    pub fn attach(&mut self, hook: &'static Hook, target: &Target) -> Result<Outcome, AttachError> {
        self.enforce()?;
        let key = (target.ifindex, hook.name);
        if self.attachments.held.contains_key(&key) {
            return Ok(Outcome::Attached);
        }
        let Some(program) = hook.program(target.link) else {
            return Ok(Outcome::NotTaken("it has no Ethernet headers".to_owned()));
        };
        let attached = if hook.is_xdp() {
            self.attach_xdp(hook, target)
        } else {
            self.attach_tc(hook, program, target)
        };
        let missing = &mut self.attachments.missing;
        match attached {
            Ok(held) => {
                missing.remove(&key);
                self.attachments.held.insert(key, (target.clone(), held));
                Ok(Outcome::Attached)
            }
            Err(Error::NotTaken(why)) => {
                missing.remove(&key);
                Ok(Outcome::NotTaken(why))
            }
            Err(error) => {
                missing.insert(key, (target.clone(), hook));
                let device = target.name.clone();
                Err(match error {
                    Error::Tcx(tcx::Error::Unsupported) => {
                        AttachError::NoTcLinks { program, device }
                    }
                    error => anyhow::Error::new(error)
                        .context(format!("attaching {program} to {device}"))
                        .into(),
                })
            }
        }
    }

    /// Is the program of `hook` at the device with this index, by this process?
    pub fn is_attached(&self, hook: &Hook, ifindex: IfIndex) -> bool {
        self.attachments.held.contains_key(&(ifindex, hook.name))
    }

    /// Attaches anew what somebody took off.
    pub(super) fn restore_hook(&mut self, hook: &'static Hook, target: &Target) -> Result<Outcome> {
        let held = self.attachments.held.remove(&(target.ifindex, hook.name));
        if let (Some((_, Held::Pinned { .. })), Some(takeover)) = (held, &self.takeover) {
            link::remove(&takeover.pins().link(hook.name, target.ifindex))?;
        }
        Ok(self.attach(hook, target)?)
    }

    /// Takes the program of `hook` off the device with this index, which may be gone.
    pub fn detach(&mut self, hook: &'static Hook, ifindex: IfIndex) -> Result<()> {
        self.attachments.missing.remove(&(ifindex, hook.name));
        match self.attachments.held.remove(&(ifindex, hook.name)) {
            None | Some((_, Held::Link(_))) => Ok(()),
            Some((_, Held::Pinned { .. })) => match &self.takeover {
                Some(takeover) => link::remove(&takeover.pins().link(hook.name, ifindex)),
                None => Ok(()),
            },
            Some((target, Held::Filter { .. })) => clsact::detach(hook, &target.name).map(drop),
        }
    }

    /// Takes off what an earlier process attached and this one did not, and ends what it was part of; `devices` are all there are.
    pub fn detach_strays(&mut self, devices: &[Target]) -> Result<()> {
        self.enforce()?;
        let Some(takeover) = &self.takeover else {
            return Ok(());
        };
        let pin = takeover.pins();
        let kept: Vec<_> = self
            .attachments
            .held
            .iter()
            .filter(|(_, (_, held))| matches!(held, Held::Pinned { .. }))
            .map(|((ifindex, hook), _)| pin.link(hook, *ifindex))
            .collect();
        for path in pin.pinned_links()? {
            if !kept.contains(&path) {
                link::remove(&path)?;
            }
        }
        for device in devices {
            for hook in Hook::ALL.iter().filter(|hook| !hook.is_xdp()) {
                let held = self.attachments.held.get(&(device.ifindex, hook.name));
                if !matches!(held, Some((_, Held::Filter { .. }))) {
                    clsact::detach(hook, &device.name)?;
                }
            }
        }
        self.end_takeover()
    }

    /// Replaces every program that this process has attached by the one that is loaded now.
    pub(super) fn attach_anew(&mut self) -> Result<()> {
        let mut result = Ok(());
        for ((_, name), (target, _)) in mem::take(&mut self.attachments.held) {
            let Some(hook) = Hook::ALL.iter().find(|hook| hook.name == name) else {
                continue;
            };
            match self.attach(hook, &target) {
                Ok(Outcome::Attached) => {}
                Ok(Outcome::NotTaken(why)) => {
                    tracing::warn!("{} without {name}: {why}", target.name)
                }
                // Gone since.
                Err(_) if !target.is_there() => {}
                // Missing from now on.
                Err(error) => result = result.and(Err(error.into())),
            }
        }
        result
    }

    fn attach_xdp(&mut self, hook: &Hook, target: &Target) -> Result<Held, Error> {
        if !self.xdp.is_used() {
            return Err(Error::NotTaken("--xdp off".to_owned()));
        }
        let path = self.link_path(hook, target);
        match xdp::attach(&mut self.ebpf, hook, target, self.xdp, path.as_deref()) {
            Ok(link) => Ok(hold(link, path.as_deref())?),
            Err(error) if self.xdp == XdpMode::Auto => Err(Error::NotTaken(format!("{error:#}"))),
            Err(error) => Err(error.into()),
        }
    }

    fn attach_tc(&mut self, hook: &Hook, program: &str, target: &Target) -> Result<Held, Error> {
        if self.tc != TcMode::Clsact && !self.attachments.no_tcx {
            let path = self.link_path(hook, target);
            match tcx::attach(&mut self.ebpf, hook, program, target, path.as_deref()) {
                Ok(link) => return Ok(hold(link, path.as_deref())?),
                Err(tcx::Error::Unsupported) if self.tc == TcMode::Auto => {
                    tracing::info!("the kernel has no TC links: attaching by clsact filters");
                    self.attachments.no_tcx = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let program = clsact::attach(&mut self.ebpf, hook, program, &target.name)?;
        Ok(Held::Filter { program })
    }

    fn link_path(&self, hook: &Hook, target: &Target) -> Option<PathBuf> {
        self.takeover
            .as_ref()
            .map(|takeover| takeover.pins().link(hook.name, target.ifindex))
    }
}

/// Takes every program of pinned datapaths off its device, those that translate requests first. Tells of each.
pub fn detach_all(pins: &[PinDir], devices: &[Target]) -> Result<Vec<String>> {
    let pinned = pins.iter().map(PinDir::pinned_links);
    let pinned = pinned.collect::<Result<Vec<_>>>()?.concat();
    let mut detached = Vec::new();
    for hook in by_reply_first().rev() {
        for path in pinned.iter().filter(|path| is_of(hook, path)) {
            link::remove(path)?;
        }
        for device in devices.iter().filter(|_| !hook.is_xdp()) {
            if clsact::detach(hook, &device.name)? {
                detached.push(format!("filter {} of {}", hook.name, device.name));
            }
        }
    }
    // Those of hooks that this agent does not know.
    pinned.iter().try_for_each(|path| link::remove(path))?;
    detached.extend(pinned.iter().map(|path| format!("link {}", path.display())));
    Ok(detached)
}

/// Is it the pin of a link of this hook?
fn is_of(hook: &Hook, pin: &Path) -> bool {
    let name = pin.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.rsplit_once('-'))
        .is_some_and(|(name, _)| name == hook.name)
}

/// Keeps a link: by its pin, where there is one to be.
fn hold(link: FdLink, path: Option<&Path>) -> Result<Held> {
    let Some(path) = path else {
        return Ok(Held::Link(link));
    };
    if !path.exists() {
        link.pin(path)
            .with_context(|| format!("pinning {}", path.display()))?;
    }
    let pin = Pin::of(path)?;
    let program = sys::link_info(pin.object().as_fd())
        .with_context(|| format!("asking for the program of {}", path.display()))?
        .program;
    Ok(Held::Pinned { pin, program })
}

impl Attachments {
    /// The links that are pinned.
    pub(super) fn pinned(&mut self) -> impl Iterator<Item = (&Target, &'static str, &mut Pin)> {
        self.held
            .iter_mut()
            .filter_map(|((_, hook), (target, held))| match held {
                Held::Pinned { pin, .. } => Some((&*target, *hook, pin)),
                Held::Link(_) | Held::Filter { .. } => None,
            })
    }

    /// Is a link not at its device any more, or with another program?
    pub(super) fn has_lost_link(&self) -> bool {
        self.held
            .iter()
            .any(|((ifindex, _), (_, held))| match held {
                Held::Pinned { pin, program } => {
                    sys::link_info(pin.object().as_fd()).is_ok_and(|info| {
                        let LinkInfo {
                            program: found,
                            ifindex: at,
                        } = info;
                        at != *ifindex || found != *program
                    })
                }
                Held::Link(_) | Held::Filter { .. } => false,
            })
    }

    /// Everything that is attached.
    pub(super) fn all(&self) -> Vec<(Target, &'static Hook)> {
        let hook = |name| Hook::ALL.iter().find(|hook| hook.name == name);
        self.held
            .iter()
            .filter_map(|((_, name), (target, _))| Some((target.clone(), hook(*name)?)))
            .collect()
    }

    /// Nothing is wanted any more at a device that is gone.
    pub(super) fn forget(&mut self, ifindex: IfIndex) {
        self.missing.retain(|(of, _), _| *of != ifindex);
    }

    /// What is wanted and could not be attached.
    pub(super) fn missing(&self) -> Vec<(Target, &'static Hook)> {
        self.missing.values().cloned().collect()
    }

    /// How a hook that was attached was lost; `None` where it is there. `program_at` knows the filters of its device.
    pub(super) fn how_lost(
        &self,
        target: &Target,
        hook: &'static Hook,
        program_at: impl FnOnce(TcAttachType, u16, TcHandle) -> Result<Option<u32>>,
    ) -> Result<Option<String>> {
        let (found, wanted) = match self.held.get(&(target.ifindex, hook.name)) {
            None | Some((_, Held::Link(_))) => return Ok(None),
            Some((_, Held::Pinned { pin, program })) => {
                let info = sys::link_info(pin.object().as_fd())?;
                if info.ifindex != target.ifindex {
                    return Ok(Some("its link was detached".to_owned()));
                }
                (info.program, *program)
            }
            Some((_, Held::Filter { program })) => {
                let found = program_at(direction(hook), clsact::PRIORITY, clsact::HANDLE)?;
                match found {
                    Some(found) => (found, *program),
                    None => return Ok(Some("its filter was deleted".to_owned())),
                }
            }
        };
        Ok((found != wanted).then(|| format!("program {found} is in its place")))
    }
}

fn direction(hook: &Hook) -> TcAttachType {
    match hook.edge.dir {
        Dir::In => TcAttachType::Ingress,
        Dir::Out => TcAttachType::Egress,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_has_its_place_in_the_order() {
        let mut ordered: Vec<_> = by_reply_first().collect();
        assert_eq!(ordered[0], &Hook::TC_WORKLOAD_OUT);
        ordered.sort_by_key(|hook| hook.index);
        assert!(ordered.into_iter().eq(Hook::ALL.iter()));
    }

    #[test]
    fn a_pin_tells_its_hook() {
        let pin = Path::new("/x/links/tc_uplink_in-12");
        assert!(is_of(&Hook::TC_UPLINK_IN, pin));
        assert!(!is_of(&Hook::TC_UPLINK_OUT, pin));
    }
}
