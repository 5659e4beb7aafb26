//! Everything that speaks bpf(2): loading, pinning, attaching, writing and reading the maps.
//!
//! In: the object's bytes, [`Options`], operations of the plan, what the node looks like. Out: maps and links in the
//! kernel. The one rule: it does what it is told and decides nothing; the order of writes is the plan's.
//!
//! | file | subject |
//! |---|---|
//! | `options` | what a caller chooses |
//! | `shape` | the shape of every map |
//! | `pin` | the directory that outlives the agent |
//! | `takeover` | from one agent to the next |
//! | `memory` | what tables take, and how large they may become |
//! | `resize` | flow tables of another size |
//! | `grow` | larger tables of services and endpoints |
//! | `maps` | the maps, typed |
//! | `program` | the programs, and running one on a packet |
//! | `clock` | jiffies per second |
//! | `batch` | many elements of a map in one system call |
//! | `apply` | operations of the plan -> map writes |
//! | `image` | map contents -> what the plan starts from |
//! | `inspect` | what a running datapath holds |
//! | `facts` | configuration, devices, local addresses -> maps |
//! | `fib_source` | whether the kernel tells programs the source address of a route |
//! | `counters` | sums over CPUs |
//! | `attach` | programs at devices |
//! | `dry` | the programs on a packet of a question, without a trace |
//! | `drain` | connections end before the programs go |
//! | `guard` | what is attached and pinned stays so |
//! | `node_room` | tables of the node with more room |
//! | `lock` | one agent for each directory of pins |
//! | `probe` | what the kernel can do |
//! | `sys` | bpf(2), for commands that aya has no call for |

mod apply;
mod attach;
mod batch;
mod clock;
mod counters;
mod drain;
mod dry;
mod facts;
mod fib_source;
mod grow;
mod guard;
mod image;
mod inspect;
mod lock;
mod maps;
pub mod memory;
mod node_room;
mod options;
mod pin;
pub mod probe;
mod program;
mod resize;
mod shape;
mod sweep;
mod sys;
mod takeover;

use proxy_common::abi::IfIndex;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::{Ebpf, EbpfLoader, util::nr_cpus};
use nix::net::if_::if_nameindex;
use proxy_common::abi::names;

use self::{
    attach::Attachments,
    guard::Guard,
    shape::{Shape, shapes},
    takeover::Takeover,
};
use crate::plan::Room;

pub use self::{
    attach::{AttachError, By, Outcome, Target, TcMode, Wanted, XdpMode, by_reply_first},
    dry::{DryRun, DryRuns, Layer, Path as DryPath},
    facts::Facts,
    grow::Growth,
    guard::{Findings, Lack, Loss},
    inspect::{Connection, ConnectionState, Occupancy},
    lock::{Attempt, Holder, Lock},
    maps::{FamilyMaps, MapAddr, Maps},
    options::{LARGEST, Options, Sizes},
    pin::PinDir,
    program::{Ran, Run},
    sweep::Sweep,
};

/// A loaded datapath: its maps and programs, attached nowhere.
pub struct Datapath {
    ebpf: Ebpf,
    maps: Maps,
    /// `None` for one that is pinned nowhere.
    takeover: Option<Takeover>,
    sizes: Sizes,
    xdp: XdpMode,
    tc: TcMode,
    attachments: Attachments,
    guard: Guard,
    hz: u32,
}

impl Datapath {
    /// Loads `object`. With [`Options::pin`], the maps of an earlier process are taken over with what they hold, as far as
    /// this one can read them.
    pub fn load(object: &[u8], options: &Options) -> Result<Self> {
        let Options {
            pin,
            sizes,
            limits,
            allowance,
            xdp,
            tc,
        } = options;
        ensure!(
            !object.is_empty(),
            "this binary was built without its eBPF object: build it by `cargo xtask build`"
        );
        // Tables that have grown do not become small again.
        let sizes = match pin {
            Some(bpffs) => sizes.grown(takeover::room(bpffs)?, limits),
            None => *sizes,
        };
        let shapes = shapes(&sizes);
        let mut takeover = match pin {
            Some(bpffs) => Some(Takeover::begin(bpffs, &shapes)?),
            None => None,
        };
        let pin = |name: &str| Some(takeover.as_ref()?.pins().map(name));
        if let Some(allowance) = allowance {
            let is_made = |shape: &&Shape| pin(shape.name).is_none_or(|path| !path.exists());
            let made = shapes.iter().filter(is_made);
            memory::ensure_fits(made, allowance, &sizes, cpus())?;
        }
        let (ebpf, mut maps) = open(object, &shapes, *xdp, pin)?;
        if let Some(takeover) = &mut takeover {
            takeover.fill(&shapes, &mut maps)?;
        }
        program::link_slow(&ebpf, xdp.is_used(), &mut maps)?;
        let hz = clock::jiffies_per_second(&ebpf)?;
        Ok(Self {
            ebpf,
            maps,
            takeover,
            sizes,
            xdp: *xdp,
            tc: *tc,
            attachments: Attachments::default(),
            guard: Guard::default(),
            hz,
        })
    }

    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    pub fn maps_mut(&mut self) -> &mut Maps {
        &mut self.maps
    }

