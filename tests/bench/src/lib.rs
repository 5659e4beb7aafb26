//! What the datapath costs: each program by itself, and whole paths over veth beside other ways; and how fast the control
//! plane is.
//!
//! Figures are medians of several runs in one process; compare those of one run only, as machines are noisy.

mod connections;
mod control;
mod cpu;
mod driver;
mod forward;
mod frames;
mod programs;
mod rate;
mod table;
mod ways;

use anyhow::Result;

pub use control::Size;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// ns per packet by BPF_PROG_TEST_RUN.
    Programs,
    /// TCP connections over veth.
    Connections,
    /// UDP packets through a node, over veth.
    Forward,
    /// An agent that follows an API server.
    Control,
}

impl Part {
    pub const ALL: [Self; 4] = [
        Self::Programs,
        Self::Connections,
        Self::Forward,
        Self::Control,
    ];
}

pub fn run(parts: &[Part], size: &Size, markdown: bool) -> Result<()> {
    for part in parts {
        let show = |table: &table::Table| println!("{}", table.render(markdown));
        let tables = match part {
            Part::Programs => {
                programs::measure(show)?;
                continue;
            }
            Part::Connections => connections::measure(&ways::Way::all()?)?,
            Part::Forward => vec![forward::measure(&mut ways::Way::all()?)?],
            Part::Control => vec![control::measure(size)?],
        };
        tables.iter().for_each(show);
    }
    Ok(())
}

/// The middle value.
fn median<T: Copy + PartialOrd>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("figures are numbers"));
    values[values.len() / 2]
}
