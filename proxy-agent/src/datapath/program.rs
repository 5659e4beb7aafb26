//! The programs of the object, by name, and running one without attaching it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, TestRun, TestRunOptions,
    programs::{Program, SchedClassifier, Xdp},
};
use proxy_common::{
    abi::{Dir, FRAGMENT_INDEX, IfIndex, slow_index},
    edge::hook::Hook,
};

use super::Maps;

/// Tells the time in the kernel's own unit; never attached.
pub const CLOCK: &str = "clock";

/// The programs of the slow path: for packets in this direction, of IPv6 or of IPv4.
const SLOW: [(&str, Dir, bool); 6] = [
    ("xdp_slow4", Dir::In, false),
    ("xdp_slow6", Dir::In, true),
    ("tc_in_slow4", Dir::In, false),
    ("tc_in_slow6", Dir::In, true),
    ("tc_out_slow4", Dir::Out, false),
    ("tc_out_slow6", Dir::Out, true),
];

/// Holds fragments that come before the first of their datagram.
const FRAGMENT: &str = "tc_fragment";

/// One packet for one program.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// From the Ethernet header on.
    pub packet: &'a [u8],
    /// The device that the program sees; `None` for the kernel's choice (loopback for TC, none for XDP).
    pub ifindex: Option<IfIndex>,
    pub repeat: u32,
}

impl<'a> Run<'a> {
    pub const fn new(packet: &'a [u8]) -> Self {
        Self {
            packet,
            ifindex: None,
            repeat: 1,
        }
    }

    #[must_use]
    pub const fn on(self, ifindex: IfIndex) -> Self {
        Self {
            ifindex: Some(ifindex),
            ..self
        }
    }
}

/// What a program made of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// `XDP_*` or `TC_ACT_*`.
    pub action: u32,
    pub packet: Vec<u8>,
    /// Mean time of one repeat.
    pub duration: Duration,
}

/// Runs the program `name` by BPF_PROG_TEST_RUN.
pub fn run(ebpf: &Ebpf, name: &str, run: Run<'_>) -> Result<Ran> {
    let program = ebpf
        .program(name)
        .with_context(|| format!("the object has no program {name}"))?;
    // Room for what encapsulation or an ICMP error adds.
    let mut out = vec![0; run.packet.len() + 512];
    let context = match (program, run.ifindex) {
        (_, None) => None,
        (Program::Xdp(_), Some(ingress_ifindex)) => Some(xdp_context(run.packet, ingress_ifindex)),
        (_, Some(ifindex)) => Some(skb_context(ifindex)),
    };
    let options = TestRunOptions {
        data_in: Some(run.packet),
        data_out: Some(&mut out),
        ctx_in: context.as_deref(),
        repeat: run.repeat,
        ..TestRunOptions::default()
    };
    let result = match program {
        Program::Xdp(program) => program.test_run(options),
        Program::SchedClassifier(program) => program.test_run(options),
        _ => bail!("program {name} is neither XDP nor TC"),
    }
    .with_context(|| format!("running program {name} on a packet"))?;
    out.truncate(result.data_size_out as usize);
    Ok(Ran {
        action: result.return_value,
        packet: out,
        duration: result.duration,
    })
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn xdp_context(packet: &[u8], ifindex: IfIndex) -> Vec<u8> {
    words(&[0, packet.len() as u32, 0, ifindex.0, 0, 0])
}

/// `struct __sk_buff` up to its eleventh word, the device.
fn skb_context(ifindex: IfIndex) -> Vec<u8> {
    let mut all = [0; 11];
    all[10] = ifindex.0;
    words(&all)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Loads the programs into the kernel; those of XDP only where it is used, a quarter of what the verifier has to do.
pub fn load(ebpf: &mut Ebpf, with_xdp: bool) -> Result<()> {
    let hooks = Hook::ALL.iter().flat_map(Hook::programs);
    let slow = SLOW.iter().map(|(name, ..)| *name);
    for name in hooks.chain(slow).chain([FRAGMENT, CLOCK]) {
        match ebpf.program_mut(name) {
            Some(Program::Xdp(_)) if !with_xdp => Ok(()),
            Some(Program::Xdp(program)) => program.load(),
            Some(Program::SchedClassifier(program)) => program.load(),
            _ => bail!("the object has no XDP or TC program {name}"),
        }
        .with_context(|| format!("loading program {name}"))?;
    }
    Ok(())
}

/// Puts the slow-path programs where the others call them. The kernel empties such an array when the last handle and pin of it go.
pub fn link_slow(ebpf: &Ebpf, with_xdp: bool, maps: &mut Maps) -> Result<()> {
    for (name, dir, is_v6) in SLOW {
        let (array, fd) = match ebpf.program(name) {
            Some(Program::Xdp(_)) if !with_xdp => continue,
            Some(Program::Xdp(program)) => (&mut maps.slow_xdp, program.fd()?),
            Some(Program::SchedClassifier(program)) => (&mut maps.slow_tc, program.fd()?),
            _ => bail!("the object has no XDP or TC program {name}"),
        };
        array
            .set(slow_index(dir, is_v6), fd, 0)
            .with_context(|| format!("linking program {name}"))?;
    }
    let fragment = classifier_of(ebpf, FRAGMENT)?.fd()?;
    maps.slow_tc
        .set(FRAGMENT_INDEX, fragment, 0)
        .with_context(|| format!("linking program {FRAGMENT}"))
}

fn classifier_of<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a SchedClassifier> {
    ebpf.program(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()
        .with_context(|| format!("program {name} is not of the TC type"))
}

pub fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    ebpf.program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()
        .with_context(|| format!("program {name} is not of the XDP type"))
}

pub fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    ebpf.program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()
        .with_context(|| format!("program {name} is not of the TC type"))
}
