//! Tables of the node with more room, under traffic.
//!
//! In: a node with more devices or addresses than the tables of this agent have room for. Out: tables that have it. The one rule: the new
//! tables hold the whole node before a program sees them.
//!
//! The programs are loaded again, with new tables that are pinned as `NAME-new`; all other maps are the ones that there are. Then each
//! link gets its new program in place, and `NAME-new` replaces `NAME`. An agent that ends on the way leaves tables with less room, and
//! the next one makes its own.

use std::{fs, mem};

use anyhow::{Context, Result};
use tracing::info;

use super::{
    Datapath, Facts, facts,
    pin::{forget, new_pin},
    program,
    shape::{Role, Shape, shapes},
};

impl Datapath {
    /// Makes the tables of the node equal to `facts`, and larger where that takes it.
    pub fn follow_node(&mut self, object: &[u8], facts: &Facts) -> Result<()> {
        let sizes = self.sizes.with_room_for(facts);
        if sizes == self.sizes || self.takeover.is_none() {
            return self.set_facts(facts);
        }
        let Some(takeover) = &self.takeover else {
            return Ok(());
        };
        let pins = takeover.pins().clone();
        let shapes = shapes(&sizes);
        let mut grown: Vec<&Shape> = Vec::new();
        for shape in shapes.iter().filter(|shape| shape.role == Role::Node) {
            if pins.size(shape.name)? != shape.max_entries {
                forget(&new_pin(&pins, shape.name))?;
                grown.push(shape);
            }
        }
        let pin = |name: &str| match grown.iter().any(|shape| shape.name == name) {
            true => new_pin(&pins, name),
            false => pins.map(name),
        };
        let (mut ebpf, mut maps) = super::open(object, &shapes, self.xdp, |name| Some(pin(name)))?;
        facts::write(&mut maps, facts)?;
        program::link_slow(&ebpf, self.xdp.is_used(), &mut maps)?;
        mem::swap(&mut self.ebpf, &mut ebpf);
        mem::swap(&mut self.maps, &mut maps);
        self.sizes = sizes;
        let attached = self.attach_anew();
        for shape in grown {
            fs::rename(new_pin(&pins, shape.name), pins.map(shape.name))
                .with_context(|| format!("pinning {} anew", shape.name))?;
            info!(
                "{} has room for {} entries now",
                shape.name, shape.max_entries
            );
        }
        self.remember_pins()?;
        attached
    }
}
