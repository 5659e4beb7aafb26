//! Hooks: what a program is attached to, counted and pinned by, and the edge that it decides at.

use crate::{
    abi::{Dir, device_flags},
    edge::{Edge, Stage},
};

/// One attachment point. Its identity is for counters, pins and people; deciding sees its edge alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hook {
    /// Index in the reason counters.
    pub index: u32,
    pub name: &'static str,
    pub edge: Edge,
}

impl Hook {
    pub const XDP_UPLINK: Self = Self {
        index: 0,
        name: "xdp_uplink",
        edge: Edge {
            stage: Stage::Xdp,
            device: device_flags::UPLINK,
            dir: Dir::In,
        },
    };
    pub const TC_UPLINK_IN: Self = Self {
        index: 1,
        name: "tc_uplink_in",
        edge: Edge::of_device(device_flags::UPLINK, Dir::In),
    };
    pub const TC_UPLINK_OUT: Self = Self {
        index: 2,
        name: "tc_uplink_out",
        edge: Edge::of_device(device_flags::UPLINK, Dir::Out),
    };
    pub const TC_WORKLOAD_IN: Self = Self {
        index: 3,
        name: "tc_workload_in",
        edge: Edge::of_device(device_flags::WORKLOAD, Dir::In),
    };
    pub const TC_WORKLOAD_OUT: Self = Self {
        index: 4,
        name: "tc_workload_out",
        edge: Edge::of_device(device_flags::WORKLOAD, Dir::Out),
    };
    pub const TC_LOOPBACK_OUT: Self = Self {
        index: 5,
        name: "tc_loopback_out",
        edge: Edge::of_device(device_flags::LOOPBACK, Dir::Out),
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

    /// The TC hook of a device, by its [`device_flags`]; nameless.
    ///
    /// Without a branch: what is asked of such a hook later is then one question to the verifier, not as many as there are hooks.
    #[inline(always)]
    pub const fn of_device(flags: u16, dir: Dir) -> Self {
        let workload = ((flags / device_flags::WORKLOAD) & 1) as u32;
        let loopback = ((flags / device_flags::LOOPBACK) & 1) as u32;
        let index = match dir {
            Dir::In => Self::TC_UPLINK_IN.index + 2 * workload,
            Dir::Out => Self::TC_UPLINK_OUT.index + 2 * workload + 3 * loopback,
        };
        Self {
            index,
            name: "",
            edge: Edge::of_device(flags, dir),
        }
    }

    #[inline(always)]
    pub const fn is_xdp(&self) -> bool {
        self.edge.is_xdp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_hook_is_the_one_that_is_attached_to_it() {
        for hook in Hook::ALL.into_iter().filter(|hook| !hook.is_xdp()) {
            for others in [0, device_flags::ETHERNET] {
                let of_device = Hook::of_device(hook.edge.device | others, hook.edge.dir);
                assert_eq!(of_device.index, hook.index, "{hook:?}");
                assert_eq!(of_device.edge.client(), hook.edge.client(), "{hook:?}");
            }
        }
        let tunnel = Hook::of_device(device_flags::TUNNEL, Dir::In);
        assert_eq!(tunnel.index, Hook::TC_UPLINK_IN.index);
        assert_eq!(tunnel.edge.client(), Hook::TC_UPLINK_IN.edge.client());
    }
}
