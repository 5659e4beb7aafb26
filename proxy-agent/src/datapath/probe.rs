//! Finds out what this kernel can do by trying it, not by its version.
//!
//! Nothing here stays: maps and programs that are made for a probe end with it, and what is attached is attached to the
//! device that the caller gives for it.

use anyhow::Result;
use aya::{
    maps::MapType,
    programs::{ProgramType, SchedClassifier},
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};
use proxy_common::edge::hook::Hook;

use super::{AttachError, Datapath, Options, Outcome, Sizes, Target, TcMode, XdpMode, fib_source};

/// What a probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    Yes,
    /// With what the kernel said, where that tells more.
    No(String),
    /// Why it could not be tried.
    Unknown(String),
}

/// Something that the kernel has or lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    pub name: String,
    pub found: Found,
    pub without: Without,
}

/// How the datapath is where the kernel lacks a feature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Without {
    /// It does not run.
    Nothing,
    /// It is as with it.
    Same,
    /// It makes do with this.
    Less(&'static str),
}

const PROGRAMS: [(&str, ProgramType); 2] = [
    ("XDP programs", ProgramType::Xdp),
    ("TC programs", ProgramType::SchedClassifier),
];

const MAPS: [(&str, MapType); 6] = [
    ("array maps", MapType::Array),
    ("per-CPU array maps", MapType::PerCpuArray),
    ("hash maps", MapType::Hash),
    ("LRU hash maps", MapType::LruHash),
    ("prefix maps (LPM trie)", MapType::LpmTrie),
    ("program arrays (tail calls)", MapType::ProgramArray),
];

/// What the programs call; `bpf_redirect_peer` they do not, yet. That `bpf_fib_lookup` gives a route's MTU back shows in no
/// probe of its own: `bpf_check_mtu` came to the kernel with it (5.12).
const HELPERS: [(&str, ProgramType, BpfHelper, Without); 14] = {
    use ProgramType::{SchedClassifier as Tc, Xdp};
    use Without::{Less, Nothing, Same};
    [
        (
            "bpf_fib_lookup in XDP",
            Xdp,
            BpfHelper::BPF_FUNC_fib_lookup,
            Nothing,
        ),
        (
            "bpf_jiffies64 in XDP",
            Xdp,
            BpfHelper::BPF_FUNC_jiffies64,
            Nothing,
        ),
        (
            "bpf_sk_lookup_tcp in XDP",
            Xdp,
            BpfHelper::BPF_FUNC_sk_lookup_tcp,
            Nothing,
        ),
        (
            "bpf_sk_lookup_udp in XDP",
            Xdp,
            BpfHelper::BPF_FUNC_sk_lookup_udp,
            Nothing,
        ),
        (
            "bpf_sk_lookup_tcp in TC",
            Tc,
            BpfHelper::BPF_FUNC_sk_lookup_tcp,
            Nothing,
        ),
        (
            "bpf_sk_lookup_udp in TC",
            Tc,
            BpfHelper::BPF_FUNC_sk_lookup_udp,
            Nothing,
        ),
        (
            "bpf_fib_lookup in TC",
            Tc,
            BpfHelper::BPF_FUNC_fib_lookup,
            Nothing,
        ),
        (
            "bpf_fib_lookup tells a route's MTU",
            Tc,
            BpfHelper::BPF_FUNC_check_mtu,
            Less("the device's MTU holds"),
        ),
        (
            "bpf_jiffies64 in TC",
            Tc,
            BpfHelper::BPF_FUNC_jiffies64,
            Nothing,
        ),
        (
            "bpf_redirect in TC",
            Tc,
            BpfHelper::BPF_FUNC_redirect,
            Nothing,
        ),
        (
            "bpf_redirect_neigh in TC",
            Tc,
            BpfHelper::BPF_FUNC_redirect_neigh,
            Nothing,
        ),
        (
            "bpf_redirect_peer in TC",
            Tc,
            BpfHelper::BPF_FUNC_redirect_peer,
            Same,
        ),
        (
            "bpf_l4_csum_replace in TC",
            Tc,
            BpfHelper::BPF_FUNC_l4_csum_replace,
            Nothing,
        ),
        (
            "bpf_skb_change_head in TC",
            Tc,
            BpfHelper::BPF_FUNC_skb_change_head,
            Nothing,
        ),
    ]
};

