//! The cases, by subject. Each runs in both families, over TCP, UDP and SCTP, unless it is of some protocols only.

mod answers;
mod flows;
pub mod forward;
mod shapes;

use anyhow::Result;
use testbed::sockets::Protocol;

use crate::world::World;

pub type Case = fn(&mut World) -> Result<()>;

pub fn all() -> Vec<(&'static str, &'static [Protocol], Case)> {
    let each = [forward::CASES, flows::CASES, answers::CASES, shapes::CASES].concat();
    let each = each
        .into_iter()
        .map(|(name, case)| (name, &Protocol::ALL[..], case));
    each.chain(shapes::CASES_OF_UDP.iter().map(|&(name, case)| {
        let protocols = &[Protocol::Udp][..];
        (name, protocols, case)
    }))
    .collect()
}
