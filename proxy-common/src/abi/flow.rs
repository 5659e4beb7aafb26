//! Flows: what becomes of the packets of one direction of one connection.
//!
//! A connection has two entries, one for each direction, each under the tuple that its packets show at the
//! hook that rewrites them. Each entry holds the whole rewrite. The two mirror each other: the key of one is
//! the inverse of the rewritten tuple of the other, so that either can be rebuilt from its peer.

use crate::{
    abi::{BackendId, Epoch, Generation, IfIndex, Jiffies, ServiceId},
    addr::{Addr, Be16, Macs},
    sums::internet::Diff,
};

/// Which way a packet crosses the hook. It is part of the key, so that a reply is restored at its client's
/// edge and nowhere earlier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Dir {
    /// From a device into the node.
    In = 0,
    /// Out of the node through a device.
    Out = 1,
}

impl Dir {
    #[inline(always)]
    pub const fn from_bits(bits: u8) -> Self {
        if bits & 1 == 0 { Self::In } else { Self::Out }
    }

    #[inline(always)]
    pub const fn opposite(self) -> Self {
        Self::from_bits(self as u8 ^ 1)
    }
}

/// A connection's addresses and ports, as one packet of it shows them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[repr(C)]
pub struct Tuple<A> {
    pub src: A,
    pub dst: A,
    pub sport: Be16,
    pub dport: Be16,
}

impl<A: Addr> Tuple<A> {
    /// The tuple of the answer to this packet.
    #[inline(always)]
    pub fn inverse(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
        }
    }
}

/// Key of the flow tables.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct FlowKey<A> {
    pub tuple: Tuple<A>,
    /// IP protocol number in the low byte, [`Dir`] in the next: one word, so that the key has no padding.
    pub kind: u32,
}

impl<A: Addr> FlowKey<A> {
    #[inline(always)]
    pub fn new(tuple: Tuple<A>, proto: u8, dir: Dir) -> Self {
        Self {
            tuple,
            kind: Self::kind(proto, dir),
        }
    }

    /// What [`FlowKey::kind`] holds.
    #[inline(always)]
    pub fn kind(proto: u8, dir: Dir) -> u32 {
        proto as u32 | (dir as u32) << 8
    }

    #[inline(always)]
    pub fn proto(&self) -> u8 {
        self.kind as u8
    }

    #[inline(always)]
    pub fn dir(&self) -> Dir {
        Dir::from_bits((self.kind >> 8) as u8)
    }
}

/// Where a rewritten packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Route {
    /// On to the next layer: the stack at ingress, the device at egress.
    Stack = 0,
    /// Out through [`Flow::ifindex`], past the stack.
    Forward = 1,
    /// Received again, as if it had come in by [`Flow::ifindex`]: a reply for a process on this node, taken
    /// where the stack expects it to come from.
    Receive = 2,
}

impl Route {
    #[inline(always)]
    pub const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Stack,
            1 => Self::Forward,
            _ => Self::Receive,
        }
    }
}

/// Value of the flow tables: one direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Flow<A> {
    /// The tuple that the packet leaves with.
    pub to: Tuple<A>,
    pub backend: BackendId,
    /// The backend's generation when the flow was made.
    pub generation: Generation,
    pub service: ServiceId,
    /// The device of [`Route::Forward`] and [`Route::Receive`]; of [`Route::Stack`], the client's device for replies, else none.
    pub ifindex: IfIndex,
    /// The same for the other direction, from which its entry can be rebuilt. Packets of a direction that is seen at ingress come in by
    /// this device, or by one that a look at its source admitted.
    pub peer_ifindex: IfIndex,
    /// The hints below hold while this equals the configuration's epoch; 0 for never.
    pub epoch: Epoch,
    /// At a coarse step.
    pub last_seen: Jiffies,
    /// Hint: the Ethernet addresses to leave with. The source is the address to which this direction's frames come where both devices are
    /// one.
    pub macs: Macs,
    /// Hint: largest layer-3 packet towards `ifindex`, in bytes; 0 for not known.
    pub mtu: u16,
    /// A [`Route`].
    pub route: u8,
    /// The [`Route`] of the other direction.
    pub peer_route: u8,
    /// The [`Dir`] of the other direction's key.
    pub peer_dir: u8,
    /// Bits of [`flow_state`].
    pub state: u8,
    /// How the rewrite changes a checksum by the addresses and by the ports ([`Diff::folded`]).
    pub addr_change: u16,
    pub port_change: u16,
    /// What this direction's sender has shown to know of the other end, or, while the flow is pending, what a packet of this direction is
    /// yet to show: a [`crate::flow::proof`].
    pub proof: u16,
}

