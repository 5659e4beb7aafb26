//! A node without a kernel: its tables, its devices and routes, its clock, and packets to send through the hooks.

mod check;
mod dry;
mod frame;
mod net;
mod node;
mod packet;
mod tables;

pub use check::{check, repair, sum};
pub use frame::{Frame, Seen, frame as ip_frame, icmp_error, see, see_at};
pub use net::Net;
pub use node::{
    BACKEND_PORT, CLIENT, CLUSTER_IP, EXTERNAL_IP, LB_IP, LO, NODE, NODE_PORT, POD_A, POD_B,
    REMOTE, REMOTE_TUNNEL, SERVICE, SERVICE_PORT, TUNNEL, TUNNEL_ADDR, UPLINK, VETH_A, VETH_B,
    backend_id, hop, tuple,
};
pub use packet::Buffer;
pub use tables::{CLOSED_ROOM, CPUS, World};

/// Runs generic tests `fn name<F: Net>(proto: u8)` for IPv4 and IPv6, TCP, UDP and SCTP.
macro_rules! cases {
    ($($name:ident)+) => {$(
        mod $name {
            use proxy_common::{abi::{SCTP, TCP, UDP}, addr::{V4, V6}};
            #[test]
            fn v4_tcp() { super::$name::<V4>(TCP) }
            #[test]
            fn v4_udp() { super::$name::<V4>(UDP) }
            #[test]
            fn v4_sctp() { super::$name::<V4>(SCTP) }
            #[test]
            fn v6_tcp() { super::$name::<V6>(TCP) }
            #[test]
            fn v6_udp() { super::$name::<V6>(UDP) }
            #[test]
            fn v6_sctp() { super::$name::<V6>(SCTP) }
        }
    )+};
}

/// Runs generic tests `fn name<F: Net>()` for IPv4 and IPv6.
macro_rules! families {
    ($($name:ident)+) => {$(
        mod $name {
            use proxy_common::addr::{V4, V6};
            #[test]
            fn v4() { super::$name::<V4>() }
            #[test]
            fn v6() { super::$name::<V6>() }
        }
    )+};
}
pub(crate) use {cases, families};
