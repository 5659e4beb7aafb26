//! Timers for what sends no event: next hops that hints lead to, switches, the size of connection tracking.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::{
    task::{self, JoinHandle},
    time,
};
use tracing::{debug, info};

use crate::{datapath::Datapath, node};

/// From one round to the next: half of what the kernel needs at least to give up a neighbour.
const PAUSE: Duration = Duration::from_secs(2);
/// Next hops of flows that were used within so many seconds are kept verified.
pub const USED_WITHIN: u32 = 10;
/// So often the switches are read.
const SWITCHES: Duration = Duration::from_secs(4);
/// From one look at connection tracking to the next, while it holds connections of kube-proxy.
const CONNECTIONS: Duration = Duration::from_secs(30);

/// What is due.
#[derive(Debug, Default)]
pub struct Rounds {
    next: Option<Instant>,
    switches: Option<Instant>,
    /// A route has changed that may say something of its device.
    routes: bool,
    connections: Connections,
}

/// What is known of connections that kube-proxy's rules made.
#[derive(Debug, Default)]
enum Connections {
    #[default]
    Unknown,
    /// On a thread of its own.
    Looking {
        was_held: bool,
        look: JoinHandle<Result<bool>>,
    },
    /// `None` where it could not be told.
    Looked {
        was_held: bool,
        held: Option<bool>,
    },
    Held {
        look_at: Instant,
    },
    /// The programs take all that is new, so that there will be none again.
    None,
}

/// What a round has to look at besides next hops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// Switches of devices.
    pub view: bool,
    /// Routes, too.
    pub routes: bool,
}

impl Rounds {
    /// Waits for the next round. May be dropped before it is due.
    pub async fn next(&mut self) {
        let at = *self.next.get_or_insert_with(|| Instant::now() + PAUSE);
        let round = time::sleep_until(at.into());
        let Connections::Looking { was_held, look } = &mut self.connections else {
            return round.await;
        };
        let was_held = *was_held;
        let looked = tokio::select! {
            looked = look => looked,
            () = round => return,
        };
        let held = looked.map_err(anyhow::Error::from).flatten();
        if let Err(error) = &held {
            debug!("connection tracking: {error:#}");
        }
        let held = held.ok();
        self.connections = Connections::Looked { was_held, held };
    }

    /// The next round looks at the routes, too.
    pub const fn look_at_routes(&mut self) {
        self.routes = true;
    }

    /// Begins a round: what is due in it.
    pub fn begin(&mut self) -> Due {
        let now = Instant::now();
        self.next = Some(now + PAUSE);
        let routes = std::mem::take(&mut self.routes);
        let view = routes || self.switches.is_none_or(|at| at <= now);
        if view {
            self.switches = Some(now + SWITCHES);
        }
        Due { view, routes }
    }

    /// Does connection tracking hold connections to service addresses that rules of kube-proxy made? `None` where that is
    /// not to be looked at now, or not known yet.
    ///
    /// It is looked at once the programs are attached: from then on what is new is theirs, whether rules are there or not,
    /// so that none comes that was not there. (What a process of the node opens passes the rules first, and then shows no
    /// service address to any program.)
    ///
    /// With many services, or many connections, a look takes long. So it has a thread of its own, and a later round learns
    /// what came of it.
    pub fn strangers(&mut self, attached: bool, datapath: &Datapath) -> Option<bool> {
        let is_due = match &self.connections {
            Connections::Unknown => true,
            Connections::Held { look_at } => *look_at <= Instant::now(),
            Connections::Looking { .. } | Connections::None => false,
            Connections::Looked { .. } => return self.take_look(),
        };
        if attached && is_due {
            let was_held = matches!(self.connections, Connections::Held { .. });
            let pins = datapath.pins()?.clone();
            let look = task::spawn_blocking(move || {
                let services = pins.service_addresses()?;
                node::conntrack_holds(|addr| services.contains(&addr))
            });
            self.connections = Connections::Looking { was_held, look };
        }
        None
    }

    fn take_look(&mut self) -> Option<bool> {
        let Connections::Looked { was_held, held } = self.connections else {
            return None;
        };
        if held == Some(false) {
            self.connections = Connections::None;
            return Some(false);
        }
        if held.is_some() && !was_held {
            info!("connections that kube-proxy's rules made go on by connection tracking");
        }
        self.connections = Connections::Held {
            look_at: Instant::now() + CONNECTIONS,
        };
        // What cannot be told may be.
        Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_looks_at_switches_now_and_then_and_at_routes_when_one_changed() {
        let mut rounds = Rounds::default();
        let due = |view, routes| Due { view, routes };
        assert_eq!(rounds.begin(), due(true, false), "the first");
        assert_eq!(rounds.begin(), due(false, false));
        rounds.look_at_routes();
        assert_eq!(rounds.begin(), due(true, true));
        assert_eq!(rounds.begin(), due(false, false));
    }
}
