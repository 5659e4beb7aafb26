//! Reads the node's network, and derives what the datapath needs from it.
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
//! | `view` | devices, addresses and routes, as netlink gives them |
//! | `link`, `routes` | a device and its addresses; what the routes by it tell |
//! | `watch` | changes, as they happen |
//! | `role` | which device is an uplink, a tunnel, a pod's interface |
//! | `nic` | which devices lead out of the node, as far as the node itself tells |
//! | `source` | the address that the node takes for a source |
//! | `facts` | a view -> what the programs and the plan know of the node |
//! | `broadcast` | the broadcast addresses of its subnets |
//! | `conntrack` | kube-proxy's settings of the kernel's connection tracking |
//! | `reverse_path` | what each device asks of a source |
//! | `neighbours` | next hops that flows use are kept verified |
//! | `strangers` | connections that the kernel translates |
//! | `sysctl` | the switches that the kernel must have set |
//! | `xdp` | XDP at a device: what is attached, what the driver can do |
//! | `native` | whether what native XDP sends back can be relied on, and whether it arrives |
//! | `ethtool` | what a driver counts of XDP, and whether it takes VLAN tags off |
//! | `filters` | the TC filters at a device that others attached through netlink |
//! | `way` | the kernel's route for one packet, for a question |
//! | `scratch` | a network namespace to try things in |

mod broadcast;
mod conntrack;
mod ethtool;
mod facts;
mod filters;
mod link;
mod native;
mod neighbours;
mod nic;
mod reverse_path;
mod role;
mod routes;
mod scratch;
mod source;
mod strangers;
mod sysctl;
#[cfg(test)]
mod tests;
mod view;
mod watch;
mod way;
mod xdp;

pub use self::{
    broadcast::broadcasts,
    conntrack::Conntrack,
    facts::{NodePortAddresses, facts, node_addresses, node_port_addresses},
    filters::filter_names,
    link::{Address, Framing, Kind, Link},
    native::{Lost, XdpWatch, hidden_tags, why_not as why_not_native},
    reverse_path::SourceCheck,
    role::{Judged, Pattern, Role, Roles, Selection, better_named, judge, roles, unmatched},
    routes::Ways,
    scratch::Scratch,
    strangers::holds as conntrack_holds,
    sysctl::{LOOPBACK_SWITCHES, prepare_loopback},
    view::View,
    watch::{Change, Netlink},
    way::{Way, ways},
    xdp::{XdpAt, driver_has_xdp, xdp_programs},
};
