//! The agent looks after what it has attached and pinned.
//!
//! In: what this process has attached and pinned, and the kernel's word on whether it is there still. Out: what was lost and is restored,
//! and what lacks. The one rule: the kernel is asked, not remembered. Others remove hooks, qdiscs, pins and file systems, and none of them
//! tells: the kernel has messages for qdiscs and filters alone.
//!
//! A look at everything is one stat(2) for each pin, one bpf(2) for each link and two messages for each filter, some microseconds each;
//! programs and traffic are not touched. A look at links alone, which no message tells of, is less than a microsecond for each, and so can
//! come several times a second. A handle of everything that is pinned is held, so that a removed pin detaches nothing.
//!
//! | file | subject |
//! |---|---|
//! | `pins` | a pin, and a handle of what is pinned |
//! | `filter` | which program a TC filter has |

mod filter;
mod pins;

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result};
use nix::net::if_::if_indextoname;
use proxy_common::edge::hook::Hook;

pub(super) use self::filter::Filters;
pub use self::pins::Pin;
use super::{Datapath, Outcome, Target, by_reply_first, shape::shapes};

/// What a look found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Findings {
    /// What was lost and is there again.
    pub restored: Vec<Loss>,
    /// What is not there, and why not. The kernel takes packets past these hooks.
    pub lacking: Vec<Lack>,
    /// Why pins are missing: the datapath works, and ends with this process.
    pub unpinned: Option<String>,
}

/// Something that somebody else took away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loss {
    Hook {
        hook: &'static str,
        device: String,
        how: String,
    },
    LinkPin {
        hook: &'static str,
        device: String,
    },
    MapPin(&'static str),
}

/// A hook that a device needs and lacks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Lack {
    pub hook: &'static str,
    pub device: String,
    pub why: String,
}

impl Loss {
    /// A word for its sort.
    pub const fn sort(&self) -> &'static str {
        match self {
            Self::Hook { .. } => "hook",
            Self::LinkPin { .. } => "link-pin",
            Self::MapPin(_) => "map-pin",
        }
    }

    /// All that [`Self::sort`] may say.
    pub const SORTS: [&str; 3] = ["hook", "link-pin", "map-pin"];
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hook { hook, device, how } => write!(f, "{hook} at {device} was lost ({how})"),
            Self::LinkPin { hook, device } => {
                write!(f, "the pin of {hook} at {device} was removed")
            }
            Self::MapPin(name) => write!(f, "the pin of map {name} was removed"),
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hook, device, why } = self;
        write!(f, "{device} lacks {hook}: {why}")
    }
}

/// What a look needs.
#[derive(Default)]
pub(super) struct Guard {
    maps: BTreeMap<&'static str, Pin>,
    filters: Option<Filters>,
}

impl Datapath {
    /// Takes note of the maps that are pinned now: from here on they are what is to be there.
    pub fn remember_pins(&mut self) -> Result<()> {
        let Some(takeover) = &self.takeover else {
            return Ok(());
        };
        let pins = takeover.pins();
        let maps = shapes(&self.sizes).into_iter();
        self.guard.maps = maps
            .map(|shape| Ok((shape.name, Pin::of(&pins.map(shape.name))?)))
            .collect::<Result<_>>()?;
        Ok(())
    }

    /// Is a link detached, or has another program? Where that cannot be told, [`Self::look_after`] finds out.
    pub fn has_lost_link(&self) -> bool {
        self.attachments.has_lost_link()
    }

    /// Looks whether everything is there, and restores what is not.
    pub fn look_after(&mut self) -> Findings {
        let mut findings = Findings::default();
        if let Err(error) = self.look_after_pins(&mut findings) {
            findings.unpinned = Some(format!("{error:#}"));
        }
        self.look_after_hooks(&mut findings);
        findings.lacking.sort();
        findings
    }

    fn look_after_pins(&mut self, findings: &mut Findings) -> Result<()> {
        let Some(takeover) = &self.takeover else {
            return Ok(());
        };
        let pins = takeover.pins();
        let lost_maps: Vec<_> = self
            .guard
            .maps
            .iter_mut()
            .filter(|(name, pin)| !pin.is_at(&pins.map(name)))
            .collect();
        let lost_links: Vec<_> = self
            .attachments
            .pinned()
            .map(|(target, hook, pin)| (target, hook, pins.link(hook, target.ifindex), pin))
            .filter(|(_, _, path, pin)| !pin.is_at(path))
            .collect();
        if lost_maps.is_empty() && lost_links.is_empty() {
            return Ok(());
        }
        // The directory may be gone, or the file system.
        pins.create()?;
        for (name, pin) in lost_maps {
            pin.restore(&pins.map(name))?;
            findings.restored.push(Loss::MapPin(name));
        }
        for (target, hook, path, pin) in lost_links {
            pin.restore(&path)?;
            findings.restored.push(Loss::LinkPin {
                hook,
                device: target.name.clone(),
            });
        }
        Ok(())
    }

    fn look_after_hooks(&mut self, findings: &mut Findings) {
        let mut lost = Vec::new();
        for (target, hook) in self.attachments.all() {
            let how = match self.how_lost(&target, hook) {
                Ok(None) => continue,
                Ok(Some(how)) => how,
                Err(error) => {
                    tracing::debug!("{} at {}: {error:#}", hook.name, target.name);
                    continue;
                }
            };
            lost.push((target, hook, Some(how)));
        }
        let missing = self.attachments.missing();
        lost.extend(
            missing
                .into_iter()
                .map(|(target, hook)| (target, hook, None)),
        );
        // As in `attach`: no hook translates requests before there is one that restores the replies.
        let place = |hook: &Hook| by_reply_first().position(|one| one.name == hook.name);
        lost.sort_by_key(|(_, hook, _)| place(hook));
        for (target, hook, how) in lost {
            // What is attached there goes with the kernel's next message.
            if if_indextoname(target.ifindex.0).is_err() {
                self.attachments.forget(target.ifindex);
                continue;
            }
            match self.restore_hook(hook, &target) {
                Ok(Outcome::Attached) => findings.restored.push(Loss::Hook {
                    hook: hook.name,
                    device: target.name,
                    how: how.unwrap_or_else(|| "it could not be attached".to_owned()),
                }),
                Ok(Outcome::NotTaken(why)) => {
                    tracing::warn!(
                        "{} without {}, TC does its work: {why}",
                        target.name,
                        hook.name
                    );
                }
                Err(_) if if_indextoname(target.ifindex.0).is_err() => {
                    self.attachments.forget(target.ifindex);
                }
                Err(error) => findings.lacking.push(Lack {
                    hook: hook.name,
                    device: target.name,
                    why: format!("{error:#}"),
                }),
            }
        }
    }

    /// How a hook that this process attached was lost; `None` where it is there.
    fn how_lost(&mut self, target: &Target, hook: &'static Hook) -> Result<Option<String>> {
        let filters = match &mut self.guard.filters {
            Some(filters) => filters,
            none => none.insert(Filters::open()?),
        };
        self.attachments
            .how_lost(target, hook, |direction, priority, handle| {
                filters
                    .program_at(target.ifindex, direction, priority, handle)
                    .with_context(|| format!("the filter of {}", target.name))
            })
    }
}
