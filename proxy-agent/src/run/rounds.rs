//! When to look at what sends no event: next hops that hints lead to, switches, what connection tracking holds.

use std::time::{Duration, Instant};

use tokio::{task, time};
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
        time::sleep_until(at.into()).await;
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
    /// not to be looked at now, or cannot be told.
    ///
    /// It is looked at once the programs are attached: from then on what is new is theirs, whether rules are there or not,
    /// so that none comes that was not there. (What a process of the node opens passes the rules first, and then shows no
    /// service address to any program.)
    pub async fn strangers(&mut self, attached: bool, datapath: &Datapath) -> Option<bool> {
        let is_due = match self.connections {
            Connections::Unknown => true,
            Connections::Held { look_at } => look_at <= Instant::now(),
            Connections::None => false,
        };
        if !attached || !is_due {
            return None;
        }
        let services = match datapath.service_addresses() {
            Ok(services) => services,
            Err(error) => {
                debug!("{error:#}");
                return None;
            }
        };
        // On a thread of its own: with many connections it takes a while.
        let look = move || node::conntrack_holds(|addr| services.contains(&addr));
        let look_at = Instant::now() + CONNECTIONS;
        match task::spawn_blocking(look).await {
            Ok(Ok(true)) => {
                if matches!(self.connections, Connections::Unknown) {
                    info!("connections that kube-proxy's rules made go on by connection tracking");
                }
                self.connections = Connections::Held { look_at };
                Some(true)
            }
            Ok(Ok(false)) => {
                self.connections = Connections::None;
                Some(false)
            }
            Ok(Err(error)) => {
                debug!("connection tracking: {error:#}");
                self.connections = Connections::Held { look_at };
                Some(true)
            }
            Err(error) => {
                debug!("{error}");
                None
            }
        }
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
