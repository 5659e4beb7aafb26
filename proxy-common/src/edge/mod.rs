//! The place where a packet meets a program: the hook and its edge, what the stack would ask of the packet there, and what becomes of it.
//! No service is known here.

pub mod admit;
pub mod decision;
pub mod hook;
pub mod verdict;
pub mod work;

pub use crate::abi::Link;
use crate::abi::{DeviceFlags, DeviceKind, Dir};

/// Who the client of a new flow is, judged by the edge that first sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    Outside,
    Pod,
    /// A process on this node, or whatever the node forwards from a device without hooks.
    Node,
}

/// How far a packet has come when the program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// In the driver, before the kernel has looked at it.
    Xdp,
    /// A socket buffer at a device.
    Tc,
    /// There is no packet yet: a process names the address that it wants to reach.
    Socket,
}

/// What deciding may know of the hook that it runs at: where the packet is, which way it goes, and whose clients begin flows there.
///
/// In the fast path an edge is a constant, so that what does not apply to it is compiled out. The slow paths of TC are one for each
/// direction: they learn from the device which edge they are at. To have one for each hook would double what the verifier has
/// to do when an agent starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edge {
    pub stage: Stage,
    /// What the device leads to; a hook's own edge has a tunnel for an uplink. At a socket it is the device by which the process would be
    /// reached, which is none for one of the node.
    pub device: DeviceFlags,
    pub dir: Dir,
}

impl Edge {
    /// Where processes of the node, not of a pod, ask for an address.
    pub const SOCKET_OF_NODE: Self = Self {
        stage: Stage::Socket,
        device: DeviceFlags::of(DeviceKind::Plain),
        dir: Dir::Out,
    };
    /// The same for processes in pods.
    pub const SOCKET_OF_POD: Self = Self {
        device: DeviceFlags::of(DeviceKind::Workload),
        ..Self::SOCKET_OF_NODE
    };

    /// The edge of TC at a device.
    #[inline(always)]
    pub const fn of_device(flags: DeviceFlags, dir: Dir) -> Self {
        Self {
            stage: Stage::Tc,
            device: flags,
            dir,
        }
    }

    /// What stands before the network header there.
    #[inline(always)]
    pub const fn link(&self) -> Link {
        self.device.link()
    }

    #[inline(always)]
    pub const fn is_xdp(&self) -> bool {
        matches!(self.stage, Stage::Xdp)
    }

    #[inline(always)]
    pub const fn is_workload(&self) -> bool {
        self.device.is(DeviceKind::Workload)
    }

    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        self.device.is(DeviceKind::Loopback)
    }

    /// Whose new flows begin here. `None`: only known flows are restored.
    #[inline(always)]
    pub const fn client(&self) -> Option<Client> {
        match (self.stage, self.dir) {
            (Stage::Socket, _) if self.is_workload() => Some(Client::Pod),
            (Stage::Socket, _) => Some(Client::Node),
            (_, Dir::In) if self.is_workload() => Some(Client::Pod),
            (_, Dir::In) if self.is_loopback() => None,
            (_, Dir::In) => Some(Client::Outside),
            (_, Dir::Out) if self.is_workload() => None,
            (_, Dir::Out) => Some(Client::Node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_tells_whose_flows_begin_there() {
        let at = |kind, dir| Edge::of_device(DeviceFlags::of(kind), dir);
        for (edge, client) in [
            (at(DeviceKind::Uplink, Dir::In), Some(Client::Outside)),
            (at(DeviceKind::Tunnel, Dir::In), Some(Client::Outside)),
            (at(DeviceKind::Uplink, Dir::Out), Some(Client::Node)),
            (at(DeviceKind::Workload, Dir::In), Some(Client::Pod)),
            (at(DeviceKind::Workload, Dir::Out), None),
            (at(DeviceKind::Loopback, Dir::In), None),
            (at(DeviceKind::Loopback, Dir::Out), Some(Client::Node)),
            // No device, and no packet.
            (Edge::SOCKET_OF_NODE, Some(Client::Node)),
            (Edge::SOCKET_OF_POD, Some(Client::Pod)),
        ] {
            assert_eq!(edge.client(), client, "{edge:?}");
        }
    }
}
