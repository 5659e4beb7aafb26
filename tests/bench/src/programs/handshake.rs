//! What it costs to make a flow, to confirm it and to end it, packet by packet, beside the flows that the tables hold.

use anyhow::{Result, ensure};
use aya::Pod;
use proxy_common::abi::Backend;

use super::course::{COURSES, Course};
use super::family::Family;
use super::lab::{At, BATCH, HELD, Lab, RUNS, Shot, Side, net};
use crate::frames::Segment;
use crate::median;
use crate::table::{Table, judged};

/// The batch of flows behind those that are held.
const NEW: u32 = HELD / BATCH;
/// Entries that it takes.
const ENTRIES: usize = 2 * BATCH as usize;

/// What a new flow may cost in XDP.
const NEW_REMOTE: f64 = 400.0;
const NEW_LOCAL: f64 = 250.0;
/// And what confirms it.
const CONFIRMS: f64 = 100.0;

pub fn measure<A: Family>(lab: &mut Lab, table: &mut Table) -> Result<()>
where
    Backend<A>: Pod,
{
    for course in &COURSES {
        course.establish::<A>(lab, true)?;
        connections::<A>(lab, table, course)?;
    }
    for course in COURSES.iter().filter(|course| course.side == Side::Remote) {
        choices::<A>(lab, table, course)?;
    }
    Ok(())
}

/// Connections from their first packet to their last.
fn connections<A: Family>(lab: &mut Lab, table: &mut Table, course: &Course) -> Result<()>
where
    Backend<A>: Pod,
{
    let in_xdp = |bar| (course.request.0 == At::Xdp).then_some(bar);
    let new = if course.side == Side::Remote {
        NEW_REMOTE
    } else {
        NEW_LOCAL
    };
    let steps = [
        (
            "a new flow (SYN)",
            course.request::<A>(Segment::SYN),
            in_xdp(new),
        ),
        ("its SYN-ACK", course.reply::<A>(Segment::SYN_ACK), None),
        (
            "its confirming ACK",
            course.request::<A>(Segment::ACK),
            in_xdp(CONFIRMS),
        ),
        ("the client's FIN", course.request::<A>(Segment::FIN), None),
        ("the backend's FIN", course.reply::<A>(Segment::FIN), None),
    ];
    let mut nets: [Vec<f64>; 5] = Default::default();
    for _ in 0..RUNS {
        for ((_, shot, _), nets) in steps.iter().zip(&mut nets) {
            nets.push(lab.once(&shot.batch(NEW))?);
        }
        let (confirmed, pending) = remove_new::<A>(lab)?;
        ensure!(
            confirmed.len() == ENTRIES && pending == 0,
            "{}: {} entries are confirmed, {pending} are not",
            course.name,
            confirmed.len()
        );
        ensure!(
            confirmed.iter().all(|flow| flow.is_done()),
            "{}: a flow is open after both FIN",
            course.name
        );
    }
    for ((what, shot, bar), nets) in steps.iter().zip(&mut nets) {
        row(table, course, what, shot, median(nets), *bar);
    }
    Ok(())
}

/// New flows to a service with many backends. Nothing goes on after that: which backend answers which flow is the programs' choice.
fn choices<A: Family>(lab: &mut Lab, table: &mut Table, course: &Course) -> Result<()>
where
    Backend<A>: Pod,
{
    course.establish::<A>(lab, true)?;
    let many = Course {
        side: Side::Many,
        ..*course
    };
    let syn = many.request::<A>(Segment::SYN).batch(NEW);
    let mut nets = Vec::new();
    for _ in 0..RUNS {
        nets.push(lab.once(&syn)?);
        let (confirmed, pending) = remove_new::<A>(lab)?;
        ensure!(
            confirmed.is_empty() && pending == ENTRIES,
            "64 backends: {pending} entries of {ENTRIES} were made"
        );
    }
    let bar = (course.request.0 == At::Xdp).then_some(NEW_REMOTE);
    let what = "a new flow (SYN), 64 backends";
    row(table, course, what, &syn, median(&mut nets), bar);
    Ok(())
}

fn row(table: &mut Table, course: &Course, what: &str, shot: &Shot, ns: f64, bar: Option<f64>) {
    let mut cells = vec![
        format!("{}: {what}", course.name),
        shot.at.name().to_owned(),
    ];
    cells.extend(judged(ns, bar, 0));
    table.row(cells);
}

/// Removes all flows of the services that new flows go to.
fn remove_new<A: Family>(lab: &mut Lab) -> Result<(Vec<proxy_common::abi::Flow<A>>, usize)>
where
    Backend<A>: Pod,
{
    let number = NEW as u16;
    let mut ends = Vec::new();
    for side in Side::ALL {
        ends.push(A::numbered(side.net() + net::SERVICES, number));
    }
    ends.extend([net::LOCAL, net::REMOTE].map(|pods| A::numbered(pods, number)));
    // Only that service has these backends.
    let many: Vec<A> = (0..64).map(|n| A::numbered(net::MANY, n)).collect();
    ends.extend(many);
    lab.remove::<A>(|key| ends.contains(&key.tuple.dst) || ends.contains(&key.tuple.src))
}
