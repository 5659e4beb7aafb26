//! From one agent to the next: what of an earlier agent's maps and links goes on.
//!
//! In: a bpffs directory, and the shapes of this agent's maps. Out: a directory with maps of these shapes, and the links of whoever ran
//! before. The one rule: every flow is in a map that the programs of all links see, from the first link that gets a new program to
//! the last. So a map of the same layout and size is not copied: it is pinned in both directories, one map of both agents.
//!
//! ```text
//! DIR/portside-v4          in force
//! DIR/portside-v4-new      being made
//! DIR/portside-v4-old-N    replaced by maps of other sizes
//! DIR/portside-v3          of an older agent
//! ```
//!
//! A directory of this version whose maps fit is adopted as it is. Otherwise the steps are:
//!
//! 1. What is being made is removed: an agent that ended before step 5 left it, and no link has its programs.
//! 2. `-new` is made. What of the earlier maps has this agent's layout and size is pinned there, too.
//! 3. The programs are loaded. This makes the maps that are not there yet.
//! 4. The plan's maps of other sizes are filled from the old ones, of which nobody writes any more. From here on the agent starts as if
//!    all these were its own: ids stay whose they are. The old programs go on with the old maps.
//! 5. When the first program is to be attached, the maps hold all that the source has. What is in force under this version becomes
//!    `-old-N`, then `-new` is in force.
//! 6. All links are moved to the new directory, one after the other.
//! 7. Each gets its new program, in place; TC filters, too.
//! 8. What has no program of this agent by now is taken off, and the other directories are removed.
//!
//! An agent that ends before the second half of step 5 leaves what was there, and the next one begins anew: a directory that was
//! retired without another being in force is what it takes over. One that ends after it leaves a directory that the next agent adopts
//! as it is, and goes on at step 6. An agent that fails before step 5 removes what it has made.
//!
//! | file | subject |
//! |---|---|
//! | `found` | the directories that are there |
//! | `fate` | what becomes of each map |
//! | `copy` | maps of other sizes |
//! | `convert` | flows that stood in other tables |
//! | `gate` | a gate that was made anew, for the flows that go on |

mod convert;
mod copy;
mod fate;
mod found;
mod gate;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use proxy_common::abi::{self, names};
use tracing::{info, warn};

use self::fate::{Fate, Fates};
pub use self::found::{Found, Stage, all};
use super::{
    Maps, PinDir,
    shape::{Role, Shape},
    sys::wait_for_programs,
};
use crate::plan::Room;

/// The directory of pins of an agent that takes over, or has taken over.
#[derive(Debug)]
pub struct Takeover {
    bpffs: PathBuf,
    pins: PinDir,
    /// What was found before this agent, and what becomes of its maps.
    from: Option<(Found, Fates)>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Not in force yet.
    Staged,
    /// Links may still be with others.
    InForce,
    Done,
}

/// What it means that maps of a role begin empty, where somebody may miss what they held.
const WHAT_IS_LOST: [(Role, &str); 4] = [
    (Role::Flows, "connections through services end"),
    (
        Role::Affinity,
        "clients with session affinity may get another backend",
    ),
    (Role::Plan, "services and backends get new ids"),
    (Role::Counts, "traffic is counted from zero"),
];

impl Takeover {
    /// Steps 1 and 2.
    pub fn begin(bpffs: &Path, shapes: &[Shape]) -> Result<Self> {
        let (staged, there): (Vec<_>, Vec<_>) = all(bpffs)?
            .into_iter()
            .partition(|found| found.stage == Stage::Staged);
        for found in staged {
            found.pins(bpffs).remove()?;
        }
        let from = match choose(&there) {
            Some(found) => Some((found.clone(), judge(found, bpffs, shapes)?)),
            None => None,
        };
        let fits = |fates: &Fates| fates.values().all(|fate| *fate == Fate::Shared);
        let adopts = from
            .as_ref()
            .is_some_and(|(found, fates)| *found == Found::own(Stage::InForce) && fits(fates));
        let (stage, state) = if adopts {
            (Stage::InForce, State::InForce)
        } else {
            (Stage::Staged, State::Staged)
        };
        let new = Self {
            bpffs: bpffs.to_owned(),
            pins: Found::own(stage).pins(bpffs),
            from,
            state,
        };
        new.pins.create()?;
        if state == State::Staged {
            new.share(shapes)?;
        }
        Ok(new)
    }

