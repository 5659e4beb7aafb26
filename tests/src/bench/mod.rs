//! What the datapath costs: each program by itself, and whole paths over veth beside other ways.
//!
//! Figures are medians of several runs in one process; compare those of one run only, as machines are noisy.

mod connections;
mod cpu;
mod driver;
mod forward;
mod frames;
mod programs;
mod rate;
mod table;
mod ways;

use anyhow::Result;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// ns per packet by BPF_PROG_TEST_RUN.
    Programs,
    /// TCP connections over veth.
    Connections,
    /// UDP packets through a node, over veth.
    Forward,
}

pub fn run(parts: &[Part], markdown: bool) -> Result<()> {
    for part in parts {
        let table = match part {
            Part::Programs => programs::measure()?,
            Part::Connections => connections::measure(&ways::Way::all()?)?,
            Part::Forward => forward::measure(&mut ways::Way::all()?)?,
        };
        println!("{}", table.render(markdown));
    }
    Ok(())
}

/// The middle value.
fn median<T: Copy + PartialOrd>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("figures are numbers"));
    values[values.len() / 2]
}
