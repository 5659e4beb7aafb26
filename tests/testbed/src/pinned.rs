//! What is pinned of a datapath, as far as it has to outlive an agent.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::maps::{MapData, MapInfo, MapType};
use aya::programs::links::{FdLink, PinnedLink};
use nix::libc;
use proxy_agent::datapath::{PinDir, cpus};
use proxy_agent::plan::FrontendAt;
use proxy_common::abi::{BackendId, ServiceId};

use crate::topology::Node;

/// Who has which id.
#[derive(PartialEq, Eq, Debug)]
pub struct Ids {
    pub services: BTreeMap<FrontendAt, ServiceId>,
    /// By service and socket.
    pub backends: BTreeMap<(ServiceId, SocketAddr), BackendId>,
}

impl Ids {
    pub fn of(node: &Node) -> Result<Self> {
        let image = PinDir::new(&node.bpffs).open_maps()?.image()?;
        let backends = image.backends.into_iter();
        Ok(Self {
            services: image
                .frontends
                .into_iter()
                .map(|(at, to)| (at, to.service()))
                .collect(),
            backends: backends
                .filter(|(_, entry)| !entry.flags.is_empty())
                .map(|(id, entry)| ((entry.service, entry.socket), id))
                .collect(),
        })
    }
}

/// One link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    pub id: u32,
    pub program: u32,
}

/// The links, by the names of their pins.
pub fn links(node: &Node) -> Result<BTreeMap<String, Link>> {
    let link = |path: &Path| -> Result<Link> {
        let info = FdLink::from(PinnedLink::from_pin(path)?).info()?;
        Ok(Link {
            id: info.id(),
            program: info.program_id(),
        })
    };
    each(&PinDir::new(&node.bpffs).links(), link)
}

/// The maps' ids and numbers of entries, by the names of their pins.
pub fn maps(node: &Node) -> Result<BTreeMap<String, (u32, u32)>> {
    let map = |path: &Path| -> Result<_> {
        let info = MapInfo::from_pin(path)?;
        Ok((info.id(), info.max_entries()))
    };
    each(PinDir::new(&node.bpffs).root(), map)
}

fn each<T>(dir: &Path, look: impl Fn(&Path) -> Result<T>) -> Result<BTreeMap<String, T>> {
    let files = names(dir)?.into_iter().map(|name| (dir.join(&name), name));
    files
        .filter(|(path, _)| !path.is_dir())
        .map(|(path, name)| {
            let seen = look(&path).with_context(|| path.display().to_string())?;
            Ok((name, seen))
        })
        .collect()
}

/// The directories of all agents that ever pinned something on `node`.
pub fn directories(node: &Node) -> Result<Vec<String>> {
    let mut names = names(&node.bpffs)?;
    // The kernel's own, in a bpffs that root mounts (bpf_preload, since 5.10).
    names.retain(|name| !name.ends_with(".debug"));
    names.sort_unstable();
    Ok(names)
}

/// The pin directory of another version of the map layout.
pub fn directory_of_version(node: &Node, version: u32) -> PathBuf {
    node.bpffs.join(format!("portside-v{version}"))
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// The devices of a node that have a clsact qdisc.
pub fn devices_with_clsact(node: &Node) -> Result<Vec<String>> {
    let shown = shown(node, &["qdisc", "show"])?;
    let lines = shown.lines().filter(|line| line.contains(" clsact "));
    // `qdisc clsact ffff: dev eth0 parent ffff:fff1`
    let device = |line: &str| {
        line.split(" dev ")
            .nth(1)?
            .split(' ')
            .next()
            .map(str::to_owned)
    };
    let mut devices: Vec<_> = lines.filter_map(device).collect();
    devices.sort_unstable();
    Ok(devices)
}

/// The filters of these devices, a line each: device, direction and program.
pub fn filters(node: &Node, devices: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for device in devices {
        for direction in ["ingress", "egress"] {
            let shown = shown(node, &["filter", "show", "dev", device, direction])?;
            let names = shown.lines().filter_map(|line| {
                let name = line.split(" handle ").nth(1)?.split(' ').nth(1)?;
                Some(format!("filter {device} {direction} {name}"))
            });
            all.extend(names);
        }
    }
    Ok(all)
}

fn shown(node: &Node, arguments: &[&str]) -> Result<String> {
    let mut command = node.netns().command("tc")?;
    command.args(arguments);
    crate::cli::output(command)
}

/// An entry of a map, byte by byte: its key and its value, of all CPUs where each has its own.
pub type Entry = (Vec<u8>, Vec<u8>);

/// All that the maps hold, by the names of their pins.
pub fn contents(node: &Node) -> Result<BTreeMap<String, Vec<Entry>>> {
    each(PinDir::new(&node.bpffs).root(), entries)
}

fn entries(path: &Path) -> Result<Vec<Entry>> {
    let map = MapData::from_pin(path)?;
    let info = map.info()?;
    let value = match info.map_type()? {
        MapType::PerCpuArray => info.value_size().next_multiple_of(8) as usize * cpus() as usize,
        _ => info.value_size() as usize,
    };
    let mut all = Vec::new();
    let mut key: Option<Vec<u8>> = None;
    loop {
        let mut next = vec![0; info.key_size() as usize];
        let before = key.as_ref().map_or(0, |key| key.as_ptr() as u64);
        if !element(&map, GET_NEXT_KEY, before, next.as_mut_ptr() as u64)? {
            break;
        }
        let mut found = vec![0; value];
        if element(
            &map,
            LOOKUP_ELEM,
            next.as_ptr() as u64,
            found.as_mut_ptr() as u64,
        )? {
            all.push((next.clone(), found));
        }
        key = Some(next);
    }
    all.sort_unstable();
    Ok(all)
}

/// Commands of bpf(2) on an element of a map (include/uapi/linux/bpf.h, `enum bpf_cmd`).
const LOOKUP_ELEM: libc::c_int = 1;
const GET_NEXT_KEY: libc::c_int = 4;

/// One such command; whether there is such an element.
fn element(map: &MapData, command: libc::c_int, key: u64, to: u64) -> Result<bool> {
    /// `union bpf_attr`, as far as these commands read it.
    #[repr(C)]
    struct Attr {
        map: u32,
        unused: u32,
        key: u64,
        to: u64,
        flags: u64,
    }
    let attr = Attr {
        map: map.fd().as_fd().as_raw_fd() as u32,
        unused: 0,
        key,
        to,
        flags: 0,
    };
    // SAFETY: the attributes are live and of this size; key and value are as large as the map has them.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attr, size_of::<Attr>()) };
    if done == 0 {
        return Ok(true);
    }
    let error = std::io::Error::last_os_error();
    match error.kind() {
        std::io::ErrorKind::NotFound => Ok(false),
        _ => Err(error.into()),
    }
}