pub mod flow_state {
    /// This is the direction of replies.
    pub const REPLY: u8 = 1;
    /// The other direction has been seen.
    pub const ANSWERED: u8 = 1 << 1;
    /// The client has sent its last: a FIN or RST of its was seen.
    pub const CLIENT_DONE: u8 = 1 << 2;
    /// The backend has.
    pub const BACKEND_DONE: u8 = 1 << 3;
    /// Both ends' FIN.
    pub const DONE: u8 = CLIENT_DONE | BACKEND_DONE;
    /// A RST that fits was the last that was seen.
    pub const RESET: u8 = 1 << 4;
    /// Not a service's: a process of this node, or who it masquerades, sent a datagram from a port that is a service's, too, and this
    /// is where the answers come in. They go on untouched.
    pub const OWN: u8 = 1 << 5;
}

impl<A: Addr> Flow<A> {
    /// The key of the other direction's entry.
    #[inline(always)]
    pub fn peer_key(&self, proto: u8) -> FlowKey<A> {
        FlowKey::new(self.to.inverse(), proto, Dir::from_bits(self.peer_dir))
    }

    /// Is `key` the other direction's? Compared part by part: a key that is put together first takes stack.
    #[inline(always)]
    pub fn is_peer_of(&self, proto: u8, key: &FlowKey<A>) -> bool {
        let (to, tuple) = (&self.to, &key.tuple);
        to.src == tuple.dst
            && to.dst == tuple.src
            && to.sport == tuple.dport
            && to.dport == tuple.sport
            && key.kind == FlowKey::<A>::kind(proto, Dir::from_bits(self.peer_dir))
    }

    /// The other direction's entry, rebuilt from this one, which stands under `key`. Without hints: they are
    /// looked up when it is first used.
    #[inline(always)]
    pub fn peer(&self, key: &FlowKey<A>) -> Self {
        Self {
            to: key.tuple.inverse(),
            backend: self.backend,
            generation: self.generation,
            service: self.service,
            ifindex: self.peer_ifindex,
            peer_ifindex: self.ifindex,
            epoch: Epoch::NONE,
            last_seen: self.last_seen,
            macs: Macs::NONE,
            mtu: 0,
            route: self.peer_route,
            peer_route: self.route,
            peer_dir: key.dir() as u8,
            state: self.state ^ flow_state::REPLY,
            addr_change: !self.addr_change,
            port_change: !self.port_change,
            proof: 0,
        }
    }

    /// Fills in how the rewrite of packets that show `from` changes checksums.
    #[inline(always)]
    pub fn note_changes(&mut self, from: &Tuple<A>) {
        let to = &self.to;
        self.addr_change = Diff::default()
            .addr(&from.src, &to.src)
            .addr(&from.dst, &to.dst)
            .folded();
        self.note_port_change(from);
    }

    /// The same for the ports alone.
    #[inline(always)]
    pub fn note_port_change(&mut self, from: &Tuple<A>) {
        let to = &self.to;
        self.port_change = Diff::default()
            .half(from.sport.0, to.sport.0)
            .half(from.dport.0, to.dport.0)
            .folded();
    }

    #[inline(always)]
    pub fn is_reply(&self) -> bool {
        self.state & flow_state::REPLY != 0
    }

    /// Has an end of it sent its last?
    #[inline(always)]
    pub fn is_closing(&self) -> bool {
        self.state & flow_state::DONE != 0
    }

    /// Is it over: by both ends' FIN, or by a RST after which nothing came?
    #[inline(always)]
    pub fn is_done(&self) -> bool {
        self.state & flow_state::DONE == flow_state::DONE || self.is_reset()
    }

    /// Was a RST the last of it?
    #[inline(always)]
    pub fn is_reset(&self) -> bool {
        self.state & flow_state::RESET != 0
    }

    /// See [`flow_state::OWN`].
    #[inline(always)]
    pub fn is_own(&self) -> bool {
        self.state & flow_state::OWN != 0
    }
}

