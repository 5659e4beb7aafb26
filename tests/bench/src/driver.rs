//! The benchmark's own programs (proxy-ebpf/src/bench.rs), loaded.

use anyhow::{Context, Result};
use aya::maps::Map;
use aya::programs::{SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};

use super::frames::{LEN, Places};

/// What the driver and the generator send; laid out as in proxy-ebpf/src/bench.rs.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Script {
    pub template: [u8; LEN],
    pub addr_half: u32,
    pub port_half: u32,
    pub flows: u32,
    pub next: u32,
    pub device: u32,
    pub shuffled: u32,
    pub spread: u32,
    pub first: u32,
    pub reserved: u32,
}

impl Script {
    /// One flow, from its first packet on.
    pub const fn new(template: &[u8; LEN], places: Places) -> Self {
        Self {
            template: *template,
            addr_half: places.addr_half,
            port_half: places.port_half,
            flows: 1,
            next: 0,
            device: 0,
            shuffled: 0,
            spread: 0,
            first: 0,
            reserved: 0,
        }
    }
}

// SAFETY: `repr(C)`, plain integers, no padding.
unsafe impl Pod for Script {}

/// The object that a variable of the environment names.
pub fn object(variable: &str) -> Result<Vec<u8>> {
    let path = std::env::var_os(variable)
        .with_context(|| format!("{variable} is not set: use cargo xtask bench"))?;
    std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

/// Loads the programs of XDP with these names.
pub fn load(names: &[&str]) -> Result<Ebpf> {
    let mut driver = EbpfLoader::new().load(&object(vm_protocol::variable::BENCH_OBJECT)?)?;
    for name in names {
        program(&mut driver, name)?.load()?;
    }
    Ok(driver)
}

/// A program of TC, which is loaded when it is first asked for.
pub fn classifier<'a>(driver: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program: &mut SchedClassifier = driver
        .program_mut(name)
        .with_context(|| format!("the driver has no program {name}"))?
        .try_into()?;
    if program.fd().is_err() {
        program.load()?;
    }
    Ok(program)
}

pub fn take_map(driver: &mut Ebpf, name: &str) -> Result<Map> {
    driver
        .take_map(name)
        .with_context(|| format!("the driver has no map {name}"))
}

pub fn program<'a>(driver: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(driver
        .program_mut(name)
        .with_context(|| format!("the driver has no program {name}"))?
        .try_into()?)
}
