//! Programs that the demo, the tests and the benchmark call, installed when a command first needs them.

use anyhow::Context as _;

use crate::{packages, shell};

/// A program and the package that brings it; the name is the same on Debian, Ubuntu and Fedora but for iproute and iptables.
#[derive(Clone, Copy)]
pub struct Tool {
    program: &'static str,
    package: &'static str,
}

const IP: Tool = Tool {
    program: "ip",
    package: "iproute2",
};
const CURL: Tool = Tool {
    program: "curl",
    package: "curl",
};
const NFT: Tool = Tool {
    program: "nft",
    package: "nftables",
};

const IPTABLES: Tool = Tool {
    program: "iptables-nft-save",
    package: "iptables",
};
const QEMU: Tool = Tool {
    program: "qemu-system-x86_64",
    package: "qemu-system-x86",
};
const XZ: Tool = Tool {
    program: "xz",
    package: "xz-utils",
};

pub const VM: [Tool; 3] = [IP, QEMU, XZ];
pub const TESTS: [Tool; 3] = [IP, NFT, IPTABLES];
pub const DEMO: [Tool; 2] = [IP, CURL];
pub const BENCH: [Tool; 2] = [IP, NFT];

pub fn ensure(tools: &[Tool]) -> anyhow::Result<()> {
    let missing: Vec<_> = tools
        .iter()
        .filter(|tool| shell::find(tool.program).is_none())
        .map(|tool| tool.package)
        .collect();
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
