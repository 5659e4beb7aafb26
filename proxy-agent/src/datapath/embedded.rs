//! The eBPF object that the build put into this binary.

use anyhow::{Result, ensure};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portside.o"));

/// The embedded object; an error where the build had none (plain `cargo build`).
pub fn object() -> Result<&'static [u8]> {
    ensure!(
        !OBJECT.is_empty(),
        "this binary was built without its eBPF object: build it by `cargo xtask build`"
    );
    Ok(OBJECT)
}
