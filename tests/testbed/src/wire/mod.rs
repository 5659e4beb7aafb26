//! Packets as they are on an interface: captured and taken apart, built and sent.

pub mod build;
pub mod capture;
mod checksum;
mod mirror;
mod packet_socket;
pub mod seen;

pub use capture::Capture;
pub use mirror::Mirror;
pub use packet_socket::PacketSocket;
pub use seen::{Checksums, Seen, Tcp};
