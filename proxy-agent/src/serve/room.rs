//! Admits connections to a socket, so that no client keeps others out.
//!
//! In: a client's address. Out: a [`Permit`], for as long as its connection lasts. The one rule: a new connection never waits.
//! Where there is no room for it, the connection goes that has waited for its request for longest, of the same client if
//! that one has more than its share. The node itself has room of its own: the kubelet's probes are answered whatever comes
//! from outside.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

/// Connections at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one client: an IPv4 address or an IPv6 network of 64 bits.
    pub client: usize,
    /// Of all that come from outside.
    pub outside: usize,
    /// Of the node itself.
    pub inside: usize,
}

/// The connections at one socket, or at several that share their room.
#[derive(Clone, Debug)]
pub struct Room(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    next: u64,
    /// In the order in which they came.
    places: BTreeMap<u64, Taken>,
    /// How many connections each client has.
    clients: HashMap<Client, usize>,
    inside: usize,
    /// Those that had to go or were not let in.
    turned_away: u64,
}

#[derive(Debug)]
struct Taken {
    client: Client,
    /// Ends the connection.
    leave: oneshot::Sender<()>,
    /// Its request has come.
    is_asking: bool,
}

/// Whose connections count together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Client {
    Inside,
    Outside(IpAddr),
}

/// A connection's. Dropped, it is free.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    number: u64,
}

impl Room {
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared {
            limits,
            state: Mutex::default(),
        }))
    }

    /// Lets a connection from `peer` to `own` in; what comes with it tells when it has to go.
    pub fn enter(
        &self,
        peer: SocketAddr,
        own: SocketAddr,
    ) -> Option<(Permit, oneshot::Receiver<()>)> {
        let client = Client::of(peer.ip(), own.ip());
        let limits = self.0.limits;
        let mut state = self.0.state();
        let has = |state: &State, client: &Client| state.clients.get(client).copied().unwrap_or(0);
        let is_let_in = match client {
            Client::Inside => {
                state.inside < limits.inside || state.make_room(|one| one == Client::Inside)
            }
            Client::Outside(_) if has(&state, &client) >= limits.client => {
                state.make_room(|one| one == client)
            }
            Client::Outside(_) => {
                state.places.len() - state.inside < limits.outside
                    || state.make_room(|one| one != Client::Inside)
            }
        };
        if !is_let_in {
            state.turned_away += 1;
            return None;
        }
        let (leave, has_to_leave) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        let taken = Taken {
            client,
            leave,
            is_asking: false,
        };
        state.places.insert(number, taken);
        *state.clients.entry(client).or_default() += 1;
        state.inside += usize::from(client == Client::Inside);
        let permit = Permit {
            shared: Arc::clone(&self.0),
            number,
        };
        Some((permit, has_to_leave))
    }

    /// Lets the connection go that has waited for longest, whosever it is: there is no file descriptor for another.
    pub fn make_room(&self) {
        self.0.state().make_room(|_| true);
    }

    /// How many connections had to go or were not let in, since the last call.
    pub fn take_turned_away(&self) -> u64 {
        std::mem::take(&mut self.0.state().turned_away)
    }
}

impl Permit {
    /// Its request is here: it may stay until it is answered.
    pub fn is_asking(&self) {
        if let Some(taken) = self.shared.state().places.get_mut(&self.number) {
            taken.is_asking = true;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.state().free(self.number);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values: whoever panicked left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ends the oldest connection of these clients that still waits for its request. Was there one?
    fn make_room(&mut self, of: impl Fn(Client) -> bool) -> bool {
        let mut waiting = self.places.iter();
        let waits = |taken: &Taken| !taken.is_asking && of(taken.client);
        let Some(number) = waiting.find_map(|(&number, taken)| waits(taken).then_some(number))
        else {
            return false;
        };
        self.turned_away += 1;
        if let Some(taken) = self.free(number) {
            let _ = taken.leave.send(());
        }
        true
    }

    fn free(&mut self, number: u64) -> Option<Taken> {
        let taken = self.places.remove(&number)?;
        self.inside -= usize::from(taken.client == Client::Inside);
        if let Some(count) = self.clients.get_mut(&taken.client) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&taken.client);
            }
        }
        Some(taken)
    }
}

impl Client {
    /// What comes from the very address that it goes to has not left the node: nobody else is answered at that address.
    fn of(peer: IpAddr, own: IpAddr) -> Self {
        match peer.to_canonical() {
            peer if peer.is_loopback() || peer == own.to_canonical() => Self::Inside,
            IpAddr::V6(peer) => {
                let network = peer.to_bits() & (u128::MAX << 64);
                Self::Outside(Ipv6Addr::from_bits(network).into())
            }
            peer => Self::Outside(peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        client: 2,
        outside: 3,
        inside: 2,
    };

    type Entered = (Permit, oneshot::Receiver<()>);

    fn enter(room: &Room, peer: &str) -> Option<Entered> {
        let own = if peer.contains(':') {
            "2001:db8::1"
        } else {
            "192.0.2.1"
        };
        let at = |addr: &str| SocketAddr::new(addr.parse().unwrap(), 1);
        room.enter(at(peer), at(own))
    }

    fn had_to_go((_, leave): &mut Entered) -> bool {
        leave.try_recv().is_ok()
    }

    #[test]
    fn the_client_with_more_than_its_share_loses_its_oldest_connection() {
        let room = Room::new(LIMITS);
        let mut first = enter(&room, "192.0.2.9").unwrap();
        let mut other = enter(&room, "192.0.2.8").unwrap();
        let mut second = enter(&room, "192.0.2.9").unwrap();
        let mut third = enter(&room, "192.0.2.9").unwrap();
        assert!(had_to_go(&mut first));
        for stays in [&mut other, &mut second, &mut third] {
            assert!(!had_to_go(stays));
        }
        assert_eq!(room.take_turned_away(), 1);
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let room = Room::new(LIMITS);
        let mut first = enter(&room, "2001:db8:1::1").unwrap();
        let _second = enter(&room, "2001:db8:1::2").unwrap();
        let _third = enter(&room, "2001:db8:1:0:ffff::3").unwrap();
        assert!(had_to_go(&mut first));
    }

    #[test]
    fn many_clients_leave_the_node_its_room_and_a_new_one_gets_in() {
        let room = Room::new(LIMITS);
        let mut outside: Vec<_> = (2..=4)
            .map(|last| enter(&room, &format!("198.51.100.{last}")).unwrap())
            .collect();
        let mut probes: Vec<_> = ["127.0.0.1", "192.0.2.1"]
            .into_iter()
            .map(|addr| enter(&room, addr).unwrap())
            .collect();
        assert!(!outside.iter_mut().chain(&mut probes).any(had_to_go));
        let _new = enter(&room, "198.51.100.9").unwrap();
        assert!(had_to_go(&mut outside[0]) && !had_to_go(&mut outside[1]));
        // The node's own connections make room for one another only.
        let _probe = enter(&room, "192.0.2.1").unwrap();
        assert!(had_to_go(&mut probes[0]) && !had_to_go(&mut outside[1]));
    }

    #[test]
    fn a_connection_that_has_asked_stays_until_it_is_answered() {
        let room = Room::new(LIMITS);
        let mut asking: Vec<_> = (0..2).map(|_| enter(&room, "192.0.2.9").unwrap()).collect();
        asking.iter().for_each(|(permit, _)| permit.is_asking());
        assert!(enter(&room, "192.0.2.9").is_none());
        assert!(!asking.iter_mut().any(had_to_go));
        asking.pop();
        assert!(enter(&room, "192.0.2.9").is_some());
    }
}
