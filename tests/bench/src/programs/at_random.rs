//! Packets of established flows, visited at random among those that the tables hold.

use anyhow::Result;
use aya::Pod;
use proxy_common::abi::Backend;

use super::course::COURSES;
use super::family::Family;
use super::lab::{At, HELD, Lab, Shot};
use crate::frames::Segment;
use crate::table::{Table, judged};

/// Flows that are visited, and what a packet of theirs may cost.
const VISITED: [(u32, &str, f64); 2] = [(1024, "1,024 of 65,536", 60.0), (HELD, "65,536", 130.0)];
const PROTOCOLS: [(&str, Segment); 2] = [("TCP", Segment::ACK), ("UDP", Segment::Datagram)];
/// What a refresh may cost, by what a packet without one does.
const REFRESH: f64 = 1.3;

pub fn measure<A: Family>(lab: &mut Lab, table: &mut Table) -> Result<()>
where
    Backend<A>: Pod,
{
    let once_a_second = lab.datapath.hz();
    for course in &COURSES {
        for (protocol, segment) in PROTOCOLS {
            // One course is enough to tell UDP from TCP.
            if protocol == "UDP" && course.request.0 != At::Xdp {
                continue;
            }
            course.establish::<A>(lab, protocol == "TCP")?;
            let mut row = |lab: &mut Lab, what: &str, shot: &Shot, bar: f64| {
                let ns = lab.net(shot)?;
                let path = format!("{}, {protocol}, {what}", course.name);
                let mut cells = vec![path, shot.at.name().to_owned()];
                cells.extend(judged(ns, Some(bar), 0));
                table.row(cells);
                anyhow::Ok(ns)
            };
            let request = course.request::<A>(segment);
            let mut all = 0.0;
            for (flows, visited, bar) in VISITED {
                all = row(lab, &format!("request: {visited}"), &request.of(flows), bar)?;
                let reply = course.reply::<A>(segment).of(flows);
                row(lab, &format!("reply: {visited}"), &reply, bar)?;
            }
            lab.refresh_after(0)?;
            row(
                lab,
                "request that refreshes: 65,536",
                &request,
                all * REFRESH,
            )?;
            lab.refresh_after(once_a_second)?;
        }
    }
    Ok(())
}
