//! What other tools do to a datapath: they detach, delete, replace and unpin.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::MapInfo;
use aya::programs::SchedClassifier;
use aya::programs::links::Link as _;
use aya::programs::tc::{SchedClassifierLink, TcAttachType, TcHandle};
use nix::libc;

use crate::netns::Netns;
use crate::pass::{self, BPF_PROG_TYPE_SCHED_CLS, TC_ACT_UNSPEC};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_ARRAY: u32 = 2;

/// Where an agent puts its filters.
const PRIORITY: u16 = 50;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// The head of `union bpf_attr` for `BPF_OBJ_*`.
#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    rest: [u32; 25],
}

/// The head of `union bpf_attr` for `BPF_LINK_DETACH`.
#[repr(C)]
struct Detach {
    link: u32,
    rest: [u32; 27],
}

/// The head of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct CreateMap {
    kind: u32,
    key: u32,
    value: u32,
    max_entries: u32,
    flags: u32,
    rest: [u32; 23],
}

/// Takes the program of a pinned link off its device; the link stays.
pub fn detach(pin: &Path) -> Result<()> {
    let detach = || -> Result<()> {
        let link = get(pin)?;
        let detach = Detach {
            link: link.as_raw_fd() as u32,
            rest: [0; 27],
        };
        pass::call(BPF_LINK_DETACH, &detach)?;
        Ok(())
    };
    detach().with_context(|| format!("detaching {}", pin.display()))
}

/// The device at which a pinned link is; 0 for none.
pub fn device_of(pin: &Path) -> Result<u32> {
    let link = get(pin).with_context(|| format!("opening {}", pin.display()))?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))?;
    let ifindex = info.lines().find_map(|line| line.strip_prefix("ifindex:"));
    Ok(ifindex.context("no link of a device")?.trim().parse()?)
}

fn get(pin: &Path) -> io::Result<OwnedFd> {
    let path = path_of(pin)?;
    let object = Object {
        path: path.as_ptr() as u64,
        fd: 0,
        rest: [0; 25],
    };
    pass::bpf(BPF_OBJ_GET, &object)
}

/// Puts a program that lets everything pass in the place of an agent's filter.
pub fn replace_filter(netns: &Netns, device: &str, pin: &Path) -> Result<()> {
    put_program(pin)?;
    netns.run(|| -> Result<()> {
        let mut program = SchedClassifier::from_pin(pin)?;
        let filter =
            SchedClassifierLink::attached(device, TcAttachType::Ingress, PRIORITY, HANDLE, None)?;
        let link = program.attach_to_link(filter)?;
        // Its drop would delete the filter.
        std::mem::forget(program.take_link(link)?);
        Ok(())
    })?;
    Ok(fs::remove_file(pin)?)
}

/// Takes the agent's filter away that looks at what comes in by `device`.
pub fn delete_filter(netns: &Netns, device: &str) -> Result<()> {
    netns.run(|| {
        let filter =
            SchedClassifierLink::attached(device, TcAttachType::Ingress, PRIORITY, HANDLE, None)?;
        filter.detach()?;
        Ok(())
    })
}

/// Pins a program at `path`.
pub fn put_program(path: &Path) -> Result<()> {
    let program = pass::load(BPF_PROG_TYPE_SCHED_CLS, TC_ACT_UNSPEC)?;
    put(&program, path)
}

/// Another map in the place of a pinned one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Other {
    /// Of another number of entries.
    Size,
    /// Of other values.
    Shape,
    /// Of another type.
    Type,
}

/// Puts an empty map in the place of the map that is pinned at `path`.
pub fn put_map(path: &Path, other: Other) -> Result<()> {
    let info = MapInfo::from_pin(path)?;
    let mut create = CreateMap {
        kind: info.map_type()? as u32,
        key: info.key_size(),
        value: info.value_size(),
        max_entries: info.max_entries(),
        flags: info.map_flags(),
        rest: [0; 23],
    };
    match other {
        Other::Size => create.max_entries = (create.max_entries / 2).max(2),
        // A program array has values of one size.
        Other::Shape if create.value == 4 && create.key == 4 => {
            (create.kind, create.value, create.flags) = (BPF_MAP_TYPE_ARRAY, 24, 0);
        }
        Other::Shape => create.value += 8,
        Other::Type if create.kind == BPF_MAP_TYPE_HASH => {
            (create.kind, create.key, create.flags) = (BPF_MAP_TYPE_ARRAY, 4, 0);
        }
        Other::Type => (create.kind, create.flags) = (BPF_MAP_TYPE_HASH, 0),
    }
    let map = pass::bpf(BPF_MAP_CREATE, &create)
        .with_context(|| format!("another map in the place of {}: {other:?}", path.display()))?;
    fs::remove_file(path)?;
    put(&map, path)
}

fn put(object: &OwnedFd, path: &Path) -> Result<()> {
    let pin = || -> Result<()> {
        let path = path_of(path)?;
        let object = Object {
            path: path.as_ptr() as u64,
            fd: object.as_raw_fd() as u32,
            rest: [0; 25],
        };
        pass::call(BPF_OBJ_PIN, &object)?;
        Ok(())
    };
    pin().with_context(|| format!("pinning {}", path.display()))
}

fn path_of(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_encoded_bytes())?)
}
