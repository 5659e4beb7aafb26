//! One map write, in plain types.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use proxy_common::abi::{
    self, BackendFlags, BackendId, FrontendRef, Generation, Service, ServiceId, Slot,
};

use crate::model::{Cidr, Family, Protocol};

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// A word of the gate, with the bits that it had and the new ones.
    Gate {
        word: u32,
        bits: u64,
    },
    ClearServiceCount {
        id: ServiceId,
    },
    ClearBackendCount {
        id: BackendId,
    },
    Backend {
        id: BackendId,
        entry: BackendEntry,
    },
    AddRange {
        service: ServiceId,
        range: Cidr,
    },
    /// `slots[base..]` become these backend ids. No service refers to them yet.
    Slots {
        base: Slot,
        backends: Vec<BackendId>,
    },
    Service {
        id: ServiceId,
        value: Service,
    },
    Frontend {
        at: FrontendAt,
        to: FrontendRef,
    },
    RemoveFrontend {
        at: FrontendAt,
    },
    RemoveService {
        id: ServiceId,
    },
    RemoveRange {
        service: ServiceId,
        range: Cidr,
    },
    /// No write: what comes next waits until every program that may have seen what was taken away has ended.
    AwaitPrograms,
}

/// One element of the backend array. Without flags, the id is free and the rest says what it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackendEntry {
    pub socket: SocketAddr,
    pub flags: BackendFlags,
    pub generation: Generation,
    pub service: ServiceId,
}

/// A key of the frontend table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FrontendAt {
    Port {
        addr: IpAddr,
        port: u16,
        protocol: Protocol,
    },
    NodePort {
        family: Family,
        port: u16,
        protocol: Protocol,
    },
    /// All of a ClusterIP that no service port has: refused.
    WholeAddress(IpAddr),
}

impl FrontendAt {
    pub const fn family(self) -> Family {
        match self {
            Self::Port { addr, .. } | Self::WholeAddress(addr) => Family::of(addr),
            Self::NodePort { family, .. } => family,
        }
    }
}

impl Protocol {
    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => abi::TCP,
            Self::Udp => abi::UDP,
            Self::Sctp => abi::SCTP,
        }
    }

    /// From the IP protocol number; `None` for one that no service port has.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            abi::TCP => Some(Self::Tcp),
            abi::UDP => Some(Self::Udp),
            abi::SCTP => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for FrontendAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Port {
                addr,
                port,
                protocol,
            } => write!(f, "{}/{protocol}", SocketAddr::new(addr, port)),
            Self::NodePort {
                family,
                port,
                protocol,
            } => write!(f, "node port {port}/{protocol} ({family})"),
            Self::WholeAddress(addr) => write!(f, "every other port of {addr}"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gate { word, .. } => write!(f, "gate word {word}"),
            Self::ClearServiceCount { id } => write!(f, "the counters of service {id}"),
            Self::ClearBackendCount { id } => write!(f, "the counters of backend {id}"),
            Self::Backend { id, entry } => write!(f, "backend {id} ({})", entry.socket),
            Self::AddRange { service, range } => {
                write!(f, "source range {range} of service {service}")
            }
            Self::Slots { base, backends } => {
                write!(f, "slots {base}..{}", base.0 as usize + backends.len())
            }
            Self::Service { id, .. } => write!(f, "service {id}"),
            Self::Frontend { at, to } => write!(f, "frontend {at} of service {}", to.service()),
            Self::RemoveFrontend { at } => write!(f, "removal of frontend {at}"),
            Self::RemoveService { id } => write!(f, "removal of service {id}"),
            Self::RemoveRange { service, range } => {
                write!(f, "removal of source range {range} of service {service}")
            }
            Self::AwaitPrograms => f.write_str("the end of programs that run"),
        }
    }
}
