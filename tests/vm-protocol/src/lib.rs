//! What `cargo xtask` and the programs that it runs have to spell alike: here, or in a virtual machine.
//!
//! It depends on nothing, so that xtask builds before everything else.

/// On the kernel's command line, so that nothing but a machine made for it is ever taken over.
pub const TOKEN: &str = "portside.vm_test";

/// Lines of the console. Each begins with these words and a space.
pub mod line {
    /// The last one: whether every suite succeeded, [`OK`] or another word.
    pub const CLOSING: &str = "vm-test closing:";
    pub const OK: &str = "ok";
    pub const FAILED: &str = "failed";
    /// The running kernel, as its uname(2) gives it.
    pub const KERNEL: &str = "vm-test kernel:";
    /// The suite whose lines follow.
    pub const SUITE: &str = "vm-test suite:";
    /// A program, and `instructions=N stack=N size=N` of it.
    pub const VERIFIER: &str = "verifier:";
}

/// Where things are in the machine's file system.
pub mod place {
    pub const DIRECTORY: &str = "/vm";
    pub const OBJECT: &str = "/vm/portside";
    pub const AGENT: &str = "/vm/proxy-agent";
    /// A line for each suite: the program and its arguments, parted by tabs.
    pub const SUITES: &str = "/vm/suites";
    /// Lines of `NAME=VALUE`.
    pub const VARIABLES: &str = "/vm/variables";
    /// The paths of the kernel's modules, in the order in which they are loaded.
    pub const MODULES: &str = "/vm/modules";
}

/// Environment variables.
pub mod variable {
    /// The eBPF object.
    pub const OBJECT: &str = "PORTSIDE_EBPF_OBJECT";
    /// The commit that the agent is built from.
    pub const COMMIT: &str = "PORTSIDE_COMMIT";
    /// The agent's static binary.
    pub const AGENT: &str = "PORTSIDE_AGENT";
    /// The bench's own eBPF object.
    pub const BENCH_OBJECT: &str = "PORTSIDE_BENCH_OBJECT";
    /// How many times longer than on a real machine everything may take.
    pub const PATIENCE: &str = "PORTSIDE_PATIENCE";
    /// Rows are asked for by name: what is too long for a run of all of them is run, too.
    pub const BY_NAME: &str = "PORTSIDE_BY_NAME";
    /// One of so many rows of the matrix is run.
    pub const SAMPLE: &str = "PORTSIDE_SAMPLE";
    /// The programs that render what is in `deploy/`.
    pub const HELM: &str = "PORTSIDE_HELM";
    pub const KUBECTL: &str = "PORTSIDE_KUBECTL";
    /// Why there are none, if so.
    pub const NO_HELM: &str = "PORTSIDE_NO_HELM";
    /// The directory of `prometheus` and `promtool`.
    pub const PROMETHEUS: &str = "PORTSIDE_PROMETHEUS";
    /// The programs that the suite of ingress controllers runs.
    pub const NGINX: &str = "PORTSIDE_NGINX";
    pub const HAPROXY: &str = "PORTSIDE_HAPROXY";
    /// What is planted, so that a suite fails.
    pub const PLANT: &str = "PORTSIDE_PLANT";
}

/// The host's device at which the guest's NIC ends.
pub const TAP: &str = "tap0";

/// How names of cases begin, by what serves the uplinks.
pub const WITH_XDP: &str = "xdp";
pub const WITH_TC: &str = "tc";
