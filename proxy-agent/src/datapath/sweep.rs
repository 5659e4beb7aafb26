//! Takes connections that are over out of their table: none goes there for another.
//!
//! Closed ones leave by the programs' own hands (`proxy_common::flow::closed`). What is left are those of which an end went without a word, and those
//! that were closed while the programs were replaced. The one rule: a connection is looked at again right before it is removed.

use anyhow::{Context, Result};
use aya::Pod;
use proxy_common::{
    abi::{Backend, Config, Flow, FlowKey, Jiffies, names},
    addr::Addr,
    flow::track::has_expired,
    tables::Table,
};

use super::{
    Datapath, PinDir, clock,
    maps::{FlowTable, gone},
};

/// In seconds: longer than from one round of the agent to the next.
const LATELY: u32 = 5;

/// A look at all connections, for a thread of its own.
#[derive(Debug)]
pub struct Sweep {
    pins: PinDir,
    limits: Limits,
}

#[derive(Debug)]
struct Limits {
    config: Config,
    now: Jiffies,
}

impl Datapath {
    /// What looks at all connections as of now; `None` where nothing is pinned. Where there was no room for one of late, no closed one
    /// stays.
    pub fn sweep(&self) -> Result<Option<Sweep>> {
        let Some(pins) = self.pins() else {
            return Ok(None);
        };
        let mut config = self.config()?;
        if self.lacks_room()? {
            config.tcp_closed = 0;
        }
        Ok(Some(Sweep {
            pins: pins.clone(),
            limits: Limits {
                config,
                now: clock::now(&self.ebpf)?,
            },
        }))
    }

    /// Was a connection refused for want of room within the last seconds?
    pub fn lacks_room(&self) -> Result<bool> {
        let now = clock::now(&self.ebpf)?;
        for family in 0..self.maps.full_since.len() {
            let since = self.maps.full_since.get(&family, 0)?;
            let age = now.since(since).cast_signed().max(0) as u32;
            if since != Jiffies::default() && age < LATELY * self.hz {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Sweep {
    /// Removes the connections that are over. Returns how many entries that were: a connection has two.
    pub fn run(self) -> Result<usize> {
        let mut maps = self.pins.open_maps()?;
        let v4 = self
            .limits
            .apply(&mut maps.v4.flows)
            .context(names::FLOWS[0])?;
        let v6 = self
            .limits
            .apply(&mut maps.v6.flows)
            .context(names::FLOWS[1])?;
        Ok(v4 + v6)
    }
}

impl Limits {
    fn apply<A>(&self, flows: &mut FlowTable<A>) -> Result<usize>
    where
        A: Addr,
        Backend<A>: Pod,
        FlowKey<A>: Pod,
        Flow<A>: Pod,
    {
        let mut removed = 0;
        for (key, flow) in flows.entries()? {
            if !self.is_over(&key, &flow) {
                continue;
            }
            let is_over = flows
                .get(&key, 0)
                .is_ok_and(|flow| self.is_over(&key, &flow));
            if is_over {
                gone(flows.remove(&key))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn is_over<A: Addr>(&self, key: &FlowKey<A>, flow: &Flow<A>) -> bool {
        let Self { config, now } = self;
        // What a program has touched since lies in the future of this look.
        let is_past = now.since(flow.last_seen).cast_signed() >= 0;
        is_past && has_expired(flow, key.proto(), Table::Connections, config, *now)
    }
}

#[cfg(test)]
mod tests {
    use proxy_common::{
        abi::Dir,
        abi::{TCP, Tuple, flow_state},
        addr::Ip4,
    };

    use super::*;

    #[test]
    fn only_what_is_over_its_time_is_over() {
        let config = Config::for_hz(100, 0);
        let now = Jiffies(5);
        let limits = Limits { config, now };
        let key = FlowKey::<Ip4>::new(Tuple::default(), TCP, Dir::In);
        let is_over = |state, age: u32| {
            let flow = Flow {
                last_seen: now.earlier(age),
                state,
                ..Flow::default()
            };
            limits.is_over(&key, &flow)
        };
        for (state, limit) in [
            (0, config.tcp_idle),
            (flow_state::CLIENT_DONE, config.tcp_half),
            (flow_state::DONE, config.tcp_closed),
            (flow_state::RESET, config.tcp_closed),
        ] {
            assert!(!is_over(state, limit - 1), "{state}");
            assert!(is_over(state, limit), "{state}");
            // Touched after the look began.
            assert!(!is_over(state, 0_u32.wrapping_sub(3)), "{state}");
        }
    }
}