    /// Where it is pinned, if it is.
    pub fn pins(&self) -> Option<&PinDir> {
        self.takeover.as_ref().map(Takeover::pins)
    }

    pub const fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Does it go on from no earlier one? Then its maps hold nothing yet that programs could act on.
    pub fn is_first(&self) -> bool {
        self.takeover.as_ref().is_none_or(Takeover::is_first)
    }

    /// Jiffies per second of this kernel.
    pub const fn hz(&self) -> u32 {
        self.hz
    }

    /// The XDP program `name`, for whoever wants to call it.
    pub fn xdp_program(&self, name: &str) -> Result<&aya::programs::ProgramFd> {
        let program = self
            .ebpf
            .program(name)
            .with_context(|| format!("the object has no program {name}"))?;
        let program: &aya::programs::Xdp = program.try_into()?;
        Ok(program.fd()?)
    }

    /// The TC program `name`, for whoever wants to call it.
    pub fn tc_program(&self, name: &str) -> Result<&aya::programs::ProgramFd> {
        let program = self
            .ebpf
            .program(name)
            .with_context(|| format!("the object has no program {name}"))?;
        let program: &aya::programs::SchedClassifier = program.try_into()?;
        Ok(program.fd()?)
    }

    /// Runs the program `name` on one packet, without attaching it.
    pub fn run(&self, name: &str, run: Run<'_>) -> Result<Ran> {
        program::run(&self.ebpf, name, run)
    }
}

/// CPUs that there may be; where the kernel does not tell, no machine has more.
pub fn cpus() -> u64 {
    nr_cpus().unwrap_or(8192) as u64
}

/// The size of the tables of services and endpoints that are pinned under `bpffs`, if there are any that this agent takes over.
pub fn room(bpffs: &Path) -> Result<Option<Room>> {
    takeover::room(bpffs)
}

/// Loads programs and maps; a map that is pinned at the path that `pin` gives for its name is used, another is pinned there.
fn open(
    object: &[u8],
    shapes: &[Shape],
    xdp: XdpMode,
    pin: impl Fn(&str) -> Option<PathBuf>,
) -> Result<(Ebpf, Maps)> {
    let mut loader = EbpfLoader::new();
    for shape in shapes {
        loader.map_max_entries(shape.name, shape.max_entries);
        if let Some(path) = pin(shape.name) {
            loader.map_pin_path(shape.name, path);
        }
    }
    let (queues, room) = (cpus() as u32, closed_room(shapes));
    loader.override_global("QUEUES", &queues, true);
    loader.override_global("CLOSED_ROOM", &room, true);
    let mut ebpf = loader.load(object).context("loading the eBPF object")?;
    program::load(&mut ebpf, xdp.is_used())?;
    let maps = Maps::open(|name| {
        ebpf.take_map(name)
            .with_context(|| format!("the object has no map {name}"))
    })?;
    Ok((ebpf, maps))
}

/// Places of each CPU's queue of closed connections, where tables have these shapes.
fn closed_room(shapes: &[Shape]) -> u32 {
    let flows = shapes.iter().find(|shape| shape.name == names::FLOWS[0]);
    let connections = flows.map_or(0, |shape| shape.max_entries / 2);
    options::closed_room(connections, cpus())
}

/// Detaches and forgets the datapath under `bpffs` in this network namespace, whoever runs it, and whatever its version is. Tells what
/// it has removed. Before that, open connections have this long to end, while new ones are left to whoever takes them then. `None` leaves
/// the maps as they are, for an agent that goes on with them.
pub fn cleanup(bpffs: &Path, drain: Option<Duration>) -> Result<Vec<String>> {
    let devices: Vec<Target> = if_nameindex()
        .context("listing the network devices")?
        .iter()
        .map(|device| {
            Target::ethernet(
                IfIndex(device.index()),
                device.name().to_string_lossy().into_owned(),
            )
        })
        .collect();
    let pins = takeover::all(bpffs)?;
    let pins: Vec<_> = pins.iter().map(|found| found.pins(bpffs)).collect();
    if let Some(patience) = drain {
        drain::drain(&PinDir::new(bpffs), patience);
    }
    let mut removed = attach::detach_all(&pins, &devices)?;
    for pins in pins {
        pins.remove()?;
        removed.push(format!("pins {}", pins.root().display()));
    }
    Ok(removed)
}
