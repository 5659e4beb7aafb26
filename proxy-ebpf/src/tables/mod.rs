//! The core's tables over BPF maps and helpers, the same for every hook.

mod flows;
mod meters;
mod node;
mod routes;
mod services;

use aya_ebpf::cty::c_void;
use proxy_common::abi::IfIndex;

/// The maps, seen from one run of a program.
pub struct Kernel {
    /// The program's context, which the routing helper wants.
    context: *mut c_void,
    /// The device at the hook.
    ifindex: IfIndex,
}

impl Kernel {
    #[inline(always)]
    pub fn new(context: *mut c_void, ifindex: IfIndex) -> Self {
        Self { context, ifindex }
    }
}
