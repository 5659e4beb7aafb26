//! The controller that gives addresses to Services of type LoadBalancer.

mod assignment;
mod leaders;
mod others;
mod rig;

use libtest_mimic::Trial;

pub fn rows() -> Vec<Trial> {
    let mut rows = assignment::rows();
    rows.extend(leaders::rows());
    rows.extend(others::rows());
    rows
}
