//! Traffic of no service, which is to leave after the cheapest test that can tell: what a node has most of.

use anyhow::{Result, ensure};
use aya::Pod;
use proxy_common::abi::{Backend, gate};

use super::course::COURSES;
use super::family::Family;
use super::lab::{self, At, BACKEND_PORT, BATCH, Becomes, HELD, Lab, NODE_PORT, Shot, net};
use crate::frames::{self, LEN, Segment, Varies};
use crate::table::{Table, judged};

const BAR: f64 = 15.0;
/// How many connections the packets are of.
const VISITED: [(u32, &str); 2] = [(1, "1 connection"), (HELD, "65,536")];

pub fn measure<A: Family>(lab: &mut Lab, table: &mut Table) -> Result<()>
where
    Backend<A>: Pod,
{
    for number in 0..(HELD / BATCH) as u16 {
        ensure!(
            !lab.is_raised(gate::service_addr(&A::numbered(net::STRANGER, number)))?,
            "a stranger's address has the bit of a service's"
        );
    }
    COURSES[0].establish::<A>(lab, true)?;
    for at in At::ALL {
        for (name, frame, varies) in packets::<A>(at) {
            for (connections, visited) in VISITED {
                let shot = Shot::new(at, &frame, lab::places::<A>(varies), Becomes::Untouched)
                    .of(connections);
                let ns = lab.net(&shot)?;
                let mut cells = vec![
                    format!("of no service, {name}: {visited}"),
                    at.name().to_owned(),
                ];
                cells.extend(judged(ns, Some(BAR), 0));
                table.row(cells);
            }
        }
    }
    Ok(())
}

/// What passes by a program, and which end of it varies.
fn packets<A: Family>(at: At) -> [(&'static str, [u8; LEN], Varies); 4]
where
    Backend<A>: Pod,
{
    // Pods whose packets pass there: their own node's by its devices, others' from and to the uplink.
    let [from, to] = match at {
        At::Xdp | At::UplinkIn => [net::REMOTE, net::LOCAL],
        At::UplinkOut | At::WorkloadIn => [net::LOCAL, net::REMOTE],
        At::WorkloadOut => [net::REMOTE, net::LOCAL],
    };
    let bytes = |net| A::numbered(net, 0).bytes();
    let (outside, stranger) = (bytes(net::OUTSIDE), bytes(net::STRANGER));
    let (from, to) = (bytes(from), bytes(to));
    let build = frames::build;
    [
        (
            "between others",
            build(&outside, &stranger, 1024, 443, Segment::ACK),
            Varies::Source,
        ),
        (
            "from a backend's address",
            build(&from, &stranger, BACKEND_PORT, 1024, Segment::ACK),
            Varies::Destination,
        ),
        (
            "to a NodePort's number elsewhere",
            build(&outside, &stranger, 1024, NODE_PORT, Segment::ACK),
            Varies::Source,
        ),
        (
            "a SYN straight to a backend",
            build(&outside, &to, 1024, BACKEND_PORT, Segment::SYN),
            Varies::Source,
        ),
    ]
}
