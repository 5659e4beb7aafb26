//! How far the tables of services and endpoints may grow, and when they are to try again.
//!
//! In: the room that a plan asks for. Out: tables that have it, or the limits without which everything is planned anew. The one rule:
//! where the kernel refuses larger tables, nothing asks for them for a while.

use std::time::{Duration, Instant};

use anyhow::Result;
use tracing::error;

use crate::{
    datapath::{self, Datapath},
    memory,
    plan::{Limits, Room},
};

/// From tables that could not grow until they are to try it again.
const AGAIN: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub struct Growth {
    limits: Limits,
    /// Until then the tables keep the size that they have.
    again_at: Option<Instant>,
}

impl Growth {
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            again_at: None,
        }
    }

    /// How far they may grow now.
    pub fn limits(&self, datapath: &Datapath) -> Limits {
        match self.again_at {
            Some(_) => self.limits.without_growth(datapath.sizes().room()),
            None => self.limits,
        }
    }

    /// Gives the tables this room. `false` where that cannot be: then everything is to be planned anew without it.
    pub fn grow(&mut self, datapath: &mut Datapath, object: &[u8], room: Room) -> Result<bool> {
        if datapath.sizes().room().holds(&room) {
            return Ok(true);
        }
        let datapath::Growth::Refused(error) = datapath.grow(object, room)? else {
            memory::give_back();
            return Ok(true);
        };
        error!(
            "the tables keep their size, which is too small: {error:#}; they try to grow again in {AGAIN:?}"
        );
        self.again_at = Some(Instant::now() + AGAIN);
        Ok(false)
    }

    /// When [`Self::may_again`] has something to say.
    pub const fn next_due(&self) -> Option<Instant> {
        self.again_at
    }

    /// Where it is time to try it again, the limits from now on.
    pub fn may_again(&mut self, now: Instant) -> Option<Limits> {
        self.again_at.take_if(|at| *at <= now)?;
        Some(self.limits)
    }
}
