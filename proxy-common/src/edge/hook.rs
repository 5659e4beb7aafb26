//! Where a program is attached, as far as decisions depend on it.
//!
//! In the fast path every hook is a constant, so that what does not apply to it is compiled out. The slow paths of TC are one for each
//! direction: they learn from the device which hook they are called from. To have one for each hook would double what the verifier has
//! to do when an agent starts.

use crate::abi::{Dir, device_flags};

/// Who the client of a new flow is, judged by the hook that first sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    Outside,
    Pod,
    /// A process on this node, or whatever the node forwards from a device without hooks.
    Node,
}

/// One attachment point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hook {
    /// Index in the reason counters.
    pub index: u32,
    pub xdp: bool,
    /// What its device leads to: [`device_flags`], of which tunnels have those of uplinks here.
    pub device: u16,
    pub dir: Dir,
    pub name: &'static str,
}

impl Hook {
    pub const XDP_UPLINK: Self = Self {
        index: 0,
        xdp: true,
        device: device_flags::UPLINK,
        dir: Dir::In,
        name: "xdp_uplink",
    };
    pub const TC_UPLINK_IN: Self = Self {
        index: 1,
        xdp: false,
        device: device_flags::UPLINK,
        dir: Dir::In,
        name: "tc_uplink_in",
    };
    pub const TC_UPLINK_OUT: Self = Self {
        index: 2,
        xdp: false,
        device: device_flags::UPLINK,
        dir: Dir::Out,
        name: "tc_uplink_out",
    };
    pub const TC_WORKLOAD_IN: Self = Self {
        index: 3,
        xdp: false,
        device: device_flags::WORKLOAD,
        dir: Dir::In,
        name: "tc_workload_in",
    };
    pub const TC_WORKLOAD_OUT: Self = Self {
        index: 4,
        xdp: false,
        device: device_flags::WORKLOAD,
        dir: Dir::Out,
        name: "tc_workload_out",
    };
    pub const TC_LOOPBACK_OUT: Self = Self {
        index: 5,
        xdp: false,
        device: device_flags::LOOPBACK,
        dir: Dir::Out,
        name: "tc_loopback_out",
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
            xdp: false,
            device: flags,
            dir,
            name: "",
        }
    }

    #[inline(always)]
    pub const fn is_workload(&self) -> bool {
        self.device & device_flags::WORKLOAD != 0
    }

    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        self.device & device_flags::LOOPBACK != 0
    }

    /// Whose new flows begin here. `None`: only known flows are restored.
    #[inline(always)]
    pub const fn client(&self) -> Option<Client> {
        match self.dir {
            Dir::In if self.is_workload() => Some(Client::Pod),
            Dir::In if self.is_loopback() => None,
            Dir::In => Some(Client::Outside),
            Dir::Out if self.is_workload() => None,
            Dir::Out => Some(Client::Node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_hook_is_the_one_that_is_attached_to_it() {
        for hook in Hook::ALL.into_iter().filter(|hook| !hook.xdp) {
            for others in [0, device_flags::ETHERNET] {
                let of_device = Hook::of_device(hook.device | others, hook.dir);
                assert_eq!(of_device.index, hook.index, "{hook:?}");
                assert_eq!(of_device.client(), hook.client(), "{hook:?}");
                assert_eq!(of_device.is_loopback(), hook.is_loopback(), "{hook:?}");
            }
        }
        let tunnel = Hook::of_device(device_flags::TUNNEL, Dir::In);
        assert_eq!(tunnel.index, Hook::TC_UPLINK_IN.index);
        assert_eq!(tunnel.client(), Hook::TC_UPLINK_IN.client());
    }
}
