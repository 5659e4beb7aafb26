//! QEMU's command line, and whether it may use KVM.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use vm_protocol::{TAP, TOKEN};

use super::{
    console::{self, Ending, Limits},
    kernels::Kernel,
};
use crate::{privilege::Root, shell::say};

const QEMU: &str = "qemu-system-x86_64";

/// At the device that `tests/guest/src/bin/vm_outside.rs` makes. Native XDP in virtio_net takes a pair of queues more for each CPU,
/// and refuses a NIC that may be given merged segments (kernel drivers/net/virtio_net.c, `virtnet_xdp_set`).
const NIC: &str = "virtio-net-pci,netdev=uplink,mq=on,vectors=10,\
    guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,guest_csum=off";

/// How QEMU runs the guest's code.
#[derive(Clone, Copy)]
pub enum Accelerator {
    Kvm,
    Tcg,
}

/// A machine's memory: what the suites' maps, agents and file systems take, and half as much again.
pub const MEMORY_MIB: usize = 3072;
const PROCESSORS: usize = 2;

/// How many of the host's processors a machine keeps busy.
pub fn threads(accelerator: Accelerator) -> usize {
    match accelerator {
        Accelerator::Kvm => PROCESSORS,
        // See `qemu`.
        Accelerator::Tcg => 1,
    }
}

/// What a kernel prints that finds no file system (init/do_mounts.c). It has booted by then.
const NO_FILES: &str = "VFS: Unable to mount root fs";

/// Chooses KVM if a guest boots with it up to its file system: on some machines KVM opens, and the guest hangs.
pub fn probe(kernel: &Kernel) -> Accelerator {
    let opens = File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    if !opens {
        say("Using", "TCG: /dev/kvm cannot be opened");
        return Accelerator::Tcg;
    }
    let limits = Limits {
        stall: Duration::from_secs(8),
        total: Duration::from_secs(20),
    };
    let mut command = qemu(Accelerator::Kvm, kernel, None, None);
    command.stderr(Stdio::null());
    let reason = match console::watch(&mut command, &limits, |_| ()) {
        Ok(Ending::Panicked(line)) if line.contains(NO_FILES) => {
            say("Using", "KVM");
            return Accelerator::Kvm;
        }
        Ok(ending) => ending.to_string(),
        Err(error) => error.to_string(),
    };
    say(
        "Using",
        format!("TCG: a guest under KVM did not come up ({reason})"),
    );
    Accelerator::Tcg
}

/// Why no NIC can be given to a machine, if so.
pub fn no_wire() -> Option<&'static str> {
    // Behind sudo, the machine could not be ended.
    if !matches!(Root::find(), Some(Root::Already)) {
        return Some("a NIC with a client behind it needs root");
    }
    (!Path::new("/dev/net/tun").exists())
        .then_some("a NIC with a client behind it needs /dev/net/tun")
}

/// A machine that boots `kernel` with `image` as its file system, its console on the standard output. With a `wire`, which
/// is the program `vm_outside`, it has a NIC that leads to a client on this host.
pub fn qemu(
    accelerator: Accelerator,
    kernel: &Kernel,
    image: Option<&Path>,
    wire: Option<&Path>,
) -> Command {
    let (accelerator, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        // With a thread for each CPU, QEMU races with itself where the guest's kernel changes its own code, and the
        // guest ends by "Oops: int3".
        // "Enhanced" string instructions, by which the kernel clears and copies pages, are steps of one byte in QEMU.
        Accelerator::Tcg => ("tcg,thread=single", "max,erms=off,fsrm=off"),
    };
    let mut command = match wire {
        None => Command::new(QEMU),
        Some(wire) => {
            let mut command = Command::new(wire);
            command.arg(QEMU);
            command
        }
    };
    if wire.is_some() {
        let tap = format!("tap,id=uplink,ifname={TAP},script=no,downscript=no,queues=4");
        command.args(["-netdev", &tap, "-device", NIC]);
    }
    command
        .args(["-machine", "q35", "-accel", accelerator, "-cpu", cpu])
        .args(["-smp", &PROCESSORS.to_string()])
        .args(["-m", &format!("{MEMORY_MIB}M")])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-serial", "mon:stdio"])
        .arg("-kernel")
        .arg(&kernel.image)
        .args([
            "-append",
            &format!("console=ttyS0 quiet panic=-1 rdinit=/init {TOKEN}"),
        ]);
    if let Some(image) = image {
        command.arg("-initrd").arg(image);
    }
    command
}