    /// Where the maps are pinned.
    pub const fn pins(&self) -> &PinDir {
        &self.pins
    }

    /// Was there no earlier agent's datapath?
    pub const fn is_first(&self) -> bool {
        self.from.is_none()
    }

    /// Step 4. `maps` are those of [`Self::pins`].
    pub fn fill(&mut self, shapes: &[Shape], maps: &mut Maps) -> Result<()> {
        let Some((found, fates)) = &self.from else {
            // Nothing that goes on meanwhile.
            return self.enforce();
        };
        let from = found.pins(&self.bpffs);
        info!("taking over the maps of {}", from.root().display());
        if self.state == State::InForce {
            return Ok(());
        }
        if found.version > abi::VERSION {
            warn!(
                "it is of a newer agent (version {} of the map layout, this one knows {}): none of its maps is read",
                found.version,
                abi::VERSION
            );
        }
        for (role, what) in WHAT_IS_LOST {
            let is_lost = |shape: &&Shape| shape.role == role && fates[shape.name] == Fate::Lost;
            let lost = shapes.iter().filter(is_lost);
            let names: Vec<_> = lost.map(|shape| shape.name).collect();
            if !names.is_empty() {
                warn!("not taken over: {}: {what}", names.join(", "));
            }
        }
        let is_copied = |name: &str| fates[name] == Fate::Copied;
        for cut_off in copy::copy(&from, shapes, &is_copied, maps)? {
            warn!("no room any more for {cut_off}");
        }
        if matches!(fates[names::GATE], Fate::Made | Fate::Lost) {
            gate::open_for_flows(maps)?;
        }
        Ok(())
    }

    /// Steps 5 and 6, if they have not been done.
    pub fn enforce(&mut self) -> Result<()> {
        if self.state == State::Staged {
            let own = Found::own(Stage::InForce);
            let there = all(&self.bpffs)?;
            let pins = own.pins(&self.bpffs);
            if there.contains(&own) {
                let free = |n: &u32| !there.contains(&Found::own(Stage::Retired(*n)));
                let number = (0..).find(free).unwrap_or(u32::MAX);
                let retired = Found::own(Stage::Retired(number));
                pins.rename(&retired.pins(&self.bpffs))?;
            }
            self.pins.rename(&pins)?;
            self.pins = pins;
            self.state = State::InForce;
        }
        if self.state == State::InForce {
            for found in self.others()? {
                self.pins.take_links(&found.pins(&self.bpffs))?;
            }
            self.state = State::Done;
        }
        Ok(())
    }

    /// The end of step 8.
    pub fn remove_others(&self) -> Result<()> {
        let others = self.others()?;
        if !others.is_empty() {
            // One of the old programs may be about to call another, which goes with its pin.
            wait_for_programs();
        }
        for found in others {
            let pins = found.pins(&self.bpffs);
            info!("{} is taken over", pins.root().display());
            pins.remove()?;
        }
        Ok(())
    }

    /// Is what is pinned here not in force yet?
    pub fn is_staged(&self) -> bool {
        self.state == State::Staged
    }

    /// The directories whose programs may confirm flows in tables that are others today, and whose flows go on here.
    pub fn old_flows(&self) -> Result<Vec<PinDir>> {
        let are_lost = |fates: &Fates| fates[names::FLOWS[0]] == Fate::Lost;
        let Some((from, fates)) = &self.from else {
            return Ok(Vec::new());
        };
        let mut others = self.others()?;
        others.retain(|found| {
            convert::may_be_of_old(found.version) && !(found == from && are_lost(fates))
        });
        Ok(others.iter().map(|found| found.pins(&self.bpffs)).collect())
    }

    /// Copies the flows of such a directory.
    pub fn convert(from: &PinDir, to: &mut Maps) -> Result<()> {
        convert::convert(from, to)
    }

