//! Asks the kernel whether programs are where an agent wants them. It needs the agent's word and no agent.

use std::{io, os::fd::AsFd};

use anyhow::Result;
use proxy_common::abi::IfIndex;
use proxy_common::edge::hook::Hook;
use serde::{Deserialize, Serialize};

use super::{Held, clsact, direction};
use crate::datapath::{Datapath, PinDir, guard::Filters, sys};

/// A program that an agent wants at a device.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Wanted {
    pub hook: String,
    pub ifindex: IfIndex,
    pub device: String,
    pub by: By,
}

/// What keeps it there, and the id of the program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    Link(u32),
    Filter(u32),
    /// The agent could not attach it.
    Nothing,
}

impl Datapath {
    /// The programs that are to be at devices, as this process attached them or could not.
    pub fn wanted(&self) -> Vec<Wanted> {
        let held = self
            .attachments
            .held
            .iter()
            .map(|((_, hook), (target, held))| {
                let by = match held {
                    Held::Pinned { program, .. } => By::Link(*program),
                    Held::Filter { program } => By::Filter(*program),
                    // It is held by this process, and pinned nowhere: nobody else can ask for it.
                    Held::Link(_) => By::Nothing,
                };
                (*hook, target, by)
            });
        let missing = self.attachments.missing.values();
        let missing = missing.map(|(target, hook)| (hook.name, target, By::Nothing));
        let mut all: Vec<_> = held
            .chain(missing)
            .map(|(hook, target, by)| Wanted {
                hook: hook.to_owned(),
                ifindex: target.ifindex,
                device: target.name.clone(),
                by,
            })
            .collect();
        all.sort();
        all
    }
}

impl PinDir {
    /// Why each of these programs is not where it is wanted; `None` for one that is.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn lost(&self, wanted: &[Wanted]) -> Result<Vec<Option<String>>> {
        let mut filters = None;
        wanted
            .iter()
            .map(|one| match one.by {
                By::Nothing => Ok(Some("it could not be attached".to_owned())),
                By::Link(program) => self.lost_link(one, program),
                By::Filter(program) => {
                    let filters = match &mut filters {
                        Some(filters) => filters,
                        none => none.insert(Filters::open()?),
                    };
                    lost_filter(filters, one, program)
                }
            })
            .collect()
    }

    fn lost_link(&self, wanted: &Wanted, program: u32) -> Result<Option<String>> {
        let pin = self.link(&wanted.hook, wanted.ifindex);
        let link = match sys::get(&pin) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(anyhow::Error::new(error).context(format!("opening {}", pin.display())));
            }
            Err(error) => return Ok(Some(format!("the pin of its link: {error}"))),
        };
        if sys::kind(link.as_fd())? != Some(sys::Kind::Link) {
            return Ok(Some("something else is pinned in its place".to_owned()));
        }
        let found = sys::link_info(link.as_fd())?;
        Ok(if found.ifindex != wanted.ifindex {
            Some("its link was detached".to_owned())
        } else {
            in_its_place(found.program, program)
        })
    }
}

fn lost_filter(filters: &Filters, wanted: &Wanted, program: u32) -> Result<Option<String>> {
    let Some(hook) = Hook::ALL.iter().find(|hook| hook.name == wanted.hook) else {
        return Ok(Some("this version knows no such hook".to_owned()));
    };
    let found = filters.program_at(
        wanted.ifindex,
        direction(hook),
        clsact::PRIORITY,
        clsact::HANDLE,
    )?;
    Ok(match found {
        Some(found) => in_its_place(found, program),
        None => Some("its filter was deleted".to_owned()),
    })
}

fn in_its_place(found: u32, wanted: u32) -> Option<String> {
    (found != wanted).then(|| format!("program {found} is in its place"))
}
