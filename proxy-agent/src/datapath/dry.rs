//! Dry runs on the maps of a datapath that runs: programs of the object that are attached nowhere and write to no map of it.
//!
//! In: the object, the pins, a packet and where it is. Out: what the run asked ([`Told`]), and the packet as it left the run. The one rule:
//! nothing of the running datapath is changed; the only map that is written is the record, which is this process's own.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::Program,
};
use proxy_common::{
    abi::{Dir, IfIndex, map},
    edge::verdict::Action,
    explain::{Request, Told},
};

use super::{PinDir, Run, Sizes, program, shape::shapes};

/// Where in the kernel a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layer {
    Xdp,
    Tc,
}

/// The path that a run took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    Fast,
    Slow,
}

/// One program's run.
#[derive(Clone, PartialEq, Debug)]
pub struct DryRun {
    pub path: Path,
    pub told: Told,
    /// From the Ethernet header on.
    pub packet: Vec<u8>,
}

/// The programs, loaded as they are asked for.
pub struct DryRuns {
    ebpf: Ebpf,
    told: Array<MapData, Told>,
    loaded: BTreeSet<&'static str>,
}

impl DryRuns {
    /// Opens the maps that are pinned. None is made there: a map that is missing or of another layout is an error.
    pub fn open(object: &[u8], pins: &PinDir) -> Result<Self> {
        ensure!(
            !object.is_empty(),
            "this binary was built without its eBPF object: build it by `cargo xtask build`"
        );
        // Says what is there instead, if another version's agent runs.
        drop(pins.open_maps()?);
        let mut loader = EbpfLoader::new();
        for shape in shapes(&Sizes::default()) {
            let found = pins.shape(shape.name)?;
            let found = found.with_context(|| {
                format!(
                    "the datapath has no map {}: is its agent starting?",
                    shape.name
                )
            })?;
            ensure!(
                shape.has_layout_of(&found),
                "the map {} of the datapath is laid out otherwise than this command's: ask by the binary of the agent that runs",
                shape.name
            );
            loader.map_max_entries(shape.name, found.max_entries);
            loader.map_pin_path(shape.name, pins.map(shape.name));
        }
        let mut ebpf = loader.load(object).context("loading the eBPF object")?;
        let told = ebpf
            .take_map(map::EXPLAIN.name)
            .with_context(|| format!("the object has no map {}", map::EXPLAIN.name))?;
        Ok(Self {
            ebpf,
            told: told.try_into().context("the map of the record")?,
            loaded: BTreeSet::new(),
        })
    }

    /// What the datapath would do with a packet at a device: the fast path, and the slow one where that is asked for.
    pub fn run(
        &mut self,
        layer: Layer,
        dir: Dir,
        ifindex: IfIndex,
        packet: &[u8],
    ) -> Result<Vec<DryRun>> {
        let is_v6 = packet.get(12..14) == Some(&[0x86, 0xdd]);
        let fast = match layer {
            Layer::Xdp => "explain_xdp",
            Layer::Tc => "explain_tc",
        };
        let slow = match (layer, dir, is_v6) {
            (Layer::Xdp, _, false) => "explain_xdp4",
            (Layer::Xdp, _, true) => "explain_xdp6",
            (Layer::Tc, Dir::In, false) => "explain_in4",
            (Layer::Tc, Dir::In, true) => "explain_in6",
            (Layer::Tc, Dir::Out, false) => "explain_out4",
            (Layer::Tc, Dir::Out, true) => "explain_out6",
        };
        let request = Request {
            ifindex,
            dir: dir as u32,
        };
        let mut runs = Vec::new();
        for (path, name) in [(Path::Fast, fast), (Path::Slow, slow)] {
            let (told, packet) = self.one(layer, name, request, packet)?;
            let is_left = told.action() == Some(Action::Slow);
            runs.push(DryRun { path, told, packet });
            if !is_left {
                break;
            }
        }
        Ok(runs)
    }

    fn one(
        &mut self,
        layer: Layer,
        name: &'static str,
        request: Request,
        packet: &[u8],
    ) -> Result<(Told, Vec<u8>)> {
        if !self.loaded.contains(name) {
            match self.ebpf.program_mut(name) {
                Some(Program::Xdp(program)) => program.load(),
                Some(Program::SchedClassifier(program)) => program.load(),
                _ => bail!("the object has no XDP or TC program {name}"),
            }
            .with_context(|| format!("loading program {name}"))?;
            self.loaded.insert(name);
        }
        self.told
            .set(0, Told::new(request), 0)
            .context("writing the request")?;
        let run = Run::new(packet);
        // XDP's device stands in the request alone: a test run takes none before 5.18, and none of a veth without NAPI.
        let run = match layer {
            Layer::Xdp => run,
            Layer::Tc => run.on(request.ifindex),
        };
        let ran = program::run(&self.ebpf, name, run)?;
        let told = self.told.get(&0, 0).context("reading the record")?;
        ensure!(
            told.end.is_told != 0,
            "the program {name} did not come to its end: device {} is not in its table any more",
            request.ifindex
        );
        Ok((told, ran.packet))
    }
}
