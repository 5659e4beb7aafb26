//! Larger tables of services and endpoints, under traffic.
//!
//! In: a size that the plan asks for. Out: maps of that size with what the old ones hold, used by the programs of all links. The one rule:
//! until every link has its new program, old and new maps hold the same. This agent is the only one that writes them, and it writes
//! nothing meanwhile.
//!
//! The size of a map is fixed when it is made, and so is which maps a program uses. So:
//!
//! 1. The programs are loaded again, with larger maps that are pinned as `NAME-new`. All other maps are those that are there.
//! 2. What the old maps hold is copied.
//! 3. Each link gets its new program, in place. A packet meets the old one or the new one, which decide alike.
//! 4. `NAME-new` replaces `NAME`.
//!
//! An agent that ends on the way leaves pins of both, which hold the same; the next one takes what is pinned under the plain names, some
//! of it large perhaps, and copies it. What the old programs count between 2 and 3 is lost.

use std::{fs, mem};

use anyhow::{Context, Result, bail};
use tracing::info;

use super::{
    Datapath, Maps, PinDir, Sizes,
    pin::{forget, new_pin},
    program,
    shape::{Role, Shape, shapes},
    sys::wait_for_programs,
    takeover,
};
use crate::plan::Room;

/// What became of the wish for larger tables.
#[derive(Debug)]
pub enum Growth {
    Done,
    /// All is as it was, for this reason.
    Refused(anyhow::Error),
}

impl Datapath {
    /// Gives the tables this much room. An error leaves programs that use different tables: then an agent has to begin anew.
    pub fn grow(&mut self, object: &[u8], room: Room) -> Result<Growth> {
        let Room { services, backends } = room;
        let sizes = Sizes {
            services,
            backends,
            ..self.sizes
        };
        let (pins, shapes, (mut ebpf, mut maps)) = match self.prepare(object, &sizes) {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Growth::Refused(error)),
        };
        program::link_slow(&ebpf, self.xdp.is_used(), &mut maps)?;
        mem::swap(&mut self.ebpf, &mut ebpf);
        mem::swap(&mut self.maps, &mut maps);
        self.attach_anew()?;
        // The last that looks at the old maps.
        wait_for_programs();
        for shape in &shapes {
            fs::rename(new_pin(&pins, shape.name), pins.map(shape.name))
                .with_context(|| format!("pinning {} anew", shape.name))?;
        }
        self.sizes = sizes;
        self.remember_pins()?;
        info!("the tables have room for {backends} endpoints and {services} service ports now");
        Ok(Growth::Done)
    }

    /// Steps 1 and 2: nothing of this is used yet. The shapes are those of the maps that are larger.
    fn prepare(
        &self,
        object: &[u8],
        sizes: &Sizes,
    ) -> Result<(PinDir, Vec<Shape>, (aya::Ebpf, Maps))> {
        let Some(takeover) = &self.takeover else {
            bail!("maps that are pinned nowhere keep their size");
        };
        let pins = takeover.pins().clone();
        let all = shapes(sizes);
        let mut grown = Vec::new();
        for shape in &all {
            forget(&new_pin(&pins, shape.name))?;
            let is_sized = matches!(shape.role, Role::Plan | Role::Counts);
            if is_sized && pins.size(shape.name)? != shape.max_entries {
                grown.push(*shape);
            }
        }
        let is_grown = |name: &str| grown.iter().any(|shape| shape.name == name);
        let make = || -> Result<(aya::Ebpf, Maps)> {
            let pin = |name: &str| {
                Some(match is_grown(name) {
                    true => new_pin(&pins, name),
                    false => pins.map(name),
                })
            };
            let (ebpf, mut maps) = super::open(object, &all, self.xdp, pin)?;
            takeover::copy_larger(&pins, &all, is_grown, &mut maps)?;
            Ok((ebpf, maps))
        };
        match make() {
            Ok(made) => Ok((pins.clone(), grown, made)),
            Err(error) => {
                for shape in &grown {
                    forget(&new_pin(&pins, shape.name))?;
                }
                Err(error)
            }
        }
    }
}
