//! QEMU's command line, and whether it may use KVM.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::{
    console::{self, Limits},
    kernels::Kernel,
};
use crate::shell::say;

/// How QEMU runs the guest's code.
#[derive(Clone, Copy)]
pub enum Accelerator {
    Kvm,
    Tcg,
}

/// KVM only where a guest gets as far as our init with it: on some machines it opens, and the guest hangs.
pub fn probe(kernel: &Kernel, image: &Path) -> Accelerator {
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
        stall: Duration::from_secs(15),
        total: Duration::from_secs(20),
    };
    let mut speaks = false;
    let mut command = qemu(Accelerator::Kvm, kernel, image);
    command.stderr(Stdio::null());
    let ending = console::watch(&mut command, &limits, |line| {
        speaks |= line.starts_with("running ");
    });
    if speaks {
        say("Using", "KVM");
        return Accelerator::Kvm;
    }
    let reason = ending.map_or_else(|error| error.to_string(), |ending| ending.to_string());
    say(
        "Using",
        format!("TCG: a guest under KVM did not come up ({reason})"),
    );
    Accelerator::Tcg
}

/// A machine that boots `kernel` with `image` as its file system, its console on the standard output.
pub fn qemu(accelerator: Accelerator, kernel: &Kernel, image: &Path) -> Command {
    let (accelerator, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        // With a thread for each CPU, QEMU races with itself where the guest's kernel changes its own code, and the
        // guest ends by "Oops: int3".
        Accelerator::Tcg => ("tcg,thread=single", "max"),
    };
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-machine", "q35", "-accel", accelerator, "-cpu", cpu])
        .args(["-smp", "2", "-m", "2G"])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        .args([
            "-append",
            "console=ttyS0 quiet panic=-1 rdinit=/init portside.vm_test",
        ]);
    command
}
