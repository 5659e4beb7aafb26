//! What the node's network looks like, and what follows for the datapath.
//!
//! In: netlink (links, addresses, default routes, neighbours) of the network namespace that the agent runs in. Out: a
//! [`View`] of it, the [`Role`] of each device, the [`crate::datapath::Facts`] and [`crate::plan::NodeAddresses`]; and
//! [`Change`]s as they happen.
//!
//! The one rule: what follows from a view is a pure function of it. After a change everything is read anew, so that a message that was missed costs
//! nothing but time.
//!
//! | file | subject |
//! |---|---|
//! | `view` | links, addresses and default routes, as netlink gives them |
//! | `watch` | changes, as they happen |
//! | `role` | which device is an uplink, a tunnel, a pod's interface |
//! | `facts` | a view -> what the programs and the plan know of the node |
//! | `broadcast` | the broadcast addresses of its subnets |
//! | `sysctl` | the switches that the kernel must have set |
//! | `xdp` | XDP at a device: what is attached, what the driver can do |
//! | `filters` | the TC filters at a device that others attached through netlink |
//! | `scratch` | a network namespace to try things in |

mod broadcast;
mod facts;
mod filters;
mod role;
mod scratch;
mod sysctl;
#[cfg(test)]
mod tests;
mod view;
mod watch;
mod xdp;

pub use self::{
    broadcast::broadcasts,
    facts::{NodePortAddresses, facts, node_addresses, node_port_addresses},
    filters::filter_names,
    role::{Pattern, Role, Roles, Selection, roles},
    scratch::Scratch,
    sysctl::{LOOPBACK_SWITCHES, prepare_loopback},
    view::{Kind, Link, View},
    watch::{Change, Netlink},
    xdp::{XdpAt, driver_has_xdp, xdp_programs},
};