/// Program types, map types and helpers that the datapath uses or could use.
pub fn features() -> Vec<Feature> {
    let mut all = Vec::new();
    let mut add = |name: &str, without, supported: Result<bool, String>| {
        let found = match supported {
            Ok(true) => Found::Yes,
            Ok(false) => Found::No(String::new()),
            Err(reason) => Found::Unknown(reason),
        };
        all.push(Feature {
            name: name.to_owned(),
            found,
            without,
        });
    };
    for (name, kind) in PROGRAMS {
        let supported = is_program_supported(kind).map_err(text);
        add(name, Without::Nothing, supported);
    }
    for (name, kind) in MAPS {
        let supported = is_map_supported(kind).map_err(text);
        add(name, Without::Nothing, supported);
    }
    for (name, program, helper, without) in HELPERS {
        let supported = is_helper_supported(program, helper).map_err(text);
        add(name, without, supported);
    }
    add(
        "bpf_fib_lookup tells a route's source address",
        Without::Less("the device's address holds"),
        fib_source::is_known().map_err(|error| format!("{error:#}")),
    );
    all
}

fn text(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

/// What became of the datapath's own programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tried {
    pub xdp_native: Found,
    pub xdp_generic: Found,
    pub tcx: Found,
    pub clsact: Found,
    pub batch: Found,
}

/// Loads the object, with small tables that are pinned nowhere.
///
/// # Errors
/// Where it does not load, with what the verifier said.
pub fn load(object: &[u8]) -> Result<Datapath> {
    let sizes = Sizes {
        connections: 1024,
        backends: 64,
        services: 64,
        ..Sizes::default()
    };
    Datapath::load(
        object,
        &Options {
            sizes,
            ..Options::default()
        },
    )
}

impl Tried {
    /// Attaches the datapath to `device` in each of the ways that there are. The device should be in a network namespace
    /// that is made for this.
    pub fn at(mut datapath: Datapath, device: &Target) -> Self {
        let mut xdp = |mode| {
            datapath.xdp = mode;
            attempt(&mut datapath, &Hook::XDP_UPLINK, device)
        };
        let (xdp_native, xdp_generic) = (xdp(XdpMode::Native), xdp(XdpMode::Generic));
        let mut tc = |mode| {
            datapath.tc = mode;
            attempt(&mut datapath, &Hook::TC_UPLINK_IN, device)
        };
        let (tcx, clsact) = (tc(TcMode::Tcx), tc(TcMode::Clsact));
        Self {
            xdp_native,
            xdp_generic,
            tcx,
            clsact,
            batch: batch(&datapath),
        }
    }

    /// The same where there is no device to attach it to, for this reason.
    pub fn nowhere(datapath: &Datapath, reason: &str) -> Self {
        let unknown = || Found::Unknown(reason.to_owned());
        Self {
            xdp_native: unknown(),
            xdp_generic: unknown(),
            tcx: unknown(),
            clsact: unknown(),
            batch: batch(datapath),
        }
    }
}

fn batch(datapath: &Datapath) -> Found {
    if datapath.maps().services.can_batch() {
        Found::Yes
    } else {
        Found::No(String::new())
    }
}

fn attempt(datapath: &mut Datapath, hook: &'static Hook, device: &Target) -> Found {
    let outcome = datapath.attach(hook, device);
    let detached = datapath.detach(hook, device.ifindex);
    match outcome {
        Ok(Outcome::Attached) => match detached {
            Ok(()) => Found::Yes,
            Err(error) => Found::Unknown(format!("{error:#}")),
        },
        Ok(Outcome::NotTaken(reason)) => Found::No(reason),
        Err(AttachError::NoTcLinks { .. }) => Found::No(String::new()),
        Err(error) => Found::No(format!("{error:#}")),
    }
}

/// The names of the TC programs that run at a device by links, ours and others'. Empty where the kernel has no such links.
pub fn at_device(device: &str) -> Vec<String> {
    use aya::programs::TcAttachType::{Egress, Ingress};
    [Ingress, Egress]
        .into_iter()
        .filter_map(|direction| SchedClassifier::query_tcx(device, direction).ok())
        .flat_map(|(_, programs)| programs)
        .map(|program| program.name_as_str().unwrap_or("?").to_owned())
        .collect()
}

/// Is this the name of a program or of a filter of ours? Of a program's the kernel keeps 15 characters.
pub fn is_ours(name: &str) -> bool {
    Hook::ALL
        .iter()
        .flat_map(Hook::programs)
        .any(|program| program == name || program.chars().take(15).eq(name.chars()))
}

/// The name of a loaded program; `None` where it is gone, or may not be asked for.
pub fn name_of(program: u32) -> Option<String> {
    let mut loaded = aya::programs::loaded_programs().filter_map(Result::ok);
    let info = loaded.find(|info| info.id() == program)?;
    info.name_as_str().map(str::to_owned)
}
