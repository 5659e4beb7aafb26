//! Hooks: what a program is attached to, counted and pinned by, and the edge that it decides at.

use crate::{
    abi::{DeviceFlags, DeviceKind, Dir},
    edge::{Edge, Link, Stage},
};

/// One attachment point. Its identity is for counters, pins and people; deciding sees its edge alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hook {
    /// Index in the reason counters.
    pub index: u32,
    pub name: &'static str,
    /// The program for devices without a link header, where the hook is at such: their packets begin with the network
    /// header. Each of both kinds is a constant of its own program, so that neither asks of a packet which one it is at.
    pub bare: Option<&'static str>,
    pub edge: Edge,
}

impl Hook {
    pub const XDP_UPLINK: Self = Self {
        index: 0,
        name: "xdp_uplink",
        bare: None,
        edge: Edge {
            stage: Stage::Xdp,
            device: DeviceFlags::of(DeviceKind::Uplink),
            dir: Dir::In,
        },
    };
    pub const TC_UPLINK_IN: Self = Self {
        index: 1,
        name: "tc_uplink_in",
        bare: Some("tc_uplink_in_l3"),
        edge: Edge::of_device(DeviceFlags::of(DeviceKind::Uplink), Dir::In),
    };
    pub const TC_UPLINK_OUT: Self = Self {
        index: 2,
        name: "tc_uplink_out",
        bare: Some("tc_uplink_out_l3"),
        edge: Edge::of_device(DeviceFlags::of(DeviceKind::Uplink), Dir::Out),
    };
    pub const TC_WORKLOAD_IN: Self = Self {
        index: 3,
        name: "tc_workload_in",
        bare: Some("tc_workload_in_l3"),
        edge: Edge::of_device(DeviceFlags::of(DeviceKind::Workload), Dir::In),
    };
    pub const TC_WORKLOAD_OUT: Self = Self {
        index: 4,
        name: "tc_workload_out",
        bare: Some("tc_workload_out_l3"),
        edge: Edge::of_device(DeviceFlags::of(DeviceKind::Workload), Dir::Out),
    };
    pub const TC_LOOPBACK_OUT: Self = Self {
        index: 5,
        name: "tc_loopback_out",
        bare: None,
        edge: Edge::of_device(DeviceFlags::of(DeviceKind::Loopback), Dir::Out),
    };

    /// All hooks, by index.
    pub const ALL: [Self; 6] = [
        Self::XDP_UPLINK,
        Self::TC_UPLINK_IN,
        Self::TC_UPLINK_OUT,
        Self::TC_WORKLOAD_IN,
        Self::TC_WORKLOAD_OUT,
        Self::TC_LOOPBACK_OUT,
    ];

    /// The TC hook of a device; nameless.
    ///
    /// Without a branch: what is asked of such a hook later is then one question to the verifier, not as many as there are hooks.
    #[inline(always)]
    pub const fn of_device(flags: DeviceFlags, dir: Dir) -> Self {
        let workload = flags.count(DeviceKind::Workload);
        let loopback = flags.count(DeviceKind::Loopback);
        let index = match dir {
            Dir::In => Self::TC_UPLINK_IN.index + 2 * workload,
            Dir::Out => Self::TC_UPLINK_OUT.index + 2 * workload + 3 * loopback,
        };
        Self {
            index,
            name: "",
            bare: None,
            edge: Edge::of_device(flags, dir),
        }
    }

    /// The program for a device, by whether it has a link header; `None` where the hook is at none of that kind.
    pub const fn program(&self, link: Link) -> Option<&'static str> {
        match link {
            Link::Ethernet => Some(self.name),
            Link::None => self.bare,
        }
    }

    /// All programs that are attached as this hook.
    pub fn programs(&self) -> impl Iterator<Item = &'static str> + use<> {
        [Some(self.name), self.bare].into_iter().flatten()
    }

    #[inline(always)]
    pub const fn is_xdp(&self) -> bool {
        self.edge.is_xdp()
    }
}

const _: () = assert!(Hook::ALL.len() == crate::abi::HOOKS as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_hook_is_the_one_that_is_attached_to_it() {
        for hook in Hook::ALL.into_iter().filter(|hook| !hook.is_xdp()) {
            for link in [Link::None, Link::Ethernet] {
                let device = hook.edge.device.with_link(link);
                let of_device = Hook::of_device(device, hook.edge.dir);
                assert_eq!(of_device.index, hook.index, "{hook:?}");
                assert_eq!(of_device.edge.client(), hook.edge.client(), "{hook:?}");
            }
        }
        let tunnel = Hook::of_device(DeviceFlags::of(DeviceKind::Tunnel), Dir::In);
        assert_eq!(tunnel.index, Hook::TC_UPLINK_IN.index);
        assert_eq!(tunnel.edge.client(), Hook::TC_UPLINK_IN.edge.client());
    }
}
