//! The switches of the loopback device.
//!
//! The reply to a process on this node is received by the loopback device, from an address that is the node's own or in
//! 127/8. The kernel would drop it as a martian. Nobody else can send to that device.

use std::{fs, path::Path};

use tracing::warn;

/// Below `/proc/sys`; each should be 1.
pub const LOOPBACK_SWITCHES: [&str; 2] = [
    "net/ipv4/conf/lo/accept_local",
    "net/ipv4/conf/lo/route_localnet",
];

/// Sets them in the network namespace of the caller, or says what does not work without. `proc_sys` is where the
/// switches are files.
pub fn prepare_loopback(proc_sys: &Path) {
    for path in LOOPBACK_SWITCHES.map(|switch| proc_sys.join(switch)) {
        let is_set = fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1");
        if is_set {
            continue;
        }
        if let Err(error) = fs::write(&path, "1") {
            warn!(
                "cannot set {} to 1: {error}. Processes on this node may not reach services by a node's own address until it is set",
                path.display()
            );
        }
    }
}