/// A connection that has ended, in its CPU's queue: it leaves its table after a while.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Closed<A> {
    /// Either direction's.
    pub key: FlowKey<A>,
    pub since: Jiffies,
}

/// Where such a queue begins and ends: numbers that go on and wrap. A cache line, since each CPU writes its own.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub struct Ends {
    pub oldest: u32,
    pub next: u32,
    /// The queue in which this one's CPU looks next for room.
    pub other: u32,
    pub spare: [u32; 13],
}

/// Value of the table of shares, under a source's network: what it has begun and not ended in a window of time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Share {
    /// When the window began.
    pub since: Jiffies,
    /// Flows that have not been answered.
    pub open: u32,
}

/// Key of the fragment table: the datagram that a fragment belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct FragmentKey<A> {
    pub src: A,
    pub dst: A,
    /// The identification field as it stands in the header.
    pub id: u32,
    /// IP protocol number and [`Dir`], as in [`FlowKey::kind`].
    pub kind: u32,
}

/// Value of the fragment table: the ports that only the first fragment shows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct FragmentPorts {
    pub sport: Be16,
    pub dport: Be16,
}

/// Key of the table of held fragments: one that came before the first of its datagram. All words as they stand in the header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct HeldKey {
    /// Of IPv4 the first word alone.
    pub src: [u32; 4],
    pub dst: [u32; 4],
    pub id: u32,
    /// As in [`FragmentKey::kind`].
    pub kind: u32,
    /// Counts those of one datagram from 0.
    pub number: u32,
}

layout!(Tuple<A> { src, dst, sport, dport });
layout!(FlowKey<A> { tuple, kind });
layout!(Flow<A> {
    to,
    backend,
    generation,
    service,
    ifindex,
    peer_ifindex,
    epoch,
    last_seen,
    macs,
    mtu,
    route,
    peer_route,
    peer_dir,
    state,
    addr_change,
    port_change,
    proof,
});
layout!(Closed<A> { key, since });
layout!(Ends {
    oldest,
    next,
    other,
    spare
});
layout!(Share { since, open });
layout!(FragmentKey<A> { src, dst, id, kind });
layout!(FragmentPorts { sport, dport });
layout!(HeldKey {
    src,
    dst,
    id,
    kind,
    number
});

const _: () = assert!(size_of::<HeldKey>() == 44);
const _: () = assert!(size_of::<FlowKey<crate::addr::Ip4>>() == 16);
const _: () = assert!(size_of::<FlowKey<crate::addr::Ip6>>() == 40);
// One cache line: in an LRU map's element the value of a 16-byte key begins at a multiple of 64.
const _: () = assert!(size_of::<Flow<crate::addr::Ip4>>() == 64);
const _: () = assert!(size_of::<Flow<crate::addr::Ip6>>() == 88);
const _: () = assert!(size_of::<FragmentKey<crate::addr::Ip4>>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Ip4;

    #[test]
    fn either_direction_is_rebuilt_from_the_other() {
        let ip = |n| Ip4::from([10, 0, 0, n]);
        let key = FlowKey::new(
            Tuple {
                src: ip(1),
                dst: ip(2),
                sport: Be16::new(4000),
                dport: Be16::new(30000),
            },
            TCP,
            Dir::In,
        );
        let mut flow = Flow {
            to: Tuple {
                src: ip(3),
                dst: ip(4),
                sport: Be16::new(4001),
                dport: Be16::new(80),
            },
            backend: BackendId(7),
            generation: Generation(2),
            service: ServiceId(9),
            ifindex: IfIndex(3),
            peer_ifindex: IfIndex(5),
            last_seen: Jiffies(11),
            route: Route::Forward as u8,
            peer_route: Route::Receive as u8,
            peer_dir: Dir::In as u8,
            ..Flow::default()
        };
        flow.note_changes(&key.tuple);
        let reply = flow.peer(&key);
        let reply_key = flow.peer_key(TCP);
        assert_eq!(
            reply_key.tuple,
            Tuple {
                src: ip(4),
                dst: ip(3),
                sport: Be16::new(80),
                dport: Be16::new(4001)
            }
        );
        assert_eq!(reply.to, key.tuple.inverse());
        assert!(reply.is_reply());
        assert_eq!(reply.peer_key(TCP), key);
        assert_eq!(reply.peer(&reply_key), flow);
    }

    use super::super::TCP;
}
