//! What to do where the toolchain can be neither found nor installed.

use super::toolchain::Compiler;

/// The closing message of a setup that failed: what is missing, why, and how to get it.
pub fn missing(compiler: Option<&Compiler>, failures: &[String]) -> String {
    let what = match compiler {
        None => "a Rust compiler (1.89 or later) with rust-src".to_owned(),
        Some(compiler) => format!(
            "a bpf-linker that carries LLVM {} or later",
            compiler.version.llvm
        ),
    };
    let reasons: String = failures
        .iter()
        .map(|failure| format!("  - {failure}\n"))
        .collect();
    format!(
        "the eBPF build lacks {what}.\n{reasons}\
         How to get the toolchain:\n  \
         any system     rustup toolchain install nightly --component rust-src\n                 \
         cargo binstall bpf-linker        (or a release archive of it, unpacked onto PATH)\n  \
         Debian, Ubuntu apt-get install rustc-web rust-web-src, or rustc-X.Y and rust-X.Y-src, and llvm-N-dev with the N\n                 \
         that `rustc -vV` shows; then LLVM_PREFIX=$(llvm-config-N --prefix) \\\n                 \
         cargo install bpf-linker --no-default-features --features llvm-N\n  \
         Fedora         dnf install rust rust-src llvm-devel gcc-c++, then the same cargo install\n  \
         elsewhere      set PORTSIDE_EBPF_RUSTC to a rustc that has rust-src, and put bpf-linker on PATH\n\
         Then: cargo xtask setup (as root, or with sudo that asks no password, it installs packages itself)."
    )
}
