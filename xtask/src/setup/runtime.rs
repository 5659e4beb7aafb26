//! Programs that the demo, the tests and the benchmark call, installed when a command first needs them.

use anyhow::Context as _;

use crate::{packages, shell};

/// A program and the package that brings it; the name is the same on Debian, Ubuntu and Fedora but for iproute and iptables.
#[derive(Clone, Copy)]
pub struct Tool {
    program: &'static str,
    package: &'static str,
}

impl Tool {
    const fn new(program: &'static str, package: &'static str) -> Self {
        Self { program, package }
    }
}

const IP: Tool = Tool::new("ip", "iproute2");
const CURL: Tool = Tool::new("curl", "curl");
const NFT: Tool = Tool::new("nft", "nftables");
const IPTABLES: Tool = Tool::new("iptables-nft-save", "iptables");
const IPSET: Tool = Tool::new("ipset", "ipset");
const QEMU: Tool = Tool::new("qemu-system-x86_64", "qemu-system-x86");
const XZ: Tool = Tool::new("xz", "xz-utils");
const STRIP: Tool = Tool::new("strip", "binutils");
/// For machines, whose kernels have ip_vs.
const IPVSADM: Tool = Tool::new("ipvsadm", "ipvsadm");
/// The C compiler, which links, too, and its C library.
pub const CROSS_AARCH64: [Tool; 2] = [
    Tool::new("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    // No program of its own; both or none are here.
    Tool::new("aarch64-linux-gnu-gcc", "libc6-dev-arm64-cross"),
];
pub const CROSS_X86_64: [Tool; 2] = [
    Tool::new("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
    Tool::new("x86_64-linux-gnu-gcc", "libc6-dev-amd64-cross"),
];
pub const VM: [Tool; 5] = [IP, QEMU, XZ, STRIP, IPVSADM];
const BUSYBOX: Tool = Tool::new("busybox", "busybox-static");
/// For a prompt in a machine.
pub const PROMPT: [Tool; 1] = [BUSYBOX];
pub const TESTS: [Tool; 5] = [IP, NFT, IPTABLES, IPSET, CURL];
pub const DEMO: [Tool; 2] = [IP, CURL];
pub const BENCH: [Tool; 2] = [IP, NFT];

/// Why a program that is missing cannot be installed here, if so.
pub fn unobtainable(tools: &[Tool]) -> Option<String> {
    let missing = missing(tools);
    let reason = packages::available().err()?;
    (!missing.is_empty()).then(|| format!("{} is not installed, and {reason}", missing.join(", ")))
}

pub fn ensure(tools: &[Tool]) -> anyhow::Result<()> {
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    packages::install(&missing).with_context(|| {
        format!(
            "this command needs {}: install it with your package manager",
            missing.join(" and ")
        )
    })
}

/// The packages of those that are not here.
fn missing(tools: &[Tool]) -> Vec<&'static str> {
    tools
        .iter()
        .filter(|tool| shell::find(tool.program).is_none())
        .map(|tool| tool.package)
        .collect()
}
