//! Servers that say who they are and whom they saw, and clients that report what came back.

pub mod client;
pub mod echo;
pub mod http;
pub mod listener;
pub mod ping;
mod wording;

use std::net::SocketAddr;
use std::{fmt, io};

use socket2::{Domain, Socket, Type};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Those that every kernel has sockets of.
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// A socket for the family of `address`. SCTP's is of the one-to-one style, which is used as TCP's (RFC 6458
    /// section 4).
    fn socket(self, address: SocketAddr) -> io::Result<Socket> {
        let (kind, protocol) = match self {
            Self::Tcp => (Type::STREAM, socket2::Protocol::TCP),
            Self::Udp => (Type::DGRAM, socket2::Protocol::UDP),
            Self::Sctp => (Type::STREAM, socket2::Protocol::SCTP),
        };
        Socket::new(Domain::for_address(address), kind, Some(protocol))
    }

    /// Why this kernel has no sockets of the protocol, if so.
    pub fn missing(self) -> Option<&'static str> {
        let any = SocketAddr::from(([0; 4], 0));
        (self == Self::Sctp && self.socket(any).is_err()).then_some("the kernel has no SCTP")
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}
