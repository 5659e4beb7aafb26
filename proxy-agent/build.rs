//! Puts the eBPF object where the agent includes it from: `$OUT_DIR/portside.o`.
//!
//! `cargo xtask build` names the object in `PORTSIDE_EBPF_OBJECT`. Without that variable (plain `cargo test`, clippy) the
//! file is empty, so that a stable toolchain alone builds the workspace, and the agent says so when it is to load it.

use std::{env, error::Error, fs, path::PathBuf};

const VARIABLE: &str = "PORTSIDE_EBPF_OBJECT";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let bytes = match env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        None => Vec::new(),
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(&path).map_err(|error| format!("{VARIABLE}={}: {error}", path.display()))?
        }
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("portside.o"), bytes)?;
    Ok(())
}
