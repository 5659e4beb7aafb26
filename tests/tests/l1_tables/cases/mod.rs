//! The cases, by subject. Each runs in both families, over TCP, UDP and SCTP.

mod answers;
mod flows;
pub mod forward;
mod shapes;

use anyhow::Result;

use crate::world::World;

pub type Case = fn(&mut World) -> Result<()>;

pub fn all() -> Vec<(&'static str, Case)> {
    [forward::CASES, flows::CASES, answers::CASES, shapes::CASES].concat()
}
