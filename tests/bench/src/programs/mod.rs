//! ns per packet of the programs, by BPF_PROG_TEST_RUN: the packet is restored and its flow varied before every repeat by a
//! driver program, whose own cost is subtracted.

mod at_random;
mod course;
mod family;
mod handshake;
mod in_order;
mod lab;
mod strangers;

use anyhow::Result;
use aya::Pod;
use proxy_common::abi::Backend;
use proxy_common::addr::{Ip4, Ip6};

use self::family::Family;
use self::lab::Lab;
use super::table::Table;

/// Measures every path of both families: at its best, and as it is on a node that has flows.
pub fn measure(mut show: impl FnMut(&Table)) -> Result<()> {
    show(&in_order::measure()?);
    let mut lab = Lab::build()?;
    of_family::<Ip4>(&mut lab, &mut show)?;
    of_family::<Ip6>(&mut lab, &mut show)
}

fn of_family<A: Family>(lab: &mut Lab, show: &mut impl FnMut(&Table)) -> Result<()>
where
    Backend<A>: Pod,
{
    lab.open::<A>()?;
    for (what, measure) in [
        (
            "Established flows",
            at_random::measure::<A> as fn(&mut Lab, &mut Table) -> Result<()>,
        ),
        ("Connections from SYN to FIN", handshake::measure::<A>),
        ("Traffic of no service", strangers::measure::<A>),
    ] {
        let title = format!(
            "{what}, {}: ns per packet beside 65,536 flows, visited at random (BPF_PROG_TEST_RUN, net of the driver, median of 7)",
            A::NAME
        );
        let mut table = Table::new(&title, &["packet", "program", "ns", "bar", ""]);
        measure(lab, &mut table)?;
        show(&table);
    }
    Ok(())
}
