//! Kinds of connections, and the packets of each.

use anyhow::{Result, ensure};
use aya::Pod;
use proxy_common::abi::Backend;

use super::family::Family;
use super::lab::{self, At, BATCH, Becomes, HELD, Lab, Shot, Side, net};
use crate::frames::{Segment, Varies};

/// A client's connections to backends: which program sees each direction, and what it makes of it.
pub struct Course {
    pub name: &'static str,
    pub request: (At, Becomes),
    pub reply: (At, Becomes),
    pub side: Side,
    pub client: u8,
}

pub const COURSES: [Course; 5] = [
    Course {
        name: "outside, remote backend",
        request: (At::Xdp, Becomes::Sent),
        reply: (At::Xdp, Becomes::Sent),
        side: Side::Remote,
        client: net::OUTSIDE,
    },
    Course {
        name: "outside, local backend",
        request: (At::Xdp, Becomes::Rewritten),
        reply: (At::UplinkOut, Becomes::Rewritten),
        side: Side::Local,
        client: net::OUTSIDE,
    },
    Course {
        name: "outside, remote backend",
        request: (At::UplinkIn, Becomes::Sent),
        reply: (At::UplinkIn, Becomes::Sent),
        side: Side::Remote,
        client: net::OUTSIDE,
    },
    Course {
        name: "outside, local backend",
        request: (At::UplinkIn, Becomes::Rewritten),
        reply: (At::UplinkOut, Becomes::Rewritten),
        side: Side::Local,
        client: net::OUTSIDE,
    },
    Course {
        name: "a pod, local backend",
        request: (At::WorkloadIn, Becomes::Rewritten),
        reply: (At::WorkloadOut, Becomes::Rewritten),
        side: Side::Local,
        client: net::CLIENT,
    },
];

impl Course {
    /// Packets of the client.
    pub fn request<A: Family>(&self, segment: Segment) -> Shot
    where
        Backend<A>: Pod,
    {
        let frame = lab::request(self.client_of::<A>(), self.side, segment);
        let (at, becomes) = self.request;
        Shot::new(at, &frame, lab::places::<A>(Varies::Service), becomes)
    }

    /// Packets of the backends.
    pub fn reply<A: Family>(&self, segment: Segment) -> Shot
    where
        Backend<A>: Pod,
    {
        // A remote backend answers the node, which stands for the client.
        let to = match self.side {
            Side::Local => self.client_of(),
            Side::Remote | Side::Many => A::numbered(net::NODE, 1),
        };
        let frame = lab::reply::<A>(to, self.side, segment);
        let (at, becomes) = self.reply;
        Shot::new(at, &frame, lab::places::<A>(Varies::Backend), becomes)
    }

    fn client_of<A: Family>(&self) -> A
    where
        Backend<A>: Pod,
    {
        A::numbered(self.client, 1)
    }

    /// Lets the programs make and confirm all the flows that the tables are to hold.
    pub fn establish<A: Family>(&self, lab: &mut Lab, is_tcp: bool) -> Result<()>
    where
        Backend<A>: Pod,
    {
        let [opens, answers, confirms] = if is_tcp {
            [Segment::SYN, Segment::SYN_ACK, Segment::ACK]
        } else {
            [Segment::Datagram; 3]
        };
        lab.remove::<A>(|_| true)?;
        for batch in 0..HELD / BATCH {
            lab.whole(&self.request::<A>(opens).batch(batch))?;
            lab.whole(&self.reply::<A>(answers).batch(batch))?;
            lab.whole(&self.request::<A>(confirms).batch(batch))?;
        }
        let [confirmed, pending] = lab.count::<A>()?;
        ensure!(
            (confirmed, pending) == (2 * HELD as usize, 0),
            "{}: {confirmed} entries are confirmed, {pending} are not",
            self.name
        );
        Ok(())
    }
}
