//! What the agent tells of the node.

use super::Kernel;
use crate::maps;
use aya_ebpf::helpers::generated::bpf_jiffies64;
use proxy_common::{
    abi::{Config, Device, IfIndex, Jiffies, gate},
    explain::Cursor,
    tables::Node,
};

impl Node for Kernel {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        maps::CONFIG.get(0)
    }

    #[inline(always)]
    fn gate(&self, bit: gate::Bit) -> bool {
        match maps::GATE.get(bit.word) {
            Some(word) => word & bit.mask != 0,
            None => false,
        }
    }

    #[inline(always)]
    fn now(&self) -> Jiffies {
        // SAFETY: no arguments; the verifier turns it into a load.
        Jiffies(unsafe { bpf_jiffies64() as u32 })
    }

    #[inline(always)]
    fn device(&self, ifindex: IfIndex) -> Option<&Device> {
        // SAFETY: as for services.
        unsafe { maps::DEVICES.get(ifindex) }
    }

    #[inline(always)]
    fn ifindex(&self) -> IfIndex {
        self.ifindex
    }

    #[inline(always)]
    fn next_port(&self) -> u32 {
        let Some(cursor) = maps::PORT_CURSOR.get_ptr_mut(0) else {
            return 0;
        };
        // SAFETY: an aligned word of a map value. Two CPUs may take the same number; the flow table's NOEXIST
        // then sends one of them on to the next.
        unsafe {
            let n = core::ptr::read_volatile(cursor);
            core::ptr::write_volatile(cursor, n.wrapping_add(1));
            n
        }
    }
}

impl Cursor for Kernel {
    #[inline(always)]
    fn port_cursor(&self) -> u32 {
        match maps::PORT_CURSOR.get_ptr(0) {
            // SAFETY: an aligned word of a map value.
            Some(cursor) => unsafe { core::ptr::read_volatile(cursor) },
            None => 0,
        }
    }
}
