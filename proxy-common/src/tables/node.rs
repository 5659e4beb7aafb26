//! The door to what the agent tells of the node.

use crate::abi::{Config, Device, IfIndex, Jiffies, gate};

/// Facts of the node and of the hook at which the program runs.
pub trait Node {
    fn config(&self) -> Option<&Config>;
    fn gate(&self, bit: gate::Bit) -> bool;
    fn now(&self) -> Jiffies;
    fn device(&self, ifindex: IfIndex) -> Option<&Device>;
    /// The device at the hook.
    fn ifindex(&self) -> IfIndex;
    /// The next number of the node-wide round for source ports.
    fn next_port(&self) -> u32;
}