    fn share(&self, shapes: &[Shape]) -> Result<()> {
        let Some((found, fates)) = &self.from else {
            return Ok(());
        };
        // The old programs go on calling theirs.
        let is_shared =
            |shape: &&Shape| shape.role != Role::Programs && fates[shape.name] == Fate::Shared;
        for shape in shapes.iter().filter(is_shared) {
            self.pins.share(&found.pins(&self.bpffs), shape.name)?;
        }
        Ok(())
    }

    fn others(&self) -> Result<Vec<Found>> {
        let mut others = all(&self.bpffs)?;
        others.retain(|found| *found != Found::own(Stage::InForce));
        Ok(others)
    }
}

impl Drop for Takeover {
    fn drop(&mut self) {
        if self.state == State::Staged
            && let Err(error) = self.pins.remove()
        {
            warn!("{error:#}; the next agent does it");
        }
    }
}

/// The size of the tables of services and endpoints that are to be taken over, if there are any.
pub fn room(bpffs: &Path) -> Result<Option<Room>> {
    let there: Vec<_> = all(bpffs)?
        .into_iter()
        .filter(|found| found.stage != Stage::Staged)
        .collect();
    let Some(found) = choose(&there) else {
        return Ok(None);
    };
    let pins = found.pins(bpffs);
    let (Some(services), Some(backends)) = (
        pins.shape(names::SERVICES)?,
        pins.shape(names::BACKENDS[0])?,
    ) else {
        return Ok(None);
    };
    Ok(Some(Room {
        services: services.max_entries,
        backends: backends.max_entries,
    }))
}

/// Copies what is pinned under the plain names into larger maps of these `shapes`; of other names nothing.
pub fn copy_larger(
    pins: &PinDir,
    shapes: &[Shape],
    is_larger: impl Fn(&str) -> bool,
    maps: &mut Maps,
) -> Result<()> {
    let cut_off = copy::copy(pins, shapes, &is_larger, maps)?;
    ensure!(cut_off.is_empty(), "there is less room: {cut_off:?}");
    Ok(())
}

/// The newest that this agent may be able to read, else the newest.
fn choose(there: &[Found]) -> Option<&Found> {
    let readable = there.iter().rfind(|found| found.version <= abi::VERSION);
    readable.or(there.last())
}

fn judge(found: &Found, bpffs: &Path, shapes: &[Shape]) -> Result<Fates> {
    let pins = found.pins(bpffs);
    let pinned = shapes
        .iter()
        .map(|shape| Ok((shape.name, pins.shape(shape.name)?)))
        .collect::<Result<HashMap<_, _>>>()?;
    Ok(fate::judge(shapes, found.version, |name| pinned[name]))
}

/// Why there is no directory `own`.
pub fn why_missing(own: &Path) -> String {
    let other = own.parent().and_then(|bpffs| all(bpffs).ok()?.pop());
    match other {
        Some(Found { version, .. }) if version != abi::VERSION => format!(
            "the datapath that runs is of an agent with version {version} of the map layout, this is {}: ask by the command \
             of that agent's image, or start the agent of this one, which takes over once it has its lists",
            abi::VERSION
        ),
        _ => format!(
            "no datapath under {}: is the agent running with another --bpffs?",
            own.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_can_be_read_is_taken_over() {
        let own = abi::VERSION;
        let at = |version, stage| Found { version, stage };
        let (force, retired) = (Stage::InForce, Stage::Retired(0));
        for (there, chosen) in [
            (vec![], None),
            (vec![at(own - 1, force), at(own, force)], Some(1)),
            (vec![at(own, retired), at(own, force)], Some(1)),
            (vec![at(own - 1, force), at(own, retired)], Some(1)),
            (vec![at(own - 1, force), at(own + 1, force)], Some(0)),
            (vec![at(own + 1, force), at(own + 2, force)], Some(1)),
        ] {
            let chosen = chosen.map(|index: usize| &there[index]);
            assert_eq!(choose(&there), chosen, "{there:?}");
        }
    }
}
